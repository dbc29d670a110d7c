import Foundation

// What a manifest must hold before anything of its bundle is read, however it came here. Specification: docs/hostile_input.md.

let bufferBytes = 1 << 30  // of one tensor that a runner makes a buffer for; a mask [T, T] has them at 16,384 tokens
let weightsPage = 4096
let mostFaultsSought = 1000
private let mostDimensions = 8
private let mostWidth = 1 << 24  // of attention: heads times a head's dimension
private let mostInteger = 1 << 53  // what every reader of JSON has exactly
private let mostKinds = 64  // of attention, and of layers; a model has one or two
private let mostPrefix = 200
private let heads = 1...4096
private let reserved: Set = ["h", "g", "adapter", "h_next", "g_next"]  // what else a program takes and returns, as what begins so:
private let reservedBeginnings = [pastPrefix, gradientPrefix]
private let stored: Set = ["uint8", "int8", "float16", "float32"]  // the dtypes of weights.bin

// The session configuration entries that a manifest may have; each is "0" or "1". Others make ONNX Runtime write and read files at a path
// of the manifest's choice, or take a model for another format.
private let sessionConfig: Set = ["session.disable_quant_qdq", "session.force_spinning_stop", "mlas.disable_kleidiai"]

// Far above any model: what is allocated is bounded by `bufferBytes` and by the sizes of the files.
private let integerRanges: [(field: String, range: ClosedRange<Int>, value: @Sendable (Manifest) -> Int)] = [
    ("seq_len", 1...1_048_576, { $0.seqLen }),
    ("seed", 0...mostInteger, { $0.seed }),
    ("model.vocab_size", 1...16_777_216, { $0.model.vocabSize }),
    ("model.hidden_size", 1...262_144, { $0.model.hiddenSize }),
    ("model.intermediate_size", 1...1_048_576, { $0.model.intermediateSize }),
    ("model.num_hidden_layers", 1...4096, { $0.model.numHiddenLayers }),
    ("model.num_attention_heads", 1...4096, { $0.model.numAttentionHeads }),
    ("model.num_key_value_heads", 1...4096, { $0.model.numKeyValueHeads }),
    ("model.head_dim", 1...4096, { $0.model.headDim }),
    ("model.rotary_dim", 2...4096, { $0.model.rotaryDim }),
    ("model.conv_kernel", 0...256, { $0.model.convKernel }),
    ("lora.rank", 1...65_536, { $0.lora.rank }),
    ("quantization.group_size", 2...65_536, { $0.quantization.groupSize }),
    ("schedule_config.subsets", 1...4096, { $0.scheduleConfig.subsets }),
    ("runtime.arena.initial_bytes", 0...68_719_476_736, { $0.runtime.arena.initialBytes }),
]
private let numberRanges: [(field: String, least: Double, most: Double, value: @Sendable (Manifest) -> Double)] = [
    ("model.rms_norm_eps", 0, 1, { $0.model.rmsNormEps }),
    ("model.query_scale", 1e-9, 1e9, { $0.model.queryScale }),
    ("model.embedding_scale", 1e-9, 1e9, { $0.model.embeddingScale }),
    ("model.residual_multiplier", 1e-9, 1e9, { $0.model.residualMultiplier }),
    ("model.logits_scaling", 1e-9, 1e9, { $0.model.logitsScaling }),
    ("model.attn_logit_softcapping", 1e-9, 1e9, { $0.model.attnLogitSoftcapping ?? 1 }),
    ("model.final_logit_softcapping", 1e-9, 1e9, { $0.model.finalLogitSoftcapping ?? 1 }),
    ("lora.alpha", 1e-9, 1e9, { $0.lora.alpha }),
    ("optimizer.eps", 0, 1, { $0.optimizer.eps }),
    ("optimizer.weight_decay", 0, 1e3, { $0.optimizer.weightDecay }),
    ("optimizer.clip_norm", 1e-30, 1e30, { $0.optimizer.clipNorm }),
]

/// `read`: the manifest as it was read. Throws BUNDLE_UNREADABLE with all that is wrong; relations are looked at once each value is in its
/// range.
func checkManifest(_ manifest: Manifest, _ read: Json, _ path: URL) throws {
    var faults = try firstFaults(most: mostFaultsSought) { try valueFaults(manifest, read, $0) }
    if faults.isEmpty { faults = try firstFaults(most: mostFaultsSought) { try relationFaults(manifest, $0) } }
    if !faults.isEmpty { throw unreadable("\(path.path): malformed manifest: \(some(faults)); export the bundle again") }
}

private func valueFaults(_ manifest: Manifest, _ read: Json, _ report: Report) throws {
    for (field, range, value) in integerRanges where !range.contains(value(manifest)) {
        try report("\(field): expected \(range.lowerBound) to \(range.upperBound), found \(value(manifest))")
    }
    for (field, least, most, value) in numberRanges where !(value(manifest) >= least && value(manifest) <= most) {
        try report("\(field): expected \(figure(least)) to \(figure(most)), found \(value(manifest))")
    }
    try choiceFaults(manifest, report)
    let attention = manifest.model.attentionKinds
    if attention.count > mostKinds { try report("model.attention_kinds: expected at most \(mostKinds), found \(attention.count)") }
    for kind in attention.values where !numbers(kind).allSatisfy({ $0 > 0 && $0 <= 1e12 }) {
        try report("model.attention_kinds: expected positive numbers, found \(numbers(kind))")
    }
    for (field, value) in [("identity", manifest.identity), ("base", manifest.base), ("digest", manifest.digest)] {
        if let value, !isDigest(value) { try report("\(field): expected a SHA-256, found \(quoted(value, 80))") }
    }
    for (key, value) in manifest.runtime.sessionConfig where !sessionConfig.contains(key) || (value != "0" && value != "1") {
        try report("runtime.session_config: \(quoted(key)) = \(quoted(value, 80)) is none of the entries that an export writes")
    }
    try leafFaults(read, "manifest", report)
    try tableFaults(manifest, report)
    if !(1...mostKinds).contains(manifest.kinds.count) { try report("kinds: expected 1 to \(mostKinds), found \(manifest.kinds.count)") }
    for kind in manifest.kinds { try kindFaults(kind) { try report("kinds.\(quoted(kind.name, 80)): \($0)") } }
    for (index, layer) in manifest.layers.enumerated() where min(layer.number, layer.offset) < 0 {
        try report("layers.\(index): expected 0 or more, found number \(layer.number) at \(layer.offset)")
    }
    for (name, graph) in manifest.graphs { try graphFaults(name, graph) { try report("graphs.\(name): \($0)") } }
}

private func choiceFaults(_ manifest: Manifest, _ report: Report) throws {
    let prefix = manifest.model.tensorPrefix
    if prefix.utf8.count > mostPrefix || !isPrefix(prefix) {
        try report("model.tensor_prefix: expected words that end with dots, found \(quoted(prefix, 80))")
    }
    if let linear = manifest.model.linearAttention {
        let numbers = [linear.numKeyHeads, linear.numValueHeads, linear.keyHeadDim, linear.valueHeadDim, linear.chunk]
        if !numbers.allSatisfy(heads.contains) {
            try report("model.linear_attention: expected \(heads.lowerBound) to \(heads.upperBound), found \(numbers)")
        }
    }
    let quantization = manifest.quantization
    for (field, bits) in [("bits", quantization.bits), ("embedding_bits", quantization.embeddingBits)] where bits != 4 && bits != 8 {
        try report("quantization.\(field): expected 4 or 8, found \(bits)")
    }
    if quantization.quantizer != "search" && quantization.quantizer != "gptq" {
        try report("quantization.quantizer: expected search or gptq, found \(quoted(quantization.quantizer))")
    }
    if ![0, 2, int8Activations].contains(manifest.accuracyLevel) {
        try report("accuracy_level: expected 0, 2 or 4, found \(manifest.accuracyLevel)")
    }
    let order = manifest.scheduleConfig.order
    if order != "cyclic" && order != "shuffled" { try report("schedule_config.order: expected cyclic or shuffled, found \(quoted(order))") }
    let betas = manifest.optimizer.betas
    if betas.count != 2 || !betas.allSatisfy({ $0 >= 0 && $0 < 1 }) {
        try report("optimizer.betas: expected two of 0 to less than 1, found \(betas)")
    }
}

private func numbers(_ kind: AttentionKind) -> [Double] {
    [kind.ropeTheta] + (kind.window.map { [Double($0)] } ?? []) + (kind.ropeScaling?.numbers ?? [])
}

/// Of every text, keys too, and every whole number; `place`: the key that an element stands under. No deeper than a manifest.
private func leafFaults(_ element: Json, _ place: String, _ report: Report) throws {
    func check(_ text: String, _ place: String) throws {
        if text.unicodeScalars.contains(where: isControl) {
            try report("\(place): expected a text without control characters, found \(quoted(text, 80))")
        }
    }
    switch element {
    case .object(let members):
        for (key, inner) in members {
            try check(key, place)
            try leafFaults(inner, key, report)
        }
    case .array(let elements): for inner in elements { try leafFaults(inner, place, report) }
    case .string(let text): try check(text, place)
    case .number(let text):
        if let number = Int(text), number.magnitude > UInt(mostInteger) {
            try report("\(place): expected a number of at most 2^53, found \(number)")
        }
    case .bool, .null: break
    }
}

private func isControl(_ scalar: Unicode.Scalar) -> Bool { scalar < " " || (0x7F...0x9F).contains(scalar.value) }

private func tableFaults(_ manifest: Manifest, _ report: Report) throws {
    for tensor in manifest.weights {
        let positive = (1...mostDimensions).contains(tensor.shape.count) && tensor.shape.allSatisfy { $0 >= 1 }
        if !positive || tensor.offset < 0 || tensor.offset % weightsPage != 0 || !stored.contains(tensor.dtype) {
            try report("weights: \(quoted(tensor.name)): expected positive dimensions at a multiple of \(weightsPage) bytes, found "
                + "\(quoted(tensor.dtype, 20)) \(tensor.shape) at byte \(tensor.offset)")
        }
    }
}

private func kindFaults(_ kind: LayerKind, _ report: Report) throws {
    if !isKindName(kind.name) { try report("name: expected lower-case letters and digits") }
    for name in kind.reads + kind.takes + kind.gives + kind.state.map(\.name)
    where !isName(name) || reserved.contains(name) || reservedBeginnings.contains(where: name.hasPrefix) {
        try report("\(quoted(name, 80)): expected the name of a table, a value or a state")
    }
    if kind.size < 1 { try report("size: expected 1 or more, found \(kind.size)") }
    for matrix in kind.matrices where matrix.shape.count != 2 || matrix.shape.contains(where: { $0 < 1 }) || matrix.offset < 0 {
        try report("matrices: \(quoted(matrix.name)): expected positive dimensions, found \(matrix.shape) at \(matrix.offset)")
    }
    for state in kind.state where !(1...mostDimensions).contains(state.shape.count) || state.shape.contains(where: { $0 < 1 }) {
        try report("state: \(quoted(state.name)): expected positive dimensions, found \(state.shape)")
    }
    if !(0...mostWidth).contains(kind.attentionWidth) {
        try report("attention_width: expected 0 to \(mostWidth), found \(kind.attentionWidth)")
    }
    for (field, work) in [("flops", kind.flops), ("decompressed_bytes", kind.decompressedBytes)]
    where min(work.forward, work.backward, work.backwardKept) < 0 {
        try report("\(field): expected 0 or more, found \(work)")
    }
}

private func graphFaults(_ name: String, _ graph: ProgramGraph, _ report: Report) throws {
    let least = freePrograms.contains(name) ? anySize : 1
    for x in graph.inputs + graph.initializers + graph.outputs {
        if dtypeBytes[x.dtype] == nil || x.shape.count > mostDimensions || x.shape.contains(where: { $0 == 0 || $0 < least }) {
            try report("\(quoted(x.name)): expected a dtype and positive dimensions, found \(quoted(x.dtype, 20)) \(x.shape)")
        } else if x.weight == nil && tensorBytes(x.dtype, x.shape) > bufferBytes {
            let found = "\(x.dtype) \(x.shape)"
            try report("\(quoted(x.name)): expected at most \(bufferBytes) bytes, found \(found); export with a shorter --seq-len")
        }
    }
    if let bytes = graph.workingBytes, bytes < 0 { try report("working_bytes: expected 0 or more, found \(bytes)") }
}

/// A bound as a person writes it.
private func figure(_ value: Double) -> String { value == value.rounded() && value < 1e16 ? "\(Int(value))" : "\(value)" }

// Names, by their bytes.

private func isLower(_ byte: UInt8) -> Bool { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) }

private func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }

private func isDigest(_ text: String) -> Bool {
    text.utf8.count == 64 && text.utf8.allSatisfy { isDigit($0) || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains($0) }
}

/// No underscore: the first one in a program's name ends its kind.
private func isKindName(_ text: String) -> Bool {
    (1...31).contains(text.utf8.count) && isLower(text.utf8.first!) && text.utf8.allSatisfy { isLower($0) || isDigit($0) }
}

/// Of what a kind reads, takes, gives and remembers.
private func isName(_ text: String) -> Bool {
    text.utf8.first.map(isLower) == true && text.utf8.allSatisfy { isLower($0) || isDigit($0) || $0 == UInt8(ascii: "_") }
}

/// Words of letters, digits and underscores, each followed by a dot; none is as well.
private func isPrefix(_ text: String) -> Bool {
    let dot = UInt8(ascii: ".")
    let words = text.utf8.dropLast().split(separator: dot, omittingEmptySubsequences: false)
    return text.isEmpty || text.utf8.last == dot && words.allSatisfy { !$0.isEmpty && $0.allSatisfy(isWord) }
}
