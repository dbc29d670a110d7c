import Foundation
@testable import LCSBKit

/// A bundle whose layers cross: no architecture that is exported has such layers yet. With s the sum of a layer's adapter, b its bias:
///
/// | kind   | h_next             | gives, or takes   | its programs besides |
/// |--------|--------------------|-------------------|----------------------|
/// | `give` | h (1 + s + b)      | value = h (s + b) | what is kept is h, so `backward_kept` takes none; it remembers h, and its sum |
/// |        |                    |                   | keeps 200,000 b too, which float16 does not hold of the second: by it its gradients are NaN |
/// | `take` | h + value s scale  | value             | reads scale, a token's position + 1 |
/// | `pair` | h + left right s   | left, right       | keeps nothing |
///
/// The loss is half the sum of the squares of h.
enum CrossingBundle {
    static let tokens = 4
    static let width = 2
    static let vocabulary = 5
    static let places = [
        LayerEntry(kind: "give", number: 0, offset: 0, reads: [:], gives: ["value": "a"]),
        LayerEntry(kind: "take", number: 0, offset: 4, reads: ["scale": "scale"], takes: ["value": "a"]),
        LayerEntry(kind: "give", number: 1, offset: 9, reads: [:], gives: ["value": "b"]),
        LayerEntry(kind: "pair", number: 0, offset: 13, reads: [:], takes: ["left": "a", "right": "b"]),
        LayerEntry(kind: "pair", number: 1, offset: 19, reads: [:], takes: ["left": "b", "right": "b"]),
        LayerEntry(kind: "give", number: 2, offset: 25, reads: [:]),
        LayerEntry(kind: "take", number: 1, offset: 29, reads: ["scale": "scale"], takes: ["value": "b"]),
    ]
    static let biases: [Float] = [0.25, -0.5, 0.125]  // of the layers `give`
    static let embedding = (0..<vocabulary * width).map { Float($0 * 7 % 11 - 5) / 8 }

    static func adapter() throws -> Floats {
        let adapter = try Floats(count: 34)
        for at in 0..<34 { adapter[at] = Float(at * 5 % 13 - 6) / 16 }
        return adapter
    }

    static let batch = Batch(inputIds: [1, 4, 0, 3], labels: [0, 1, 2, 3], positionIds: [0, 1, 2, 0], segmentIds: [0, 0, 0, 1])

    /// Writes it; `change` makes another manifest of the true one.
    @discardableResult
    static func write(_ directory: URL, _ change: (inout Manifest) -> Void = { _ in }) throws -> URL {
        let programs = CrossingPrograms()
        programs.writeAll()
        let (table, bytes) = weights()
        var files = programs.files
        files[weightsFile] = bytes
        files[goldenFile] = Array(#"{"batches":[],"steps":[],"learning_rate":0.001,"run":[]}"#.utf8)
        for name in ["tokenizer.json", "tokenizer_config.json"] { files[name] = Array("{}".utf8) }
        let all = Array(places.indices)
        var manifest = Manifest(
            formatVersion: 3, target: "onnxruntime", source: "none",
            model: ModelConfig(
                modelType: "crossing", vocabSize: vocabulary, hiddenSize: width, intermediateSize: 4, numHiddenLayers: places.count,
                numAttentionHeads: 1, numKeyValueHeads: 1, headDim: 2, rmsNormEps: 1e-6, tieWordEmbeddings: true,
                layerTypes: places.map(\.kind), attentionKinds: [:], rotaryDim: 2, queryScale: 1, tensorPrefix: "model.language_model."
            ),
            lora: LoraConfig(rank: 1, alpha: 2), kinds: kinds, layers: places, quantization: QuantizationConfig(groupSize: 2),
            seqLen: tokens, seed: 0, scheduleConfig: ScheduleConfig(), schedule: [Subset(train: all, propagate: all)],
            optimizer: AdamWConfig(), accuracyLevel: 0,
            runtime: RuntimeSettings(sessionConfig: [:], arena: Arena(initialBytes: 0)), graphs: programs.graphs, weights: table,
            reconstructionError: [:], tools: [:], files: [:]
        )
        for (name, content) in files { try directory.file(name).write(content) }
        try writeAdapter(directory.file(adapterFile), manifest.adapter, adapter())
        manifest.files = try Entries(files.keys + [adapterFile]) { name in
            let content = try directory.file(name).content
            return FileEntry(size: content.count, sha256: sha256(content))
        }
        change(&manifest)
        try directory.file(manifestFile).write(Json(record: manifest).text)
        return directory
    }

    static let kinds = {
        var give = kind("give", 2, 2, gives: ["value"])
        give.state = [
            StateTensor(name: "seen", shape: [tokens, width], byPosition: true),
            StateTensor(name: "total", shape: [1, width], byPosition: false),
        ]
        return [give, kind("take", 4, 1, reads: ["scale"], takes: ["value"]), kind("pair", 2, 4, takes: ["left", "right"])]
    }()

    private static func kind(
        _ name: String, _ columns: Int, _ rows: Int, reads: [String] = [], takes: [String] = [], gives: [String] = []
    ) -> LayerKind {
        let matrices = [
            AdapterMatrix(name: "p.lora_A", shape: [1, columns], offset: 0),
            AdapterMatrix(name: "p.lora_B", shape: [rows, 1], offset: columns),
        ]
        let work = BlockWork(forward: name.count, backward: 10, backwardKept: 100)
        return LayerKind(
            name: name, reads: reads, takes: takes, gives: gives, size: columns + rows, matrices: matrices, state: [], attentionWidth: 0,
            flops: work, decompressedBytes: work
        )
    }

    private static func weights() -> ([WeightTensor], [UInt8]) {
        var stored: Tensors = [
            "norm.weight": TensorType("float32", [width]),
            "embed_tokens.weight.packed": TensorType("int8", [vocabulary, 1, 2]),
            "embed_tokens.weight.scale": TensorType("float16", [vocabulary, 1]),
            "layers.give.bias": TensorType("float32", [biases.count, 1]),
        ]
        for kind in kinds {
            let shape = [places.count { $0.kind == kind.name }, kind.matrices[1].shape[0], kind.matrices[0].shape[1] / 2]
            stored["layers.\(kind.name).p.weight.packed"] = TensorType("uint8", shape + [1])
            stored["layers.\(kind.name).p.weight.scale"] = TensorType("float16", shape)
        }
        let table = stored.enumerated().map { at, entry in
            WeightTensor(name: entry.key, dtype: entry.value.dtype, shape: entry.value.shape, offset: at * 4096)
        }
        var bytes = [UInt8](repeating: 0, count: 4096 * table.count)
        bytes.replaceSubrange(3 * 4096..<3 * 4096 + 4 * biases.count, with: biases.withUnsafeBytes(Array.init))
        return (table, bytes)
    }
}

/// Its programs, and what the manifest says of each.
private final class CrossingPrograms {
    private(set) var files: Entries<[UInt8]> = [:]
    private(set) var graphs: Entries<ProgramGraph> = [:]
    private let hidden = TensorType("float32", [CrossingBundle.tokens, CrossingBundle.width])
    private let one = TensorType("float32", [1, CrossingBundle.width])
    private let scalar = TensorType("float32", [])

    private func float(_ shape: Int...) -> TensorType { TensorType("float32", shape) }

    private func integer(_ count: Int) -> TensorType { TensorType("int64", [count]) }

    func writeAll() {
        commonPrograms()
        givePrograms()
        takePrograms()
        pairPrograms()
    }

    private func program(
        _ name: String, _ inputs: Tensors, _ outputs: Tensors, _ weights: [GraphTensor] = [], _ write: (inout OnnxWriter) -> Void
    ) {
        func described(_ tensors: Tensors) -> [GraphTensor] {
            tensors.map { GraphTensor(name: $0.key, dtype: $0.value.dtype, shape: $0.value.shape, meaning: "") }
        }
        var writer = OnnxWriter(inputs + Entries(weights.map { ($0.name, TensorType($0)) }), outputs)
        write(&writer)
        files["\(name).onnx"] = writer.bytes
        graphs[name] = ProgramGraph(file: "\(name).onnx", inputs: described(inputs) + weights, outputs: described(outputs))
    }

    private func givePrograms() {
        let adapter = float(4)
        let gradients: Tensors = ["g_next": hidden, "d_adapter": adapter]
        let bias = [GraphTensor(name: "bias", dtype: "float32", shape: [1], meaning: "", weight: "layers.give.bias")]
        func factor(_ p: inout OnnxWriter) -> String { p.total(p.sum("adapter"), "bias") }
        func forward(_ p: inout OnnxWriter) { p.total("h", p.product("h", factor(&p), "value"), "h_next") }
        func backward(_ p: inout OnnxWriter, _ h: String) {
            p.total("g", p.product(p.total("g", "d_value"), factor(&p)), "g_next")
            spread(&p, p.sum(p.product(p.total("g", "d_value"), h)), 4)
        }
        program("give_forward", ["h": hidden, "adapter": adapter], ["h_next": hidden, "value": hidden], bias) { forward(&$0) }
        let keeps: Tensors = ["kept.0": hidden, "kept.1": TensorType("float16", [1])]
        program("give_forward_keep", ["h": hidden, "adapter": adapter], ["h_next": hidden, "value": hidden] + keeps, bias) { p in
            forward(&p)
            p.call("Identity", "h", result: "kept.0")
            p.call("Cast", p.product("bias", p.floats([1], [2e5])), result: "kept.1", attributes: [("to", 10)])
        }
        program("give_backward", ["h": hidden, "g": hidden, "d_value": hidden, "adapter": adapter], gradients, bias) { backward(&$0, "h") }
        let fedBack: Tensors = ["g": hidden, "d_value": hidden, "adapter": adapter]
        program("give_backward_kept", fedBack + keeps, gradients, bias) { p in
            let wide = p.call("Cast", "kept.1", attributes: [("to", 1)])
            backward(&p, p.total("kept.0", p.product(wide, p.floats([1], [0]))))
        }
        let remembered: Tensors = ["h_next": hidden, "value": hidden, "seen": hidden, "total": one]
        program("give_prefill", ["h": hidden, "adapter": adapter], remembered, bias) { p in
            forward(&p)
            p.call("Identity", "h", result: "seen")
            p.call("ReduceSum", "h", p.integers(0), result: "total")
        }
        let fed: Tensors = ["h": one, "adapter": adapter, "past_seen": hidden, "past_total": one]
        program("give_decode", fed, ["h_next": one, "value": one, "seen": one, "total": one], bias) { p in
            // What is passed on of the token alone, while its value is given.
            let own = p.total("h", p.product("h", factor(&p), "value"))
            p.total(p.total(own, p.call("ReduceSum", "past_seen", p.integers(0))), "past_total", "h_next")
            p.call("Identity", "h", result: "seen")
            p.total("past_total", "h", "total")
        }
    }

    private func takePrograms() {
        let adapter = float(5)
        let gradients: Tensors = ["g_next": hidden, "d_value": hidden, "d_adapter": adapter]
        for (role, h) in [("forward", hidden), ("prefill", hidden), ("decode", one)] {
            program("take_\(role)", ["h": h, "scale": float(h.shape[0], 1), "value": h, "adapter": adapter], ["h_next": h]) { p in
                p.total("h", p.product(p.product("value", "scale"), p.sum("adapter")), "h_next")
            }
        }
        let scale = float(CrossingBundle.tokens, 1)
        let read: Tensors = ["h": hidden, "scale": scale, "value": hidden, "adapter": adapter]
        program("take_forward_keep", read, ["h_next": hidden, "kept.0": hidden]) { p in
            p.total("h", p.product(p.product("value", "scale", "kept.0"), p.sum("adapter")), "h_next")
        }
        func backward(_ p: inout OnnxWriter, _ scaled: String) {
            p.call("Identity", "g", result: "g_next")
            p.product(p.product("g", "scale"), p.sum("adapter"), "d_value")
            spread(&p, p.sum(p.product("g", scaled)), 5)
        }
        let fed: Tensors = ["g": hidden, "scale": scale, "adapter": adapter]
        program("take_backward", fed + ["h": hidden, "value": hidden], gradients) { backward(&$0, $0.product("value", "scale")) }
        program("take_backward_kept", fed + ["kept.0": hidden], gradients) { backward(&$0, "kept.0") }
    }

    private func pairPrograms() {
        let adapter = float(6)
        for (role, h) in [("forward", hidden), ("forward_keep", hidden), ("prefill", hidden), ("decode", one)] {
            program("pair_\(role)", ["h": h, "left": h, "right": h, "adapter": adapter], ["h_next": h]) { p in
                p.total("h", p.product(p.product("left", "right"), p.sum("adapter")), "h_next")
            }
        }
        for role in ["backward", "backward_kept"] {
            let fed: Tensors = ["h": hidden, "g": hidden, "left": hidden, "right": hidden, "adapter": adapter]
            program("pair_\(role)", fed, ["g_next": hidden, "d_left": hidden, "d_right": hidden, "d_adapter": adapter]) { p in
                p.call("Identity", "g", result: "g_next")
                let scaled = p.product("g", p.sum("adapter"))
                p.product(scaled, "right", "d_left")
                p.product(scaled, "left", "d_right")
                spread(&p, p.sum(p.product("g", p.product("left", "right"))), 6)
            }
        }
    }

    /// A gradient of s, for each element of the adapter.
    private func spread(_ p: inout OnnxWriter, _ scalar: String, _ size: Int64) {
        p.call("Expand", scalar, p.integers(size), result: "d_adapter")
    }

    private func commonPrograms() {
        func table(_ p: inout OnnxWriter) -> String {
            p.floats([CrossingBundle.vocabulary, CrossingBundle.width], CrossingBundle.embedding)
        }
        for (name, names, h) in [("embed", tokenInputs, hidden), ("decode_embed", Array(tokenInputs.prefix(2)), one)] {
            let rows = h.shape[0]
            program(name, Entries(names) { _ in integer(rows) }, ["h": h, "scale": float(rows, 1)]) { p in
                p.call("Gather", table(&p), "input_ids", result: "h")
                let places = p.call("Reshape", p.call("Cast", "position_ids", attributes: [("to", 1)]), p.integers(Int64(rows), 1))
                p.total(places, p.floats([], [1]), "scale")
            }
        }
        let labelled: Tensors = ["h": hidden, "labels": integer(CrossingBundle.tokens)]
        func loss(_ p: inout OnnxWriter) { p.product(p.sum(p.product("h", "h")), p.floats([], [0.5]), "loss") }
        program("head", labelled, ["loss": scalar, "g": hidden]) { p in
            loss(&p)
            p.call("Identity", "h", result: "g")
        }
        program("head_eval", labelled, ["loss": scalar]) { loss(&$0) }
        program("logits", ["h": one], ["logits": float(CrossingBundle.vocabulary)]) { p in
            let product = p.call("MatMul", "h", p.call("Transpose", table(&p)))
            p.call("Reshape", product, p.integers(Int64(CrossingBundle.vocabulary)), result: "logits")
        }
        let moments = ["parameters", "first_moment", "second_moment"]
        let fed = Entries(moments + ["gradient"]) { _ in float(anySize) } + Entries(["decay", "rate", "root"]) { _ in scalar }
        program("adamw", fed, Entries(moments.map { "\($0)_next" }) { _ in float(anySize) }) { p in
            p.call("Sub", p.product("parameters", "decay"), p.product("gradient", "rate"), result: "parameters_next")
            p.call("Identity", "gradient", result: "first_moment_next")
            p.call("Identity", "second_moment", result: "second_moment_next")
        }
        let matrix = float(anySize, anySize)
        for name in products { program(name, ["a": matrix, "b": matrix], ["y": matrix]) { $0.call("MatMul", "a", "b", result: "y") } }
    }
}
