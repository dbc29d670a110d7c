package lcsbmobile.core

import kotlinx.serialization.Serializable
import kotlinx.serialization.json.Json
import lcsbmobile.core.bundle.Method
import lcsbmobile.core.data.DataReport
import lcsbmobile.core.io.recordJson
import lcsbmobile.core.training.StepOutcome

/** How a call of [TrainingRun.run] ended. */
public enum class RunOutcome { FINISHED, PAUSED, CANCELLED }

/** What a run does; [label] as the desktop's report calls it. */
public enum class Phase(public val label: String) {
    READING("data"),
    LOADING("loading"),
    CHECKING("golden trace"),
    EVALUATING("evaluation"),
    STEPS("gradients"),
    OPTIMIZER("optimizer"),
    WRITING("text samples"),
    SAVING("checkpoints"),
}

/** The mean loss over the held-out data after [step] steps. */
@Serializable
public data class Evaluation(val step: Int, val loss: Double)

/** What a run did before this process: its steps, the anonymous bytes after each, and its evaluations. */
public class RunHistory(public val outcomes: List<StepOutcome>, public val memory: List<Long>, public val evaluations: List<Evaluation>)

/** What the model wrote after [prompt], before and after the run. */
@Serializable
public data class Sample(val prompt: String, val before: String, val after: String)

/** Is told what happens, on the thread that runs. Every method may be overridden. [layer] comes often: it must be quick. */
public interface RunObserver {
    public fun phase(name: Phase) {}

    /** [heldOut]: examples to evaluate on. */
    public fun data(report: DataReport, heldOut: Long) {}

    public fun warned(text: String) {}

    public fun resumed(step: Int, history: RunHistory) {}

    public fun evaluated(step: Int, loss: Double) {}

    /** [memory]: anonymous bytes after the step, 0 where the system does not say. */
    public fun stepped(outcome: StepOutcome, memory: Long) {}

    /** The pass through a layer begins. */
    public fun layer(index: Int, backward: Boolean) {}

    public fun sampled(prompt: String, text: String, after: Boolean) {}

    /**
     * What the model makes of the first held-out example after [step] steps, with [RunOptions.sampleHeldOut]. [prompt]: a conversation's last
     * question, or the beginning of the text. [whole]: the text came to its end, and was not cut at the most tokens.
     */
    public fun wrote(step: Int, prompt: String, text: String, whole: Boolean) {}
}

/**
 * The whole run's figures, named as `lcsb simulate --json` names them; of one that was resumed, memory and phases are of its last process.
 * Seconds are of a monotonic clock; bytes are peaks over the whole process, null where the system does not say. What was not come to before the
 * run was interrupted is null or empty.
 */
@Serializable
public data class RunResult(
    val outcome: RunOutcome,
    val runtime: String?,
    val runtimeVersion: String?,
    val target: String,
    val method: Method,
    val schedule: List<List<Int>>,
    val steps: Int,
    val resumedFrom: Int?,
    val learningRate: Double,
    val losses: List<Double>,
    val stepSeconds: List<Double>,
    val evaluations: List<Evaluation>,
    val evalLossBefore: Double?,
    val evalLossAfter: Double?,
    val peakAnonymousBytes: Long?,
    val predictedPeakAnonymousBytes: Long?,
    val keptLayers: Int,
    val phaseSeconds: Map<String, Double>,
    val data: DataReport?,
    val packingFill: Double?,
    val samples: List<Sample>,
    val adapter: String?,
    val checkpoints: String,
) {
    public fun toJson(): String = resultJson.encodeToString(serializer(), this)
}

private val resultJson = Json(recordJson) { encodeDefaults = true }
