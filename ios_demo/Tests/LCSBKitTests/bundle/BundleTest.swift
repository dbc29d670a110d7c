import Foundation
import XCTest
@testable import LCSBKit

/// A bundle's files, programs and trace, when somebody else changed them.
final class BundleTest: XCTestCase {
    private struct Cancelled: Error {}

    private func edit(_ bundle: URL, _ change: (inout Entries<Json>) -> Void) throws {
        let manifest = try Json(content: bundle.file(manifestFile).content)
        var files = Entries(manifest.at("files").object!)
        change(&files)
        try bundle.file(manifestFile).write(manifest.put("files", .object(files.map { $0 })).put("digest", nil).text)
    }

    /// Writes a file of the bundle and what the manifest states of it: a manifest has no signature.
    private func replace(_ bundle: URL, _ name: String, _ content: [UInt8]) throws {
        try bundle.file(name).write(content)
        try edit(bundle) { $0[name] = Json(record: FileEntry(size: content.count, sha256: sha256(content))) }
    }

    private func link(_ file: URL, to path: String) throws {
        try FileManager.default.createSymbolicLink(atPath: file.path, withDestinationPath: path)
    }

    private func check(
        _ bundle: URL, _ expected: String, _ fault: Fault = .bundleUnreadable, _ about: String = "", file: StaticString = #filePath,
        line: UInt = #line
    ) {
        let message = refusal(fault, file: file, line: line) { _ = try TrainingBundle.open(bundle) }
        XCTAssert(message.contains(expected), "\(about): \(expected): \(message)", file: file, line: line)
    }

    func testAManifestsOwnDigestIsChecked() throws {
        try inCopy { bundle in
            let path = bundle.file(manifestFile)
            let manifest = try Json(content: path.content)
            func digested(_ digest: String) -> String { manifest.put("digest", .string(digest)).text }
            let text = digested(sha256(Array(digested(String(repeating: "0", count: 64)).utf8)))
            try path.write(text)
            XCTAssertEqual(try TrainingBundle.open(bundle).manifest.digest?.count, 64)
            try path.write(manifest.put("digest", .string(sha256([]))).text)
            check(bundle, "manifest.json: expected SHA-256 ", .bundleDamaged)
        }
    }

    func testEveryBundleOpensWithProgressToTheLastByte() throws {
        XCTAssertGreaterThan(TestBundles.directories.count, 1)
        for directory in TestBundles.directories {
            var last = (done: 0, total: 1)
            let bundle = try TrainingBundle.open(directory) { done, total in
                XCTAssertGreaterThan(done, last.done)
                last = (done, total)
            }
            XCTAssertEqual(last.done, last.total)
            XCTAssertEqual(bundle.manifest.files.values.reduce(0) { $0 + $1.size }, last.total)
            XCTAssertEqual(try sha256(directory.file(manifestFile)), bundle.digest)
            XCTAssert(try initialAdapter(bundle).array.contains { $0 != 0 })
            XCTAssert(try !bundle.golden.run.isEmpty && bundle.sampleBatch!.countedLabels > 0)
            XCTAssertFalse(try bundle.tokenizer.encode("two boats").isEmpty)
        }
    }

    func testOpeningCanBeCancelled() throws {
        let directory = try openBundle("llama").directory
        XCTAssertThrowsError(try TrainingBundle.open(directory) { _, _ in throw Cancelled() }) { XCTAssert($0 is Cancelled) }
    }

    func testNoBundle() throws {
        try inScratch { scratch in
            check(scratch, "manifest.json cannot be read (no such file)")
            check(scratch.file("absent"), "manifest.json cannot be read (no such file)")
            try FileManager.default.createDirectory(at: scratch.file(manifestFile), withIntermediateDirectories: false)
            check(scratch, "manifest.json cannot be read (not a regular file)")
        }
    }

    func testAChangedByteATruncatedFile() throws {
        try inCopy { bundle in
            let weights = bundle.file(weightsFile)
            let content = try weights.content
            var changed = content
            changed[5000] &+= 1
            try weights.write(changed)
            check(bundle, "changed since it was exported: weights.bin: expected SHA-256 ", .bundleDamaged)
            try weights.write(content.dropLast())
            check(bundle, "weights.bin: expected \(content.count) bytes, found \(content.count - 1)", .bundleDamaged)
        }
    }

    func testNames() throws {
        try inCopy { bundle in
            let manifest = try bundle.file(manifestFile).content
            func with(_ expected: String, _ about: String, _ change: (inout Entries<Json>) -> Void) throws {
                try edit(bundle, change)
                check(bundle, expected, .bundleUnreadable, about)
                try bundle.file(manifestFile).write(manifest)
            }
            let outside = ["../x", "/x", "a/../x", "", "a\\b", "a//b", "./x", "a/", ".x", "a.", "C:x", "a b", "a/.b"]
            for name in outside + ["é", "a/\u{301}b", "to\u{212A}en", String(repeating: "x", count: 201)] {
                try with("which is outside the bundle or not a name on every system", name) { $0[name] = $0["gemm.onnx"] }
            }
            for name in ["Weights.bin", "MANIFEST.json", "manifest.json"] {
                try with("the manifest lists ", name) { $0[name] = $0["gemm.onnx"] }
            }
            try with("files, more than 1000", "many") { files in for number in 0..<1000 { files["f\(number)"] = files["gemm.onnx"] } }
        }
    }

    func testFilesThatAreReadAreListedAndThere() throws {
        try inCopy { bundle in
            let manifest = try bundle.file(manifestFile).content
            for name in [adapterFile, goldenFile, "tokenizer.json", "tokenizer_config.json", "embed.onnx"] {
                try edit(bundle) { $0[name] = nil }
                check(bundle, "the manifest lists no \(name); export the bundle again")
                try bundle.file(manifestFile).write(manifest)
            }
            for name in ["chat.json", "chat_template.jinja"] where try !openBundle("llama").manifest.files.contains(name) {
                try link(bundle.file(name), to: "/etc/passwd")
                check(bundle, "\(name) is not listed in the manifest; remove it")
                try FileManager.default.removeItem(at: bundle.file(name))
            }
            try FileManager.default.removeItem(at: bundle.file("embed.onnx"))
            check(bundle, "embed.onnx is missing; copy the bundle again, whole")
        }
    }

    func testLinksThatLeadOutside() throws {
        for name in [weightsFile, manifestFile] {
            try inCopy { bundle in
                let outside = bundle.deletingLastPathComponent().file(name)
                try move(bundle.file(name), to: outside)
                try link(bundle.file(name), to: outside.path)
                check(bundle, "\(name) is a link that leads outside the bundle")
                try FileManager.default.removeItem(at: bundle.file(name))
                try link(bundle.file(name), to: name)
                check(bundle, "\(name) is a link that leads outside the bundle")
            }
        }
        // A directory of which the bundle's is the beginning of its name is outside, too.
        try inCopy { bundle in
            let outside = URL(fileURLWithPath: bundle.path + "-other")
            try FileManager.default.createDirectory(at: outside, withIntermediateDirectories: false)
            try move(bundle.file(weightsFile), to: outside.file(weightsFile))
            try link(bundle.file(weightsFile), to: outside.file(weightsFile).path)
            check(bundle, "weights.bin is a link that leads outside the bundle")
        }
        try inCopy { bundle in
            try FileManager.default.createDirectory(at: bundle.file("there"), withIntermediateDirectories: false)
            try move(bundle.file(weightsFile), to: bundle.file("there/weights.bin"))
            try link(bundle.file(weightsFile), to: "there/weights.bin")
            _ = try TrainingBundle.open(bundle)
        }
    }

    func testSizes() throws {
        try inCopy { bundle in
            let manifest = try bundle.file(manifestFile).content
            let sizes = [(goldenFile, 0, traceBytes), ("gemm.onnx", 0, programBytes), ("tokenizer.json", 0, 64 << 20)]
            for (name, least, most) in sizes {
                try edit(bundle) { $0[name] = $0[name]!.put("size", .number("\(most + 1)")) }
                check(bundle, "\(name): expected \(least) to \(most) bytes, found \(most + 1)")
                try bundle.file(manifestFile).write(manifest)
            }
            let state = try 4 * openBundle("llama").manifest.adapter.size
            try edit(bundle) { $0[adapterFile] = $0[adapterFile]!.put("size", .number("100")) }
            check(bundle, "\(adapterFile): expected \(state) to ")
        }
    }

    func testAGoldenTraceOfAnotherModel() throws {
        try inCopy { bundle in
            let golden = try Json(content: bundle.file(goldenFile).content)
            let ids = golden.at("batches.0.input_ids").array!
            let norms = golden.at("steps.0.gradient_norms").array!
            let ignored = Json.array([Json](repeating: .number("-100"), count: 31))
            let cases: [(String, Json, String)] = [
                ("batches.0.input_ids", .array([.number("1")] + ids), "batch 0: input_ids: expected 31 numbers, found 32"),
                ("batches.0.input_ids.0", .number("131"), "batch 0: input_ids: expected 0 to 130, found"),
                ("batches.0.position_ids.0", .number("31"), "batch 0: position_ids: expected 0 to 30, found"),
                ("batches.0.segment_ids.0", .number("-100"), "batch 0: segment_ids: expected 0 to 30, found -100"),
                ("steps.0.batch", .number("9"), "step 0: expected one of "),
                ("steps.0.subset.train.0", .number("7"), "step 0: train: expected ascending layers from 0 to 2"),
                ("step_tolerance", .number("0.5"), "step_tolerance: expected 0 to 0.05, found 0.5"),
                ("learning_rate", .number("2"), "learning_rate: expected more than 0"),
                ("steps.0.gradient_norms", .array([.number("1")] + norms), "step 0: expected the norms of 3 layers, found"),
                ("batches.0.labels", ignored, "batch 0: labels: none is counted"),
                ("steps.0.loss", .string("x"), "not a readable golden trace (the trace.steps[0].loss: expected a number, found 'x')"),
                ("other", .null, "not a readable golden trace (the trace: unknown field 'other')"),
            ]
            for (path, value, expected) in cases {
                try replace(bundle, goldenFile, Array(golden.put(path, value).text.utf8))
                check(bundle, expected)
            }
            try replace(bundle, goldenFile, Array("{".utf8))
            check(bundle, "not a readable golden trace (")
        }
    }

    // The initial adapter

    func testAnAdapterThatIsNone() throws {
        try inScratch { scratch in
            let file = scratch.file("adapter")
            let layout = try openBundle("llama").manifest.adapter
            let content = try openBundle("llama").file(adapterFile).content
            let length = Int(content[0]) + 256 * Int(content[1])
            let header = String(decoding: content[8..<8 + length], as: UTF8.self)
            let into = try Floats(count: layout.size)
            func changed(_ old: String, _ new: String) -> [UInt8] {
                let place = header.range(of: old)!
                let text = header.replacingCharacters(in: place, with: new)
                precondition(text != header && text.utf8.count == length)
                return content[..<8] + Array(text.utf8) + content[(8 + length)...]
            }
            var spoiled = content
            spoiled[8] = UInt8(ascii: "x")
            let cases: [([UInt8], String)] = [
                ([0, 0, 0, 0], "not a safetensors file, or a truncated one: of 4 bytes its header is said to have -1"),
                (Array(content.prefix(100)), "not a safetensors file, or a truncated one"),
                (content.dropLast(4), "damaged or truncated: not within the file as its header says: "),
                (spoiled, "not a safetensors file, or a damaged one"),
                (changed("layers.0.", "layers.9."), " is missing; "),
                (changed("layers.0.", "layers.9."), " is unknown"),
                (changed("\"F32\"", "\"I32\""), "expected F32, found I32"),
                (changed("\"rank\":\"4\"", "\"rank\":\"8\""), "rank: expected 4, found 8"),
                (content.dropLast(4) + [255, 255, 255, 255], "holds NaN or infinite values"),
            ]
            for (bytes, expected) in cases {
                try file.write(bytes)
                let message = refusal(.adapter) { try readAdapter(file, layout, into) }
                XCTAssert(message.contains(expected), "\(expected): \(message)")
            }
            try file.write(content)
            try readAdapter(file, layout, into)
            XCTAssertEqual(try initialAdapter(openBundle("llama")).array, into.array)
        }
    }

    // Weights

    private func weight(_ name: String, _ size: Int, at offset: Int) -> WeightTensor {
        WeightTensor(name: name, dtype: "uint8", shape: [size], offset: offset)
    }

    func testWeightsHaveRoomAfterThemAtTheFilesEndToo() throws {
        try inScratch { scratch in
            let page = Int(sysconf(Int32(_SC_PAGESIZE)))
            for (size, copied) in [(2 * page + 4, false), (2 * page + page - 16, false), (2 * page + page - 4, true), (3 * page, true)] {
                let content = (0..<size).map { UInt8($0 % 251) }
                let file = scratch.file("\(size)")
                try file.write(content)
                let table = [weight("a", page, at: 0), weight("b", size - 2 * page, at: 2 * page)]
                let mapped = try MappedWeights(file, table)
                for tensor in table {
                    XCTAssertEqual(Array(mapped.bytes(tensor.name, 0).raw), Array(content[tensor.offset..<tensor.offset + tensor.nbytes]))
                }
                // In place where the mapping's last page has the room, else with the room that every allocation has.
                XCTAssertEqual(mapped.bytes("b", 0).pointer != mapped.bytes("a", 0).pointer + 2 * page, copied, "\(size)")
            }
        }
    }

    func testWeightsBeyondFourGigabytesAreMapped() throws {
        try inScratch { scratch in
            let file = scratch.file("large")
            let start = 5 << 30
            let opened = try OpenFile(file, O_RDWR | O_CREAT)
            XCTAssertEqual(ftruncate(opened.descriptor, off_t(start)), 0)  // a hole
            XCTAssertEqual(lseek(opened.descriptor, off_t(start), SEEK_SET), off_t(start))
            try [UInt8](1...12).withUnsafeBytes(opened.write)
            let stack = WeightTensor(name: "layers.block.x", dtype: "float16", shape: [3, 1, 2], offset: start)
            let mapped = try MappedWeights(file, [weight("whole", start, at: 0), stack])
            XCTAssertEqual(mapped.bytes("whole", 0).count, start)
            XCTAssertEqual(Array(mapped.bytes("layers.block.x", 2).raw), [9, 10, 11, 12])
            XCTAssertEqual(mapped.shape("layers.block.x"), [1, 2])
            mapped.readAhead("block", 1)
        }
    }

    func testWeightsThatTheFileDoesNotHave() throws {
        try inScratch { scratch in
            let file = scratch.file("short")
            try file.write([UInt8](repeating: 0, count: 10))
            let message = refusal(.bundleUnreadable) { _ = try MappedWeights(file, [weight("a", 11, at: 0)]) }
            XCTAssertEqual(message, "\(file.path): cannot be mapped: it ends at 10, 'a' at 11")
            refusal(.bundleUnreadable) { _ = try MappedWeights(scratch.file("absent"), []) }
        }
    }

    func testEveryLayersWeightsAreSlicesOfTheirStack() throws {
        for name in ["llama", "qwen3_5"] {
            let bundle = try openBundle(name)
            let content = try bundle.file(weightsFile).content
            for tensor in bundle.manifest.weights {
                let count = tensor.perLayer ? tensor.shape[0] : 1
                let size = tensor.nbytes / count
                for number in 0..<count {
                    let start = tensor.offset + number * size
                    XCTAssert(try bundle.weights.bytes(tensor.name, number).raw.elementsEqual(content[start..<start + size]), tensor.name)
                }
            }
            for layer in bundle.manifest.layers { try bundle.weights.readAhead(layer.kind, layer.number) }
        }
    }

    // Programs

    /// A graph whose tensor has its data elsewhere. Protobuf merges a field that stands twice, so a program of its own is written.
    private func program(_ location: String, _ more: (String, String)...) -> [UInt8] {
        let entries = ([("location", location)] + more).flatMap { field(13, field(1, $0.0) + field(2, $0.1)) }
        return field(7, field(5, field(8, "added") + field(14, 1) + entries))
    }

    func testEveryProgramOfABundleIsRead() throws {
        for directory in TestBundles.directories {
            let manifest = try openBundle(directory.lastPathComponent).manifest
            for graph in manifest.graphs.values where graph.file.hasSuffix(".onnx") {
                let size = fileSize(directory.file(weightsFile))
                try checkExternalData(directory.file(graph.file), weightsFile, size, graph.initializers.map(\.name))
            }
        }
        let external = try TestBundles.directories.flatMap { directory in
            try listed(directory).filter { $0.hasSuffix(".onnx") }.flatMap { try externalTensors(directory.file($0)) }
        }
        XCTAssert(external.contains { $0.entries["location"] == weightsFile }, "no bundle has a program with constants")
    }

    /// What running a bundle's programs says, opened as it is.
    private func evaluated(_ bundle: URL, _ fault: Fault) throws -> String {
        let opened = try TrainingBundle.open(bundle)
        return try evaluated(opened, fault)
    }

    private func evaluated(_ opened: TrainingBundle, _ fault: Fault) throws -> String {
        let (batch, adapter) = (try opened.golden.batches[0], try initialAdapter(opened))
        return refusal(fault) { _ = try makeRunner(opened, threads: 1).evaluate(batch, adapter) }
    }

    func testARunnerIsGivenNoDataOutsideTheBundle() throws {
        try inCopy { bundle in
            for location in ["../secret", "/etc/passwd", "*/_ORT_MEM_ADDR_/*"] {
                try replace(bundle, "embed.onnx", program(location))
                let message = try evaluated(bundle, .bundleUnreadable)
                XCTAssert(message.contains("embed.onnx: 'added' has its data in '\(location)', expected 'weights.bin'"), message)
            }
            try replace(bundle, "embed.onnx", program(weightsFile))
            let message = try evaluated(bundle, .bundleUnreadable)
            XCTAssert(message.contains("'added' has its data outside the program, expected no tensor to have"), message)
        }
    }

    func testProgramsThatTheRuntimeDoesNotTake() throws {
        try inCopy { bundle in
            let opened = try TrainingBundle.open(bundle)
            func check(_ content: [UInt8], _ expected: String, _ fault: Fault) throws {
                try bundle.file("embed.onnx").write(content)
                let message = try evaluated(opened, fault)
                XCTAssert(message.contains(expected), "\(expected): \(message)")
            }
            try check(Array("not a model".utf8), "embed.onnx: not an ONNX file as exporters write them", .bundleUnreadable)
            try check([], "embed.onnx: onnxruntime 1.", .runtimeFailed)
            try check([], " cannot load it: ", .runtimeFailed)
            let other = "embed.onnx: other than the manifest says: inputs: 'input_ids': expected int64 [31], found none"
            try check(bundle.file("logits.onnx").content, other, .bundleUnreadable)
        }
    }

    func testDataOutsideTheBundle() throws {
        try inScratch { scratch in
            let file = scratch.file("embed.onnx")
            func refused(_ content: [UInt8], _ expected: String, _ names: [String] = ["added"]) throws {
                try file.write(content)
                let message = refusal(.bundleUnreadable) { try checkExternalData(file, weightsFile, 100, names) }
                XCTAssert(message.contains(expected), "\(expected): \(message)")
            }
            for location in ["../secret", "/etc/passwd", "*/_ORT_MEM_ADDR_/*"] {
                try refused(program(location), "embed.onnx: 'added' has its data in '\(location)', expected 'weights.bin'")
            }
            try refused(program(weightsFile), "'added' has its data outside the program, expected no tensor to have", [])
            try file.write(program(weightsFile, ("offset", "90"), ("length", "10")))
            try checkExternalData(file, weightsFile, 100, ["added"])
            let beyond = program(weightsFile, ("offset", "90"), ("length", "11"))
            try refused(beyond, "expected its data within 100 bytes, found '11' bytes from '90'")
            try refused(program(weightsFile, ("offset", "-1")), "found '0' bytes from '-1'")
            try refused(program(weightsFile, ("offset", String(repeating: "9", count: 19))), "bytes from '9999999999999999999'")
            try refused(program(weightsFile, ("evil", "1")), "no keys but location, offset, length, checksum")
            try refused(program(weightsFile, ("location", "x")), "the tensor 'added' has a key twice")
            try refused(program(weightsFile) + program(weightsFile), "field 7 of model stands twice")
            try refused([0x3A, 0x7F], "a field of 127 bytes where 0 are left")
            try refused([0x3A] + varint(-1), "a field of 18446744073709551615 bytes where 0 are left")
            try refused([0x3B], "wire type 3")
            try refused([0], "field number 0")
            try refused([UInt8](repeating: 0xFF, count: 12), "a number that does not end")
            try refused(field(7, field(5, field(8, [0xFF]))), "not UTF-8")
            var nested: [UInt8] = []
            for _ in 0..<120 { nested = field(1, field(5, field(6, nested))) }  // graph: node: attribute: graph …
            try refused(field(7, nested), "more than 100 messages within each other")
            try refused([8, 1] + (0..<400_010).map { $0 % 2 == 0 ? 8 : 1 }, "more than 200000 fields")
        }
    }
}
