import Foundation

/// `keep`: that many of the top layers keep their activations. Bytes of anonymous memory; `leastBytes`: the least that the run can do with,
/// which is with nothing kept or, in a shallow model, with everything: then no program that recomputes is needed.
public struct Plan: Sendable, Hashable {
    public let keep: Int
    public let predictedPeakBytes: Int
    public let leastBytes: Int
}

/// What a run of these steps keeps. `base`: anonymous bytes of the process with its runtime imported; `budget`: the most bytes allowed, nil
/// for no limit; `keep` nil: as many layers as the budget allows, none without one; `accumulation`: sequences a step;
/// `samples`: texts are written before and after.
///
/// Throws MEMORY_TOO_SMALL when the run cannot fit, with the least that it needs and the budget, in bytes, as arguments; OPTION.
public func planRun(
    _ manifest: Manifest, _ subsets: [Subset], base: Int, budget: Int?, keep: Int?, accumulation: Int = 1, samples: Bool = false
) throws -> Plan {
    let layers = manifest.model.numHiddenLayers
    if let keep, keep < 0 { throw LcsbError(.option, "keep: expected 0 or more layers, found \(keep)", ["keep"]) }
    let peaks = try (0...layers).map {
        try predictedPeak(manifest, subsets, keep: $0, base: base, accumulation: accumulation, samples: samples)
    }
    let least = peaks.min()!
    guard let budget else {
        let chosen = min(keep ?? 0, layers)
        return Plan(keep: chosen, predictedPeakBytes: peaks[chosen], leastBytes: least)
    }
    func beyond() -> String {
        "\(megabytes(base)) of it this process as it is now; more than the \(megabytes(budget)) allowed; nothing was run"
    }
    guard let fitting = peaks.lastIndex(where: { $0 <= budget }) else {
        let message = "the run is predicted to need at least \(megabytes(least)), \(beyond()); "
            + "allow more, or export with a --seq-len shorter than \(manifest.seqLen) or a --rank below \(manifest.lora.rank)"
        throw LcsbError(.memoryTooSmall, message, ["\(least)", "\(budget)"])
    }
    let chosen = min(keep ?? fitting, layers)
    if peaks[chosen] > budget {
        let message = "keeping \(chosen) layers is predicted to take \(megabytes(peaks[chosen])), \(beyond()); "
            + "keeping \(fitting) fits, and the least for this run is \(megabytes(least)); allow more, or keep that many"
        throw LcsbError(.memoryTooSmall, message, ["\(peaks[chosen])", "\(budget)"])
    }
    return Plan(keep: chosen, predictedPeakBytes: peaks[chosen], leastBytes: least)
}

/// Peak anonymous bytes of a run of these steps, from its start-up to its end. `base`, `accumulation` and `samples` as in `planRun`.
/// Throws OPTION.
func predictedPeak(
    _ manifest: Manifest, _ subsets: [Subset], keep: Int, base: Int, accumulation: Int = 1, samples: Bool = false
) throws -> Int {
    try base + runTerms(manifest, subsets, keep: keep, accumulation: accumulation, samples: samples).values.reduce(0, +)
}

/// Anonymous bytes of a run beyond its base, by what holds them: of its steps and evaluations, beside them, and a margin: what the fit to
/// other runs leaves, so that it is never too little. Throws OPTION.
func runTerms(_ manifest: Manifest, _ subsets: [Subset], keep: Int, accumulation: Int, samples: Bool) throws -> [String: Int] {
    var terms = try peakTerms(manifest, subsets, keep: keep, accumulation: accumulation)
    let writing = samples ? writingBytes(manifest) + logitsHeld * manifest.model.vocabSize * floatBytes : 0
    terms["beside the steps"] = max(checkedVectors * manifest.kinds.map(\.size).max()! * floatBytes, writing)
    let share = (marginShare * Double(terms.values.reduce(0, +))).rounded(.toNearestOrEven)
    terms["margin"] = max(marginBytes, Int(share))
    return terms
}

// What is admitted is to run to its end.
private let marginBytes = 8_000_000
private let marginShare = 0.06

// At start-up, of the longest layer's vectors: two states, a gradient and what comparing them takes, when AdamW's constants are checked.
private let checkedVectors = 10
private let logitsHeld = 5  // float32 and float64 [V] while a token is chosen

/// What writes a text: its sessions, which stay, and what each layer remembers of it; results of two layers in turns.
private func writingBytes(_ manifest: Manifest) -> Int {
    let programs = manifest.kinds.flatMap { [program($0.name, .prefill), program($0.name, .decode)] }
    let names = (programs + ["decode_embed", "logits", "logits_start", "logits_chunk"]).filter { manifest.graphs[$0] != nil }
    let sessions: [Int]
    if manifest.row.holdsWeights {
        sessions = names.map { LCSBKit.functionBytes(manifest, $0) }
    } else if manifest.row.sharedFile != nil {
        sessions = names.map { workingBytes(manifest, $0) }
    } else {
        sessions = names.map { sessionBytes(manifest, $0) }
    }
    let state = manifest.layers.indices.flatMap { manifest.kind($0).state }.map { tensorBytes("float32", $0.shape) }
    let results = names.map { 2 * bytesOf(manifest.graphs[$0]!.outputs) }
    return (sessions + state + results).reduce(0, +)
}

// Fitted to runs of several shapes (lcsb_mobile/planning/memory.py), all sessions on one arena: the runtime's own, and the parsed graphs and
// kernels of a block program's session by its file's size.
private let runtimeBytes = 5_500_000
private let sessionShare = 45
private let updateOutputs = 3  // of AdamW: parameters and moments

// Of what a chunk of the head holds: the arena's blocks that were split badly.
private let headHoles = 2.9

/// Anonymous bytes of a run beyond its base, by what holds them; the twin of lcsb_mobile/planning/memory.py's. Adapter and moments are in a
/// mapped file. Buffers are exact; the rest was fitted.
func peakTerms(_ manifest: Manifest, _ subsets: [Subset], keep: Int, accumulation: Int) throws -> [String: Int] {
    let backward = try subsets.map { try backwardLayers(manifest, $0, keep: keep) }
    let kept = Set(backward.flatMap(\.kept))
    let roles: [(layers: [Int], role: Role)] = [
        (Array(manifest.layers.indices), .forward),  // of the evaluation, if nothing else
        (backward.flatMap(\.recomputed), .backward), (kept.sorted(), .forwardKeep), (kept.sorted(), .backwardKept),
    ]
    let programs = roles.flatMap { LCSBKit.programs(manifest, $0.layers, $0.role) }
    let used = programs + (manifest.row.staticShapes ? ["embed"] + manifest.kinds.map { updateProgram($0.name) } : ["embed", "adamw"])
    let isOneFile = manifest.row.sharedFile != nil
    let unrolled = unrolledHeads(manifest)
    let head = unrolled.isEmpty ? headSet(manifest) : 0
    return [
        "runtime": runtimeBytes,
        "sessions": manifest.row.holdsWeights ? functionBytes(manifest, used, roles)
            : isOneFile ? methodBytes(manifest, used) : (programs + unrolled).map { sessionBytes(manifest, $0) }.reduce(0, +),
        "saved layer inputs": backward.map { $0.recomputed.count + $0.kept.count }.max()! * hiddenBytes(manifest),
        "kept activations": kept.map { keptBytes(manifest, $0) }.reduce(0, +),
        "crossing values": crossingBytes(manifest),
        "gradients": gradientBytes(manifest.adapter, subsets, accumulation),
        "other buffers": fixedBuffers(manifest),
        "working set": manifest.row.staticShapes ? 0  // its functions', which each holds on to
            : isOneFile ? head : max(head, (used + unrolled).map { workingBytes(manifest, $0) }.max()!),
    ]
}

/// What a layer's forward keeps for its backward.
func keptBytes(_ manifest: Manifest, _ layer: Int) -> Int {
    bytesOf(manifest.graphs[program(manifest.layers[layer].kind, .forwardKeep)]!.outputs.filter { $0.name.hasPrefix(keptPrefix) })
}

/// Of each size as many buffers as a step needs at most: a trained layer has its own, and so have, in Python's runner, the untrained ones
/// of a size that no trained layer below them has, one for all. What is accumulated is a copy.
private func gradientBytes(_ layout: AdapterLayout, _ subsets: [Subset], _ accumulation: Int) -> Int {
    var needed: [Int: Int] = [:]  // size -> buffers
    for subset in subsets {
        let unread = subset.propagate.filter { $0 > subset.train[0] && !subset.train.contains($0) }.filter { layer in
            !subset.train.contains { $0 < layer && layout.vectorSize($0) == layout.vectorSize(layer) }
        }
        let sizes = subset.train.map(layout.vectorSize) + Set(unread.map(layout.vectorSize))
        needed.merge(Dictionary(sizes.map { ($0, 1) }, uniquingKeysWith: +), uniquingKeysWith: max)
    }
    let copies = accumulation > 1 ? subsets.map { $0.train.map(layout.vectorSize).reduce(0, +) }.max()! : 0
    return (needed.map { $0.key * $0.value }.reduce(0, +) + copies) * floatBytes
}

/// What layers give to others, with its gradients, and once more for a kind's gives that go to none.
private func crossingBytes(_ manifest: Manifest) -> Int {
    let bound = manifest.layers.flatMap { layer in given(manifest, layer.kind).filter { layer.gives[$0.name] != nil } }
    return 2 * bytesOf(bound + manifest.kinds.flatMap { given(manifest, $0.name) })
}

private func given(_ manifest: Manifest, _ kind: String) -> [GraphTensor] {
    let names = manifest.kinds.first { $0.name == kind }!.gives
    return manifest.graphs[program(kind, .forward)]!.outputs.filter { names.contains($0.name) }
}

/// Those that `layers` are run by, one a kind.
func programs(_ manifest: Manifest, _ layers: [Int], _ role: Role) -> [String] {
    Set(layers.map { program(manifest.layers[$0].kind, role) }).sorted()
}

/// Of a program's session; of one whose weights are constants, a session a layer, with its packed copy of them (MatMulNBits with int8
/// activations: the values, and for each scale two more float32 of sums beside it).
private func sessionBytes(_ manifest: Manifest, _ name: String) -> Int {
    let graph = manifest.graphs[name]!
    let session = sessionShare * manifest.files[graph.file]!.size
    if graph.initializers.isEmpty { return session }
    let values = bytesOf(graph.initializers.filter { $0.name.hasSuffix(".packed") })
    let scales = bytesOf(graph.initializers.filter { $0.name.hasSuffix(".scale") })
    let layers = manifest.layers.filter { layer in Role.allCases.contains { program(layer.kind, $0) == name } }.count
    return layers * (session + values + 6 * scales)
}

/// Of target executorch: the Swift binding makes an arena for each method, as Kotlin's does, where Python's makes one for all. Of target
/// coreai: a function owns its buffers.
private func methodBytes(_ manifest: Manifest, _ used: [String]) -> Int {
    (used + headPrograms(manifest)).map { workingBytes(manifest, $0) }.reduce(0, +)
}

/// Of target coreml, whose functions are a layer's own: those that the runtime keeps loaded.
private func functionBytes(_ manifest: Manifest, _ used: [String], _ roles: [(layers: [Int], role: Role)]) -> Int {
    let ofLayers = roles.flatMap { part in Set(part.layers).map { program(manifest.layers[$0].kind, part.role) } }
    let others = Set(used).subtracting(ofLayers) + headPrograms(manifest)
    let functions = (ofLayers + others).map { LCSBKit.functionBytes(manifest, $0) }
    return min(functions.reduce(0, +), max(loadedBytes, functions.max()!))
}

private func headPrograms(_ manifest: Manifest) -> [String] {
    manifest.row.staticShapes ? ["head_start", "head_chunk", "head_end", "eval_chunk", "eval_end"] : ["head", "head_eval"]
}

/// Two results that layers take in turns, the gradient, what `embed` and the update of each kind return, and a gradient of zero; where the
/// host goes over the head's chunks, what it hands from one to the next.
private func fixedBuffers(_ manifest: Manifest) -> Int {
    let sizes = Set(manifest.kinds.map(\.size))
    let vectors = updateOutputs * sizes.reduce(0, +) + sizes.max()!
    let columns = 5 * activations(manifest, 1) + chunkRows(manifest.model) * floatBytes
    let chunked = manifest.row.staticShapes ? 4 * hiddenBytes(manifest) + columns : 0
    return 3 * hiddenBytes(manifest) + bytesOf(manifest.graphs["embed"]!.outputs) + vectors * floatBytes + chunked
}

/// The head's programs of ONNX Runtime that have no loop, as those for a GPU: what they hold is known.
private func unrolledHeads(_ manifest: Manifest) -> [String] {
    manifest.row.sharedFile != nil ? [] : headPrograms(manifest).filter { manifest.graphs[$0]!.workingBytes != nil }
}

/// A chunk of the head's rows in float, its logits and their exponentials, and five [T, D].
private func headSet(_ manifest: Manifest) -> Int {
    let hidden = manifest.model.hiddenSize
    let rows = chunkRows(manifest.model)
    let held = rows * hidden * floatBytes + 2 * activations(manifest, rows) + 5 * hiddenBytes(manifest)
    return Int((headHoles * Double(held)).rounded(.toNearestOrEven))
}

private func bytesOf(_ tensors: [GraphTensor]) -> Int { tensors.map { tensorBytes($0.dtype, $0.shape) }.reduce(0, +) }

private func hiddenBytes(_ manifest: Manifest) -> Int { activations(manifest, manifest.model.hiddenSize) }

/// Bytes of float32 [T, width].
private func activations(_ manifest: Manifest, _ width: Int) -> Int { manifest.seqLen * width * floatBytes }
