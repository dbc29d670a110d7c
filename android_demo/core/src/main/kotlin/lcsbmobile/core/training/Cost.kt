package lcsbmobile.core.training

import lcsbmobile.core.bundle.Kind
import lcsbmobile.core.bundle.Manifest
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.io.FLOAT_BYTES

// What a step costs, from the manifest alone: floating-point operations, bytes decompressed, time by proportion. Nothing is run. FLOPs are
// those of the matrix products, 2 m k n each; the embedding, the norms, the softmax and the optimizer are left out: together under 1 %.

// What decompressing one byte of float weights costs, in floating-point operations that a matrix product makes in the same time. Measured on
// a desktop (lcsb_mobile/planning/cost.py).
private const val FLOPS_PER_DECOMPRESSED_BYTE = (2.4e-3 / 17.4e6) / (4.6e-3 / 2.23e9)

/** One step. FLOPs of the matrix products; bytes of float32 weights decompressed (written, not read). */
public class StepCost(public val flops: Long, public val decompressedBytes: Long) {
    /** Predicted time in FLOPs: what the step does, and its decompression at FLOPS_PER_DECOMPRESSED_BYTE. */
    public val timeUnits: Double get() = flops + FLOPS_PER_DECOMPRESSED_BYTE * decompressedBytes
}

/** The layers that run backward: those that recompute, and those among the [keep] top ones, which need not. Throws OPTION. */
internal fun backwardLayers(manifest: Manifest, subset: Subset, keep: Int): Pair<List<Int>, List<Int>> {
    val layers = manifest.model.numHiddenLayers
    subset.check(layers)
    val firstKept = layers - minOf(keep, layers)
    return subset.propagate.filter { it >= subset.train[0] }.partition { it < firstKept }
}

/**
 * A training step, all labels counted. [keep]: that many of the top layers keep their activations.
 *
 * Every layer runs forward; those of `propagate` from min(train) up run backward, which recomputes them unless they were kept; the others,
 * identities, cost nothing. A forward on int8 activations reads the packed weights as they are. The head visits its rows once, with two
 * products for each label. Throws OPTION when the subset is not of this model.
 */
public fun stepCost(manifest: Manifest, subset: Subset, keep: Int = 0): StepCost {
    val layers = 0 until manifest.model.numHiddenLayers
    val (recomputed, kept) = backwardLayers(manifest, subset, keep)
    val head = manifest.model.vocabSize.toLong() * manifest.model.hiddenSize
    val decompressing = if (manifest.accuracyLevel != 0) kept else layers // of the forward's layers
    fun sum(layers: Iterable<Int>, work: (Kind) -> Long) = layers.sumOf { work(manifest.kind(it)) }
    return StepCost(
        flops = sum(layers) { it.flops.forward } + 2 * 2 * manifest.seqLen * head + sum(recomputed) { it.flops.backward } +
            sum(kept) { it.flops.backwardKept },
        decompressedBytes = sum(decompressing) { it.decompressedBytes.forward } + head * FLOAT_BYTES +
            sum(recomputed) { it.decompressedBytes.backward } + sum(kept) { it.decompressedBytes.backwardKept },
    )
}

/** All layers: what a subset's cost is compared with. */
internal fun fullSubset(manifest: Manifest): Subset = (0 until manifest.model.numHiddenLayers).toList().let { Subset(it, it) }

/** Predicted time of a step relative to a full one that keeps nothing. It promises a partial step too little (lcsb_mobile/planning/cost.py). */
internal fun timeShare(manifest: Manifest, subset: Subset, keep: Int = 0): Double =
    stepCost(manifest, subset, keep).timeUnits / stepCost(manifest, fullSubset(manifest)).timeUnits
