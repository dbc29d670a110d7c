#if os(Linux)
import ExecuTorch
import XCTest
@testable import LCSBExecuTorch
@_spi(ExecuTorch) @testable import LCSBKit

/// The loop on the binding of ExecuTorch, whose methods are the same programs on ONNX Runtime: the library is Apple's systems' alone.
final class ExecuTorchStepRunnerTest: XCTestCase {
    private struct Cancelled: Error {}

    private struct Found: Equatable {
        let loss: Float
        let gradients: [Int: [Float]]

        init(_ result: StepResult) { (loss, gradients) = (result.loss, result.gradients.mapValues(\.array)) }
    }

    private func withBundle(_ name: String, _ use: (TrainingBundle) throws -> Void) throws {
        try inScratch { scratch in
            try writeExecuTorchBundle(openBundle(name), scratch)
            try use(TrainingBundle.open(scratch))
        }
    }

    private func runner(
        _ bundle: TrainingBundle, _ module: Module, _ keep: Int = 0, _ between: @escaping BetweenLayers = { _, _ in }
    ) throws -> BlockRunner {
        try BlockRunner(bundle, ExecuTorchRuntime(bundle) { _ in try ExecuTorchFile(module) }, keep: keep, betweenLayers: between)
    }

    // The golden trace, and ONNX Runtime's own bits

    func testTheGoldenTraceHoldsTwoCyclesWithMomentum() throws {
        for (name, keep) in [("tiny", 0), ("tiny", 3), ("gemma3", 100), ("lfm2", 0), ("qwen3_5", 2)] {
            try withBundle(name) { bundle in
                let module = try OnnxModule(openBundle(name))
                let runner = try runner(bundle, module, keep)
                let found = try inScratch { try verify(bundle, runner, scratch: $0) }
                XCTAssertEqual(found.runtime, "executorch")
                // Far tighter than the trace's own tolerance, which is for what is kept in float16
                if keep == 0 { XCTAssertLessThanOrEqual(found.difference.runLoss, 3e-6, name) }
                XCTAssertEqual(module.verification, .internalConsistency)
                XCTAssertEqual(Set(module.loaded).count, module.loaded.count, "each once")
            }
        }
    }

    func testStepsEvaluationsAndTextsAreThoseOfTheOtherBinding() throws {
        for (name, keep) in [("tiny", 0), ("gemma3-untied-int8", 100), ("lfm2", 2)] {
            try withBundle(name) { bundle in
                let others = try makeRunner(openBundle(name), threads: 1, keep: keep)
                let own = try runner(bundle, OnnxModule(openBundle(name)), keep)
                let (adapter, batch) = (try initialAdapter(bundle), try bundle.golden.batches[0])
                for step in try bundle.golden.steps {
                    XCTAssertEqual(Found(try own.step(step.subset, batch, adapter)), Found(try others.step(step.subset, batch, adapter)))
                }
                XCTAssertEqual(try own.evaluate(batch, adapter), try others.evaluate(batch, adapter))
                let (text, other) = (try own.decoder(adapter), try others.decoder(adapter))
                XCTAssertEqual(try text.prefill([5, 6, 7]), try other.prefill([5, 6, 7]))
                for token in 8...11 { XCTAssertEqual(try text.next(token), try other.next(token)) }
            }
        }
    }

    // Values

    func testWeightsAreFedWhereTheyAreMappedAndMadeIntoValuesOnce() throws {
        try withBundle("lfm2") { bundle in
            let module = try OnnxModule(openBundle("lfm2"))
            let runner = try runner(bundle, module)
            for _ in 0..<2 { _ = try runner.evaluate(bundle.golden.batches[0], initialAdapter(bundle)) }
            let half = module.calls.count / 2
            let order = ["embed"] + bundle.manifest.layers.map { "\($0.kind)_forward" } + ["head_eval"]
            XCTAssertEqual(module.calls.map(\.method), order + order)
            for (at, (before, after)) in zip(module.calls, module.calls[half...]).enumerated() {
                let inputs = bundle.manifest.graphs[before.method]!.inputs
                XCTAssertEqual(before.inputs.count, inputs.count)
                for (place, x) in inputs.enumerated() {
                    let tensor = before.inputs[place].anyTensor!
                    if x.name != "adapter" { XCTAssertIdentical(before.inputs[place], after.inputs[place]) }
                    if let weight = x.weight {
                        let number = (1..<half - 1).contains(at) ? bundle.manifest.layers[at - 1].number : 0
                        let mapped = try bundle.weights.bytes(weight, number)
                        tensor.bytes { pointer, _, _ in XCTAssertEqual(pointer, UnsafeRawPointer(mapped.pointer), weight) }
                        XCTAssertEqual(tensor.shape, try bundle.weights.shape(weight))
                    } else {
                        XCTAssertEqual(tensor.shape, x.shape)
                    }
                }
            }
        }
    }

    func testADtypeThatTheLibraryIsNotGiven() throws {
        let (file, memory) = (try ExecuTorchFile(OnnxModule(openBundle("llama"))), try Bytes(count: 1))
        assertRefused(.bundleUnreadable, "executorch takes no bool; export the bundle again") {
            _ = try file.value(("bool", [1]), memory.pointer)
        }
    }

    func testAStepCanBeCancelledAndLeavesNothingChanged() throws {
        try withBundle("llama") { bundle in
            var left = Int.max
            let runner = try runner(bundle, OnnxModule(openBundle("llama")), 0) { _, _ in
                left -= 1
                if left < 0 { throw Cancelled() }
            }
            let (batch, adapter) = (try bundle.golden.batches[0], try initialAdapter(bundle))
            let subset = Subset(train: [1], propagate: [1])
            let expected = Found(try runner.step(subset, batch, adapter))
            for calls in 0...bundle.manifest.model.numHiddenLayers + 1 {
                left = calls
                XCTAssertThrowsError(try runner.step(subset, batch, adapter)) { XCTAssertTrue($0 is Cancelled) }
                left = Int.max
                XCTAssertEqual(Found(try runner.step(subset, batch, adapter)), expected)
            }
            XCTAssertEqual(adapter.array, try initialAdapter(bundle).array)
        }
    }

    // Refusals

    func testARunnerOfTheOtherTarget() throws {
        let other = refusal(.bundleOtherTarget) { _ = try runner(openBundle("llama"), OnnxModule(openBundle("llama"))) }
        let expected = "expected a bundle of target executorch, found onnxruntime; export one with --target executorch"
        XCTAssertTrue(other.hasSuffix(expected), other)
    }

    func testAnAppWithAndWithoutTheLibrary() throws {
        try withBundle("llama") { bundle in
            let absent = refusal(.runtimeNotIncluded) { _ = try makeRunner(bundle, threads: 1) }
            XCTAssertTrue(absent.hasPrefix("this app is built without ExecuTorch, which bundles of target executorch need; add "), absent)
            XCTAssertTrue(absent.hasSuffix("call includeExecuTorch(), or export the bundle with --target onnxruntime"), absent)
            refusal(.runtimeNotIncluded) { try checkIncluded("executorch") }
            includeExecuTorch()
            defer { executorchLibrary.with { $0 = nil } }
            XCTAssertNoThrow(try checkIncluded("executorch"))
            // what stands for the library runs nothing
            let failed = refusal(.runtimeFailed) { _ = try makeRunner(bundle, threads: 1) }
            XCTAssertTrue(failed.hasSuffix("programs.pte: executorch cannot load it: a stand-in runs nothing"), failed)
            let methods = try openBundle("llama")
            registerExecuTorch { url in
                XCTAssertEqual(url.path, bundle.file(pteFile).path)
                return try ExecuTorchFile(OnnxModule(methods))
            }
            XCTAssertEqual(try makeRunner(bundle, threads: 1).name, "executorch")
        }
    }

    private class Changed: OnnxModule {
        var names: (Set<String>) -> Set<String> = { $0 }
        var metadata: (MethodMetadata) throws -> MethodMetadata = { $0 }
        var loading: () throws -> Void = {}
        var results: ([Value]) throws -> [Value] = { $0 }

        override func methodNames() -> Set<String> { names(super.methodNames()) }

        override func methodMetadata(_ method: String) throws -> MethodMetadata {
            let found = try super.methodMetadata(method)
            return method == "head_eval" ? try metadata(found) : found
        }

        override func load(_ method: String) throws {
            if method == "head_eval" { try loading() }
            try super.load(method)
        }

        override func execute(_ method: String, _ inputs: [any ValueConvertible]) throws -> [Value] {
            let found = try super.execute(method, inputs)
            return method == "head_eval" ? try results(found) : found
        }
    }

    /// What an evaluation says on a module that is `change`d.
    private func refused(_ fault: Fault, line: UInt = #line, _ change: (Changed) throws -> Void) throws -> String {
        var message = ""
        try withBundle("llama") { bundle in
            let module = try Changed(openBundle("llama"))
            try change(module)
            message = refusal(fault, line: line) {
                _ = try runner(bundle, module).evaluate(bundle.golden.batches[0], initialAdapter(bundle))
            }
        }
        return message
    }

    private func failure(_ text: String) -> NSError { NSError(domain: "ExecuTorch", code: 18, userInfo: [NSLocalizedDescriptionKey: text]) }

    func testAFileThatTheLibraryDoesNotLoadOrOtherMethods() throws {
        try withBundle("llama") { bundle in
            let failed = refusal(.runtimeFailed) { _ = try ExecuTorchRuntime(bundle) { _ in throw self.failure("0x23\nno program") } }
            XCTAssertTrue(failed.hasSuffix("programs.pte: executorch cannot load it: 0x23 no program"), failed)
        }
        let message = try refused(.bundleUnreadable) { $0.names = { $0.subtracting(["embed", "head"]) } }
        XCTAssertTrue(message.contains("expected the methods embed, head, found none of these names"), message)
        let unloaded = try refused(.runtimeFailed) { $0.loading = { throw self.failure("0x14") } }
        XCTAssertTrue(unloaded.contains("programs.pte: head_eval: executorch cannot load it: 0x14; link kernels_optimized"), unloaded)
    }

    /// Before anything of it is loaded: of a result that is no tensor the library makes an end of the process.
    func testMethodsThatSayOtherThanTheManifest() throws {
        func said(_ change: @escaping ([TensorMetadata?], [TensorMetadata?]) -> ([TensorMetadata?], [TensorMetadata?])) throws -> String {
            try refused(.bundleUnreadable) { module in
                module.metadata = { found in
                    func listed(_ count: Int, _ tensors: [Int: TensorMetadata]) -> [TensorMetadata?] { (0..<count).map { tensors[$0] } }
                    let (inputs, outputs) = change(
                        listed(found.inputValueTags.count, found.inputTensorMetadata),
                        listed(found.outputValueTags.count, found.outputTensorMetadata))
                    return MethodMetadata(inputs, outputs)
                }
                module.loading = { XCTFail("it is not loaded") }
            }
        }
        let untyped = try said { ($0, [nil] + $1.dropFirst()) }
        let expected = "head_eval: other than the manifest says: outputs: 'loss': expected float32 [], found no tensor []"
        XCTAssertTrue(untyped.contains(expected), untyped)
        XCTAssertTrue(try said { ($0, $1 + [nil]) }.contains("outputs: 'outputs[1]': expected none, found no tensor []"))
        XCTAssertTrue(try said { inputs, _ in (inputs, []) }.contains("outputs: 'loss': expected float32 [], found none"))
        let other = try said { ([TensorMetadata(.double, [3])] + $0.dropFirst(), $1) }
        XCTAssertTrue(other.contains("inputs: 'h': expected float32 ") && other.contains(", found type 7 [3]"), other)
    }

    func testMethodsThatFailOrReturnSomethingElse() throws {
        let failed = try refused(.runtimeFailed) { $0.results = { _ in throw self.failure("0x12") } }
        XCTAssertTrue(failed.contains("programs.pte: head_eval: executorch cannot run it: 0x12"), failed)
        let memory = try Bytes(count: 8)
        let wide = Value(AnyTensor(bytesNoCopy: memory.pointer, shape: [2], dataType: .float))
        let message = try refused(.bundleUnreadable) { $0.results = { _ in [wide] } }
        let expected = "head_eval: other than the manifest says: outputs: 'loss': expected float32 [], found float32 [2]; export"
        XCTAssertTrue(message.contains(expected), message)
        XCTAssertTrue(try refused(.bundleUnreadable) { $0.results = { _ in [] } }.contains("'loss': expected float32 [], found none"))
        XCTAssertTrue(try refused(.bundleUnreadable) { $0.results = { $0 + [wide] } }.contains("outputs: expected 1, found 2"))
    }

    func testAManifestWhoseProgramsLieElsewhere() throws {
        func refused(_ change: (inout Manifest) -> Void) throws -> String {
            try inScratch { scratch in
                try writeExecuTorchBundle(openBundle("llama"), scratch, change)
                return refusal(.bundleUnreadable) { _ = try TrainingBundle.open(scratch) }
            }
        }
        XCTAssertTrue(try refused { $0.graphs["head"] = nil }.contains("graphs: head missing"))
        for file in ["embed.onnx", "../programs.pte", "weights.bin"] {
            let message = try refused { $0.graphs["embed"]!.file = file }
            XCTAssertTrue(message.contains("graphs.embed: expected the file programs.pte, found '\(file)'"), message)
        }
    }
}
#endif
