package lcsbmobile.core

import kotlinx.serialization.Serializable
import kotlinx.serialization.json.Json
import lcsbmobile.core.adapter.readAdapter
import lcsbmobile.core.data.alone
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.io.recordJson
import lcsbmobile.core.runs.RunSetup
import lcsbmobile.core.runs.readHeldOut
import lcsbmobile.core.runtime.makeRunner
import lcsbmobile.core.training.LEAST_EXAMPLES
import java.io.File

/**
 * What two adapters are compared on. [holdOut], [seed]: as those of a run, of whose data the examples are compared that it holds out; [holdOut]
 * null: all examples of the file, none of which was trained on. [examples]: at most so many of them, spread evenly; each takes a forward pass
 * with each adapter. [threads] 0: the runtime's choice.
 */
public data class CompareOptions(
    val holdOut: Double? = HOLD_OUT,
    val seed: Long = 0,
    val examples: Int = COMPARED_EXAMPLES,
    val threads: Int = 0,
)

/** [lossesBefore], [lossesAfter]: of each example, the mean over its tokens that count. */
@Serializable
public data class Comparison(
    val verdict: Verdict,
    val runtime: String,
    val runtimeVersion: String,
    val lossesBefore: List<Double>,
    val lossesAfter: List<Double>,
) {
    public fun toJson(): String = comparisonJson.encodeToString(serializer(), this)
}

private val comparisonJson = Json(recordJson) { encodeDefaults = true }

/** 64 forward passes with two adapters, some twenty steps' time; a difference shows where some 70 % of so many examples agree. */
internal const val COMPARED_EXAMPLES = 32

/**
 * Whether examples of [data] that were not trained on have a lower loss with the adapter [after] than with [before], which is null for the base
 * model. Both are evaluated on the same examples, one after the other; blocks. [scratch]: a directory for temporary files.
 *
 * [goOn] is called between two layers and while the file is read, [progress] after each example, of those of both adapters; either may throw, to
 * cancel. Throws OPTION, ADAPTER (before anything is computed), DATA_…, TOKENIZER_…, CHAT_…, RUNTIME_…, STORAGE_… or LOSS_NOT_FINITE.
 */
public fun compareAdapters(
    bundle: Bundle,
    data: File,
    before: File?,
    after: File,
    scratch: File,
    options: CompareOptions = CompareOptions(),
    goOn: () -> Unit = {},
    progress: (done: Int, total: Int) -> Unit = { _, _ -> },
): Comparison {
    val (whole, share) = (options.holdOut == null) to (options.holdOut ?: HOLD_OUT)
    val run = RunOptions(1, evaluationData = data.takeIf { whole }, holdOut = share, threads = options.threads, seed = options.seed)
    return Comparing(RunSetup(run, bundle), before, after, options.examples, goOn, progress).on(data, scratch)
}

/** [setup]: of the run whose held-out examples are compared. */
internal class Comparing(
    private val setup: RunSetup,
    private val before: File?,
    private val after: File,
    private val examples: Int,
    private val goOn: () -> Unit,
    private val progress: (done: Int, total: Int) -> Unit,
) {
    private val bundle = setup.bundle
    private val adapter = directFloats(bundle.manifest.adapter.size)

    init {
        if (examples < LEAST_EXAMPLES) throw LcsbException(Fault.OPTION, "examples: expected at least $LEAST_EXAMPLES, found $examples", listOf("examples"))
        read(after) // refused before the work, as the other is
        read(before)
    }

    fun on(data: File, scratch: File): Comparison {
        val heldOut = readHeldOut(setup, data, scratch, goOn)
        val chosen = spread(heldOut.size, examples)
        return makeRunner(bundle, setup.options.threads, betweenLayers = goOn).use { runner ->
            var done = 0

            fun losses(file: File?): List<Double> {
                read(file)
                return chosen.map { index ->
                    val batch = alone(heldOut, index, bundle.manifest.seqLen, bundle.tokenizer.padId)
                    runner.evaluate(batch, adapter).toDouble().also { progress(++done, 2 * chosen.size) }
                }
            }
            val (old, new) = losses(before) to losses(after)
            Comparison(judge(old, new), runner.name, runner.version, old, new)
        }
    }

    private fun read(file: File?) = if (file == null) bundle.readInitialAdapter(adapter) else readAdapter(file, bundle.manifest.adapter, adapter)
}

/** At most [most] of [count] numbers from 0, evenly spread, ascending. */
internal fun spread(count: Long, most: Int): List<Long> {
    val chosen = minOf(count, most.toLong())
    return (0 until chosen).map { it * count / chosen }
}
