private let peftPrefix = "base_model.model."

/// The model that an adapter changes: what it is called, the SHA-256 of its frozen tensors, and the version of the toolkit that exported it;
/// nil where the bundle does not say.
struct BaseModel: Sendable, Equatable {
    let name: String
    let digest: String?
    let toolkit: String?
}

/// Where each layer's vector lies in the adapter, float32 [N] of all layers one after the other, and each LoRA matrix in the vector.
/// `matrices`: of each kind of layers; `kinds`: of each layer. `prefix`: what the names of a checkpoint's text model begin with.
///
/// For a projection W [out, in]: A is [rank, in], B is [out, rank], and y = x Wᵀ + alpha/rank * (x Aᵀ) Bᵀ.
public struct AdapterLayout: Sendable {
    public let lora: LoraConfig
    public let matrices: Entries<[AdapterMatrix]>
    public let kinds: [String]
    public let prefix: String
    let base: BaseModel?  // nil for an adapter of no bundle
    private let ends: [Int]

    init(_ lora: LoraConfig, _ matrices: Entries<[AdapterMatrix]>, _ kinds: [String], prefix: String = "model.", base: BaseModel? = nil) {
        (self.lora, self.matrices, self.kinds, self.prefix, self.base) = (lora, matrices, kinds, prefix, base)
        let sizes = matrices.mapValues { list in list.last.map { $0.offset + $0.size } ?? 0 }
        ends = kinds.reduce(into: [0]) { ends, kind in ends.append(ends.last! + sizes[kind]!) }
    }

    public var numLayers: Int { kinds.count }

    /// Of the whole adapter, in elements.
    public var size: Int { ends.last! }

    /// The adapted projections of all layers by their names within one, such as self_attn.q_proj.
    public var modules: Set<String> {
        Set(matrices.values.joined().map(\.name).filter { $0.hasSuffix(".lora_A") }.map { String($0.dropLast(".lora_A".count)) })
    }

    /// Of a layer's vector, in elements.
    public func vectorSize(_ layer: Int) -> Int { ends[layer + 1] - ends[layer] }

    /// A layer's vector within `adapter`, or whatever else is [N]; it shares the memory.
    public func vector(_ adapter: Floats, _ layer: Int) -> Floats { adapter.part(ends[layer], vectorSize(layer)) }

    func matrices(_ layer: Int) -> [AdapterMatrix] { matrices[kinds[layer]]! }

    /// PEFT's name of a layer's matrix, such as self_attn.q_proj.lora_A.
    func tensorName(_ layer: Int, _ matrix: String) -> String { "\(peftPrefix)\(prefix)layers.\(layer).\(matrix).weight" }
}

extension AdapterLayout {
    /// As data. Throws RecordError.
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        let lora = try fields.value("lora", LoraConfig.init)
        let matrices = try fields.ordered("matrices") { try Fields.list($0, $1, AdapterMatrix.init) }
        let kinds = try fields.strings("kinds")
        let prefix = try fields.optional("prefix", Fields.string) ?? "model."
        try fields.finish()
        self.init(lora, matrices, kinds, prefix: prefix)
    }
}
