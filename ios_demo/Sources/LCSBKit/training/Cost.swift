// What a step costs, from the manifest alone: floating-point operations, bytes decompressed, time by proportion. Nothing is run. FLOPs are
// those of the matrix products, 2 m k n each; the embedding, the norms, the softmax and the optimizer are left out: together under 1 %.

let floatBytes = MemoryLayout<Float>.size

// What decompressing one byte of float weights costs, in floating-point operations that a matrix product makes in the same time. Measured
// on a desktop (lcsb_mobile/planning/cost.py).
private let flopsPerDecompressedByte = (2.4e-3 / 17.4e6) / (4.6e-3 / 2.23e9)

/// One step. FLOPs of the matrix products; bytes of float32 weights decompressed (written, not read).
public struct StepCost: Sendable {
    public let flops: Int
    public let decompressedBytes: Int

    /// Predicted time in FLOPs: what the step does, and its decompression.
    public var timeUnits: Double { Double(flops) + flopsPerDecompressedByte * Double(decompressedBytes) }
}

/// The layers that run backward: those that recompute, and those among the `keep` top ones, which need not. Throws OPTION.
func backwardLayers(_ manifest: Manifest, _ subset: Subset, keep: Int) throws -> (recomputed: [Int], kept: [Int]) {
    let layers = manifest.model.numHiddenLayers
    try subset.check(layers)
    let firstKept = layers - min(keep, layers)
    let backward = subset.propagate.filter { $0 >= subset.train[0] }
    return (backward.filter { $0 < firstKept }, backward.filter { $0 >= firstKept })
}

/// A training step, all labels counted. `keep`: that many of the top layers keep their activations.
///
/// Every layer runs forward; those of `propagate` from min(train) up run backward, which recomputes them unless they were kept; the others,
/// identities, cost nothing. A forward on int8 activations reads the packed weights as they are. The head visits its rows once, with two
/// products for each label. Throws OPTION when the subset is not of this model.
public func stepCost(_ manifest: Manifest, _ subset: Subset, keep: Int = 0) throws -> StepCost {
    let layers = Array(0..<manifest.model.numHiddenLayers)
    let (recomputed, kept) = try backwardLayers(manifest, subset, keep: keep)
    let head = manifest.model.vocabSize * manifest.model.hiddenSize
    func sum(_ layers: [Int], _ work: (LayerKind) -> Int) -> Int { layers.reduce(0) { $0 + work(manifest.kind($1)) } }
    let flops = sum(layers, \.flops.forward) + sum(recomputed, \.flops.backward) + sum(kept, \.flops.backwardKept)
    let decompressed = sum(manifest.accuracyLevel == int8Activations ? kept : layers, \.decompressedBytes.forward)  // of the forward's layers
        + sum(recomputed, \.decompressedBytes.backward) + sum(kept, \.decompressedBytes.backwardKept)
    return StepCost(flops: flops + 2 * 2 * manifest.seqLen * head, decompressedBytes: decompressed + head * floatBytes)
}

/// All layers: what a subset's cost is compared with.
func fullSubset(_ manifest: Manifest) -> Subset {
    let layers = Array(0..<manifest.model.numHiddenLayers)
    return Subset(train: layers, propagate: layers)
}

/// Predicted time of a step relative to a full one that keeps nothing. It promises a partial step too little
/// (lcsb_mobile/planning/cost.py).
func timeShare(_ manifest: Manifest, _ subset: Subset, keep: Int = 0) throws -> Double {
    try stepCost(manifest, subset, keep: keep).timeUnits / stepCost(manifest, fullSubset(manifest)).timeUnits
}
