package lcsbmobile.core.data

import lcsbmobile.core.bundle.Batch
import lcsbmobile.core.bundle.IGNORED_LABEL

// Examples to packed sequences: first fit over a few open sequences. Specification: docs/data.md; figures: benchmarks/packing.py.

internal const val OPEN_SEQUENCES = 16

/**
 * Sequences of [seqLen] tokens with the examples in file order, as far as packing keeps it.
 *
 * Each example is a segment (numbered from 0, positions from 0); what is left of a sequence is padding, the last segment.
 * Raises IllegalArgumentException for an example that is longer than [seqLen].
 */
internal fun pack(dataset: Dataset, seqLen: Int, padId: Int): Sequence<Batch> =
    assign((0 until dataset.size).asSequence(), dataset::length, seqLen).map { sequenceOf(dataset, it, seqLen, padId) }

/**
 * Packed sequences without end: every epoch holds each example once, in an order of its own, which depends on [seed] alone.
 *
 * [start] passes over that many sequences without building them: how many a run that resumes has had. Raises as [pack] does.
 */
internal fun epochs(dataset: Dataset, seqLen: Int, padId: Int, seed: Long, start: Long = 0): Sequence<Batch> = sequence {
    var left = start
    for (epoch in generateSequence(0L) { it + 1 }) {
        for (indices in assign(order(dataset, seed, epoch), dataset::length, seqLen)) {
            if (left > 0) left-- else yield(sequenceOf(dataset, indices, seqLen, padId))
        }
    }
}

/** The example as a sequence of its own, and padding. */
internal fun alone(dataset: Dataset, index: Long, seqLen: Int, padId: Int): Batch = sequenceOf(dataset, listOf(index), seqLen, padId)

/** How many sequences an epoch has; none is built. */
internal fun countSequences(dataset: Dataset, seqLen: Int, seed: Long, epoch: Long = 0): Long {
    var count = 0L
    for (indices in assign(order(dataset, seed, epoch), dataset::length, seqLen)) count++
    return count
}

/**
 * Which examples make up each sequence, from their numbers and [size] in tokens.
 *
 * An example goes to the first open sequence that has room, or opens one. When that makes more than [open], the oldest is closed; at the
 * end all are, the oldest first. With one it is next fit, with no bound first fit.
 */
internal fun assign(
    examples: Sequence<Long>,
    size: (Long) -> Int,
    seqLen: Int,
    open: Int = OPEN_SEQUENCES,
): Sequence<List<Long>> = sequence {
    val rooms = ArrayList<Int>()
    val members = ArrayList<ArrayList<Long>>()
    for (index in examples) {
        val tokens = size(index)
        val slot = rooms.indexOfFirst { tokens <= it }
        if (slot >= 0) {
            rooms[slot] -= tokens
            members[slot].add(index)
            continue
        }
        require(tokens <= seqLen) { "expected an example of at most $seqLen tokens, found $tokens" }
        rooms.add(seqLen - tokens)
        members.add(arrayListOf(index))
        if (rooms.size > open) {
            rooms.removeAt(0)
            yield(members.removeAt(0))
        }
    }
    yieldAll(members)
}

private fun order(dataset: Dataset, seed: Long, epoch: Long): Sequence<Long> = sequence {
    val order = shuffled(dataset.size, seed, epoch, dataset.spool)
    for (place in 0 until order.size) yield(order[place])
}

/** One batch of [seqLen] tokens; the examples fit. */
private fun sequenceOf(dataset: Dataset, indices: List<Long>, seqLen: Int, padId: Int): Batch {
    val inputIds = LongArray(seqLen) { padId.toLong() }
    val labels = LongArray(seqLen) { IGNORED_LABEL }
    val positionIds = LongArray(seqLen)
    val segmentIds = LongArray(seqLen) { indices.size.toLong() }
    var start = 0
    for ((segment, index) in indices.withIndex()) {
        val example = dataset.example(index)
        for (offset in example.inputIds.indices) {
            inputIds[start + offset] = example.inputIds[offset].toLong()
            labels[start + offset] = example.labels[offset].toLong()
            positionIds[start + offset] = offset.toLong()
            segmentIds[start + offset] = segment.toLong()
        }
        start += example.inputIds.size
    }
    for (place in start until seqLen) positionIds[place] = (place - start).toLong()
    return Batch(inputIds, labels, positionIds, segmentIds)
}
