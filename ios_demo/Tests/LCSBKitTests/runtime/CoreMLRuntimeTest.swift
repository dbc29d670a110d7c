#if os(Linux)
import CoreML
import XCTest
@testable import LCSBKit

/// The loop on Core ML's binding, whose functions are the same programs on ONNX Runtime and a head in Swift: the framework is Apple's systems'
/// alone.
final class CoreMLRuntimeTest: XCTestCase {
    override func tearDown() { standInML = nil }

    private func withRunner(
        _ name: String, _ keep: Int = 0, padded: Bool = false, capacity: Int = loadedBytes,
        _ use: (TrainingBundle, StaticML, BlockRunner) throws -> Void
    ) throws {
        try withStaticBundle(name, coremlTarget) { bundle in
            let framework = try StaticML(name, bundle)
            framework.padded = padded
            standInML = framework
            try inScratch { scratch in
                let runtime = try CoreMLRuntime(bundle, .all, compiledIn: scratch.file("models"), capacity: capacity)
                try use(bundle, framework, BlockRunner(bundle, runtime, keep: keep, betweenLayers: { _, _ in }))
            }
        }
    }

    func testTheGoldenTraceHoldsTwoCyclesWithMomentum() throws {
        for (name, keep, padded) in [("tiny", 0, false), ("tiny", 3, true), ("gemma3", 0, true), ("lfm2", 100, false)] {
            try withRunner(name, keep, padded: padded) { bundle, framework, runner in
                XCTAssertFalse(exists(bundle.file(weightsFile)))
                let found = try inScratch { try verify(bundle, runner, scratch: $0) }
                XCTAssertEqual(found.runtime, "coreml")
                if keep == 0 { XCTAssertLessThanOrEqual(found.difference.runLoss, 3e-6, name) }
                XCTAssertEqual(Set(framework.loads).count, framework.loads.count, "each once")
            }
        }
    }

    func testTextsAreThoseOfTheOtherRuntime() throws {
        try withRunner("qwen3_5") { bundle, _, own in
            let adapter = try initialAdapter(bundle)
            let (text, other) = (try own.decoder(adapter), try makeRunner(openBundle("qwen3_5"), threads: 1).decoder(adapter))
            var pairs = [(try text.prefill([5, 6, 7]), try other.prefill([5, 6, 7]))]
            for token in 8...11 { pairs.append((try text.next(token), try other.next(token))) }
            for (found, expected) in pairs {
                let most = expected.map(abs).max()!
                XCTAssertLessThanOrEqual(zip(found, expected).map { abs($0 - $1) }.max()!, 1e-5 * most)
            }
        }
    }

    func testALayersProgramsAreFunctionsOfItsOwnAndResultsLieInTheHostsBuffers() throws {
        try withRunner("tiny") { bundle, framework, runner in
            for _ in 0..<2 { _ = try runner.evaluate(bundle.golden.batches[0], initialAdapter(bundle)) }
            let order = ["embed"] + (0..<8).map { "block_forward_0\($0)" } + ["head_start", "eval_chunk", "eval_end"]
            XCTAssertEqual(framework.calls.map(\.function), order + order)
            XCTAssertEqual(framework.loads, order)
            XCTAssertEqual(framework.units, .all)
            let (first, second) = (framework.calls[..<order.count], framework.calls[order.count...])
            for (before, after) in zip(first, second) {
                for (name, array) in before.inputs where name != "adapter" { XCTAssertIdentical(array, after.inputs[name]) }
                for (name, array) in before.backings { XCTAssertIdentical(array, after.backings[name]) }
            }
            let chunk = framework.calls[order.count - 2].inputs
            XCTAssertEqual(chunk["start"]!.dataType, .int32)
            XCTAssertEqual(Set(chunk.keys), ["x", "peak", "total", "bias", "start"])
            XCTAssertEqual(framework.calls[0].inputs["input_ids"]!.dataType, .int32)
        }
    }

    func testFunctionsThatDoNotFitAreLoadedAgain() throws {
        try withRunner("tiny", capacity: 0) { bundle, framework, runner in
            for _ in 0..<2 { _ = try runner.evaluate(bundle.golden.batches[0], initialAdapter(bundle)) }
            XCTAssertEqual(framework.loads, framework.calls.map(\.function))
        }
    }

    func testABundleIsCompiledOnce() throws {
        try withStaticBundle("llama", coremlTarget) { bundle in
            try inScratch { scratch in
                let framework = try StaticML("llama", bundle)
                standInML = framework
                for _ in 0..<2 { _ = try CoreMLRuntime(bundle, .cpu, compiledIn: scratch.file("a/b")) }
                XCTAssertEqual(framework.compiled, 1)
                XCTAssertEqual(listed(scratch.file("a/b")), ["\(bundle.digest).mlmodelc"])
            }
            let framework = try StaticML("llama", bundle)
            standInML = framework
            removeCompiledModel(bundle.digest)
            _ = try makeRunner(bundle, threads: 1)
            XCTAssertTrue(isDirectory(compiledModel(compiledModels, bundle.digest)))
            removeCompiledModel(bundle.digest)
            XCTAssertFalse(exists(compiledModel(compiledModels, bundle.digest)))
        }
    }

    func testWhatMayCompute() throws {
        try withStaticBundle("llama", coremlTarget) { bundle in
            try inScratch { scratch in
                let framework = try StaticML("llama", bundle)
                standInML = framework
                let expected: [ComputeUnits: MLComputeUnits] = [
                    .cpu: .cpuOnly, .gpu: .cpuAndGPU, .neuralEngine: .cpuAndNeuralEngine, .all: .all,
                ]
                for (compute, units) in expected {
                    let runtime = try CoreMLRuntime(bundle, compute, compiledIn: scratch)
                    let runner = try BlockRunner(bundle, runtime, keep: 0) { _, _ in }
                    _ = try runner.embed(bundle.golden.batches[0])
                    XCTAssertEqual(framework.units, units)
                }
            }
        }
    }

    // Refusals

    private class Changed: StaticML {
        var compiling: () throws -> Void = {}
        var names: ([String]) -> [String] = { $0 }
        var described: (MLModelDescription) -> MLModelDescription = { $0 }
        var loading: () throws -> Void = {}
        var found: ([String: MLMultiArray]) throws -> [String: MLMultiArray] = { $0 }

        override func compile(_ package: URL) throws -> URL {
            try compiling()
            return try super.compile(package)
        }

        override func functionNames(_ compiled: URL) throws -> [String] { names(try super.functionNames(compiled)) }

        override func load(_ compiled: URL, _ function: String?, _ computeUnits: MLComputeUnits) throws -> any StandInFunction {
            if function == "eval_end" { try loading() }
            return try super.load(compiled, function, computeUnits)
        }

        override func description(_ program: String) -> MLModelDescription {
            let own = super.description(program)
            return program == "eval_end" ? described(own) : own
        }

        override func results(_ made: [String: MLMultiArray]) throws -> [String: MLMultiArray] { made["loss"] == nil ? made : try found(made) }
    }

    private func refused(_ fault: Fault, line: UInt = #line, _ change: (Changed) -> Void) throws -> String {
        var message = ""
        try withStaticBundle("llama", coremlTarget) { bundle in
            let framework = try Changed("llama", bundle)
            change(framework)
            standInML = framework
            try inScratch { scratch in
                message = refusal(fault, line: line) {
                    let runtime = try CoreMLRuntime(bundle, .all, compiledIn: scratch)
                    let runner = try BlockRunner(bundle, runtime, keep: 0) { _, _ in }
                    _ = try runner.evaluate(bundle.golden.batches[0], initialAdapter(bundle))
                }
            }
        }
        return message
    }

    private func failure(_ text: String) -> NSError { NSError(domain: "CoreML", code: 1, userInfo: [NSLocalizedDescriptionKey: text]) }

    func testABundleOfAnotherTarget() throws {
        let other = refusal(.bundleOtherTarget) { _ = try CoreMLRuntime(openBundle("llama"), .all) }
        XCTAssertTrue(other.hasSuffix("expected a bundle of target coreml, found onnxruntime; export one with --target coreml"), other)
    }

    func testAPackageThatDoesNotCompileOrHasOtherFunctions() throws {
        let failed = try refused(.runtimeFailed) { $0.compiling = { throw self.failure("no\nprogram") } }
        XCTAssertTrue(failed.hasSuffix("programs.mlpackage: Core ML cannot compile it: no program"), failed)
        let missing = try refused(.bundleUnreadable) { $0.names = { $0.filter { !$0.hasPrefix("block_backward_0") && $0 != "embed" } } }
        XCTAssertTrue(missing.contains("programs.mlpackage: expected the functions block_backward_00, block_backward_01, "), missing)
        let unloaded = try refused(.runtimeFailed) { $0.loading = { throw self.failure("0x14") } }
        XCTAssertTrue(unloaded.contains("programs.mlpackage: eval_end: Core ML cannot load it: 0x14"), unloaded)
    }

    func testFunctionsThatSayOtherThanTheManifest() throws {
        func said(_ loss: MLMultiArrayConstraint?) throws -> String {
            try refused(.bundleUnreadable) { framework in
                framework.described = { MLModelDescription(standIn: $0.inputDescriptionsByName, ["loss": MLFeatureDescription(standIn: loss)]) }
            }
        }
        let shaped = try said(MLMultiArrayConstraint(standIn: [2], .float32))
        let expected = "eval_end: other than the manifest says: outputs: 'loss': expected float32 [1], found float32 [2]; export"
        XCTAssertTrue(shaped.contains(expected), shaped)
        XCTAssertTrue(try said(MLMultiArrayConstraint(standIn: [1], .double)).contains("expected float32 [1], found type 65600 [1]"))
        XCTAssertTrue(try said(nil).contains("expected float32 [1], found no array []"))
    }

    func testFunctionsThatFailOrReturnSomethingElse() throws {
        let failed = try refused(.runtimeFailed) { $0.found = { _ in throw self.failure("0x12") } }
        XCTAssertTrue(failed.contains("programs.mlpackage: eval_end: Core ML cannot run it: 0x12"), failed)
        XCTAssertTrue(try refused(.bundleUnreadable) { $0.found = { _ in [:] } }.contains("programs.mlpackage: has no result 'loss'"))
        let memory = try Bytes(count: 64)
        let wide = try MLMultiArray(dataPointer: memory.pointer, shape: [2], dataType: .float32, strides: [1])
        let other = try refused(.bundleUnreadable) { $0.found = { _ in ["loss": wide] } }
        XCTAssertTrue(other.contains("the result 'loss' is other than the manifest says"), other)
    }

    func testWhoNeedsTheFileOfWeights() throws {
        try withStaticBundle("llama", coremlTarget) { bundle in
            let refused = refusal(.bundleOtherTarget) { _ = try bundle.weights }
            XCTAssertTrue(refused.hasSuffix("expected a bundle with weights.bin, found one of target coreml; export one with --target onnxruntime"))
        }
    }
}
#endif
