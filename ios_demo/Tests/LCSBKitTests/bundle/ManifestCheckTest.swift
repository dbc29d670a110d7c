import Foundation
import XCTest
@testable import LCSBKit

/// A manifest from anywhere: each thing that it may say is refused with a message, before anything is made by it.
final class ManifestCheckTest: XCTestCase {
    private var content: [UInt8] = []
    private var text = ""
    private var manifest = Json.null

    override func setUpWithError() throws {
        content = try openBundle("llama").file(manifestFile).content
        text = String(decoding: content, as: UTF8.self)
        manifest = try Json(content: content)
    }

    /// What opening a bundle with this manifest says.
    private func refused(
        _ content: [UInt8], _ fault: Fault = .bundleUnreadable, file: StaticString = #filePath, line: UInt = #line
    ) throws -> String {
        try inScratch { scratch in
            try scratch.file(manifestFile).write(content)
            return refusal(fault, file: file, line: line) { _ = try TrainingBundle.open(scratch) }
        }
    }

    private func refused(
        _ text: String, _ fault: Fault = .bundleUnreadable, file: StaticString = #filePath, line: UInt = #line
    ) throws -> String {
        try refused(Array(text.utf8), fault, file: file, line: line)
    }

    /// Each: a path, its value as JSON, empty for none, and what is said of it.
    private func assertRefused(_ cases: [(String, String, String)], file: StaticString = #filePath, line: UInt = #line) throws {
        for (path, value, expected) in cases {
            let message = try refused(manifest.put(path, value.isEmpty ? nil : Json(text: value)).text, file: file, line: line)
            let said = message.contains(expected) && message.contains("malformed manifest: ")
            XCTAssert(said, "\(path) = \(value): \(message)", file: file, line: line)
        }
    }

    private func at(_ path: String) -> String { manifest.at(path).text }

    func testWhatThisTestWritesIsTheSameManifest() throws {
        try inCopy { bundle in
            try bundle.file(manifestFile).write(manifest.put("digest", nil).text)
            XCTAssertEqual(try TrainingBundle.open(bundle).manifest.files.count, try openBundle("llama").manifest.files.count)
        }
    }

    func testValuesOutOfRange() throws {
        let kinds = "{" + (0..<65).map { "\"\($0)\": {\"rope_theta\": 1.0}" }.joined(separator: ",") + "}"
        try assertRefused([
            ("seq_len", "0", "seq_len: expected 1 to 1048576, found 0"),
            ("seq_len", "-5", "seq_len: expected 1 to 1048576, found -5"),
            ("seq_len", "1000000000000000000", "seq_len: expected 1 to 1048576, found 1000000000000000000"),
            ("seq_len", "10000000000000000000", "manifest.seq_len: expected a whole number, found 10000000000000000000"),
            ("seq_len", "31.0", "manifest.seq_len: expected a whole number, found 31.0"),
            ("seed", "-1", "seed: expected 0 to 9007199254740992, found -1"),
            ("model.vocab_size", "20000000", "model.vocab_size: expected 1 to 16777216"),
            ("model.hidden_size", "0", "model.hidden_size: expected 1 to 262144, found 0"),
            ("model.num_hidden_layers", "1000000000", "model.num_hidden_layers: expected 1 to 4096, found 1000000000"),
            ("model.num_key_value_heads", "0", "model.num_key_value_heads: expected 1"),
            ("model.head_dim", "-1", "model.head_dim: expected 1"),
            ("model.rms_norm_eps", "2", "model.rms_norm_eps: expected 0 to 1, found 2.0"),
            ("model.query_scale", "1e999", "model.query_scale: expected 1e-09 to 1000000000, found inf"),
            ("model.logits_scaling", "0", "model.logits_scaling: expected 1e-09 to 1000000000, found 0.0"),
            ("model.final_logit_softcapping", "0", "model.final_logit_softcapping: expected 1e-09 to 1000000000, found 0.0"),
            ("model.attention_kinds", kinds, "expected at most 64, found 65"),
            ("model.attention_kinds.full_attention.window", "0", "model.attention_kinds: expected positive numbers"),
            ("model.rotary_dim", "0", "model.rotary_dim: expected 2 to 4096, found 0"),
            ("model.conv_kernel", "-1", "model.conv_kernel: expected 0 to 256, found -1"),
            ("model.tensor_prefix", "\"../\"", "model.tensor_prefix: expected words that end with dots, found '../'"),
            ("model.tensor_prefix", "\"a\"", "model.tensor_prefix: expected words that end with dots, found 'a'"),
            ("model.tensor_prefix", "\"a..\"", "model.tensor_prefix: expected words that end with dots, found 'a..'"),
            ("model.tensor_prefix", "\"\(String(repeating: "a.", count: 100_000))\"", "model.tensor_prefix: expected words"),
            ("lora.rank", "0", "lora.rank: expected 1 to 65536, found 0"),
            ("kinds", "[]", "kinds: expected 1 to 64, found 0"),
            ("kinds.0.name", "\"a_b\"", "kinds.'a_b': name: expected lower-case letters and digits"),
            ("kinds.0.name", "\"../x\"", "kinds.'../x': name: expected lower-case letters and digits"),
            ("kinds.0.name", "\"\"", "kinds.'': name: expected lower-case letters and digits"),
            ("kinds.0.reads.0", "\"adapter\"", "kinds.'block': 'adapter': expected the name of a table, a value or a state"),
            ("kinds.0.reads.0", "\"\\u212A\"", "expected the name of a table, a value or a state"),
            ("kinds.0.takes", "[\"d_h\"]", "kinds.'block': 'd_h': expected the name of a table, a value or a state"),
            ("kinds.0.size", "0", "kinds.'block': size: expected 1 or more, found 0"),
            ("kinds.0.size", "3000000000", "manifest.kinds[0].size: expected a whole number below 2^31, found 3000000000"),
            ("kinds.0.matrices.0.shape", "[4611686018427387904, 4]", "expected a whole number below 2^31, found 4611686018427387904"),
            ("kinds.0.matrices.0.shape", "[-4, 48]", "expected positive dimensions, found [-4, 48]"),
            ("kinds.0.matrices.0.shape", "[4]", "expected positive dimensions, found [4]"),
            ("kinds.0.state.0.shape", "[31, 0, 12]", "kinds.'block': state: 'keys': expected positive dimensions, found [31, 0, 12]"),
            ("kinds.0.attention_width", "-1", "kinds.'block': attention_width: expected 0 to 16777216, found -1"),
            ("kinds.0.flops.forward", "-1", "kinds.'block': flops: expected 0 or more"),
            ("layers.1.offset", "-1", "layers.1: expected 0 or more, found number 1 at -1"),
            ("quantization.group_size", "0", "quantization.group_size: expected 2 to 65536, found 0"),
            ("quantization.bits", "5", "quantization.bits: expected 4 or 8, found 5"),
            ("quantization.quantizer", "\"other\"", "quantization.quantizer: expected search or gptq, found 'other'"),
            ("schedule_config.order", "\"other\"", "schedule_config.order: expected cyclic or shuffled, found 'other'"),
            ("optimizer.betas", "[1.0, 0.999]", "optimizer.betas: expected two of 0 to less than 1, found [1.0, 0.999]"),
            ("optimizer.betas", "[0.9]", "optimizer.betas: expected two"),
            ("optimizer.clip_norm", "0", "optimizer.clip_norm"),
            ("optimizer.implicit_updates", "\"other\"", "implicit_updates: expected one of momentum, none, found 'other'"),
            ("accuracy_level", "1", "accuracy_level: expected 0, 2 or 4, found 1"),
            ("identity", "\"\(String(repeating: "A", count: 64))\"", "identity: expected a SHA-256, found 'AAAA"),
            ("runtime.arena.initial_bytes", "-1", "runtime.arena.initial_bytes: expected 0 to 68719476736, found -1"),
            ("weights.1.offset", "12290", "found 'float16' [131, 6] at byte 12290"),
            ("weights.1.shape", "[]", "found 'float16' [] at byte"),
            ("weights.1.dtype", "\"float64\"", "found 'float64' [131, 6]"),
            ("source", "\"\\u001b]0;x\\u0007\"", "source: expected a text without control characters, found '\\x1b]0;x\\x07'"),
            ("tools/a\nb", "\"1\"", "tools: expected a text without control characters, found 'a\\x0ab'"),
            ("files/gemm.onnx/size", "1152921504606846976", "size: expected a number of at most 2^53, found 1152921504606846976"),
            ("files/gemm.onnx/size", "-9223372036854775808", "size: expected a number of at most 2^53, found -9223372036854775808"),
        ])
    }

    func testWhatOnnxRuntimeIsTold() throws {
        let path = "runtime/session_config"
        for key in ["session.node_partition_config_file", "session.load_model_format", "session.optimized_model_filepath", ""] {
            for value in ["/tmp/written", "1"] {
                let message = try refused(manifest.put(path, Json(text: #"{"\#(key)": "\#(value)"}"#)).text)
                let expected = "runtime.session_config: '\(key)' = '\(value)' is none of the entries that an export writes"
                XCTAssert(message.contains(expected), message)
            }
        }
        let message = try refused(manifest.put(path, Json(text: #"{"session.force_spinning_stop": "2"}"#)).text)
        XCTAssert(message.contains("is none of the entries"), message)
    }

    func testTablesThatDoNotAgree() throws {
        let known = try openBundle("llama").manifest
        let size = known.kinds[0].size
        let chunks = #"{"num_key_heads": 1, "num_value_heads": 1, "key_head_dim": 1, "value_head_dim": 1, "chunk": 16}"#
        let dynamic = #"{"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 30}"#
        try assertRefused([
            ("model.layer_types", "[\"full_attention\"]", "model.layer_types: expected one for each of 3 layers, found 1"),
            ("model.attention_kinds.window", #"{"rope_theta": 1.0}"#, "model.attention_kinds: no layer is of type 'window'"),
            ("model.rotary_dim", "14", "model.rotary_dim: expected an even number up to 12, found 14"),
            ("model.rotary_dim", "11", "model.rotary_dim: expected an even number up to 12, found 11"),
            ("model.num_key_value_heads", "4", "model: 6 heads are no multiple of 4 key-value heads"),
            ("model.linear_attention", chunks, "seq_len: expected a multiple of 16, found 31"),
            ("model.attention_kinds.full_attention.rope_scaling", dynamic, "seq_len: expected at most 30, as the model's RoPE has it, found 31"),
            ("schedule", "[]", "schedule: expected at least one step, found none"),
            ("schedule.0", #"{"train": [3], "propagate": [3]}"#, "step 1: train: expected ascending layers from 0 to 2, found [3]"),
            ("schedule.1", #"{"train": [], "propagate": [1]}"#, "schedule: step 2: expected train to be non-empty"),
            ("schedule.2.propagate", "[2, 1, 0]", "schedule: step 3: propagate: expected ascending layers"),
            ("schedule.2.propagate", "[1, 2]", "schedule: step 3: expected train to be non-empty and within propagate"),
            ("kinds.1", at("kinds.0"), "kinds: 'block' stands twice"),
            ("kinds.0.name", "\"gemm\"", "kinds.gemm: another program is called gemm_backward"),
            ("kinds.0.state.0.shape", "[30, 2, 12]", "kinds.block: state: 'keys': expected 31 places, found [30, 2, 12]"),
            ("kinds.0.size", "\(size - 1)", "kinds.block: size: expected \(size), where the last of 14 matrices ends, found \(size - 1)"),
            ("kinds.0.size", "2147483647", "layers: expected at most 1073741824 bytes of adapter, found 25769803764"),
            ("kinds.0.matrices.1.offset", "191", "kinds.block: matrices: expected a lora_B of rank 4 at 192, found AdapterMatrix("),
            ("kinds.0.matrices.1.name", "\"x.lora_B\"", "expected both of one projection, found 'self_attn.q_proj.lora_A' and 'x.lora_B'"),
            ("kinds.0.matrices.0.shape", "[2147483647, 2147483647]", "kinds.block: matrices: expected a lora_A of rank 4 at 0"),
            ("kinds.0.matrices", "[]", "kinds.block: size: expected 0, where the last of 0 matrices ends, found \(size)"),
            ("kinds.0.matrices", "[\(at("kinds.0.matrices.0"))]", "where the last of 1 matrices ends"),
            ("layers.3", at("layers.2"), "layers: expected 3, found 4"),
            ("layers.1.kind", "\"other\"", "layers.1: expected one of the kinds block, found 'other'"),
            ("layers.1.number", "0", "layers.1: number: expected 1, found 0"),
            ("layers.1.offset", "\(size - 1)", "layers.1: offset: expected \(size), found \(size - 1)"),
            ("layers.1.reads.cos", "", "layers.1: reads: expected ['cos', 'sin', 'mask'], found ['sin', 'mask']"),
            ("weights.\(known.weights.count)", at("weights.0"), "'embed_tokens.weight.packed' stands twice"),
            ("weights.0.offset", "\(1 << 40)", "weights: the tensors end at byte 10995116"),
            ("weights.1.dtype", "\"float32\"", "'embed_tokens.weight.scale': expected float16 [131, 6], found float32 [131, 6]"),  // all or none
            ("weights.1.offset", "0", "weights: 'embed_tokens.weight.packed' and 'embed_tokens.weight.scale' overlap"),
            ("weights.0.shape.0", "130", "weights: 'embed_tokens.weight.packed': expected int8 [131, 6, 8], found int8 [130, 6, 8]"),
            ("weights.0.shape", "[9007199254740992, 9007199254740992]", "weights: 'embed_tokens.weight.packed': expected int8"),
            ("weights.20.shape.0", "1", "expected 3 layers, found 1"),
            ("model.tie_word_embeddings", "false", "weights: 'lm_head.weight.packed': expected int8 [131, 6, 8], found none"),
            ("quantization.group_size", "10", "expected an even divisor of the 48 columns of 'embed_tokens.weight', found 10"),
            ("files/weights.bin", "", "of weights.bin, which has 0"),
        ])
    }

    func testProgramsOtherThanTheRunnerFeeds() throws {
        let huge = "[" + (1...8).map { _ in "\(1 << 50)" }.joined(separator: ", ") + "]"
        try assertRefused([
            ("graphs.head", "", "graphs: head missing"),
            ("graphs.gemm.file", "\"gemm_backward.onnx\"", "graphs.gemm: expected the file gemm.onnx, found 'gemm_backward.onnx'"),
            ("graphs.embed.inputs.0.shape", "[33]", "graphs.embed: inputs: 'input_ids': expected int64 [31], found int64 [33]"),
            (
                "graphs.embed.outputs.0.dtype", "\"float16\"",
                "graphs.embed: outputs: 'h': expected float32 [31, 48], found float16 [31, 48]"
            ),
            (
                "graphs.embed.outputs.0.dtype", "\"string\"",
                "graphs.embed: 'h': expected a dtype and positive dimensions, found 'string' [31, 48]"
            ),
            ("graphs.embed.outputs.0.shape.0", "-1", "expected a dtype and positive dimensions, found 'float32' [-1, 48]"),
            (
                "graphs.embed.outputs.0.shape", "[1048576, 1048576]",
                "'h': expected at most 1073741824 bytes, found float32 [1048576, 1048576]"
            ),
            ("graphs.embed.outputs.0.shape", huge, "expected at most 1073741824 bytes"),
            ("graphs.embed.working_bytes", "-1", "graphs.embed: working_bytes: expected 0 or more, found -1"),
            ("graphs.embed.inputs.3.weight", "\"absent\"", "graphs.embed: 'absent' as: 'embed_tokens.weight.packed': expected nothing []"),
            ("graphs.embed.inputs.0.weight", "\"norm.weight\"", "graphs.embed: inputs: 'input_ids': expected int64 [31], found none"),
            ("graphs.embed.outputs.0.weight", "\"norm.weight\"", "graphs.embed: the output 'h' cannot be a weight"),
            ("graphs.embed.inputs.1.name", "\"input_ids\"", "graphs.embed: inputs: 'input_ids' stands twice"),
            ("graphs.block_decode.inputs.4.shape.0", "33", "graphs.block_decode: inputs: 'past_keys': expected float32 [31, 2, 12]"),
            (
                "graphs.block_forward.inputs.1.name", "\"other\"",
                "graphs.block_forward: inputs: 'other': expected none, found float32 [31, 12]"
            ),
            (
                "graphs.block_forward.inputs.1.shape.0", "30",
                "layers.0: block_forward: 'cos' is 'cos.full_attention': expected float32 [30, 12]"
            ),
            ("layers.2.reads.cos", "\"sin.x\"", "layers.2: block_decode: 'cos' is 'sin.x': expected float32 [1, 12], found none"),
            ("graphs.embed.outputs.1.name", "\"other\"", "graphs.embed: outputs: 'other': expected none"),
            ("graphs.adamw.inputs.0.shape.0", "7", "graphs.adamw: inputs: 'parameters': expected float32 [-1], found float32 [7]"),
            (
                "graphs.block_forward.inputs.5.weight", "\"layers.other.x\"",
                "graphs.block_forward: 'layers.other.x': expected one of the kind block"
            ),
            (
                "graphs.block_forward.inputs.5.weight", "\"norm.weight\"",
                "graphs.block_forward: 'norm.weight': expected one of the kind block"
            ),
            ("graphs.head.inputs.2.weight", at("graphs.block_forward.inputs.5.weight"), "graphs.head: 'layers.block."),
            (
                "graphs.block_forward_keep.outputs.1.shape.0", "9",
                "graphs.block_forward_keep: what block_backward_kept reads: 'kept.0': expected"
            ),
            ("graphs.head.inputs.0.name", "\"kept.0\"", "graphs.head: inputs: 'h': expected float32 [31, 48], found none"),
            ("graphs.head.initializers.0", at("graphs.head.inputs.2"), "expected the layers' weight that it is"),
        ])
    }

    func testManyFaultsAreCounted() throws {
        let message = try refused(manifest.put("model.hidden_size", .number("96")).text)
        XCTAssertEqual(message.components(separatedBy: "expected").count - 1, 8, message)
        XCTAssertNotNil(message.range(of: #"\(and [0-9]+ more\); export the bundle again$"#, options: .regularExpression), message)
    }

    func testFaultsAreSaidInTheManifestsOrder() throws {
        let message = try refused(manifest.put("model.hidden_size", .number("96")).text)
        let said = ["'norm.weight'", "'embed_tokens.weight.packed'", "'embed_tokens.weight.scale'", "graphs.embed: outputs: 'h'"]
        let places = try said.map { name in
            try XCTUnwrap(message.range(of: name), "\(name): \(message)").lowerBound
        }
        XCTAssertEqual(places, places.sorted(), message)
    }

    func testAnotherVersionOrTarget() throws {
        XCTAssert(try refused(#"{"format_version": 4, "anything": [1]}"#, .bundleNewerVersion).contains("format version 4 is newer than 3"))
        for version in 1...2 {
            let message = try refused(#"{"format_version": \#(version), "adapter": {}}"#, .bundleOlderVersion)
            XCTAssert(message.contains("format version \(version) is older than 3; export the bundle again"), message)
        }
        let other = manifest.put("target", .string("onnxruntime-training")).text
        let expected = "expected a bundle of target onnxruntime or executorch or coreai or coreml, found onnxruntime-training; export"
        XCTAssert(try refused(other, .bundleOtherTarget).contains(expected))
    }

    func testMalformedJson() throws {
        let (open, close) = (String(repeating: "[", count: 100_000), String(repeating: "]", count: 100_000))
        let cases = [
            open, #"{"format_version": 3, "target": "onnxruntime", "x": \#(open)\#(close)}"#,
            #"{"format_version": 3, "target": "onnxruntime"}"#, #"{"format_version": NaN}"#, #"{"format_version": 1e999}"#,
            #"{"format_version": \#(String(repeating: "9", count: 5000))}"#, "", "{", String(text.dropLast(5)),
            text.replacingOccurrences(of: "\"seq_len\": ", with: "\"seq_len\": \"x\", \"y\": "),
            text.replacingOccurrences(of: "\"seed\":", with: "\"unknown\": 1, \"seed\":"),
        ]
        for malformed in cases {
            let message = try refused(malformed)
            XCTAssert(message.contains("malformed manifest: "), "\(malformed.prefix(60)): \(message)")
        }
        var bytes = content
        bytes[String(text[..<text.range(of: "llama")!.lowerBound]).utf8.count] = 0xFF
        XCTAssert(try refused(bytes).contains("not UTF-8"))
        XCTAssert(try refused(String(repeating: " ", count: manifestBytes + 1)).contains("more than the 4194304 that are read"))
    }

    func testAKeyThatStandsTwice() throws {
        func with(_ old: String, _ new: String) -> String { text.replacingCharacters(in: text.range(of: old)!, with: new) }
        XCTAssert(try refused(with("\"seed\":", "\"seed\": 1, \"seed\":")).contains("the key 'seed' stands twice in an object"))
        XCTAssert(try refused(with("\"rank\":", "\"r\\u0061nk\": 4, \"rank\":")).contains("the key 'rank' stands twice in an object"))
        _ = try parsed(Array(#"{"a": {"b": "\\", "c": "\"a\":"}, "b": [{"a": 1}, {"a": "a"}], "c": {}}"#.utf8))
        XCTAssertThrowsError(try parsed(Array(#"{"a" : [], "b": {"a": 1}, "a": 2}"#.utf8)))
    }

    /// What a stranger's files may cost: the largest that are read at all, of values that take many times their bytes as a tree.
    func testTheLargestFilesAreRefusedInLittleMemory() throws {
        let before = peakBytes()
        for element in ["0,", "[],", "[0],", "{},", #"{"":0},"#] {
            let count = (manifestBytes - 200) / element.utf8.count
            let list = String(String(repeating: element, count: count).dropLast())
            let message = try refused(#"{"format_version":3,"target":"onnxruntime","schedule":[\#(list)]}"#)
            XCTAssert(message.contains("malformed manifest: "), message)
            try inScratch { scratch in
                let batch = #"{"input_ids":[\#(list)],"labels":[],"position_ids":[],"segment_ids":[]}"#
                try scratch.file(goldenFile).write(#"{"batches":[\#(batch)]}"#)
                let known = try openBundle("llama").manifest
                let message = refusal(.bundleUnreadable) { _ = try GoldenTrace.open(scratch.file(goldenFile), known) }
                XCTAssert(message.contains("not a readable golden trace ("), message)
            }
        }
        XCTAssertLessThan(peakBytes() - before, 200_000_000)
    }

    /// Of this process, so far.
    private func peakBytes() -> Int {
        var usage = rusage()
        getrusage(0, &usage)  // RUSAGE_SELF, which is no number everywhere
        #if canImport(Darwin)
        return usage.ru_maxrss
        #else
        return usage.ru_maxrss * 1024
        #endif
    }
}
