import Foundation

/// What a tensor is, on a program's boundary or in `weights.bin`. `anySize` is a free dimension.
struct TensorType: Sendable, Hashable, CustomStringConvertible {
    let dtype: String
    let shape: [Int]

    init(_ dtype: String, _ shape: [Int]) { (self.dtype, self.shape) = (dtype, shape) }

    init(_ tensor: GraphTensor) { self.init(tensor.dtype, tensor.shape) }

    var description: String { "\(dtype) \(shape)" }
}

typealias Tensors = Entries<TensorType>

let anySize = -1
let keptPrefix = "kept."  // what the names of the tensors begin with that a forward keeps for the backward
let pastPrefix = "past_"  // and of the state that a program reads while a text is written
let gradientPrefix = "d_"  // and of the gradients of what crosses between layers
let products = ["gemm", "gemm_backward"]
let freePrograms = products + ["adamw"]  // the programs that have free dimensions
let tokenInputs = ["input_ids", "position_ids", "segment_ids"]
let labelInput = "labels"
let headChunks = ["head_chunk", "eval_chunk", "logits_chunk"]  // the programs that see some rows of the head: of static shapes
let chunkWeights = ["packed", "scale"]  // their inputs that are these rows, where the host feeds weights
let chunkStart = "start"  // their input in place of it, where the program holds the weights: the number of the first row
private let headChunkBytes = 8 << 20  // of float rows of the head that are decompressed at once
private let moments = ["parameters", "first_moment", "second_moment"]

/// The programs of a kind: KIND_ROLE.
enum Role: String, Sendable, CaseIterable {
    case forward, backward
    case forwardKeep = "forward_keep"
    case backwardKept = "backward_kept"
    case prefill, decode
}

func program(_ kind: String, _ role: Role) -> String { "\(kind)_\(role.rawValue)" }

/// AdamW's of a kind, of static shapes.
func updateProgram(_ kind: String) -> String { "\(kind)_adamw" }

/// The function of a layer's program that holds the layer's weights. `layer`: its number in the model.
func layerFunction(_ program: String, _ layer: Int) -> String { "\(program)_\(layer < 10 ? "0" : "")\(layer)" }

/// A tensor's name in the files of targets of static shapes, whose formats take identifiers alone.
func plainName(_ name: String) -> String { name.replacingOccurrences(of: ".", with: "_") }

/// Rows of the head in a chunk: a power of two.
func headRows(_ hiddenSize: Int) -> Int {
    Int(exp2(log2(max(256, Double(headChunkBytes) / Double(4 * hiddenSize))).rounded(.down)))
}

/// Rows of the head that a chunk's program sees. The last chunk ends with the vocabulary, so it may overlap the one before it.
func chunkRows(_ model: ModelConfig) -> Int { min(headRows(model.hiddenSize), model.vocabSize) }

/// Of each chunk the first row, and how many of its rows the chunk before it has had.
func chunkStarts(_ vocabSize: Int, _ rows: Int) -> [(start: Int, had: Int)] {
    stride(from: 0, to: vocabSize, by: rows).map { place in
        let start = min(place, vocabSize - rows)
        return (start, place - start)
    }
}

/// A program's inputs and outputs besides weights, by which a runner makes its buffers. `optional`: inputs that it has if it needs them.
/// `boundInputs`, `boundOutputs`: those that are what the layers bind them to (LayerRelations.swift). `readsKept`, `writesKept`: it has
/// inputs or outputs `kept.N` besides, of which types the exporter chooses.
struct Signature: Sendable {
    let inputs: Tensors
    let outputs: Tensors
    var optional: Tensors = [:]
    var boundInputs: Set<String> = []
    var boundOutputs: Set<String> = []
    var readsKept = false
    var writesKept = false
}

/// By program; of a manifest whose kinds and layers agree. Specification: docs/onnxruntime.md.
func signatures(_ manifest: Manifest) -> [String: Signature] {
    var all = manifest.row.staticShapes ? staticPrograms(manifest) : commonPrograms(manifest)
    for kind in manifest.kinds {
        for role in Role.allCases { all[program(kind.name, role)] = signature(manifest, kind, role) }
    }
    return all
}

/// What is wrong, tensor by tensor, as sentences.
func differences(_ place: String, _ expected: Tensors, _ found: Tensors) -> [String] {
    func described(_ type: TensorType?) -> String { type?.description ?? "none" }
    return (expected + found).keys.filter { expected[$0] != found[$0] }
        .map { "\(place): \(quoted($0)): expected \(described(expected[$0])), found \(described(found[$0]))" }
}

/// Inputs or outputs of a program besides weights.
func described(_ tensors: [GraphTensor]) -> Tensors { Entries(tensors.filter { $0.weight == nil }.map { ($0.name, TensorType($0)) }) }

private func commonPrograms(_ manifest: Manifest) -> [String: Signature] {
    let (t, d) = (manifest.seqLen, manifest.model.hiddenSize)
    let h = floats(["h"], t, d)
    let labelled = h + integers(manifest, t, [labelInput])
    var programs = [
        "embed": embedding(manifest, tokenInputs, t),
        "decode_embed": embedding(manifest, ["input_ids", "position_ids"], 1),
        "head": Signature(inputs: labelled, outputs: floats(["loss"]) + floats(["g"], t, d)),
        "head_eval": Signature(inputs: labelled, outputs: floats(["loss"])),
        "logits": Signature(inputs: floats(["h"], 1, d), outputs: floats(["logits"], manifest.model.vocabSize)),
        "adamw": update(manifest, anySize),
    ]
    if manifest.row.measuresProducts {
        let product = Signature(inputs: floats(["a", "b"], anySize, anySize), outputs: floats(["y"], anySize, anySize))
        for name in products { programs[name] = product }
    }
    return programs
}

/// The head a chunk at a time, and an update of each kind.
private func staticPrograms(_ manifest: Manifest) -> [String: Signature] {
    let (t, d, rows) = (manifest.seqLen, manifest.model.hiddenSize, chunkRows(manifest.model))
    let (h, x) = (floats(["h"], t, d), floats(["x"], t, d))
    let start = manifest.row.holdsWeights ? integers(manifest, 1, [chunkStart]) : [:]
    let chosen = x + floats(["target"], t, d) + floats(["share"], t, 1)
    let sums = floats(["peak", "total"], t, 1)
    let next = floats(["peak_next", "total_next"], t, 1)
    let (weighted, bias, loss) = (floats(["weighted"], t, d), floats(["bias"], 1, rows), floats(["loss"], 1))
    var programs = [
        "embed": embedding(manifest, tokenInputs, t),
        "decode_embed": embedding(manifest, ["input_ids", "position_ids"], 1),
        "head_start": Signature(inputs: h + integers(manifest, t, [labelInput]), outputs: chosen),
        "head_chunk": Signature(inputs: x + sums + weighted + bias + start, outputs: next + floats(["weighted_next"], t, d)),
        "head_end": Signature(inputs: h + chosen + sums + weighted, outputs: loss + floats(["g"], t, d)),
        "eval_chunk": Signature(inputs: x + sums + bias + start, outputs: next),
        "eval_end": Signature(inputs: chosen + sums, outputs: loss),
        "logits_start": Signature(inputs: floats(["h"], 1, d), outputs: floats(["x"], 1, d)),
        "logits_chunk": Signature(inputs: floats(["x"], 1, d) + start, outputs: floats(["logits"], rows)),
    ]
    for kind in manifest.kinds { programs[updateProgram(kind.name)] = update(manifest, kind.size) }
    return programs
}

private func embedding(_ manifest: Manifest, _ names: [String], _ tokens: Int) -> Signature {
    let tables = Set(manifest.layers.flatMap(\.reads.values)).subtracting(["h"])
    let h = floats(["h"], tokens, manifest.model.hiddenSize)
    return Signature(inputs: integers(manifest, tokens, names), outputs: h, boundOutputs: tables)
}

/// AdamW of vectors of `size`.
private func update(_ manifest: Manifest, _ size: Int) -> Signature {
    let scalars = Entries(["decay", "rate", "root"]) { _ in TensorType("float32", manifest.row.scalar) }
    return Signature(inputs: floats(moments + ["gradient"], size) + scalars, outputs: floats(moments.map { "\($0)_next" }, size))
}

/// The names of the programs that are no kind's, of any target.
let commonProgramNames = Set(
    ["embed", "decode_embed", "head", "head_eval", "head_start", "head_end", "eval_end", "logits", "logits_start", "adamw"] + headChunks + products)

private func signature(_ manifest: Manifest, _ kind: LayerKind, _ role: Role) -> Signature {
    let (tokens, d) = (role == .decode ? 1 : manifest.seqLen, manifest.model.hiddenSize)
    let bound = Set(kind.reads + kind.takes)
    let fed = floats(["h"], tokens, d) + floats(["adapter"], kind.size)
    let given = floats(["h_next"], tokens, d) + gives(manifest, kind, role == .forwardKeep ? .forward : role)
    let state = Entries(kind.state.map { ($0.name, TensorType("float32", $0.shape)) })
    switch role {
    case .prefill: return Signature(inputs: fed, outputs: given + state, boundInputs: bound)
    case .decode:
        let written = Entries(kind.state.map { ($0.name, TensorType("float32", $0.byPosition ? [1] + $0.shape.dropFirst() : $0.shape)) })
        return Signature(inputs: fed, outputs: given + written, optional: state.mapKeys { pastPrefix + $0 }, boundInputs: bound)
    case .backward, .backwardKept:
        let owed = gives(manifest, kind, .forward).mapKeys { gradientPrefix + $0 }
        let kept = role == .backwardKept  // then h may be of no use
        return Signature(
            inputs: (kept ? fed.only { $0 != "h" } : fed) + floats(["g"], tokens, d) + owed,
            outputs: floats(["g_next"], tokens, d) + floats(["d_adapter"], kind.size),
            optional: floats(["h"], tokens, d),
            boundInputs: bound,
            boundOutputs: Set(kind.takes.map { gradientPrefix + $0 }),
            readsKept: kept
        )
    case .forward, .forwardKeep: return Signature(inputs: fed, outputs: given, boundInputs: bound, writesKept: role == .forwardKeep)
    }
}

/// What a program of a kind gives: of which types it does is the exporter's choice.
func gives(_ manifest: Manifest, _ kind: LayerKind, _ role: Role) -> Tensors {
    if kind.gives.isEmpty { return [:] }
    let names = Set(kind.gives)
    return described(manifest.graphs[program(kind.name, role)]?.outputs ?? []).only(names.contains)
}

private func floats(_ names: [String], _ shape: Int...) -> Tensors { Entries(names) { _ in TensorType("float32", shape) } }

private func integers(_ manifest: Manifest, _ count: Int, _ names: [String]) -> Tensors {
    Entries(names) { _ in TensorType(manifest.row.integers, [count]) }
}
