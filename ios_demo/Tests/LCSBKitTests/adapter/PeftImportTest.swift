import Foundation
import XCTest
@testable import LCSBKit

/// PEFT's directories: read with the bits that they hold, or refused with one error that says everything (tests/adapters of the desktop).
final class PeftImportTest: XCTestCase {
    private let first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    private let last = "base_model.model.model.layers.2.mlp.down_proj.lora_B.weight"

    /// A good directory, which `use` may spoil, of llama's three layers; its values are others than the initial adapter's.
    private func inDirectory(_ use: (URL, AdapterLayout) throws -> Void) throws {
        try inScratch { scratch in
            let bundle = try openBundle("llama")
            try writePeft(bundle.manifest, values(bundle.manifest.adapter), scratch.file("peft"))
            try use(scratch.file("peft"), bundle.manifest.adapter)
        }
    }

    private func values(_ layout: AdapterLayout) throws -> Floats {
        let values = try Floats(count: layout.size)
        for at in 0..<values.count { values[at] = Float(at % 1021 - 500) / 256 }
        return values
    }

    private func read(_ source: URL, _ layout: AdapterLayout) throws -> (values: Floats, imported: ImportedAdapter) {
        let adapter = try initialAdapter(openBundle("llama"))
        return (adapter, try readPeft(source, layout, adapter))
    }

    private func refused(
        _ directory: URL, _ layout: AdapterLayout, _ texts: String..., file: StaticString = #filePath, line: UInt = #line
    ) {
        let message = refusal(.adapter, file: file, line: line) { _ = try read(directory, layout) }
        for text in texts { XCTAssert(message.contains(text), "\(text) is not in: \(message)", file: file, line: line) }
    }

    private func edit(_ directory: URL, _ changes: [(String, String)]) throws {
        var config = try Json(content: directory.file(peftConfigFile).content)
        for (name, value) in changes { config = config.put(name, try Json(text: value)) }
        try directory.file(peftConfigFile).write(config.text)
    }

    /// The file's tensors as others: a name, a dtype, a shape, its bytes.
    private typealias Tensor = (dtype: String, shape: [Int], bytes: [UInt8])

    private func edit(_ directory: URL, _ change: (inout [String: Tensor]) -> Void) throws {
        let file = directory.file(peftModelFile)
        let stored = try StoredTensors(file, .adapter)
        let content = try file.content
        let start = content.count - stored.tensors.values.map(\.end).max()!
        var tensors: [String: Tensor] = [:]
        for (name, tensor) in stored.tensors {
            tensors[name] = (tensor.dtype, tensor.shape, Array(content[(start + tensor.start)..<(start + tensor.end)]))
        }
        change(&tensors)
        var (header, data) = ([String](), [UInt8]())
        for (name, tensor) in tensors.sorted(by: { $0.key < $1.key }) {
            let offsets = "[\(data.count),\(data.count + tensor.bytes.count)]"
            header.append("\(asciiJson(name)):{\"dtype\":\"\(tensor.dtype)\",\"shape\":\(tensor.shape),\"data_offsets\":\(offsets)}")
            data += tensor.bytes
        }
        let text = Array("{\(header.joined(separator: ","))}".utf8)
        try file.write(withUnsafeBytes(of: UInt64(text.count).littleEndian, Array.init) + text + data)
    }

    func testWhatIsWrittenIsReadAgainBitForBit() throws {
        try inDirectory { directory, layout in
            let whole = try read(directory, layout)
            XCTAssertEqual(whole.values.array, try values(layout).array)
            XCTAssertEqual(whole.imported.initial, [:])
            XCTAssertEqual(whole.imported.matrices, layout.shapes.count)
            XCTAssertEqual(whole.imported.baseModel, "llama")
            let alone = try read(directory.file(peftModelFile), layout)
            XCTAssertEqual(alone.values.array, whole.values.array)
            XCTAssertNil(alone.imported.baseModel)
        }
    }

    func testHalvesAndTheirBrainFloatsAreWidened() throws {
        let halves: [(UInt16, Float)] = [
            (0x3C00, 1), (0xC000, -2), (0x0001, 0x1p-24), (0x03FF, 1023 * 0x1p-24), (0x0400, 0x1p-14), (0x7BFF, 65504), (0x8000, -0.0),
            (0x3555, 0.33325195),
        ]
        for (dtype, pairs) in [("F16", halves), ("BF16", [(0x3F80, 1), (0xC000, -2), (0x0080, 0x1p-126), (0x7F7F, 3.3895314e38)])] {
            try inDirectory { directory, layout in
                try edit(directory) { tensors in
                    let count = tensors[first]!.bytes.count / 4
                    let bits = (0..<count).map { pairs[$0 % pairs.count].0 }
                    tensors[first]!.dtype = dtype
                    tensors[first]!.bytes = bits.flatMap { [UInt8($0 & 0xFF), UInt8($0 >> 8)] }
                }
                let found = try read(directory, layout).values
                let matrix = layout.named(found).first { $0.name == first }!.values
                for (at, pair) in pairs.enumerated() { XCTAssertEqual(matrix[at].bitPattern, pair.1.bitPattern, "\(dtype) \(at)") }
            }
        }
    }

    func testProjectionsThatAreLeftOutAreInitial() throws {
        try inDirectory { directory, layout in
            try edit(directory) { tensors in tensors = tensors.filter { !$0.key.contains("layers.1.mlp.up_proj") } }
            let (found, imported) = try read(directory, layout)
            XCTAssertEqual(imported.initial, ["mlp.up_proj": [1]])
            let (initial, whole) = (try initialAdapter(openBundle("llama")), try values(layout))
            let rows = zip(zip(layout.named(found), layout.named(initial)), layout.named(whole))
            for ((matrix, first), last) in rows {
                if !matrix.name.contains("layers.1.mlp.up_proj") {
                    XCTAssertEqual(matrix.values.array, last.values.array, matrix.name)
                } else if matrix.name.contains("lora_A") {
                    XCTAssertEqual(matrix.values.array, first.values.array)
                } else {
                    XCTAssert(matrix.values.array.allSatisfy { $0 == 0 })
                }
            }
        }
    }

    /// transformers' class for a whole multimodal checkpoint calls the same layers differently.
    func testNamesOfAMultimodalCheckpointsTextModelAreTaken() throws {
        try inDirectory { directory, layout in
            try edit(directory) { tensors in
                for (name, tensor) in tensors {
                    tensors[name] = nil
                    tensors[name.replacingOccurrences(of: ".model.model.layers.", with: ".model.model.language_model.layers.")] = tensor
                }
            }
            XCTAssertEqual(try read(directory, layout).values.array, try values(layout).array)
        }
    }

    private let changed = [
        ("alora_invocation_tokens", "[1,2]"), ("alpha_pattern", "{\"q_proj\":32}"), ("arrow_config", "{\"top_k\":2}"),
        ("bias", "\"lora_only\""), ("fan_in_fan_out", "true"), ("init_lora_weights", "\"pissa_niter_4\""), ("kasa_config", "{\"beta\":1}"),
        ("layer_replication", "[[0,2]]"),
        ("lora_bias", "true"), ("modules_to_save", "[\"lm_head\"]"), ("monteclora_config", "{\"n\":8}"), ("rank_pattern", "{\"q_proj\":8}"),
        ("target_parameters", "[\"mlp\"]"), ("trainable_token_indices", "{\"e\":[1]}"), ("use_bdlora", "{\"n\":2}"), ("use_dora", "true"),
        ("use_qalora", "true"),
    ]

    func testOptionsThatChangeTheFunctionAreRefusedAloneAndTogether() throws {
        try inDirectory { directory, layout in
            let good = try directory.file(peftConfigFile).content
            for option in changed {
                try edit(directory, [option])
                refused(directory, layout, "\(option.0): expected ")
                try directory.file(peftConfigFile).write(good)
            }
            try edit(directory, changed + [("r", "8")])
            let message = refusal(.adapter) { _ = try read(directory, layout) }
            for (name, _) in changed { XCTAssert(message.contains("\(name): expected "), name) }
            XCTAssert(message.contains("r: expected \(layout.lora.rank), found 8"))
        }
    }

    func testUnknownOptionsAndEmptyOnesAreNone() throws {
        try inDirectory { directory, layout in
            try edit(directory, [
                ("an_option_of_2027", "{\"x\":1}"), ("modules_to_save", "[]"), ("rank_pattern", "null"), ("layers_to_transform", "[]"),
                ("bias", "\"NONE\""),
                ("init_lora_weights", "\"gaussian\""), ("target_modules", "\"all-linear\""),
            ])
            XCTAssertEqual(try read(directory, layout).imported.initial, [:])
        }
    }

    func testRankAndScaling() throws {
        try inDirectory { directory, layout in
            let (rank, alpha) = (layout.lora.rank, layout.lora.alpha)
            let good = try directory.file(peftConfigFile).content
            for (changes, text) in [
                ([("lora_alpha", "\(Int(alpha) * 2)")], "lora_alpha/r: expected \(Int(alpha) / rank), found \(Int(alpha) * 2 / rank) "
                    + "(a bundle of lcsb export --rank \(rank) --alpha \(Int(alpha) * 2) would fit)"),
                ([("r", "\(2 * rank)"), ("lora_alpha", "\(2 * Int(alpha))")], "r: expected \(rank), found \(2 * rank) "
                    + "(a bundle of lcsb export --rank \(2 * rank) --alpha \(2 * Int(alpha)) would fit)"),
                ([("use_rslora", "true")], "lora_alpha/sqrt(r): expected "),
                ([("lora_alpha", "-12")], "lora_alpha/r: expected "),
            ] {
                try edit(directory, changes)
                refused(directory, layout, text)
                try directory.file(peftConfigFile).write(good)
            }
            try edit(directory, [("use_rslora", "true"), ("lora_alpha", "\(alpha / Double(rank).squareRoot())")])
            _ = try read(directory, layout)
        }
    }

    func testMalformedConfigurations() throws {
        try inDirectory { directory, layout in
            for (content, expected) in [
                ("", "malformed"), ("[]", "malformed"), ("{}", "peft_type"),
                ("{\"peft_type\":\"IA3\",\"use_dora\":true}", "peft_type: expected LORA, found 'IA3'"),
                ("{\"peft_type\":\"LORA\",\"r\":\"8\"}", "r: expected"), ("{\"peft_type\":\"LORA\",\"r\":0}", "r: expected"),
                ("{\"peft_type\":\"LORA\",\"r\":100000000000000000000000}", "r: expected"),
                ("{\"peft_type\":\"LORA\",\"lora_alpha\":1e999}", "lora_alpha"),
                ("{\"peft_type\":\"LORA\",\"x\":" + String(repeating: "[", count: 100_000), "malformed"),
                ("{\"x\":\"" + String(repeating: "y", count: 4 << 20) + "\"}", "4194304"),
            ] {
                try directory.file(peftConfigFile).write(content)
                refused(directory, layout, expected)
            }
            try FileManager.default.removeItem(at: directory.file(peftConfigFile))
            refused(directory, layout, "no such file; expected a directory that PEFT's save_pretrained wrote")
        }
    }

    func testModulesThatPeftWouldPassOver() throws {
        try inDirectory { directory, layout in
            let good = try directory.file(peftConfigFile).content
            for (name, value, text) in [
                ("target_modules", "[\"q_proj\"]", "model.layers.0.self_attn.k_proj is adapted, and adapter_config.json says it is not"),
                ("target_modules", "[\"proj\"]", "model.layers.0.self_attn.q_proj is adapted"),
                ("exclude_modules", "[\"mlp.up_proj\"]", "model.layers.1.mlp.up_proj is adapted"),
                ("layers_to_transform", "[0,1]", "model.layers.2.self_attn.q_proj is adapted"),
                ("layers_to_transform", "0", "model.layers.1.self_attn.q_proj is adapted"),
                ("target_modules", "{\"q\":1}", "malformed: target_modules"),
                ("layers_to_transform", "\"0\"", "malformed: layers_to_transform"),
            ] {
                try edit(directory, [(name, value)])
                refused(directory, layout, text)
                try directory.file(peftConfigFile).write(good)
            }
            try edit(directory, [("target_modules", "\"(([a-z])+)+X\""), ("layers_to_transform", "[0]")])
            _ = try read(directory, layout)  // a pattern is not matched: the tensors say what is adapted
        }
    }

    func testTensorsThatDoNotFit() throws {
        let cases: [(String, (inout [String: Tensor]) -> Void)] = [
            ("holds no tensors", { $0 = [:] }),
            ("\(first) is missing", { [first] in $0[first] = nil }),
            ("'base_model.model.lm_head.lora_A.weight': the bundle adapts no such matrix", {
                $0["base_model.model.lm_head.lora_A.weight"] = ("F32", [1, 1], [0, 0, 0, 0])
            }),
            ("expected F32, F16, BF16, found 'F64'", { [last] in
                $0[last]!.dtype = "F64"
                $0[last]!.bytes += $0[last]!.bytes
            }),
            ("\(last): expected [", { [last] in $0[last]!.shape.reverse() }),
            ("holds NaN or infinite values", { [first] in $0[first]!.bytes.replaceSubrange(8..<12, with: [0, 0, 0xC0, 0x7F]) }),
            ("(and ", { tensors in tensors.keys.filter { $0.contains("lora_A") }.forEach { tensors[$0] = nil } }),
        ]
        for (text, change) in cases {
            try inDirectory { directory, layout in
                try edit(directory, change)
                refused(directory, layout, text)
            }
        }
    }

    func testAnAdapterFileOfAnotherScalingAndPickledWeights() throws {
        try inDirectory { directory, layout in
            let twice = LoraConfig(rank: layout.lora.rank, alpha: 2 * layout.lora.alpha)
            let other = AdapterLayout(twice, layout.matrices, layout.kinds, prefix: layout.prefix)
            try writeAdapter(directory.file("other.safetensors"), other, values(other))
            refused(directory.file("other.safetensors"), layout, "alpha: expected")
            try directory.file("adapter_model.bin").write("pickle")
            _ = try read(directory, layout)  // not looked at
            try FileManager.default.removeItem(at: directory.file(peftModelFile))
            refused(directory, layout, "only pickled weights (adapter_model.bin), which are not read")
            try FileManager.default.removeItem(at: directory.file("adapter_model.bin"))
            refused(directory, layout, "no such file")
        }
    }

    func testChangedBytesAreReadOrRefused() throws {
        try inDirectory { directory, layout in
            for name in [peftConfigFile, peftModelFile] {
                let good = try directory.file(name).content
                for _ in 0..<150 {
                    var bytes = good
                    for _ in 0..<Int.random(in: 1...4) { bytes[Int.random(in: 0..<min(4000, bytes.count))] = .random(in: 0...255) }
                    if Bool.random() { bytes.removeLast(Int.random(in: 0...bytes.count)) }
                    try directory.file(name).write(bytes)
                    do {
                        _ = try read(directory, layout)
                    } catch let error as LcsbError {
                        XCTAssertEqual(error.fault, .adapter)
                        XCTAssertEqual(printable(error.message.unicodeScalars), error.message)
                    }
                }
                try directory.file(name).write(good)
            }
        }
    }
}
