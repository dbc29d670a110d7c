package lcsbmobile.core.training

import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import lcsbmobile.core.bundle.Subset
import kotlin.math.PI
import kotlin.math.cos
import kotlin.math.max
import kotlin.math.sqrt

internal const val BASE_LEARNING_RATE = 4e-4

/** What follows the warm-up. */
@Serializable
public enum class LearningRateSchedule {
    @SerialName("constant")
    CONSTANT,

    @SerialName("cosine")
    COSINE,

    @SerialName("linear")
    LINEAR,
}

/** The rate of step [step] (from 0) of [steps]: a linear warm-up over [warmup] steps, then constant, or a cosine or a line down to zero. */
internal fun learningRate(base: Double, schedule: LearningRateSchedule, step: Int, steps: Int, warmup: Int): Double {
    if (step < warmup) return base * (step + 1) / warmup
    val progress = (step - warmup).toDouble() / max(1, steps - warmup)
    return when (schedule) {
        LearningRateSchedule.CONSTANT -> base
        LearningRateSchedule.COSINE -> base * 0.5 * (1 + cos(PI * progress))
        LearningRateSchedule.LINEAR -> base * (1 - progress)
    }
}

/**
 * 4e-4, times the square root of how many steps a layer waits for its gradient on average, where the gradient is exact.
 *
 * With gradients in one step of K, AdamW's update is 1/sqrt(K) as large. The identity path's gradient is biased too strongly to be
 * followed at the higher rate (docs/decisions.md).
 */
public fun defaultLearningRate(schedule: List<Subset>, numLayers: Int): Double {
    if (schedule.any { it.propagate != (it.train.first() until numLayers).toList() }) return BASE_LEARNING_RATE
    val trained = schedule.sumOf { it.train.size }
    val layers = schedule.flatMap { it.train }.toSet().size
    return BASE_LEARNING_RATE * sqrt(schedule.size.toDouble() * layers / trained)
}
