/// How a manifest's tables must agree with each other, each number being in its range already (ManifestCheck.swift): what is wrong, as
/// sentences.
func relationFaults(_ manifest: Manifest, _ report: Report) throws {
    var count = 0
    for faults in [modelFaults, layerFaults] {
        try faults(manifest) { fault in
            count += 1
            try report(fault)
        }
    }
    if count > 0 { return }  // what follows rests on layers that have their kinds
    try weightFaults(manifest, report)
    try programFaults(manifest, signatures(manifest), report)
    try bindingFaults(manifest, report)
}

private func modelFaults(_ manifest: Manifest, _ report: Report) throws {
    let model = manifest.model
    let layers = model.numHiddenLayers
    if model.layerTypes.count != layers {
        try report("model.layer_types: expected one for each of \(layers) layers, found \(model.layerTypes.count)")
    }
    let types = Set(model.layerTypes)
    for type in model.attentionKinds.keys where !types.contains(type) {
        try report("model.attention_kinds: no layer is of type \(quoted(type, 80))")
    }
    if model.numAttentionHeads % model.numKeyValueHeads != 0 {
        try report("model: \(model.numAttentionHeads) heads are no multiple of \(model.numKeyValueHeads) key-value heads")
    }
    if model.rotaryDim % 2 != 0 || model.rotaryDim > model.headDim {
        try report("model.rotary_dim: expected an even number up to \(model.headDim), found \(model.rotaryDim)")
    }
    let chunk = model.linearAttention?.chunk ?? 1
    if manifest.seqLen % chunk != 0 { try report("seq_len: expected a multiple of \(chunk), found \(manifest.seqLen)") }
    for kind in model.attentionKinds.values {
        if let longest = kind.ropeScaling?.longest, manifest.seqLen > longest {
            try report("seq_len: expected at most \(longest), as the model's RoPE has it, found \(manifest.seqLen)")
        }
    }
    if manifest.schedule.isEmpty { try report("schedule: expected at least one step, found none") }
    for (index, subset) in manifest.schedule.enumerated() {
        if let fault = subset.fault(layers) { try report("schedule: step \(index + 1): \(fault)") }
    }
}

private func weightFaults(_ manifest: Manifest, _ report: Report) throws {
    try repeated("weights", manifest.weights.map(\.name), report)
    let table = table(manifest)
    if let fault = groupFault(manifest) {
        try report(fault)
    } else {
        let expected = expectedWeights(manifest)
        for fault in differences("weights", expected, table.only(expected.contains)) { try report(fault) }
    }
    var counts: Entries<Int> = [:]
    for layer in manifest.layers { counts[layer.kind] = (counts[layer.kind] ?? 0) + 1 }
    for tensor in manifest.weights where tensor.perLayer {
        if let count = counts[tensor.kind ?? ""] {
            if tensor.shape[0] != count {
                try report("weights: \(quoted(tensor.name)): expected \(count) layers, found \(tensor.shape[0])")
            }
        } else {
            let kinds = counts.keys.joined(separator: ", ")
            try report("weights: \(quoted(tensor.name)): expected a tensor of one of the kinds \(kinds)")
        }
    }
    let ordered = manifest.weights.sorted { $0.offset < $1.offset }
    for (before, after) in zip(ordered, ordered.dropFirst()) where before.offset + before.nbytes > after.offset {
        try report("weights: \(quoted(before.name)) and \(quoted(after.name)) overlap")
    }
    let end = manifest.weights.map { $0.offset + $0.nbytes }.max() ?? 0
    let size = manifest.files[weightsFile]?.size ?? 0
    if end > size && !manifest.row.holdsWeights { try report("weights: the tensors end at byte \(end) of \(weightsFile), which has \(size)") }
}

private func table(_ manifest: Manifest) -> Tensors { Entries(manifest.weights.map { ($0.name, TensorType($0.dtype, $0.shape)) }) }

/// A matrix that is stored in groups along its columns. `stack`: the layers that it is stacked over, if it is.
private struct StoredMatrix {
    let name: String
    let stack: [Int]
    let rows: Int
    let columns: Int
    let bits: Int
}

private func matrices(_ manifest: Manifest) -> [StoredMatrix] {
    let (model, quantization) = (manifest.model, manifest.quantization)
    let vocabulary = model.tieWordEmbeddings ? ["embed_tokens.weight"] : ["embed_tokens.weight", "lm_head.weight"]
    let outer = vocabulary.map {
        StoredMatrix(name: $0, stack: [], rows: model.vocabSize, columns: model.hiddenSize, bits: quantization.embeddingBits)
    }
    return outer + manifest.kinds.flatMap { kind in
        let count = manifest.layers.count { $0.kind == kind.name }
        return projections(kind).map { a, b in
            let name = "\(layersPrefix)\(kind.name).\(a.name.dropLast(".lora_A".count)).weight"
            return StoredMatrix(name: name, stack: [count], rows: b.shape[0], columns: a.shape[1], bits: quantization.bits)
        }
    }
}

/// Where the group size does not divide a row.
private func groupFault(_ manifest: Manifest) -> String? {
    let group = manifest.quantization.groupSize
    guard let matrix = matrices(manifest).first(where: { $0.columns % group != 0 || group % 2 != 0 }) else { return nil }
    return "quantization.group_size: expected an even divisor of the \(matrix.columns) columns of \(quoted(matrix.name)), found \(group)"
}

/// How a bundle stores scales and 8-bit values, by what its programs are for; on a GPU, a value q is stored as q + 128.
private struct Storage {
    let scales: String
    let bytes: String

    static let cpu = Storage(scales: "float16", bytes: "int8")
    static let gpu = Storage(scales: "float32", bytes: "uint8")

    static func of(_ weights: [WeightTensor]) -> Storage {
        Set(weights.filter { $0.name.hasSuffix(".scale") }.map(\.dtype)) == [gpu.scales] ? gpu : cpu
    }
}

/// Those that are known without knowing the architecture.
private func expectedWeights(_ manifest: Manifest) -> Tensors {
    let (model, group, storage) = (manifest.model, manifest.quantization.groupSize, Storage.of(manifest.weights))
    var tensors: Tensors = ["norm.weight": TensorType("float32", [model.hiddenSize])]
    for type in model.attentionKinds.keys {
        for angle in ["cos", "sin"] { tensors["rope.\(type).\(angle)"] = TensorType("float32", [manifest.seqLen, model.rotaryDim]) }
    }
    for matrix in matrices(manifest) {
        let shape = matrix.stack + [matrix.rows, matrix.columns / group]
        tensors["\(matrix.name).packed"] = matrix.bits == 4 ? TensorType("uint8", shape + [group / 2]) : TensorType(storage.bytes, shape + [group])
        tensors["\(matrix.name).scale"] = TensorType(storage.scales, shape)
    }
    return tensors
}

private func programFaults(_ manifest: Manifest, _ known: [String: Signature], _ report: Report) throws {
    let graphs = manifest.graphs
    let table = table(manifest)
    let missing = known.keys.filter { !graphs.contains($0) }.sorted()
    if !missing.isEmpty { try report("graphs: \(missing.joined(separator: ", ")) missing") }
    var kinds: [String: String] = [:]
    for kind in manifest.kinds { for role in Role.allCases { kinds[program(kind.name, role)] = kind.name } }
    for (name, graph) in graphs {
        let here: Report = { try report("graphs.\(name): \($0)") }
        try fileFaults(manifest.row.programFile(name), graph, here)
        try weightsOfProgram(manifest, name, graph, table, kinds[name], here)
        if let signature = known[name] { try signatureFaults(graph, signature, here) }
    }
    for kind in manifest.kinds {
        let (writer, reader) = (program(kind.name, .forwardKeep), program(kind.name, .backwardKept))
        guard let writes = graphs[writer], let reads = graphs[reader] else { continue }
        for fault in differences("graphs.\(writer): what \(reader) reads", kept(reads.inputs), kept(writes.outputs)) { try report(fault) }
    }
}

private func fileFaults(_ file: String, _ graph: ProgramGraph, _ report: Report) throws {
    if graph.file != file { try report("expected the file \(file), found \(quoted(graph.file))") }
    try repeated("inputs", (graph.inputs + graph.initializers).map(\.name), report)
    try repeated("outputs", graph.outputs.map(\.name), report)
}

/// What the layers bind is looked at layer by layer.
private func signatureFaults(_ graph: ProgramGraph, _ signature: Signature, _ report: Report) throws {
    let inputs = described(graph.inputs).only { !signature.boundInputs.contains($0) }
    let outputs = described(graph.outputs).only { !signature.boundOutputs.contains($0) }
    let expected = signature.inputs + signature.optional.only(inputs.contains)
    let found = inputs.only { !signature.readsKept || !$0.hasPrefix(keptPrefix) }
    let made = outputs.only { !signature.writesKept || !$0.hasPrefix(keptPrefix) }
    for fault in differences("inputs", expected, found) + differences("outputs", signature.outputs, made) { try report(fault) }
}

private func kept(_ tensors: [GraphTensor]) -> Tensors { described(tensors).only { $0.hasPrefix(keptPrefix) } }

/// What a program is fed of `weights.bin` is there, of the dtype and shape that the program takes, and of its own `kind` of layers.
private func weightsOfProgram(
    _ manifest: Manifest, _ name: String, _ graph: ProgramGraph, _ table: Tensors, _ kind: String?, _ report: Report
) throws {
    let held = manifest.row.holdsWeights
    for x in graph.initializers where x.weight == nil || !held && !x.weight!.hasPrefix(layersPrefix) {
        try report("\(quoted(x.name)): expected the \(held ? "" : "layers' ")weight that it is")
    }
    for x in graph.inputs where held && x.weight != nil {
        try report("\(quoted(x.name)): expected no weight to feed, since the programs hold them")
    }
    let rows = chunkRows(manifest.model)
    let takesChunk = manifest.row.staticShapes && !held && headChunks.contains(name)
    for x in graph.outputs where x.weight != nil { try report("the output \(quoted(x.name)) cannot be a weight") }
    for x in graph.inputs + graph.initializers {
        guard let weight = x.weight else { continue }
        let stacked = weight.hasPrefix(layersPrefix)
        if let kind {
            if !weight.hasPrefix("\(layersPrefix)\(kind).") { try report("\(quoted(weight)): expected one of the kind \(kind)") }
        } else if stacked {
            try report("\(quoted(weight)): expected no weight of the layers")
        }
        let stored = table[weight] ?? TensorType("nothing", [])
        let inner = Array(stored.shape.dropFirst())
        let isChunk = takesChunk && chunkWeights.contains(x.name)
        let fed = stacked ? TensorType(stored.dtype, inner) : isChunk ? TensorType(stored.dtype, [rows] + inner) : stored
        for fault in differences("\(quoted(weight)) as", [x.name: fed], [x.name: TensorType(x)]) { try report(fault) }
    }
}
