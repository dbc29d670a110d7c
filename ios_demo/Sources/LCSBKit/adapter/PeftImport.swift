import Foundation

// PEFT's directory as an adapter of a bundle. Specification: docs/adapter.md; the twin of lcsb_mobile/adapters.

private let mostConfigBytes = 4 << 20
private let mostConfigNodes = 1 << 16
private let mostPeftFaults = 6  // of a file's tensors that an error names
private let scalingTolerance = 1e-6  // relative: alpha/sqrt(rank) has no exact decimal, and the product is float32 anyway
private let pickledFile = "adapter_model.bin"
private let textModelPrefixes = ["model.", "model.language_model.", "language_model.model."]
private let floatTypes = ["F32", "F16", "BF16"]

/// What was read. `baseModel`: as PEFT's configuration names it; nil without one. `initial`: projection -> the layers in which the file
/// does not adapt it: there A is the bundle's initial one and B zero.
public struct ImportedAdapter: Sendable, Equatable {
    public let baseModel: String?
    public let matrices: Int
    public let initial: [String: [Int]]
}

/// Reads PEFT's directory, or an adapter's file alone, into all of `into`, float32 [N], which holds the bundle's initial adapter. Throws
/// ADAPTER for whatever is wrong with `source`; then `into` may be half written.
@discardableResult
public func readPeft(_ source: URL, _ layout: AdapterLayout, _ into: Floats) throws -> ImportedAdapter {
    let config = isDirectory(source) ? try PeftConfig(source.appendingPathComponent(peftConfigFile), layout) : nil
    let stored = try openModel(source)
    try checkDigest(stored)
    if config == nil {
        try checkBase(stored, layout)
        try checkMetadata(stored, layout)
    }
    let named = asTheFileCalls(layout, stored)
    let initial = try check(stored, config, named)
    for (name, _, values) in named.named(into) {
        if stored.tensors[name] != nil {
            try stored.readWidened(name, into: values)
        } else if name.contains(".lora_B.") {
            values.fill(0)
        }
    }
    for at in 0..<into.count where !into[at].isFinite { throw refused(stored.file, "holds NaN or infinite values") }
    return ImportedAdapter(baseModel: config?.baseModel, matrices: stored.names.count, initial: initial)
}

private func refused(_ file: URL, _ what: String) -> LcsbError { LcsbError(.adapter, "\(file.path): \(what)", [file.lastPathComponent]) }

private func openModel(_ source: URL) throws -> StoredTensors {
    if !isDirectory(source) { return try StoredTensors(source, .adapter) }
    let file = source.appendingPathComponent(peftModelFile)
    if !isFile(file) && exists(source.appendingPathComponent(pickledFile)) {
        throw refused(source, "only pickled weights (\(pickledFile)), which are not read; load and save it with a newer peft")
    }
    return try StoredTensors(file, .adapter)
}

/// What an adapter file of ours says of itself.
private func checkMetadata(_ stored: StoredTensors, _ layout: AdapterLayout) throws {
    let faults = [("rank", "\(layout.lora.rank)"), ("alpha", pythonRepr(layout.lora.alpha))].compactMap { key, expected in
        stored.metadata[key].flatMap { Double($0) == Double(expected) ? nil : "\(key): expected \(expected), found \(oneLine($0, 40))" }
    }
    if !faults.isEmpty { throw refused(stored.file, "does not fit the bundle's adapter: \(some(faults))") }
}

/// The layout with the prefix that the file's names have: transformers' class for text alone and that for a whole multimodal checkpoint
/// call the same layers differently. With its own where the names have another.
private func asTheFileCalls(_ layout: AdapterLayout, _ stored: StoredTensors) -> AdapterLayout {
    for prefix in textModelPrefixes {
        let renamed = AdapterLayout(layout.lora, layout.matrices, layout.kinds, prefix: prefix, base: layout.base)
        if renamed.shapes.keys.contains(where: { stored.tensors[$0] != nil }) { return renamed }
    }
    return layout
}

/// Projection -> the layers that the file leaves out. Throws ADAPTER naming every tensor that does not fit.
private func check(_ stored: StoredTensors, _ config: PeftConfig?, _ layout: AdapterLayout) throws -> [String: [Int]] {
    var faults = stored.names.isEmpty ? ["holds no tensors"] : tensorFaults(stored, layout.shapes)
    var initial: [String: [Int]] = [:]
    for layer in 0..<layout.numLayers {
        for matrix in layout.matrices(layer) where matrix.name.hasSuffix(".lora_A") {
            let module = String(matrix.name.dropLast(".lora_A".count))
            let missing = ["lora_A", "lora_B"].map { layout.tensorName(layer, "\(module).\($0)") }.filter { stored.tensors[$0] == nil }
            if missing.count == 2 {
                initial[module, default: []].append(layer)
                continue
            }
            faults += missing.map { "\($0) is missing" }
            let name = "\(layout.prefix)layers.\(layer).\(module)"
            if config?.reaches(name, layer) == false { faults.append("\(name) is adapted, and \(peftConfigFile) says it is not") }
        }
    }
    if !faults.isEmpty {
        let more = faults.count > mostPeftFaults ? " (and \(faults.count - mostPeftFaults) more)" : ""
        throw refused(stored.file, "does not fit the bundle's adapter: \(faults.prefix(mostPeftFaults).joined(separator: "; "))\(more)")
    }
    return initial
}

private func tensorFaults(_ stored: StoredTensors, _ wanted: Entries<[Int]>) -> [String] {
    stored.names.compactMap { name in
        let tensor = stored.tensors[name]!
        guard let shape = wanted[name] else { return "\(quoted(name, 100)): the bundle adapts no such matrix" }
        if !floatTypes.contains(tensor.dtype) { return "\(name): expected F32, F16, BF16, found \(quoted(tensor.dtype, 10))" }
        return tensor.shape == shape ? nil : "\(name): expected \(shape), found \(tensor.shape)"
    }
}

extension StoredTensors {
    /// An F32, F16 or BF16 tensor into all of `into`; widening does not round.
    fileprivate func readWidened(_ name: String, into: Floats) throws {
        switch tensors[name]!.dtype {
        case "F16": into.copy(from: try read(name, as: UInt16.self).map(widened))
        case "BF16": into.copy(from: try read(name, as: UInt16.self).map { Float(bitPattern: UInt32($0) << 16) })
        default: try readFloats(name, into: into)
        }
    }
}

/// An IEEE half from its bits: Float16 is not on every platform.
private func widened(_ half: UInt16) -> Float {
    let (exponent, fraction) = (Int(half >> 10 & 0x1F), Float(half & 0x3FF))
    let magnitude: Float = switch exponent {
    case 0: fraction * 0x1p-24
    case 0x1F: fraction == 0 ? .infinity : .nan
    default: (1024 + fraction) * Float(sign: .plus, exponent: exponent - 25, significand: 1)
    }
    return half >> 15 == 0 ? magnitude : -magnitude
}

// adapter_config.json

@Sendable private func isOff(_ value: Json) -> Bool { value.isNull || value.bool == false }
@Sendable private func isEmpty(_ value: Json) -> Bool { value.isNull || value.array?.isEmpty == true || value.object?.isEmpty == true }
private func isOneOf(_ names: [String]) -> @Sendable (Json) -> Bool { { names.contains($0.string?.lowercased() ?? "") } }

/// Option -> with what an adapter is a plain LoRA. PEFT adds options with every release; one that is not here is ignored.
private let plainOptions: [(name: String, expected: String, isPlain: @Sendable (Json) -> Bool)] = [
    ("alora_invocation_tokens", "null", isEmpty),
    ("alpha_pattern", "null", isEmpty),
    ("arrow_config", "null", { $0.isNull }),
    ("bias", "\"none\"", isOneOf(["none"])),
    ("fan_in_fan_out", "false", isOff),
    // The others take a part out of the base.
    ("init_lora_weights", "true", { $0.isNull || $0.bool != nil || isOneOf(["gaussian", "eva", "orthogonal", "mica"])($0) }),
    ("kasa_config", "null", { $0.isNull }),
    ("layer_replication", "null", isEmpty),
    ("lora_bias", "false", isOff),
    ("modules_to_save", "null", isEmpty),
    ("monteclora_config", "null", { $0.isNull }),
    ("rank_pattern", "null", isEmpty),
    ("target_parameters", "null", isEmpty),
    ("trainable_token_indices", "null", isEmpty),
    ("use_bdlora", "null", { $0.isNull }),
    ("use_dora", "false", isOff),
    ("use_qalora", "false", isOff),
]

/// The fields that decide how the tensors are used, with PEFT's defaults.
private struct PeftConfig {
    let baseModel: String?
    private let targets: Json
    private let excluded: Json
    private let layers: Json

    /// Throws ADAPTER for a file that is none, another method than LoRA, and, all at once, for every option that changes the function and
    /// a rank or scaling other than the bundle's.
    init(_ file: URL, _ layout: AdapterLayout) throws {
        let fields = try Self.read(file)
        func field(_ name: String) -> Json { fields[name] ?? .null }
        guard let method = field("peft_type").string else {
            throw refused(file, "malformed: peft_type: expected a string, found \(field("peft_type").kind)")
        }
        if method != "LORA" { throw refused(file, "peft_type: expected LORA, found \(quoted(method, 40))") }
        let rank = fields["r"].map(\.int) ?? 8
        let alpha = fields["lora_alpha"].map(\.double) ?? 8
        guard let rank, (1...65_536).contains(rank) else { throw refused(file, "malformed: r: expected a whole number from 1 to 65536") }
        guard let alpha, alpha.isFinite else { throw refused(file, "malformed: lora_alpha: expected a number") }
        var faults = plainOptions.compactMap { option in
            fields[option.name].flatMap { option.isPlain($0) ? nil : "\(option.name): expected \(option.expected), found \(spelled($0))" }
        }
        let isRoot = field("use_rslora").bool == true
        let scaling = alpha / (isRoot ? Double(rank).squareRoot() : Double(rank))
        let wanted = layout.lora.alpha / Double(layout.lora.rank)
        let others = faults.count
        if rank != layout.lora.rank { faults.append("r: expected \(layout.lora.rank), found \(rank)") }
        if abs(scaling - wanted) > scalingTolerance * max(abs(scaling), abs(wanted)) {
            faults.append("\(isRoot ? "lora_alpha/sqrt(r)" : "lora_alpha/r"): expected \(number(wanted)), found \(number(scaling))")
        }
        let fitting = scaling * Double(rank)
        if faults.count > others && fitting > 0 {
            faults[faults.count - 1] += " (a bundle of lcsb export --rank \(rank) --alpha \(number(fitting)) would fit)"
        }
        if !faults.isEmpty { throw refused(file, "does not fit the bundle's plain LoRA: \(faults.joined(separator: "; "))") }
        baseModel = field("base_model_name_or_path").string
        (targets, excluded, layers) = (field("target_modules"), field("exclude_modules"), field("layers_to_transform"))
        for (name, value) in [("target_modules", targets), ("exclude_modules", excluded)] {
            if value.isNull || value.string != nil || value.array?.allSatisfy({ $0.string != nil }) == true { continue }
            throw refused(file, "malformed: \(name): expected names, found \(spelled(value))")
        }
        if !layers.isNull && layers.int == nil && layers.array?.allSatisfy({ $0.int != nil }) != true {
            throw refused(file, "malformed: layers_to_transform: expected whole numbers, found \(spelled(layers))")
        }
    }

    private static func read(_ file: URL) throws -> Json {
        if !isFile(file) { throw refused(file, "no such file; expected a directory that PEFT's save_pretrained wrote") }
        do {
            let content = try readBounded(file, mostConfigBytes)
            _ = try Utf8.strict(content)
            let reader = try JsonReader(content)
            let fields = try reader.tree(nodes: mostConfigNodes)
            try reader.finish()
            if fields.object == nil { throw refused(file, "malformed: expected an object, found \(fields.kind)") }
            return fields
        } catch let error as IoError {
            throw refused(file, "cannot be read: \(oneLine(error.reason))")
        } catch let error as JsonError {
            throw refused(file, "malformed: \(oneLine(error.reason))")
        }
    }

    /// Whether PEFT adapts the projection of this full name, such as model.layers.0.self_attn.q_proj (`check_target_module_exists`). A
    /// pattern is not matched: it may take exponential time, and the tensors say what is adapted.
    func reaches(_ name: String, _ layer: Int) -> Bool {
        if let list = targets.array, !Self.names(list, name) { return false }
        if let list = excluded.array, !list.isEmpty, Self.names(list, name) { return false }
        if targets.string != nil { return true }
        if let list = layers.array { return list.isEmpty || list.contains { $0.int == layer } }
        return layers.isNull || layers.int == layer
    }

    /// By names that are it, or that it ends in after a dot.
    private static func names(_ list: [Json], _ name: String) -> Bool {
        list.contains { $0.string.map { name == $0 || name.hasSuffix("." + $0) } ?? false }
    }
}

private func number(_ value: Double) -> String { Int(exactly: value).map(String.init) ?? pythonRepr(value) }

/// For an error: short.
private func spelled(_ value: Json) -> String {
    switch value {
    case .string(let text): quoted(text, 60)
    case .number(let text): oneLine(text, 40)
    case .bool(let value): "\(value)"
    case .null: "null"
    case .array, .object: value.kind
    }
}
