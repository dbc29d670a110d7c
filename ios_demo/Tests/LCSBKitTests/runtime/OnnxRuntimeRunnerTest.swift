import COrt
import XCTest
@testable import LCSBKit

/// Steps on the real runtime: the golden trace through its whole run, kept layers, buffers, cancelling.
final class OnnxRuntimeRunnerTest: XCTestCase {
    private struct Cancelled: Error {}

    private struct Found: Equatable {
        let loss: Float
        let gradients: [Int: [Float]]

        /// A copy of what the runner's next step would overwrite.
        init(_ result: StepResult) { (loss, gradients) = (result.loss, result.gradients.mapValues(\.array)) }
    }

    private func withRunner(
        _ name: String, _ keep: Int = 0, between: @escaping BetweenLayers = { _, _ in },
        _ use: (TrainingBundle, BlockRunner, Floats) throws -> Void
    ) throws {
        let bundle = try openBundle(name)
        try use(bundle, makeRunner(bundle, threads: 1, keep: keep, betweenLayers: between), initialAdapter(bundle))
    }

    // The golden trace: float32's rounding is 1e-6, int8 activations' 2e-2; each bundle states what it is held to

    func testEveryBundlesGoldenTraceHoldsTwoCyclesWithMomentum() throws {
        XCTAssertGreaterThanOrEqual(TestBundles.directories.count, 9)
        for directory in TestBundles.directories {
            let name = directory.lastPathComponent
            try withRunner(name) { bundle, runner, _ in
                let golden = try bundle.golden
                XCTAssertTrue(!golden.steps.isEmpty && golden.run.count >= 2 * bundle.manifest.schedule.count)
                var counted = 0
                let found = try inScratch { scratch in
                    try verify(bundle, runner, scratch: scratch) { done, total in
                        counted = done
                        XCTAssertLessThanOrEqual(done, total)
                    }
                }
                XCTAssertEqual(counted, golden.steps.count + golden.run.count)
                XCTAssertEqual(found.difference.steps, counted)
                // Far tighter than the trace's own tolerance where nothing is rounded to int8
                let most = bundle.manifest.accuracyLevel == 0 ? 3e-6 : found.stepTolerance
                XCTAssertLessThanOrEqual(found.difference.runLoss, most, name)
                XCTAssertLessThanOrEqual(found.difference.stepGradientNorm, most, name)
            }
        }
    }

    func testKeptLayersGiveTheSameTrace() throws {
        let some = ["llama", "gemma3", "qwen2", "lfm2", "qwen3_5"].flatMap { [($0, 1), ($0, 100)] }  // all that they have
        for (name, keep) in some + [("tiny-int8-activations", 3)] {
            try withRunner(name, keep) { bundle, runner, _ in _ = try inScratch { try verify(bundle, runner, scratch: $0) } }
        }
    }

    func testARuntimeThatComputesSomethingElseIsFoundOut() throws {
        try withRunner("llama") { bundle, runner, adapter in
            let other = try Floats(count: adapter.count)
            other.copy(from: adapter.array.map { $0 + 0.01 })
            let golden = try bundle.golden
            let message = refusal(.goldenTrace) { _ = try checkFirstStep(runner, golden, other) }
            XCTAssertTrue(message.hasPrefix("onnxruntime does not reproduce the bundle's golden trace: a step's loss by "), message)
            XCTAssertEqual(try checkFirstStep(runner, golden, adapter).steps, 1)
        }
    }

    // Buffers

    func testStepsDoNotDependOnEachOther() throws {
        for name in ["llama", "lfm2"] {
            for keep in [0, 2] {
                let golden = try openBundle(name).golden
                let subsets = golden.steps.map(\.subset)
                func step(_ runner: BlockRunner, _ n: Int, _ adapter: Floats) throws -> Found {
                    Found(try runner.step(subsets[n], golden.batches[n % golden.batches.count], adapter))
                }
                var fresh: [Found] = []
                for n in subsets.indices { try withRunner(name, keep) { _, runner, adapter in fresh.append(try step(runner, n, adapter)) } }
                try withRunner(name, keep) { _, runner, adapter in
                    for n in Array(subsets.indices) + subsets.indices.reversed() {
                        XCTAssertEqual(try step(runner, n, adapter), fresh[n])
                        _ = try runner.evaluate(golden.batches[0], adapter)
                    }
                }
            }
        }
    }

    func testAResultLastsUntilTheNextStepAndNothingIsWrittenToWhatIsGiven() throws {
        try withRunner("gemma3", 1) { bundle, runner, adapter in
            let golden = try bundle.golden
            let before = adapter.array
            let result = try runner.step(golden.steps[0].subset, golden.batches[0], adapter)
            let first = Found(result)
            XCTAssertEqual(try runner.evaluate(golden.batches[0], adapter), result.loss, accuracy: 1e-6)
            _ = try runner.decoder(adapter).prefill([5, 6, 7])
            let state = try inScratch { try mappedState($0, bundle.manifest.adapter.size) }
            state.adapter.copy(from: adapter)
            try AdamW(state, bundle.manifest.adapter, bundle.manifest.optimizer, runner).update(result.gradients, 1e-3)
            XCTAssertNotEqual(state.adapter.array, before)
            XCTAssertEqual(Found(result), first)
            XCTAssertEqual(adapter.array, before)
        }
    }

    func testAnUpdateIsAdamWs() throws {
        try withRunner("llama") { bundle, runner, adapter in
            let (layout, config, count) = (bundle.manifest.adapter, bundle.manifest.optimizer, 3)
            let states = try (0..<2).map { _ in try inScratch { try mappedState($0, layout.size) } }
            for state in states { state.adapter.copy(from: adapter) }
            let optimizers = zip(states, [runner, NumpyRunner(config)] as [any StepRunner]).map { AdamW($0, layout, config, $1) }
            for _ in 0..<count {
                let gradients = try runner.step(fullSubset(bundle.manifest), bundle.golden.batches[0], adapter).gradients
                for optimizer in optimizers { try optimizer.update(gradients.filter { $0.key != 1 }, 1e-3) }
            }
            XCTAssertEqual(states[0].adapter.array, states[1].adapter.array)
            XCTAssertEqual(states[0].firstMoment.array, states[1].firstMoment.array)
            XCTAssertEqual(states[0].secondMoment.array, states[1].secondMoment.array)
        }
    }

    func testWeightsAreFedWhereTheyAreMapped() throws {
        let (bundle, ort) = (try openBundle("lfm2"), try Ort.get())
        let weights = WeightTensors(try bundle.weights)
        let whole = [UInt8](try Data(contentsOf: bundle.directory.appendingPathComponent(weightsFile)))
        for table in bundle.manifest.weights where table.perLayer {
            let size = table.nbytes / table.shape[0]
            for layer in bundle.manifest.layers where layer.kind == table.kind {
                let tensor = weights[table.name, layer.number]
                let start = table.offset + layer.number * size
                XCTAssertTrue(tensor.bytes.raw.elementsEqual(whole[start..<start + size]))
                XCTAssertEqual(tensor.bytes.pointer, try bundle.weights.bytes(table.name, layer.number).pointer)
                XCTAssertIdentical(tensor, weights[table.name, layer.number])
                let read = try OrtTensor(ort, tensor)
                XCTAssertEqual(try ort.api.got(nil) { ort.api.GetTensorMutableData(read.pointer, $0) }, tensor.bytes.pointer)
            }
        }
    }

    func testARunnerIsGoneWithItsLastUser() throws {
        weak var gone: BlockRunner?
        try withRunner("llama") { bundle, runner, adapter in
            gone = runner
            _ = try runner.decoder(adapter).prefill([1, 2])
        }
        XCTAssertNil(gone)
    }

    // Between the layers

    func testTheHookIsCalledBeforeEachProgramOfALayerAndToldWhich() throws {
        struct Place: Equatable {
            let layer: Int
            let backward: Bool
        }
        var places: [Place] = []
        try withRunner("llama", between: { places.append(Place(layer: $0, backward: $1)) }) { bundle, runner, adapter in
            let layers = bundle.manifest.model.numHiddenLayers
            _ = try runner.step(Subset(train: [1], propagate: [1, layers - 1]), bundle.golden.batches[0], adapter)
            let down = [Place(layer: layers - 1, backward: true), Place(layer: 1, backward: true)]
            XCTAssertEqual(places, (0...layers).map { Place(layer: $0, backward: false) } + down)
        }
    }

    func testAStepCanBeCancelledAnywhereAndLeavesNothingChanged() throws {
        for keep in [0, 1] {
            var left = Int.max
            func between(_ layer: Int, _ backward: Bool) throws {
                left -= 1
                if left < 0 { throw Cancelled() }
            }
            try withRunner("llama", keep, between: between) { bundle, runner, adapter in
                let batch = try bundle.golden.batches[0]
                let all = fullSubset(bundle.manifest)
                let top = Subset(train: [1], propagate: [1])
                let expected = Found(try runner.step(top, batch, adapter))
                let before = adapter.array
                for calls in 0..<2 * all.train.count + 1 {
                    left = calls
                    XCTAssertThrowsError(try runner.step(all, batch, adapter)) { XCTAssertTrue($0 is Cancelled) }
                    left = Int.max
                    XCTAssertEqual(adapter.array, before)
                    XCTAssertEqual(Found(try runner.step(top, batch, adapter)), expected)
                }
            }
        }
    }

    // Sessions

    func testSessionsUseTheManifestsSettingsAndOneArena() throws {
        let (ort, settings) = (try Ort.get(), try openBundle("llama").manifest.runtime)
        let options = try sessionOptions(ort, settings, threads: 1)
        defer { ort.api.ReleaseSessionOptions(options) }
        XCTAssertFalse(settings.sessionConfig.isEmpty)
        for (key, entry) in settings.sessionConfig + ["session.use_env_allocators": "1"] {
            var size = 16
            var text = [CChar](repeating: 0, count: size)
            try ort.api.check(ort.api.GetSessionConfigEntry(options, key, &text, &size))
            XCTAssertEqual(text.prefix(size), (entry.utf8CString)[...], key)
        }
    }

    // Refusals

    func testABundleOfAnotherTarget() throws {
        refusal(.runtimeNotIncluded) { try checkIncluded("executorch") }
        XCTAssertNoThrow(try checkIncluded("onnxruntime"))
        let bundle = try openBundle("tiny")
        let message = refusal(.bundleOtherTarget) { try checkTarget(bundle, "coreml") }
        XCTAssertTrue(message.contains("expected a bundle of target coreml, found onnxruntime; export one with --target coreml"), message)
    }

    /// By which buffers are made.
    func testAProgramThatIsOtherThanTheManifestSays() throws {
        try inScratch { scratch in
            try CrossingBundle.write(scratch)
            let bundle = try TrainingBundle.open(scratch)
            let graph = bundle.manifest.graphs["head"]!
            let (ort, file) = (try Ort.get(), try programFile(bundle, graph))
            let options = try sessionOptions(ort, bundle.manifest.runtime, threads: 1)
            defer { ort.api.ReleaseSessionOptions(options) }
            let session = try OrtSession(ort, file, options)
            XCTAssertNoThrow(try checkSignature(session, graph, file))
            var other = graph
            other.inputs[0].shape = [CrossingBundle.tokens, 3]
            other.inputs[1].dtype = "uint8"
            other.outputs[1].name = "h"
            let message = refusal(.bundleUnreadable) { try checkSignature(session, other, file) }
            let faults = [
                "inputs: 'h': expected float32 [4, 3], found float32 [4, 2]", "inputs: 'labels': expected uint8 [4], found int64 [4]",
                "outputs: 'h': expected float32 [4, 2], found none", "outputs: 'g': expected none, found float32 [4, 2]",
            ]
            XCTAssertTrue(message.contains("head.onnx: other than the manifest says: \(faults.joined(separator: "; "))"), message)
        }
    }

    func testARuntimeThatIsOlderThanItsHeaders() {
        let message = refusal(.runtimeMissing) { _ = try Ort(apiVersion: 9999) }
        XCTAssertTrue(message.hasPrefix("ONNX Runtime 1.") && message.contains("has no version 9999 of its C API"), message)
    }

    func testWhatFailsWhenItRuns() throws {
        try withRunner("llama") { bundle, runner, adapter in
            var outside = try bundle.golden.batches[0]
            outside.inputIds = outside.inputIds.map { _ in 1_000_000 }
            let message = refusal(.runtimeFailed) { _ = try runner.evaluate(outside, adapter) }
            XCTAssertTrue(message.hasPrefix("embed.onnx: onnxruntime 1.") && message.contains(" cannot run it: "), message)
            refusal(.option) { _ = try runner.step(Subset(train: [9999], propagate: [9999]), outside, adapter) }
        }
    }

    func testWhatCannotBeLoaded() throws {
        let file = URL(fileURLWithPath: "/bundle/head.onnx")
        let opset = "ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions. Opset 21"
        let texts = [
            "Could not find an implementation for MatMulNBits(1) node with name ''": "it has no operator MatMulNBits",
            "Fatal error: com.microsoft:MatMulNBits(-1) is not a registered function/op": "it has no operator com.microsoft:MatMulNBits",
            "Load model failed: Unsupported model IR version: 10, max supported IR version: 9": "Unsupported model IR version: 10",
            "\(opset) is under development and support for this is limited, till opset 20": "\(opset) is under development",
            "something\n else": "something else",
        ]
        for (text, what) in texts {
            let message = loadError("1.17.0", file, text).message
            XCTAssertTrue(message.hasPrefix("/bundle/head.onnx: onnxruntime 1.17.0 cannot load it: "), message)
            XCTAssertTrue(message.contains(what) && message.contains("expected onnxruntime 1.18 or newer"), message)
        }
    }

    func testMoreMemoryThanThereIs() {
        let message = refusal(.memoryTooSmall) { _ = try Bytes(count: 1 << 60) }
        XCTAssertTrue(message.hasPrefix("1152921504606846976 bytes cannot be reserved"), message)
    }
}
