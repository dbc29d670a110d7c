package lcsbmobile.core.training

import kotlinx.serialization.Serializable
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.Batch
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.io.MsgspecDouble
import lcsbmobile.core.io.Pool
import lcsbmobile.core.io.add
import lcsbmobile.core.io.copyFrom
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.io.scale
import lcsbmobile.core.runtime.StepRunner
import java.nio.FloatBuffer

// The training loop: schedule, AdamW, learning rate, accumulation, clipping, evaluation. It knows no runtime.

/** [learningRate]: the highest of the run. [accumulation]: sequences a step. */
@Serializable
public data class TrainConfig(
    val steps: Int,
    @Serializable(MsgspecDouble::class) val learningRate: Double,
    val lrSchedule: LearningRateSchedule = LearningRateSchedule.CONSTANT,
    val warmup: Int = 0,
    val accumulation: Int = 1,
) {
    /** Throws OPTION. */
    public fun check() {
        for ((name, value, least) in listOf(Triple("steps", steps, 1), Triple("accumulation", accumulation, 1), Triple("warmup", warmup, 0))) {
            if (value < least) throw LcsbException(Fault.OPTION, "$name: expected at least $least, found $value", listOf(name))
        }
        if (!learningRate.isFinite() || learningRate <= 0) {
            throw LcsbException(Fault.OPTION, "lr: expected a positive number, found $learningRate", listOf("lr"))
        }
    }
}

/**
 * One optimizer step. [loss]: mean over all counted labels of its batches, before the update. [gradientNorm]: before clipping. Seconds:
 * [gradientSeconds] in the runtime, [optimizerSeconds] in AdamW.
 */
public data class StepOutcome(
    val step: Int,
    val subset: Subset,
    val loss: Double,
    val learningRate: Double,
    val gradientNorm: Double,
    val gradientSeconds: Double,
    val optimizerSeconds: Double,
)

/**
 * Trains `optimizer.state` in place, one step at a time. [accept] is called before an update: the adapter as it is has given a finite loss.
 */
internal class Trainer(
    private val runner: StepRunner,
    private val schedule: List<Subset>,
    private val optimizer: AdamW,
    private val config: TrainConfig,
    private val accept: () -> Unit = {},
) {
    private val sums = Pool(::directFloats)
    private val trainable = schedule.flatMapTo(HashSet()) { it.train }

    init {
        config.check()
    }

    /**
     * Step [number] (from 0) on `config.accumulation` sequences. Throws LOSS_NOT_FINITE: before anything was updated, when the loss or the
     * gradient is NaN or infinite; after the update, when what it made cannot be trained on ([AdamW.fault]).
     */
    fun step(number: Int, batches: List<Batch>): StepOutcome {
        val subset = schedule[number % schedule.size]
        val started = System.nanoTime()
        val (loss, gradients) = gradients(subset, batches)
        val norm = gradientNorm(gradients)
        if (!loss.isFinite() || !norm.isFinite()) {
            throw LcsbException(
                Fault.LOSS_NOT_FINITE,
                "step ${number + 1}: the loss is $loss and the gradient's norm $norm; the last adapter that gave a finite loss was kept; " +
                    "try a lower learning rate",
                listOf("${number + 1}"),
            )
        }
        val computed = System.nanoTime()
        val rate = learningRate(config.learningRate, config.lrSchedule, number, config.steps, config.warmup)
        accept()
        val updating = System.nanoTime()
        clipGradients(gradients, norm, optimizer.config.clipNorm)
        optimizer.update(gradients, rate, trainable)
        optimizer.fault()?.let {
            val message = "step ${number + 1}: its update would make $it; the adapter before it was kept; try a lower learning rate"
            throw LcsbException(Fault.LOSS_NOT_FINITE, message, listOf("${number + 1}"))
        }
        return StepOutcome(number + 1, subset, loss, rate, norm, seconds(started, computed), seconds(updating, System.nanoTime()))
    }

    /** Mean over all counted labels of [batches]: each batch's mean weighs as many labels as it counts. */
    private fun gradients(subset: Subset, batches: List<Batch>): Pair<Double, Map<Int, FloatBuffer>> {
        val counts = batches.map { it.countedLabels }
        if (batches.size == 1) {
            val result = runner.step(subset, batches[0], optimizer.state.adapter)
            return result.loss.toDouble() to result.gradients
        }
        val gradients = subset.train.zip(sums.lend(subset.train.map { optimizer.layout.vectorSize(it) })).toMap()
        var loss = 0.0
        batches.forEachIndexed { index, batch ->
            val result = runner.step(subset, batch, optimizer.state.adapter)
            val weight = counts[index].toDouble() / counts.sum()
            loss += weight * result.loss
            for ((layer, gradient) in result.gradients) {
                scale(gradient, weight.toFloat())
                val sum = gradients.getValue(layer)
                if (index == 0) sum.copyFrom(gradient) else add(sum, gradient)
            }
        }
        return loss to gradients
    }
}

/** Mean loss over all counted labels. */
internal fun evaluate(runner: StepRunner, batches: List<Batch>, adapter: FloatBuffer): Double {
    val sum = batches.sumOf { it.countedLabels * runner.evaluate(it, adapter).toDouble() }
    return sum / batches.sumOf { it.countedLabels }
}

internal fun seconds(from: Long, to: Long): Double = (to - from) / 1e9
