// How kinds and layers must agree: with each other, and then what the layers bind with the programs that take it. Each number is in its
// range already (ManifestCheck.swift).

/// What is wrong with kinds and layers by themselves, as sentences. Where it is nothing, every layer has its kind, and the adapter a
/// layout.
func layerFaults(_ manifest: Manifest, _ report: Report) throws {
    try repeated("kinds", manifest.kinds.map(\.name), report)
    let used = Set(manifest.layers.map(\.kind))
    for kind in manifest.kinds {
        if !used.contains(kind.name) { try report("kinds: no layer is of \(quoted(kind.name))") }
        try kindFaults(manifest, kind) { try report("kinds.\(kind.name): \($0)") }
    }
    if manifest.layers.count != manifest.model.numHiddenLayers {
        try report("layers: expected \(manifest.model.numHiddenLayers), found \(manifest.layers.count)")
    }
    try placeFaults(manifest, report)
    try crossingFaults(manifest, report)
}

private func kindFaults(_ manifest: Manifest, _ kind: LayerKind, _ report: Report) throws {
    for program in Role.allCases.map({ program(kind.name, $0) }) + [updateProgram(kind.name)] where commonProgramNames.contains(program) {
        try report("another program is called \(program)")
    }
    try repeated("names", kind.reads + kind.takes + kind.gives + kind.state.map(\.name), report)  // a program may have all of them
    for state in kind.state where state.byPosition && state.shape[0] != manifest.seqLen {
        try report("state: \(quoted(state.name)): expected \(manifest.seqLen) places, found \(state.shape)")
    }
    try matrixFaults(manifest.lora.rank, kind, report)
}

/// The matrices lie one after the other, A and B of a projection in turn, and fill a layer's vector.
private func matrixFaults(_ rank: Int, _ kind: LayerKind, _ report: Report) throws {
    try repeated("matrices", kind.matrices.map(\.name), report)
    var end = 0
    for (index, matrix) in kind.matrices.enumerated() {
        let (part, found) = index % 2 == 0 ? ("lora_A", matrix.shape[0]) : ("lora_B", matrix.shape[1])
        if !matrix.name.hasSuffix(".\(part)") || found != rank || matrix.offset != end {
            try report("matrices: expected a \(part) of rank \(rank) at \(end), found \(matrix)")
        }
        end = matrix.offset + matrix.size
    }
    for (a, b) in projections(kind) where a.name.utf8.dropLast(7) != b.name.utf8.dropLast(7) {
        try report("matrices: expected both of one projection, found \(quoted(a.name)) and \(quoted(b.name))")
    }
    if end != kind.size || kind.matrices.count % 2 != 0 {
        try report("size: expected \(end), where the last of \(kind.matrices.count) matrices ends, found \(kind.size)")
    }
}

/// The A and B of each adapted projection.
func projections(_ kind: LayerKind) -> [(a: AdapterMatrix, b: AdapterMatrix)] {
    stride(from: 0, to: kind.matrices.count - 1, by: 2).map { (kind.matrices[$0], kind.matrices[$0 + 1]) }
}

/// Each layer is the next of its kind, and its vector lies behind the one before; all vectors fit one buffer.
private func placeFaults(_ manifest: Manifest, _ report: Report) throws {
    let kinds = Entries(manifest.kinds.map { ($0.name, $0) })
    var counts: [String: Int] = [:]
    var end = 0
    for (index, layer) in manifest.layers.enumerated() {
        guard let kind = kinds[layer.kind] else {
            let names = kinds.keys.joined(separator: ", ")
            try report("layers.\(index): expected one of the kinds \(names), found \(quoted(layer.kind, 80))")
            continue
        }
        let number = counts[layer.kind, default: 0]
        counts[layer.kind] = number + 1
        if layer.number != number { try report("layers.\(index): number: expected \(number), found \(layer.number)") }
        if layer.offset != end { try report("layers.\(index): offset: expected \(end), found \(layer.offset)") }
        end += kind.size
        for (what, declared, bound) in [("reads", kind.reads, layer.reads), ("takes", kind.takes, layer.takes)]
        where Set(bound.keys) != Set(declared) {
            try report("layers.\(index): \(what): expected \(few(declared)), found \(few(bound.keys))")
        }
        if !Set(kind.gives).isSuperset(of: layer.gives.keys) {
            try report("layers.\(index): gives: expected of \(few(kind.gives)), found \(few(layer.gives.keys))")
        }
    }
    if end * 4 > bufferBytes {
        try report("layers: expected at most \(bufferBytes) bytes of adapter, found \(end * 4); export with a smaller --rank")
    }
}

/// Names as a message shows them: it is made for each of many layers.
private func few(_ names: [String]) -> String {
    "[" + names.prefix(10).map { quoted($0, 40) }.joined(separator: ", ") + (names.count > 10 ? ", ...]" : "]")
}

/// A value is given once, and before it is taken.
private func crossingFaults(_ manifest: Manifest, _ report: Report) throws {
    var given: Set<String> = []
    for (index, layer) in manifest.layers.enumerated() {
        for (name, value) in layer.takes where !given.contains(value) {
            try report("layers.\(index): takes: \(quoted(name)): no earlier layer gives \(quoted(value))")
        }
        for value in layer.gives.values where !given.insert(value).inserted {
            try report("layers.\(index): gives: \(quoted(value)) is given twice")
        }
    }
}

/// What the layers bind is what their programs take: the tables of `embed` and `decode_embed`, and what the giver's program gives.
func bindingFaults(_ manifest: Manifest, _ report: Report) throws {
    for kind in manifest.kinds {
        for role in [Role.forward, .prefill, .decode] {
            let found = gives(manifest, kind, role)
            for name in kind.gives where found[name]?.dtype != "float32" {
                let type = found[name]?.description ?? "none"
                try report("graphs.\(program(kind.name, role)): outputs: \(quoted(name)): expected a float32 that it gives, found \(type)")
            }
        }
    }
    let fed = manifest.graphs.mapValues { described($0.inputs) }
    let returned = manifest.graphs.mapValues { described($0.outputs) }
    var givers: [String: (kind: String, name: String)] = [:]
    for layer in manifest.layers { for (name, value) in layer.gives { givers[value] = (layer.kind, name) } }
    for (index, layer) in manifest.layers.enumerated() {
        for role in Role.allCases {
            let program = program(layer.kind, role)
            guard let inputs = fed[program], let outputs = returned[program] else { continue }
            let tables = returned[role == .decode ? "decode_embed" : "embed"] ?? [:]
            let place = "layers.\(index): \(program)"
            for (name, table) in layer.reads where inputs.contains(name) {
                try bound(place, name, inputs[name], table, tables[table], report)
            }
            for (name, value) in layer.takes {
                let giver = givers[value]!
                let type = returned[LCSBKit.program(giver.kind, role == .prefill || role == .decode ? role : .forward)]?[giver.name]
                if inputs.contains(name) { try bound(place, name, inputs[name], value, type, report) }
                if role == .backward || role == .backwardKept {
                    try bound(place, gradientPrefix + name, outputs[gradientPrefix + name], value, type, report)
                }
            }
        }
    }
}

private func bound(_ place: String, _ name: String, _ type: TensorType?, _ value: String, _ found: TensorType?, _ report: Report) throws {
    if type == found { return }
    let (expected, given) = (type?.description ?? "none", found?.description ?? "none")
    try report("\(place): \(quoted(name)) is \(quoted(value)): expected \(expected), found \(given)")
}
