package lcsbmobile.core.bundle

internal const val IGNORED_LABEL = -100L // a label that is not counted and costs nothing

/**
 * One sequence of T tokens, several packed examples in it; all arrays [T].
 *
 * `labels[t]` is the token to be predicted *at* position t (already shifted), or IGNORED_LABEL. [segmentIds] tells the packed examples
 * apart: attention stays within a segment. [positionIds] start from 0 in each segment. Padding has a segment of its own and ignored labels.
 */
public class Batch(public val inputIds: LongArray, public val labels: LongArray, public val positionIds: LongArray, public val segmentIds: LongArray) {
    public val countedLabels: Int get() = labels.count { it != IGNORED_LABEL }
}

/** 1 to [seqLen] tokens and padding, nothing to predict. */
internal fun wholeSequence(ids: IntArray, seqLen: Int): Batch {
    val used = ids.size
    return Batch(
        inputIds = LongArray(seqLen) { if (it < used) ids[it].toLong() else 0 },
        labels = LongArray(seqLen) { IGNORED_LABEL },
        positionIds = LongArray(seqLen) { (if (it < used) it else it - used).toLong() },
        segmentIds = LongArray(seqLen) { if (it < used) 0 else 1 },
    )
}
