let formatVersion = 3
let manifestFile = "manifest.json"
let weightsFile = "weights.bin"
let adapterFile = "adapter.safetensors"
let goldenFile = "golden.json"
let layersPrefix = "layers."  // what the names of tensors begin with that are stacked over the layers of a kind

/// An input or output of a graph; -1: any size. `weight`: the tensor of `weights.bin` to feed, of `layers.…` the layer's own slice.
public struct GraphTensor: Sendable, Equatable {
    public var name: String
    public var dtype: String
    public var shape: [Int]
    public var meaning: String
    public var weight: String?
}

/// A program of the bundle: its file, and its inputs and outputs in order.
///
/// `initializers`: weights that the program holds as constants, which its sessions, one a layer, are given when they are made.
/// `workingBytes`: about what the runtime allocates for the program's own values while it runs; nil where it was not determined.
public struct ProgramGraph: Sendable, Equatable {
    public var file: String
    public var inputs: [GraphTensor]
    public var outputs: [GraphTensor]
    public var initializers: [GraphTensor] = []
    public var workingBytes: Int?
}

public struct FileEntry: Sendable, Equatable {
    public var size: Int
    public var sha256: String
}

public struct Arena: Sendable, Equatable {
    public var initialBytes: Int
}

/// ONNX Runtime's session configuration entries, and the arena that all its sessions share.
public struct RuntimeSettings: Sendable {
    public var sessionConfig: Entries<String>
    public var arena: Arena
}

/// `shape` is row-major; of a tensor of the blocks (`layers.KIND.NAME`) the first dimension is the layer's number in its kind. `offset` in
/// bytes.
public struct WeightTensor: Sendable, Equatable {
    public var name: String
    public var dtype: String
    public var shape: [Int]
    public var offset: Int

    public var perLayer: Bool { name.hasPrefix(layersPrefix) }

    /// Of whose layers it is, if of any.
    var kind: String? { perLayer ? String(name.dropFirst(layersPrefix.count).prefix { $0 != "." }) : nil }

    public var nbytes: Int { tensorBytes(dtype, shape) }
}

/// `manifest.json`: all that a device must know of a bundle, as data. `files` lists every file of the bundle but the manifest. `schedule`:
/// the steps of one cycle. `accuracyLevel`: 0 float32 throughout; 2 products in float16; 4 the
/// forward's activations rounded to int8. `base`: SHA-256 of the frozen model, by which an adapter knows its base. `digest`: SHA-256 of the
/// manifest's own bytes, in which these 64 characters are zeros.
public struct Manifest: Sendable {
    public var formatVersion: Int
    public var target: String
    public var source: String
    public var model: ModelConfig
    public var lora: LoraConfig
    public var kinds: [LayerKind]
    public var layers: [LayerEntry]
    public var quantization: QuantizationConfig
    public var seqLen: Int
    public var seed: Int
    public var scheduleConfig: ScheduleConfig
    public var schedule: [Subset]
    public var optimizer: AdamWConfig
    public var accuracyLevel: Int
    public var runtime: RuntimeSettings
    public var graphs: Entries<ProgramGraph>
    public var weights: [WeightTensor]
    public var reconstructionError: Entries<Double>
    public var tools: Entries<String>
    public var files: Entries<FileEntry>
    public var identity: String?
    public var base: String?
    public var digest: String?

    /// Where each layer's vector lies in the adapter, and each LoRA matrix in it; computed each time.
    public var adapter: AdapterLayout {
        AdapterLayout(lora, Entries(kinds.map { ($0.name, $0.matrices) }), layers.map(\.kind), prefix: model.tensorPrefix, base: baseModel)
    }

    var baseModel: BaseModel { BaseModel(name: nameBefore(source), digest: base, toolkit: tools["lcsb_mobile"]) }

    /// A layer's.
    func kind(_ layer: Int) -> LayerKind { kinds.first { $0.name == layers[layer].kind }! }
}

/// What stands before the last ": " of a bundle's source, or all of it.
private func nameBefore(_ source: String) -> String {
    let bytes = Array(source.utf8)
    let mark = bytes.indices.dropLast().last { bytes[$0] == UInt8(ascii: ":") && bytes[$0 + 1] == UInt8(ascii: " ") }
    return mark.map { $0 > 0 ? String(decoding: bytes[..<$0], as: UTF8.self) : source } ?? source
}

let int8Activations = 4  // an `accuracyLevel`

/// Bytes of one element.
let dtypeBytes = ["bool": 1, "int32": 4, "int64": 8, "uint8": 1, "int8": 1, "float16": 2, "float32": 4]

private let beyond = 1 << 60  // more bytes than any file has, and few enough to add to

/// Of positive dimensions (a free one counts as 1), at most 2^60; 2^60 too for a dtype that is none.
func tensorBytes(_ dtype: String, _ shape: [Int]) -> Int {
    guard var bytes = dtypeBytes[dtype] else { return beyond }
    for size in shape where size > 1 { bytes = bytes > beyond / size ? beyond : bytes * size }
    return bytes
}

// As data; they throw RecordError.

extension GraphTensor {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        name = try fields.string("name")
        dtype = try fields.string("dtype")
        shape = try fields.ints("shape")
        meaning = try fields.string("meaning")
        weight = try fields.optional("weight", Fields.string)
        try fields.finish()
    }
}

extension ProgramGraph {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        file = try fields.string("file")
        inputs = try fields.list("inputs", GraphTensor.init)
        outputs = try fields.list("outputs", GraphTensor.init)
        initializers = try fields.optional("initializers") { try Fields.list($0, $1, GraphTensor.init) } ?? initializers
        workingBytes = try fields.optional("working_bytes", Fields.int)
        try fields.finish()
    }
}

extension FileEntry {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        (size, sha256) = (try fields.int("size"), try fields.string("sha256"))
        try fields.finish()
    }
}

extension Arena {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        initialBytes = try fields.int("initial_bytes")
        try fields.finish()
    }
}

extension RuntimeSettings {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        sessionConfig = try fields.ordered("session_config", Fields.string)
        arena = try fields.value("arena", Arena.init)
        try fields.finish()
    }
}

extension WeightTensor {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        name = try fields.string("name")
        dtype = try fields.string("dtype")
        shape = try fields.ints("shape")
        offset = try fields.int("offset")
        try fields.finish()
    }
}

extension Manifest {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        formatVersion = try fields.int("format_version")
        target = try fields.string("target")
        source = try fields.string("source")
        model = try fields.value("model", ModelConfig.init)
        lora = try fields.value("lora", LoraConfig.init)
        kinds = try fields.list("kinds", LayerKind.init)
        layers = try fields.list("layers", LayerEntry.init)
        quantization = try fields.value("quantization", QuantizationConfig.init)
        seqLen = try fields.int("seq_len")
        seed = try fields.int("seed")
        scheduleConfig = try fields.value("schedule_config", ScheduleConfig.init)
        schedule = try fields.list("schedule", Subset.init)
        optimizer = try fields.value("optimizer", AdamWConfig.init)
        accuracyLevel = try fields.int("accuracy_level")
        runtime = try fields.value("runtime", RuntimeSettings.init)
        graphs = try fields.ordered("graphs", ProgramGraph.init)
        weights = try fields.list("weights", WeightTensor.init)
        reconstructionError = try fields.ordered("reconstruction_error", Fields.double)
        tools = try fields.ordered("tools", Fields.string)
        files = try fields.ordered("files", FileEntry.init)
        identity = try fields.optional("identity", Fields.string)
        base = try fields.optional("base", Fields.string)
        digest = try fields.optional("digest", Fields.string)
        try fields.finish()
    }
}
