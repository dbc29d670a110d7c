package lcsbmobile.core

import lcsbmobile.core.bundle.Method
import lcsbmobile.core.training.LearningRateSchedule
import java.io.File

/** The share of the examples that is held out, unless another is asked for. */
internal const val HOLD_OUT = 0.1

/**
 * What a run is asked for. [learningRate] null: `defaultLearningRate`. [method] null: the bundle's schedule. [holdOut]: the share of the
 * examples that is evaluated instead of trained on, without [evaluationData]. [evaluateEvery] 0: only before and after. [memoryBudget]: bytes
 * of anonymous memory. [keep]: that many of the top layers keep their activations; null: as many as the budget allows, none without one.
 * [threads] 0: the runtime's choice. [prompts] are continued before and after; with [chat] they are a user's messages that are answered.
 * [seed]: of the data's order. A run that was begun may go on at a lower [learningRate], if one is given. [initialAdapter]: a file whose
 * parameters the run begins with, its moments zero; null: the bundle's. [sampleHeldOut]: after each evaluation the model continues the
 * beginning of the first held-out example ([RunObserver.wrote]), a prefill and up to `sampling.maxTokens` tokens each time.
 */
public data class RunOptions(
    val steps: Int,
    val learningRate: Double? = null,
    val lrSchedule: LearningRateSchedule = LearningRateSchedule.CONSTANT,
    val warmup: Int = 0,
    val accumulation: Int = 1,
    val method: Method? = null,
    val evaluationData: File? = null,
    val holdOut: Double = HOLD_OUT,
    val evaluateEvery: Int = 0,
    val checkpointEvery: Int = 10,
    val memoryBudget: Long? = null,
    val keep: Int? = null,
    val threads: Int = 0,
    val prompts: List<String> = emptyList(),
    val sampling: SamplingConfig = SamplingConfig(),
    val chat: Boolean = false,
    val seed: Long = 0,
    val initialAdapter: File? = null,
    val sampleHeldOut: Boolean = false,
)
