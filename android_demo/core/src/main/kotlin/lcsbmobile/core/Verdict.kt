package lcsbmobile.core

import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import lcsbmobile.core.training.LEAST_EXAMPLES
import lcsbmobile.core.training.SIGNIFICANCE
import lcsbmobile.core.training.SignedRanks

/**
 * Whether [examples] that were not trained on have a lower loss after than before (docs/verdict.md). [improved]: how many of them have. Losses
 * are means over the examples, each of which counts once, however long it is. [p]: two-sided, of Wilcoxon's signed ranks; the outcome is a
 * difference where it is at most 0.05.
 */
@Serializable
public data class Verdict(
    val outcome: Outcome,
    val examples: Int,
    val improved: Int,
    val lossBefore: Double,
    val lossAfter: Double,
    val p: Double,
) {
    /** 0 to 1. */
    public val improvedShare: Double get() = improved.toDouble() / examples

    /** What a comparison came to. [TOO_FEW]: of so few examples that no losses of them could have shown a difference. */
    @Serializable
    public enum class Outcome {
        @SerialName("better")
        BETTER,

        @SerialName("no-difference")
        NO_DIFFERENCE,

        @SerialName("worse")
        WORSE,

        @SerialName("too-few")
        TOO_FEW,
    }
}

/**
 * The verdict on the losses of the same examples, in the same order. Throws OPTION where their number differs, DATA_EMPTY where there are none,
 * LOSS_NOT_FINITE.
 */
public fun judge(before: List<Double>, after: List<Double>): Verdict {
    checkLosses(before, after)
    val ranks = SignedRanks(before.zip(after) { old, new -> old - new })
    val p = ranks.p()
    val outcome = when {
        before.size < LEAST_EXAMPLES -> Verdict.Outcome.TOO_FEW
        p > SIGNIFICANCE -> Verdict.Outcome.NO_DIFFERENCE
        ranks.positive > ranks.negative -> Verdict.Outcome.BETTER
        else -> Verdict.Outcome.WORSE
    }
    return Verdict(outcome, before.size, before.zip(after).count { (old, new) -> new < old }, before.average(), after.average(), p)
}

private fun checkLosses(before: List<Double>, after: List<Double>) {
    if (before.size != after.size) {
        val message = "losses: expected as many after as before, found ${after.size} and ${before.size}; compare the same examples"
        throw LcsbException(Fault.OPTION, message)
    }
    if (before.isEmpty()) throw LcsbException(Fault.DATA_EMPTY, "losses: expected those of at least one example, found none")
    for ((name, losses) in listOf("before" to before, "after" to after)) {
        val bad = losses.indexOfFirst { !it.isFinite() }
        if (bad >= 0) {
            val message = "example ${bad + 1} of ${losses.size}: its loss $name is ${losses[bad]}; an adapter that gives such a loss is of no use"
            throw LcsbException(Fault.LOSS_NOT_FINITE, message, listOf("${bad + 1}"))
        }
    }
}
