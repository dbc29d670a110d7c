// The layers of a model as data: kinds of layers with their adapter and their state, and each layer as one of a kind. A kind has programs
// of its own. Its reads are tables without a gradient that `embed` makes once a step; its gives are values that later layers take, and
// whose gradients come back summed. Each layer binds these names to the tables and values of the step.

/// What one layer does on T tokens; `backward` contains the recomputed forward, `backwardKept` reads what the forward kept instead.
public struct BlockWork: Sendable, Equatable {
    public var forward: Int
    public var backward: Int
    public var backwardKept: Int
}

/// One LoRA matrix within a layer's flat vector: `shape` row-major from `offset` (elements). `name`: such as self_attn.q_proj.lora_A.
public struct AdapterMatrix: Sendable, Equatable {
    public var name: String
    public var shape: [Int]
    public var offset: Int

    public var size: Int { shape[0] * shape[1] }
}

/// float32 that a layer remembers while a text is written. `byPosition`: [T, …], to which each token adds one place; else every token
/// replaces the whole.
public struct StateTensor: Sendable, Equatable {
    public var name: String
    public var shape: [Int]
    public var byPosition: Bool
}

/// What all layers of a kind share. `size`: elements of a layer's adapter. `attentionWidth`: query heads times head dimension, 0 without
/// attention: what of a layer's products grows with the square of T. `flops`: of matrix products; `decompressedBytes`: of float32 weights.
public struct LayerKind: Sendable, Equatable {
    public var name: String
    public var reads: [String]
    public var takes: [String]
    public var gives: [String]
    public var size: Int
    public var matrices: [AdapterMatrix]
    public var state: [StateTensor]
    public var attentionWidth: Int
    public var flops: BlockWork
    public var decompressedBytes: BlockWork
}

/// `number`: among the layers of its kind, by which their weights are stacked. `offset`: of its vector in the flat adapter. `reads`,
/// `takes`, `gives`: the kind's name -> that of the step's table or value; what it gives under no name is dropped.
public struct LayerEntry: Sendable {
    public var kind: String
    public var number: Int
    public var offset: Int
    public var reads: Entries<String>
    public var takes: Entries<String> = [:]
    public var gives: Entries<String> = [:]
}

// As data; they throw RecordError.

extension BlockWork {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        forward = try fields.int("forward")
        backward = try fields.int("backward")
        backwardKept = try fields.int("backward_kept")
        try fields.finish()
    }
}

extension AdapterMatrix {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        name = try fields.string("name")
        shape = try fields.list("shape", Fields.small)
        offset = try fields.small("offset")
        try fields.finish()
    }
}

extension StateTensor {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        name = try fields.string("name")
        shape = try fields.ints("shape")
        byPosition = try fields.bool("by_position")
        try fields.finish()
    }
}

extension LayerKind {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        name = try fields.string("name")
        reads = try fields.strings("reads")
        takes = try fields.strings("takes")
        gives = try fields.strings("gives")
        size = try fields.small("size")
        matrices = try fields.list("matrices", AdapterMatrix.init)
        state = try fields.list("state", StateTensor.init)
        attentionWidth = try fields.int("attention_width")
        flops = try fields.value("flops", BlockWork.init)
        decompressedBytes = try fields.value("decompressed_bytes", BlockWork.init)
        try fields.finish()
    }
}

extension LayerEntry {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        kind = try fields.string("kind")
        number = try fields.small("number")
        offset = try fields.small("offset")
        reads = try fields.ordered("reads", Fields.string)
        takes = try fields.optional("takes") { Entries(try Fields.entries($0, $1, Fields.string)) } ?? takes
        gives = try fields.optional("gives") { Entries(try Fields.entries($0, $1, Fields.string)) } ?? gives
        try fields.finish()
    }
}
