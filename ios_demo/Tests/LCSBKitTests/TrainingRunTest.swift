import XCTest
@testable import LCSBKit

/// Calls what a test gives it.
private final class Watching: RunObserver {
    var onPhase: (Phase) -> Void = { _ in }
    var onData: (DataReport, Int) -> Void = { _, _ in }
    var onWarned: (String) -> Void = { _ in }
    var onResumed: (Int, RunHistory) -> Void = { _, _ in }
    var onEvaluated: (Int) -> Void = { _ in }
    var onStepped: (StepOutcome, Int) -> Void = { _, _ in }
    var onLayer: (Int, Bool) -> Void = { _, _ in }

    func phase(_ name: Phase) { onPhase(name) }
    func data(_ report: DataReport, heldOut: Int) { onData(report, heldOut) }
    func warned(_ text: String) { onWarned(text) }
    func resumed(step: Int, _ history: RunHistory) { onResumed(step, history) }
    func evaluated(step: Int, loss: Double) { onEvaluated(step) }
    func stepped(_ outcome: StepOutcome, memory: Int) { onStepped(outcome, memory) }
    func layer(_ index: Int, backward: Bool) { onLayer(index, backward) }
}

/// The real runner, whose losses are not finite once the adapter was updated `broken` times.
private final class Breaking: StepRunner {
    private let real: any StepRunner
    private let broken: Int
    private var steps = -1  // the golden trace's comes first

    init(_ real: any StepRunner, _ broken: Int) { (self.real, self.broken) = (real, broken) }

    var name: String { real.name }
    var version: String { real.version }

    func step(_ subset: Subset, _ batch: Batch, _ adapter: Floats) throws -> StepResult {
        let result = try real.step(subset, batch, adapter)
        defer { steps += 1 }
        return StepResult(loss: steps >= broken ? .nan : result.loss, gradients: result.gradients)
    }

    func evaluate(_ batch: Batch, _ adapter: Floats) throws -> Float {
        steps >= broken ? .nan : try real.evaluate(batch, adapter)
    }

    func updateLayer(
        _ parameters: Floats, _ firstMoment: Floats, _ secondMoment: Floats, _ gradient: Floats?, _ scalars: LayerUpdate
    ) throws {
        try real.updateLayer(parameters, firstMoment, secondMoment, gradient, scalars)
    }

    func decoder(_ adapter: Floats) throws -> any SequenceDecoder { try real.decoder(adapter) }
}

/// The whole of it on a small bundle with the real runtime.
final class TrainingRunTest: XCTestCase {
    private var folder: URL!
    private var data: URL!
    private var options = RunOptions(steps: 7, accumulation: 2, evaluateEvery: 3, checkpointEvery: 2, threads: 1)

    override func setUpWithError() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("lcsb-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        data = folder.appendingPathComponent("data.jsonl")
        try lines(40) { "message \($0) of many, about \(String(repeating: "boats and ", count: $0 % 5))rain" }.write(to: data)
    }

    override func tearDownWithError() throws { try FileManager.default.removeItem(at: folder) }

    private func lines(_ count: Int, _ text: (Int) -> String) -> Data {
        Data((1...count).map { "{\"text\": \"\(text($0))\"}\n" }.joined().utf8)
    }

    private func run(
        _ name: String, _ options: RunOptions? = nil, control: RunControl = RunControl(), watch: (Watching) -> Void = { _ in },
        data: URL? = nil, bundle: TrainingBundle? = nil
    ) throws -> RunResult {
        let observer = Watching()
        watch(observer)
        let place = folder.appendingPathComponent(name)
        return try TrainingRun(bundle ?? openBundle("llama"), data: data ?? self.data, directory: place, options ?? self.options)
            .run(control, observer)
    }

    private func changed(_ change: (inout RunOptions) -> Void) -> RunOptions {
        var changed = options
        change(&changed)
        return changed
    }

    private func content(_ path: String) throws -> Data { try Data(contentsOf: folder.appendingPathComponent(path)) }

    private func adapter(_ name: String) throws -> Data { try content("\(name)/adapter.safetensors") }

    private func names(_ name: String) -> [String] { listed(folder.appendingPathComponent(name)) }

    /// All but the lock.
    private func files(_ name: String) throws -> [String: Data] {
        try Dictionary(uniqueKeysWithValues: names(name).filter { $0 != "lock" }.map { ($0, try content("\(name)/\($0)")) })
    }

    func testARunTrainsSaysWhatItDoesAndLeavesItsAdapterAndTwoCheckpoints() throws {
        var (said, layers): ([String], [String]) = ([], [])
        let result = try run("a") { watch in
            watch.onData = { said.append("\($0.examples) examples, \($1) held out") }
            watch.onEvaluated = { said.append("evaluated \($0)") }
            watch.onStepped = { outcome, memory in
                XCTAssertGreaterThan(memory, 0)
                said.append("step \(outcome.step) of \(outcome.subset.train)")
            }
            watch.onLayer = { layers.append($1 ? "-\($0)" : "\($0)") }
        }
        XCTAssertEqual(said, [
            "40 examples, 4 held out", "evaluated 0", "step 1 of [2]", "step 2 of [1]", "step 3 of [0]", "evaluated 3", "step 4 of [2]",
            "step 5 of [1]", "step 6 of [0]", "evaluated 6", "step 7 of [2]", "evaluated 7",
        ])
        XCTAssertEqual(result.outcome, .finished)
        XCTAssertEqual(result.losses.count, 7)
        XCTAssertEqual(result.evaluations.map(\.step), [0, 3, 6, 7])
        XCTAssertLessThan(result.evalLossAfter!, result.evalLossBefore!)
        XCTAssertEqual(names("a"), ["adapter.safetensors", "lock", "step-00000006.safetensors", "step-00000007.safetensors"])
        // Steps 1 and 2, of two sequences each.
        XCTAssertTrue(layers.joined(separator: " ").contains("0 1 2 -2 0 1 2 -2 0 1 2 -2 -1"))
        let reader = try JsonReader(Array(result.toJson().utf8))
        let json = try reader.tree(unique: true)
        try reader.finish()
        XCTAssertEqual(json["eval_loss_before"]?.double, result.evalLossBefore)
        XCTAssertEqual(json["data"]?["counted_labels"]?.int, result.data?.countedLabels)
        XCTAssertEqual(json["method"]?.string, "lcsb-exact")
    }

    func testPausedAtAnyLayerAndResumedItEndsWithTheBitsOfTheUnbrokenRun() throws {
        let whole = try run("whole")
        var pauses = 0
        while true {
            let control = RunControl()
            var left = (pauses * 37 + 11) % 60
            let result = try run("broken", control: control) { watch in
                watch.onLayer = { _, _ in
                    if left == 0 { control.pause() }
                    left -= 1
                }
            }
            if result.outcome == .finished {
                XCTAssertEqual(result.losses, whole.losses)
                XCTAssertEqual(result.evaluations, whole.evaluations)
                break
            }
            XCTAssertEqual(result.outcome, .paused)
            XCTAssertNil(result.adapter)
            pauses += 1
        }
        XCTAssertGreaterThan(pauses, 3)
        XCTAssertEqual(try adapter("broken"), try adapter("whole"))
        XCTAssertEqual(names("broken"), names("whole"))
    }

    /// The state of layers of several sizes: what one process saved, the next goes on from.
    func testLayersOfSeveralKindsBrokenAfterEachCheckpointEndWithTheBitsOfTheUnbrokenRun() throws {
        for name in ["lfm2", "qwen3_5"] {
            let hybrid = try openBundle(name)
            func long(_ steps: Int) -> RunOptions { changed { ($0.steps, $0.keep) = (steps, 2) } }
            let whole = try run("\(name)-whole", long(5), bundle: hybrid)
            var broken = whole
            for steps in [2, 4, 5] { broken = try run("\(name)-broken", long(steps), bundle: hybrid) }
            XCTAssertEqual(broken.resumedFrom, 4)
            XCTAssertEqual(broken.losses, whole.losses)
            XCTAssertEqual(try adapter("\(name)-broken"), try adapter("\(name)-whole"))
            let layout = hybrid.manifest.adapter
            XCTAssertGreaterThan(Set((0..<layout.numLayers).map(layout.vectorSize)).count, 1)
            let file = folder.appendingPathComponent("\(name)-broken/step-00000005.safetensors")
            let state = try readCheckpoint(file, layout.numLayers, layout.size).state
            let initial = try initialAdapter(hybrid)
            for layer in 0..<layout.numLayers {
                XCTAssertNotEqual(layout.vector(state.adapter, layer).array, layout.vector(initial, layer).array)
            }
        }
    }

    func testStoppedItKeepsTheAdapterOfTheLastWholeStepAndGoesOnWhenAskedTo() throws {
        let control = RunControl()
        let result = try run("a", control: control) { watch in watch.onStepped = { outcome, _ in if outcome.step == 3 { control.stop() } } }
        XCTAssertEqual(result.outcome, .cancelled)
        XCTAssertEqual(result.losses.count, 3)
        XCTAssertTrue(names("a").contains("step-00000003.safetensors"))
        let layout = try openBundle("llama").manifest.adapter
        let stored = try Floats(count: layout.size)
        try readAdapter(folder.appendingPathComponent("a/adapter.safetensors"), layout, stored)
        let checkpoint = try readCheckpoint(folder.appendingPathComponent("a/step-00000003.safetensors"), layout.numLayers, layout.size)
        XCTAssertEqual(checkpoint.state.adapter.array, stored.array)
        var resumed: [Int] = []
        let whole = try run("b")
        let rest = try run("a") { watch in
            watch.onResumed = { step, history in
                XCTAssertEqual(history.outcomes.map(\.loss), result.losses)
                resumed.append(step)
            }
        }
        XCTAssertEqual(resumed, [3])
        XCTAssertEqual(rest.losses, whole.losses)
        XCTAssertEqual(rest.evaluations, whole.evaluations)  // that of step 3 was interrupted, and made up for
    }

    func testInterruptedBeforeItBeganItLeavesWhatThereWas() throws {
        _ = try run("a", changed { $0.steps = 4 })
        let before = try files("a")
        for phase in [Phase.reading, .checking, .writing] {
            let control = RunControl()
            let prompts = phase == .writing ? ["message"] : []
            let result = try run("a", changed { ($0.steps, $0.prompts) = (4, prompts) }, control: control) { watch in
                watch.onPhase = { if $0 == phase { control.stop() } }
            }
            XCTAssertEqual(result.outcome, .cancelled)
            XCTAssertEqual(try files("a"), before, "\(phase)")
        }
    }

    func testStoppedWhileItReadsARunThatWasBegunSaysWhatItHadLearned() throws {
        let long = folder.appendingPathComponent("long.jsonl")  // above what is read without asking
        try lines(40) { "message \($0), \(String(repeating: "boats and ", count: 1000))rain" }.write(to: long)
        for stop in [false, true] {
            let control = RunControl()
            let result = try run("a", control: control, watch: { watch in
                watch.onStepped = { outcome, _ in if outcome.step == 2 { control.pause() } }
                watch.onPhase = { if stop && $0 == .reading { control.stop() } }
            }, data: long)
            XCTAssertEqual(result.outcome, stop ? .cancelled : .paused)
            XCTAssertEqual(result.losses.count, 2)
        }
    }

    func testAnotherBundlesRunOrAnotherDataFilesIsNotGoneOnWith() throws {
        _ = try run("a", changed { $0.steps = 2 })
        let message = refusal(.checkpointOtherRun) { _ = try run("a", bundle: openBundle("llama-untied-int8")) }
        XCTAssertTrue(message.contains("step-00000002.safetensors: is of another run: bundle: "), message)
        let other = folder.appendingPathComponent("other.jsonl")
        try (Data(contentsOf: data) + Data("{\"text\": \"one more\"}\n".utf8)).write(to: other)
        XCTAssertTrue(refusal(.checkpointOtherRun) { _ = try run("a", data: other) }.contains("data: "))
    }

    func testAFlippedBitInTheNewestCheckpointCostsTheStepsSinceTheOneBefore() throws {
        let whole = try run("whole")
        _ = try run("a", changed { $0.steps = 4 })
        var raw = try content("a/step-00000004.safetensors")
        raw[raw.count / 2] ^= 4
        try raw.write(to: folder.appendingPathComponent("a/step-00000004.safetensors"))
        var warnings: [String] = []
        let result = try run("a") { watch in watch.onWarned = { warnings.append($0) } }
        XCTAssertEqual(warnings.count, 1)
        XCTAssertTrue(warnings[0].hasSuffix("going on from step-00000002.safetensors"), warnings[0])
        XCTAssertEqual(result.resumedFrom, 2)
        XCTAssertEqual(result.losses, whole.losses)
        XCTAssertEqual(try adapter("a"), try adapter("whole"))
    }

    /// A run whose losses are not finite once the adapter was updated `broken` times.
    private func trainBreaking(_ name: String, _ broken: Int, _ options: RunOptions) throws {
        let (bundle, place) = (try openBundle("llama"), folder.appendingPathComponent(name))
        let setup = try RunSetup(options, bundle)
        let checkpoints = try RunDirectory(place)
        defer { checkpoints.close() }
        let examples = try RunData(setup, data, spool: place) {}
        let size = bundle.manifest.adapter.size
        let (state, last, observer) = (try mappedState(place, size), try mappedState(place, size), Watching())
        try bundle.readInitialAdapter(into: state.adapter)
        let running = Running(
            setup: setup, identity: try setup.identity(examples), data: examples, runner: Breaking(try makeRunner(bundle, threads: 1), broken),
            state: state, kept: last, keptLayers: 0, directory: checkpoints, adapterFile: place.appendingPathComponent(adapterFile),
            memory: MemoryWatch(nil), clock: PhaseClock(observer.phase), control: RunControl(), observer: observer)
        _ = try Session(running, nil).train()
    }

    func testWhatIsKeptWasSeenToGiveAFiniteLossAlsoWhereTheLastStepBreaksItAndALowerRateGoesOn() throws {
        for (broken, every) in [(2, 1), (4, 9)] {
            let four = RunOptions(steps: 4, learningRate: 1e-3, checkpointEvery: every, threads: 1)
            _ = refusal(.lossNotFinite) { try trainBreaking("broken-\(broken)", broken, four) }
            var shorter = four
            shorter.steps = broken - 1
            _ = try run("good-\(broken)", shorter)
            XCTAssertEqual(try adapter("good-\(broken)"), try adapter("broken-\(broken)"))
            XCTAssertEqual(names("broken-\(broken)").last, "step-0000000\(broken - 1).safetensors")
            var other = four
            other.learningRate = nil
            _ = refusal(.checkpointOtherRun) { _ = try run("broken-\(broken)", other) }  // a default is no wish
            other.learningRate = 1e-4
            let rest = try run("broken-\(broken)", other)
            XCTAssertEqual(rest.resumedFrom, broken - 1)
            XCTAssertEqual(rest.losses.count, 4)
        }
    }

    func testAnUpdateBeyondAllSenseIsNotKept() throws {
        let message = refusal(.lossNotFinite) { _ = try run("a", changed { $0.learningRate = 1e6 }) }
        XCTAssertTrue(message.hasPrefix("step 1: its update would make a parameter of "), message)
        XCTAssertEqual(names("a"), ["lock", "step-00000000.safetensors"])
    }

    func testABudgetThatCannotDoIsRefusedBeforeAnythingIsRunWithThePrediction() {
        let message = refusal(.memoryTooSmall) { _ = try run("a", changed { $0.memoryBudget = 1_000_000 }) }
        XCTAssertTrue(message.contains("the run is predicted to need at least "), message)
        XCTAssertEqual(names("a"), ["lock"])
    }

    func testABudgetThatIsExceededStopsTheRunAndWhatWasDoneIsKept() throws {
        let watch = MemoryWatch(1)
        watch.sample()
        let message = refusal(.memoryExceeded) { try watch.stopAboveBudget(3) }
        XCTAssertTrue(message.hasPrefix("step 3: the run reached "), message)
        XCTAssertTrue(message.contains("more than the 0.0 MB allowed; it was stopped"), message)
        let free = MemoryWatch(nil)
        free.sample()
        try free.stopAboveBudget(3)
    }

    func testOptionsOutOfRangeAreRefusedBeforeTheDirectoryIsMade() {
        let cases: [(RunOptions, String)] = [
            (changed { $0.steps = 0 }, "steps: expected at least 1, found 0"),
            (changed { $0.checkpointEvery = 0 }, "checkpoint-every: expected at least 1, found 0"),
            (changed { $0.evaluateEvery = -1 }, "evaluate-every: expected at least 0, found -1"),
            (changed { $0.threads = -1 }, "threads: expected at least 0, found -1"),
        ]
        for (wrong, message) in cases { XCTAssertEqual(refusal(.option) { _ = try run("none", wrong) }, message) }
        XCTAssertFalse(exists(folder.appendingPathComponent("none")))
    }

    func testARestingRunIsSlowerAndAnInterruptEndsTheRest() throws {
        let control = RunControl()
        control.delayMillisecondsBetweenLayers = 3_600_000
        let started = nanoseconds()
        let result = try run("a", control: control) { watch in
            watch.onPhase = { phase in
                if phase == .checking { DispatchQueue.global().asyncAfter(deadline: .now() + 0.1) { control.pause() } }
            }
        }
        XCTAssertEqual(result.outcome, .paused)
        let taken = seconds(started, nanoseconds())
        XCTAssertGreaterThan(taken, 0.1)
        XCTAssertLessThan(taken, 60)
    }

    /// The stream has what an observer is told, and ends when all is saved; the caller's thread is free meanwhile.
    func testLaunchedARunGivesItsEventsAsAStream() async throws {
        let control = RunControl()
        let run = TrainingRun(try openBundle("llama"), data: data, directory: folder.appendingPathComponent("a"), options)
        let (events, result) = run.launch(control)
        var (steps, phases): ([Int], [Phase]) = ([], [])
        for await event in events {
            switch event {
            case .stepped(let outcome, _):
                steps.append(outcome.step)
                if outcome.step == 4 { control.stop() }
            case .phase(let phase): phases.append(phase)
            default: break
            }
        }
        let ended = try await result.value
        XCTAssertEqual(ended.outcome, .cancelled)
        XCTAssertEqual(Array(steps.prefix(4)), [1, 2, 3, 4])
        XCTAssertEqual(ended.losses.count, steps.count)
        XCTAssertEqual(phases.first, .reading)
        XCTAssertNotNil(ended.adapter)
        XCTAssertTrue(names("a").contains("adapter.safetensors"))
        let (none, failed) = TrainingRun(run.bundle, data: folder.appendingPathComponent("none"), directory: run.directory, options)
            .launch(RunControl())
        for await event in none { if case .stepped = event { XCTFail("trained on nothing") } }
        do {
            _ = try await failed.value
            XCTFail("expected DATA_UNREADABLE")
        } catch let error as LcsbError { XCTAssertEqual(error.fault, .dataUnreadable) }
    }
}
