#if os(Linux)
import CoreAI
import Metal
import XCTest
@testable import LCSBKit

/// The loop on Core AI's binding, whose functions are the same programs on ONNX Runtime and a head in Swift: the framework is Apple's
/// systems' alone.
final class CoreAIRuntimeTest: XCTestCase {
    private struct Cancelled: Error {}

    override func tearDown() {
        standInAIModels = nil
        standInHasDevice = true
    }

    private func withRunner(
        _ name: String, _ keep: Int = 0, _ between: @escaping BetweenLayers = { _, _ in },
        _ use: (TrainingBundle, StaticModel, BlockRunner) throws -> Void
    ) throws {
        try withStaticBundle(name, coreaiTarget) { bundle in
            let model = try StaticModel(name, bundle)
            standInAIModels = { url, _ in
                XCTAssertEqual(url.path, bundle.file("programs.aimodel").path)
                return model
            }
            try use(bundle, model, makeRunner(bundle, threads: 1, keep: keep, betweenLayers: between))
        }
    }

    // Numbers

    func testTheGoldenTraceHoldsTwoCyclesWithMomentum() throws {
        for (name, keep) in [("tiny", 0), ("tiny", 3), ("gemma3", 100), ("lfm2", 0), ("qwen3_5", 2), ("qwen3-untied-int8", 0)] {
            try withRunner(name, keep) { bundle, model, runner in
                let found = try inScratch { try verify(bundle, runner, scratch: $0) }
                XCTAssertEqual(found.runtime, "coreai")
                // Far tighter than the trace's own tolerance, which is for what is kept in float16
                if keep == 0 { XCTAssertLessThanOrEqual(found.difference.runLoss, 3e-6, name) }
                XCTAssertEqual(Set(model.loaded).count, model.loaded.count, "each once")
            }
        }
    }

    func testStepsEvaluationsAndTextsAreThoseOfTheOtherRuntime() throws {
        for (name, keep) in [("tiny", 0), ("gemma3-untied-int8", 100), ("lfm2", 2), ("qwen2-untied-int4-head", 0)] {
            try withRunner(name, keep) { bundle, _, own in
                let others = try makeRunner(openBundle(name), threads: 1, keep: keep)
                let (adapter, batch) = (try initialAdapter(bundle), try bundle.golden.batches[0])
                for step in try bundle.golden.steps {
                    let (found, expected) = (try own.step(step.subset, batch, adapter), try others.step(step.subset, batch, adapter))
                    XCTAssertEqual(found.loss, expected.loss, accuracy: 2e-6 * expected.loss, name)
                    let norms = (gradientNorm(found.gradients), gradientNorm(expected.gradients))
                    XCTAssertEqual(norms.0, norms.1, accuracy: 1e-5 * norms.1, name)
                }
                let losses = (try own.evaluate(batch, adapter), try others.evaluate(batch, adapter))
                XCTAssertEqual(losses.0, losses.1, accuracy: 2e-6 * losses.1)
                let (text, other) = (try own.decoder(adapter), try others.decoder(adapter))
                func close(_ found: [Float], _ expected: [Float]) {
                    let most = expected.map(abs).max()!
                    XCTAssertLessThanOrEqual(zip(found, expected).map { abs($0 - $1) }.max()!, 1e-5 * most, name)
                }
                close(try text.prefill([5, 6, 7]), try other.prefill([5, 6, 7]))
                for token in 8...11 { close(try text.next(token), try other.next(token)) }
            }
        }
    }

    // Memory

    func testWeightsAreFedWhereTheyAreMappedAndResultsWrittenWhereTheyAreWanted() throws {
        for device in [true, false] {
            standInHasDevice = device
            try withRunner("lfm2") { bundle, model, runner in
                for _ in 0..<2 { _ = try runner.evaluate(bundle.golden.batches[0], initialAdapter(bundle)) }
                let half = model.calls.count / 2
                let order = ["embed"] + bundle.manifest.layers.map { "\($0.kind)_forward" } + ["head_start", "eval_chunk", "eval_end"]
                XCTAssertEqual(model.calls.map(\.function), order + order)
                for (at, (before, after)) in zip(model.calls, model.calls[half...]).enumerated() {
                    let graph = bundle.manifest.graphs[before.function]!
                    for x in graph.inputs {
                        let array = before.inputs[plainName(x.name)]!
                        XCTAssertEqual(array.shape, x.shape)
                        if x.name != "adapter" { XCTAssertEqual(array.pointer, after.inputs[plainName(x.name)]!.pointer) }
                        guard let weight = x.weight else {
                            XCTAssertFalse(array.ofBuffer)
                            continue
                        }
                        let isLayers = at > 0 && at <= bundle.manifest.layers.count
                        let mapped = try bundle.weights.bytes(weight, isLayers ? bundle.manifest.layers[at - 1].number : 0)
                        XCTAssertEqual(array.pointer, mapped.pointer, weight)
                        let distance = mapped.pointer - (try bundle.weights.whole.pointer)
                        let inMapping = try (0..<bundle.weights.whole.count).contains(distance)
                        XCTAssertEqual(array.ofBuffer, device && inMapping)
                    }
                    XCTAssertEqual(Set(before.outputs.keys), Set(graph.outputs.map { plainName($0.name) }))
                    for (name, array) in before.outputs { XCTAssertEqual(array.pointer, after.outputs[name]!.pointer) }
                }
                XCTAssertTrue(model.calls.contains { $0.inputs.values.contains { $0.ofBuffer } } == device)
            }
        }
    }

    func testAnUpdateIsTheKindsOwn() throws {
        try withRunner("lfm2") { bundle, model, runner in
            let reference = NumpyRunner(bundle.manifest.optimizer)
            for kind in bundle.manifest.kinds {
                func values() throws -> [Floats] {
                    try (1...4).map { number in
                        let floats = try Floats(count: kind.size)
                        for at in 0..<kind.size { floats[at] = Float(at % 7 + number) / 100 }
                        return floats
                    }
                }
                let (own, expected) = (try values(), try values())
                let scalars = LayerUpdate(decay: 0.999, rate: 1e-3, root: 0.5)
                try runner.updateLayer(own[0], own[1], own[2], own[3], scalars)
                reference.updateLayer(expected[0], expected[1], expected[2], expected[3], scalars)
                for (found, wanted) in zip(own, expected) { XCTAssertEqual(found.array, wanted.array) }
                XCTAssertEqual(model.calls.last!.inputs["rate"]!.shape, [1])
            }
            XCTAssertEqual(model.calls.map(\.function), bundle.manifest.kinds.map { "\($0.name)_adamw" })
        }
    }

    func testARunCanBeCancelledBeforeAnyLayerOrChunkAndLeavesNothingChanged() throws {
        var left = Int.max
        let between: BetweenLayers = { _, _ in
            left -= 1
            if left < 0 { throw Cancelled() }
        }
        try withRunner("llama", 0, between) { bundle, _, runner in
            let (batch, adapter) = (try bundle.golden.batches[0], try initialAdapter(bundle))
            let subset = Subset(train: [1], propagate: [1])
            let expected = try runner.step(subset, batch, adapter).gradients[1]!.array
            for calls in 0...bundle.manifest.model.numHiddenLayers + 2 {
                left = calls
                XCTAssertThrowsError(try runner.step(subset, batch, adapter)) { XCTAssertTrue($0 is Cancelled) }
                left = Int.max
                XCTAssertEqual(try runner.step(subset, batch, adapter).gradients[1]!.array, expected)
            }
        }
    }

    func testWhatMayCompute() throws {
        try withStaticBundle("llama", coreaiTarget) { bundle in
            var found: [SpecializationOptions] = []
            let model = try StaticModel("llama", bundle)
            standInAIModels = { _, options in
                found.append(options)
                return model
            }
            for compute in ComputeUnits.allCases { _ = try makeRunner(bundle, threads: 0, compute: compute) }
            XCTAssertEqual(found[0], .cpuOnly)
            XCTAssertEqual(found[1...2].map(\.preferredComputeUnitKind), [.gpu, .neuralEngine])
            XCTAssertEqual(found[3], .default)
        }
    }

    // Refusals

    func testABundleOfAnotherTarget() throws {
        let other = refusal(.bundleOtherTarget) { _ = try CoreAIRuntime(openBundle("llama"), .all) }
        XCTAssertTrue(other.hasSuffix("expected a bundle of target coreai, found onnxruntime; export one with --target coreai"), other)
    }

    func testASystemOrAnAppWithoutIt() throws {
        let there = systemRuntimes["coreai"]!
        XCTAssertNoThrow(try checkIncluded("coreai"))
        func row(built: Bool, isThere: Bool) -> SystemRuntime {
            SystemRuntime(target: there.target, name: there.name, since: there.since, sdk: there.sdk, built: built, isThere: isThere)
        }
        let older = refusal(.systemOlder) { try row(built: true, isThere: false).check() }
        XCTAssertTrue(older.hasPrefix("bundles of target coreai need iOS 27 or newer, this is "), older)
        XCTAssertTrue(older.hasSuffix("; update the device, or export the bundle with --target onnxruntime"), older)
        let absent = refusal(.runtimeNotIncluded) { try row(built: false, isThere: false).check() }
        XCTAssertTrue(absent.hasPrefix("this app is built without Core AI, which bundles of target coreai need; build it with Xcode 27"), absent)
        XCTAssertEqual(systemRuntimes["coreml"]!.since, "iOS 18")
        try withStaticBundle("llama", coreaiTarget) { bundle in
            refusal(.systemOlder) { _ = try makeSystemRuntime(bundle, row(built: true, isThere: false), .all) }
        }
    }

    private class Changed: StaticModel {
        var names: ([String]) -> [String] = { $0 }
        var described: (InferenceFunctionDescriptor) -> InferenceFunctionDescriptor? = { $0 }
        var loading: () throws -> Void = {}
        var running: ([String: StandInArray]) throws -> [String: StandInArray] = { $0 }
        var left: ([String]) -> [String] = { $0 }

        override var functionNames: [String] { names(super.functionNames) }

        override func descriptor(_ function: String) -> InferenceFunctionDescriptor? {
            let found = super.descriptor(function)
            return function == "eval_end" ? found.flatMap(described) : found
        }

        override func load(_ function: String) throws {
            if function == "eval_end" { try loading() }
            try super.load(function)
        }

        override func run(_ function: String, _ inputs: [String: StandInArray], _ outputs: [String: StandInArray]) throws -> [String] {
            if function != "eval_end" { return try super.run(function, inputs, outputs) }
            return left(try super.run(function, inputs, running(outputs)))
        }
    }

    /// What an evaluation says on a model that is `change`d.
    private func refused(_ fault: Fault, line: UInt = #line, _ change: (Changed) -> Void) throws -> String {
        var message = ""
        try withStaticBundle("llama", coreaiTarget) { bundle in
            let model = try Changed("llama", bundle)
            change(model)
            standInAIModels = { _, _ in model }
            message = refusal(fault, line: line) {
                _ = try makeRunner(bundle, threads: 1).evaluate(bundle.golden.batches[0], initialAdapter(bundle))
            }
        }
        return message
    }

    private func failure(_ text: String) -> NSError { NSError(domain: "CoreAI", code: 1, userInfo: [NSLocalizedDescriptionKey: text]) }

    func testAnAssetThatDoesNotLoadOrHasOtherFunctions() throws {
        try withStaticBundle("llama", coreaiTarget) { bundle in
            let absent = refusal(.runtimeFailed) { _ = try makeRunner(bundle, threads: 1) }
            XCTAssertTrue(absent.hasSuffix("programs.aimodel: Core AI cannot load it: a stand-in runs nothing"), absent)
            standInAIModels = { _, _ in throw self.failure("no\nprogram") }
            let failed = refusal(.runtimeFailed) { _ = try makeRunner(bundle, threads: 1) }
            XCTAssertTrue(failed.hasSuffix("programs.aimodel: Core AI cannot load it: no program"), failed)
        }
        let missing = try refused(.bundleUnreadable) { $0.names = { $0.filter { $0 != "embed" && $0 != "head_chunk" } } }
        XCTAssertTrue(missing.contains("expected the functions embed, head_chunk, found none of these names; export the bundle"), missing)
        XCTAssertTrue(try refused(.bundleUnreadable) { $0.described = { _ in nil } }.contains("programs.aimodel: has no function eval_end"))
        let unloaded = try refused(.runtimeFailed) { $0.loading = { throw self.failure("0x14") } }
        XCTAssertTrue(unloaded.contains("programs.aimodel: eval_end: Core AI cannot load it: 0x14"), unloaded)
    }

    /// Before anything of it is loaded.
    func testFunctionsThatSayOtherThanTheManifest() throws {
        func said(_ inputs: [(String, InferenceValue.Descriptor)]?, _ loss: InferenceValue.Descriptor, states: [String] = []) throws -> String {
            try refused(.bundleUnreadable) { model in
                model.described = { found in
                    let own = found.inputNames.map { ($0, found.inputDescriptor(of: $0)!) }
                    return InferenceFunctionDescriptor(standIn: found.name, inputs: inputs ?? own, outputs: [("loss", loss)], states: states)
                }
                model.loading = { XCTFail("it is not loaded") }
            }
        }
        func array(_ shape: [Int], _ type: NDArray.ScalarType) -> InferenceValue.Descriptor { .ndArray(NDArrayDescriptor(standIn: shape, type)) }
        let one = array([1], .float32)
        let shaped = try said(nil, array([1, 1], .float32))
        let expected = "eval_end: other than the manifest says: outputs: 'loss': expected float32 [1], found float32 [1, 1]; export"
        XCTAssertTrue(shaped.contains(expected), shaped)
        XCTAssertTrue(try said(nil, array([1], .float64)).contains("expected float32 [1], found float64 [1]"))
        XCTAssertTrue(try said(nil, .image(ImageDescriptor(standIn: ()))).contains("expected float32 [1], found no array []"))
        XCTAssertTrue(try said(nil, one, states: ["cache"]).contains("inputs: 'cache': expected none, found a state []"))
        XCTAssertTrue(try said([], one).contains("inputs: 'x': expected float32 "))
    }

    func testFunctionsThatFailOrDoNotWriteTheirResult() throws {
        let failed = try refused(.runtimeFailed) { $0.running = { _ in throw self.failure("0x12") } }
        XCTAssertTrue(failed.contains("programs.aimodel: eval_end: Core AI cannot run it: 0x12"), failed)
        let unwritten = try refused(.runtimeFailed) { $0.left = { _ in ["loss"] } }
        XCTAssertTrue(unwritten.hasSuffix("eval_end: Core AI did not write 'loss' to the buffer that it was given"), unwritten)
    }
}
#endif
