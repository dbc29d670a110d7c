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

/// The programs of a kind: KIND_ROLE.
enum Role: String, Sendable, CaseIterable {
    case forward, backward
    case forwardKeep = "forward_keep"
    case backwardKept = "backward_kept"
    case prefill, decode
}

func program(_ kind: String, _ role: Role) -> String { "\(kind)_\(role.rawValue)" }

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
    var all = commonPrograms(manifest)
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
    let labelled = h + integers(t, ["labels"])
    let tables = Set(manifest.layers.flatMap(\.reads.values)).subtracting(["h"])
    let moments = ["parameters", "first_moment", "second_moment"]
    var programs = [
        "embed": Signature(inputs: integers(t, tokenInputs), outputs: h, boundOutputs: tables),
        "decode_embed": Signature(inputs: integers(1, ["input_ids", "position_ids"]), outputs: floats(["h"], 1, d), boundOutputs: tables),
        "head": Signature(inputs: labelled, outputs: floats(["loss"]) + floats(["g"], t, d)),
        "head_eval": Signature(inputs: labelled, outputs: floats(["loss"])),
        "logits": Signature(inputs: floats(["h"], 1, d), outputs: floats(["logits"], manifest.model.vocabSize)),
        "adamw": Signature(
            inputs: floats(moments + ["gradient"], anySize) + floats(["decay", "rate", "root"]),
            outputs: floats(moments.map { "\($0)_next" }, anySize)
        ),
    ]
    if targets[manifest.target]!.measuresProducts {
        let product = Signature(inputs: floats(["a", "b"], anySize, anySize), outputs: floats(["y"], anySize, anySize))
        for name in products { programs[name] = product }
    }
    return programs
}

/// The names of the programs that are no kind's.
let commonProgramNames = Set(["embed", "decode_embed", "head", "head_eval", "logits", "adamw"] + products)

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

private func integers(_ count: Int, _ names: [String]) -> Tensors { Entries(names) { _ in TensorType("int64", [count]) } }
