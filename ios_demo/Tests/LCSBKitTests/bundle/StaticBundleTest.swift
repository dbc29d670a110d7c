#if os(Linux)
import XCTest
@testable import LCSBKit

/// Bundles of targets coreai and coreml open, and what no export of them writes is refused.
final class StaticBundleTest: XCTestCase {
    private func refused(_ target: String, line: UInt = #line, _ change: (inout Manifest) -> Void) throws -> String {
        try inScratch { scratch in
            try writeStaticBundle(openBundle("llama"), target, scratch, change)
            return refusal(.bundleUnreadable, line: line) { _ = try TrainingBundle.open(scratch) }
        }
    }

    private func index(_ manifest: Manifest, _ program: String, _ name: String) -> Int {
        manifest.graphs[program]!.inputs.firstIndex { $0.name == name }!
    }

    func testTheyOpenAndArePlanned() throws {
        for target in [coreaiTarget, coremlTarget] {
            for name in ["llama", "lfm2", "qwen2-untied-int4-head"] {
                try withStaticBundle(name, target) { bundle in
                    let (manifest, other) = (bundle.manifest, try openBundle(name).manifest)
                    let plan = try planRun(manifest, manifest.schedule, base: 0, budget: nil, keep: nil)
                    let found = try peakTerms(manifest, manifest.schedule, keep: 0, accumulation: 1)
                    let expected = try peakTerms(other, other.schedule, keep: 0, accumulation: 1)
                    let whole = try runTerms(manifest, manifest.schedule, keep: 0, accumulation: 1, samples: false)
                    XCTAssertEqual(plan.predictedPeakBytes, whole.values.reduce(0, +))
                    let texts = try runTerms(manifest, manifest.schedule, keep: 0, accumulation: 1, samples: true)
                    XCTAssertGreaterThanOrEqual(texts["beside the steps"]!, whole["beside the steps"]!)
                    let (t, d, rows) = (manifest.seqLen, manifest.model.hiddenSize, chunkRows(manifest.model))
                    XCTAssertEqual(found["other buffers"], expected["other buffers"]! + 4 * (4 * t * d + 5 * t + rows))
                    XCTAssertEqual(found["working set"], 0, "each function holds on to its own")
                    for term in ["saved layer inputs", "gradients", "crossing values"] { XCTAssertEqual(found[term], expected[term]) }
                    XCTAssertEqual(try stepCost(manifest, manifest.schedule[0]).flops, try stepCost(other, other.schedule[0]).flops)
                }
            }
        }
    }

    func testFunctionsAreKeptLoadedUpToABound() throws {
        try withStaticBundle("llama", coremlTarget) { bundle in
            func sessions(_ bytes: Int) throws -> Int {
                var manifest = bundle.manifest
                for name in manifest.graphs.keys { (manifest.graphs[name]!.workingBytes, manifest.graphs[name]!.initializers) = (bytes, []) }
                return try peakTerms(manifest, [fullSubset(manifest)], keep: 0, accumulation: 1)["sessions"]!
            }
            let layers = bundle.manifest.model.numHiddenLayers
            let functions = 2 * layers + 2 + 5  // embed, the update and the head's
            XCTAssertEqual(try sessions(1000), functions * 1000)
            XCTAssertEqual(try sessions(100 << 20), loadedBytes)
            XCTAssertEqual(try sessions(1000 << 20), 1000 << 20, "the one at work")
        }
    }

    func testIntegersAndScalars() throws {
        let tokens = try refused(coreaiTarget) { $0.graphs["embed"]!.inputs[index($0, "embed", "input_ids")].dtype = "int64" }
        XCTAssertTrue(tokens.contains("graphs.embed: inputs: 'input_ids': expected int32 ["), tokens)
        let rate = try refused(coremlTarget) { $0.graphs["block_adamw"]!.inputs[index($0, "block_adamw", "rate")].shape = [] }
        XCTAssertTrue(rate.contains("graphs.block_adamw: inputs: 'rate': expected float32 [1], found float32 []"), rate)
        let free = try refused(coreaiTarget) { $0.graphs["block_adamw"]!.inputs[0].shape = [anySize] }
        XCTAssertTrue(free.contains("expected a dtype and positive dimensions, found 'float32' [-1]"), free)
    }

    func testProgramsThatAreMissingOrAnotherTargets() throws {
        let missing = try refused(coreaiTarget) { $0.graphs = $0.graphs.only { $0 != "head_chunk" && $0 != "block_adamw" } }
        XCTAssertTrue(missing.contains("graphs: block_adamw, head_chunk missing"), missing)
        let other = try refused(coreaiTarget) { $0.graphs = $0.graphs.mapValues { $0 }; $0.graphs["embed"]!.file = "embed.onnx" }
        XCTAssertTrue(other.contains("graphs.embed: expected the file programs.aimodel/main.mlirb, found 'embed.onnx'"), other)
        let called = try refused(coreaiTarget) { manifest in
            manifest.kinds[0].name = "head"
            for at in manifest.layers.indices { manifest.layers[at].kind = "head" }
            manifest.graphs["head_start"] = nil
        }
        XCTAssertTrue(called.contains("graphs: ") || called.contains("weights: "), called)
    }

    func testTheRowsOfAChunk() throws {
        let whole = try refused(coreaiTarget) { $0.graphs["eval_chunk"]!.inputs[index($0, "eval_chunk", "packed")].shape[0] -= 1 }
        XCTAssertTrue(whole.contains("'embed_tokens.weight.packed' as: 'packed': expected int8 ["), whole)
        let bias = try refused(coreaiTarget) { $0.graphs["head_chunk"]!.inputs[index($0, "head_chunk", "bias")].shape = [1, 7] }
        XCTAssertTrue(bias.contains("graphs.head_chunk: inputs: 'bias': expected float32 [1, "), bias)
        let start = try refused(coremlTarget) { $0.graphs["head_chunk"]!.inputs.removeAll { $0.name == "start" } }
        XCTAssertTrue(start.contains("graphs.head_chunk: inputs: 'start': expected int32 [1], found none"), start)
    }

    func testWeightsAreFedOrHeld() throws {
        let fed = try refused(coremlTarget) { manifest in
            let weight = manifest.graphs["head_end"]!.initializers.removeFirst()
            manifest.graphs["head_end"]!.inputs.append(weight)
        }
        XCTAssertTrue(fed.contains("graphs.head_end: 'weight': expected no weight to feed, since the programs hold them"), fed)
        let held = try refused(coreaiTarget) { manifest in
            let weight = manifest.graphs["head_end"]!.inputs.removeLast()
            manifest.graphs["head_end"]!.initializers.append(weight)
        }
        XCTAssertTrue(held.contains("graphs.head_end: 'weight': expected the layers' weight that it is"), held)
        let none = try refused(coremlTarget) { $0.graphs["head_end"]!.initializers[0].weight = nil }
        XCTAssertTrue(none.contains("graphs.head_end: 'weight': expected the weight that it is"), none)
    }

    func testTheAssetsFilesAreListedAndNoOthersAreThere() throws {
        for (target, file) in [(coreaiTarget, "programs.aimodel/main.hash"), (coremlTarget, "programs.mlpackage/Manifest.json")] {
            let message = try refused(target) { $0.files[file] = nil }
            XCTAssertTrue(message.contains("the manifest lists no \(file); export the bundle again"), message)
        }
        let weights = try refused(coreaiTarget) { $0.files[weightsFile] = nil }
        XCTAssertTrue(weights.contains("the tensors end at byte "), weights)
        for (name, said) in [("more.bin", "programs.aimodel/more.bin"), ("a b/c", "'programs.aimodel/a b/c'"), ("link", "programs.aimodel/link")] {
            try inScratch { scratch in
                try writeStaticBundle(openBundle("llama"), coreaiTarget, scratch)
                let file = scratch.file("programs.aimodel/\(name)")
                try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
                if name == "link" {
                    try FileManager.default.createSymbolicLink(atPath: file.path, withDestinationPath: "/tmp")
                } else {
                    try file.write("x")
                }
                let message = refusal(.bundleUnreadable) { _ = try TrainingBundle.open(scratch) }
                XCTAssertTrue(message.contains("\(said) is not listed in the manifest; remove it"), message)
            }
        }
    }
}
#endif
