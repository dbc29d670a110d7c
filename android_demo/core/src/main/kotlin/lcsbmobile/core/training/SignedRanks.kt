package lcsbmobile.core.training

import kotlin.math.abs
import kotlin.math.exp
import kotlin.math.max
import kotlin.math.min
import kotlin.math.sqrt

/** The largest p that is called a difference. */
internal const val SIGNIFICANCE = 0.05

/** Of fewer examples than that no losses give a p as small: 2 / 2^n is above it. */
internal const val LEAST_EXAMPLES = 6

private const val EXACT = 128 // differences, up to which p is counted out

/**
 * Wilcoxon's signed ranks (Biometrics Bulletin 1, 1945): the differences that are not zero, ranked by size, equal ones by the mean of their
 * ranks; [positive] and [negative] are the sums of their ranks, times two, so that they are whole.
 *
 * Differences of zero are left out, as Wilcoxon did and as R and SciPy do by default: whoever has the losses finds the same p there.
 */
internal class SignedRanks(differences: List<Double>) {
    private val ranks: LongArray
    val positive: Long
    val negative: Long

    init {
        val sorted = differences.filter { it != 0.0 }.sortedBy { abs(it) }
        ranks = doubledRanks(sorted)
        positive = sorted.indices.sumOf { if (sorted[it] > 0) ranks[it] else 0 }
        negative = ranks.sum() - positive
    }

    /** Two-sided: the probability of sums as unequal, if each difference were as likely of the other sign. */
    fun p(): Double = min(1.0, 2 * if (ranks.size <= EXACT) exactTail() else normalTail())

    /** Of all ways to sign the ranks the share whose positive ones sum to as much as the larger sum. */
    private fun exactTail(): Double {
        val ways = DoubleArray(ranks.sum().toInt() + 1) // by sum: the share of the ways to sign the ranks so far
        ways[0] = 1.0
        var top = 0
        for (rank in ranks) {
            val step = rank.toInt()
            top += step
            for (sum in top downTo 0) ways[sum] = (ways[sum] + if (sum >= step) ways[sum - step] else 0.0) / 2
        }
        var tail = 0.0
        for (sum in top downTo max(positive, negative).toInt()) tail += ways[sum] // the smallest first
        return tail
    }

    /** The same by the normal distribution with this mean and variance, which is that of the ranks as tied; corrected for continuity by half a rank. */
    private fun normalTail(): Double {
        val deviation = sqrt(ranks.sumOf { it.toDouble() * it }) / 2
        val beyond = max(0.0, abs(positive - negative) / 2.0 - 1)
        return upperTail(beyond / deviation)
    }
}

/** Of differences by size the ranks from 1, times two: of equal ones the first and the last, added. */
private fun doubledRanks(sorted: List<Double>): LongArray {
    val ranks = LongArray(sorted.size)
    var first = 0
    while (first < sorted.size) {
        var last = first
        while (last + 1 < sorted.size && abs(sorted[last + 1]) == abs(sorted[first])) last++
        ranks.fill(first + last + 2L, first, last + 1)
        first = last + 1
    }
    return ranks
}

private const val SERIES_UP_TO = 2.5 // from there on the continued fraction takes fewer terms
private const val ROOT_OF_TWO_PI = 2.5066282746310002

/** The standard normal distribution above [z], which is not negative: by its series, or its continued fraction (DLMF 7.6.2, 7.9.1). */
internal fun upperTail(z: Double): Double {
    val density = exp(-z * z / 2) / ROOT_OF_TWO_PI
    if (z > SERIES_UP_TO) {
        var fraction = z
        for (term in 200 downTo 1) fraction = z + term / fraction
        return density / fraction
    }
    var (term, sum) = z to z
    var odd = 1
    while (term > sum * 1e-17) {
        odd += 2
        term *= z * z / odd
        sum += term
    }
    return 0.5 - density * sum
}
