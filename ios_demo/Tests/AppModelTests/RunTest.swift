import Foundation
import LCSBKit
import XCTest
@testable import AppModel

/// From the tiny bundle to an adapter, by what a person does.
final class RunTest: XCTestCase {
    func testTwoCyclesFromTheFirstStartToASharedAdapter() async throws {
        try await onPhone { phone in
            let (app, state) = (phone.app!, phone.state)
            XCTAssertEqual(app.model.rows.map(\.id), ["tiny"])
            XCTAssertEqual(app.train.title, "Not ready yet")
            XCTAssertEqual(app.train.sentence, "Add data first.")
            try await phone.useSample()
            XCTAssertEqual(app.data.figures.first, Figure(value: "170", label: "Examples"))
            XCTAssertEqual(app.train.title, "Ready")
            let steps = 2 * state.bundle!.schedule.count
            phone.begin(steps: steps)
            XCTAssertTrue(app.train.showsPause)
            XCTAssertFalse(app.model.canChoose)
            try await phone.waitForEnd()
            XCTAssertEqual(app.train.title, "Finished")
            XCTAssertEqual(app.train.sentence, "Step \(steps) of \(steps). Try it, or share the adapter.")
            XCTAssertTrue(state.bundle!.checked, "it was tested before the first run")
            XCTAssertEqual(state.bundle!.verdict?.holds, true)
            XCTAssertEqual(app.model.rows[0].check, "Computes correctly on this device with ONNX Runtime")
            XCTAssertEqual(state.run.training.map(\.step), Array(1...steps))
            XCTAssertEqual(state.run.evaluation.first?.step, 0)
            XCTAssertEqual(state.run.evaluation.last?.step, steps)
            XCTAssertLessThan(state.run.evaluation.last!.loss, state.run.evaluation.first!.loss, "it learns")
            XCTAssertNil(state.problem)
            XCTAssertTrue(app.train.showsTry)
            XCTAssertFalse(phone.background.awake)
            XCTAssertEqual(phone.notifier.posted, [], "who sees the app needs no notice")

            let kept = try XCTUnwrap(app.share.rows.first)
            XCTAssertEqual(kept.name, "Sample messages")
            XCTAssertTrue(kept.detail.hasSuffix(" · \(steps) steps"), kept.detail)
            XCTAssertTrue(kept.result!.hasPrefix("Loss "), kept.result!)
            XCTAssertEqual(state.voice, .adapter(kept.id))
            let labels = ["Loss before", "Loss after", "Steps", "Time training", "Memory, at most", "Runtime"]
            XCTAssertEqual(app.share.report.map(\.label), labels)
            XCTAssertTrue(app.share.report.last!.value.hasPrefix("onnxruntime 1."), app.share.report.last!.value)

            app.share.share(kept.id)
            try await phone.wait("the file") { app.share.shared != nil }
            XCTAssertEqual(app.share.shared!.subject, "Adapter “Sample messages”")
            let entries = stored([UInt8](try Data(contentsOf: app.share.shared!.url)))
            let names = ["adapter_config.json", "adapter_model.safetensors", "training_report.json"]
            XCTAssertEqual(entries.map(\.name), names.map { "adapter/\($0)" })
            let report = try JSONSerialization.jsonObject(with: Data(XCTUnwrap(entries.last).content)) as? [String: Any]
            XCTAssertEqual((report?["losses"] as? [Any])?.count, steps)
            XCTAssertEqual(report?["runtime"] as? String, "onnxruntime")
            XCTAssertEqual(report?["phone"] as? String, "Test1,1")
        }
    }

    func testPauseAndResumeGiveTheBitsOfTheUnbrokenRun() async throws {
        try await onPhone { phone in
            let app = phone.app!
            try await phone.useSample()
            phone.begin(steps: 40)
            try await phone.waitForEnd()
            let unbroken = try phone.adapter()
            XCTAssertEqual(app.train.startTitle, "Train again")
            phone.begin(steps: 40)
            try await phone.waitForSteps(2)
            app.train.pause()
            XCTAssertEqual(app.train.title, "Saving…")
            XCTAssertFalse(app.train.canPause)
            try await phone.waitForEnd(.paused)
            XCTAssertEqual(app.train.startTitle, "Resume")
            XCTAssertTrue((2..<40).contains(phone.state.run.step))
            XCTAssertEqual(phone.state.run.training.count, phone.state.run.step)
            app.train.start()
            try await phone.waitForEnd()
            XCTAssertEqual(try phone.adapter(), unbroken)
            XCTAssertEqual(app.share.rows.map(\.name), ["Sample messages 2", "Sample messages"])
        }
    }

    /// What a process that is killed leaves is what is on the disk: it is copied until no file changed meanwhile, and put back.
    func testARunThatTheSystemEndedGoesOnBitForBit() async throws {
        try await onPhone { phone in
            try await phone.useSample()
            phone.begin(steps: 60)
            try await phone.waitForEnd()
            let unbroken = try phone.adapter()
            phone.begin(steps: 60)
            try await phone.waitForSteps(6)
            let killed = try Self.snapshot(phone)
            XCTAssertTrue(phone.state.run.active)
            phone.app.train.pause()
            await phone.core.training.finish()
            try FileManager.default.removeItem(at: phone.places.runs)
            try FileManager.default.moveItem(at: killed, to: phone.places.runs)
            phone.time.advance(-1e9)
            try await phone.start()
            XCTAssertEqual(phone.state.run.phase, .interrupted)
            XCTAssertEqual(phone.app.problem?.what, "The system ended the app while the model was training. Nothing is lost.")
            XCTAssertEqual(phone.app.problem?.actionTitle, "Resume")
            XCTAssertEqual(phone.state.run.step, phone.state.run.training.count)
            XCTAssertTrue(phone.app.train.sentence.hasSuffix("The system ended the app; nothing is lost."))
            phone.app.cameToFront()
            XCTAssertEqual(phone.state.run.phase, .interrupted, "what may have ended the app does not begin by itself")
            phone.app.act()
            XCTAssertNil(phone.app.problem)
            try await phone.waitForEnd()
            XCTAssertEqual(try phone.adapter(), unbroken)
        }
    }

    @MainActor private static func snapshot(_ phone: Phone) throws -> URL {
        while true {
            let copy = phone.root.appendingPathComponent("copy-\(UUID().uuidString)")
            do {
                try FileManager.default.copyItem(at: phone.places.runs, to: copy)
                if try !checkpointFiles(copy.appendingPathComponent("tiny/state")).isEmpty { return copy }
            } catch {
                try? FileManager.default.removeItem(at: copy)
            }
        }
    }

    func testStopEndsARunThatIsUnderWayOrPausedAndWhatItLearnedIsKept() async throws {
        try await onPhone { phone in
            let app = phone.app!
            try await phone.useSample()
            phone.begin(steps: 100)
            try await phone.waitForSteps(3)
            app.train.stop()
            try await phone.waitForEnd(.cancelled)
            XCTAssertEqual(app.train.title, "Stopped")
            XCTAssertEqual(app.share.rows.count, 1)
            XCTAssertTrue((3..<100).contains(phone.state.report!.steps))
            phone.begin(steps: 100)
            try await phone.waitForSteps(3)
            app.train.pause()
            try await phone.waitForEnd(.paused)
            XCTAssertEqual(phone.state.voice, .run)
            XCTAssertEqual(app.share.rows.count, 1, "a paused run's state is no adapter yet")
            let step = phone.state.run.step
            app.train.stop()
            try await phone.waitForEnd(.cancelled)
            XCTAssertEqual(phone.state.report?.steps, step)
            XCTAssertEqual(app.share.rows.count, 2)
            XCTAssertEqual(phone.state.adapters.first?.steps, step)
        }
    }

    func testStoppedWithoutItsDataAPausedRunsAdapterIsKept() async throws {
        try await onPhone { phone in
            try await phone.useSample()
            phone.begin(steps: 40)
            try await phone.waitForSteps(3)
            phone.app.train.pause()
            try await phone.waitForEnd(.paused)
            let learned = try phone.adapter()
            try FileManager.default.removeItem(at: phone.places.data)
            phone.app.train.stop()
            try await phone.waitForEnd(.cancelled)
            XCTAssertEqual(phone.state.problem?.fault, .dataUnreadable)
            let id = try XCTUnwrap(phone.state.adapters.first?.id)
            let values = try Floats(count: learned.count)
            let bundle = try TrainingBundle.open(phone.core.library.directory(phone.state.bundle!))
            try readAdapter(phone.core.adapters.file(id), bundle.manifest.adapter, values)
            XCTAssertEqual(values.array, learned)
        }
    }

    func testOneExampleDoesNotSufficeAndARunThatWasRefusedForItsDataBeginsWithOtherData() async throws {
        try await onPhone { phone in
            let app = phone.app!
            try await Self.type(phone, "ok so the bread rose, x")
            XCTAssertFalse(app.train.canStart)
            XCTAssertEqual(app.train.sentence, "Add data with at least two examples first.")
            XCTAssertEqual(app.data.sentence, "Training needs at least two examples: one is held out to measure with.")
            phone.core.training.start()
            try await phone.waitForEnd(.failed)
            XCTAssertEqual(phone.state.problem?.fault, .dataEmpty)
            XCTAssertFalse(phone.state.run.resumable)
            try await Self.type(phone, "right then, tea, x")
            try await Self.type(phone, "two things: no gloves, x")
            XCTAssertEqual(app.train.startTitle, "Start")
            phone.begin(steps: 2)
            try await phone.waitForEnd()
            XCTAssertEqual(app.share.rows.first?.name, "My messages")
        }
    }

    @MainActor private static func type(_ phone: Phone, _ message: String) async throws {
        phone.app.data.draft = message
        phone.app.data.addDraft()
        try await phone.wait("the message") { phone.state.data?.typed?.last == message && phone.state.reading == nil }
        try await phone.settle()
    }

    func testStorageThatRefusesTheRequestLeavesWhatThereWasAndSaysSo() async throws {
        try await onPhone { phone in
            try await phone.useSample()
            phone.begin(steps: 2)
            try await phone.waitForEnd()
            let (learned, record) = (try phone.adapter(), phone.places.runs.appendingPathComponent("tiny/run.json"))
            let kept = try Data(contentsOf: record)
            try FileManager.default.removeItem(at: record)
            try FileManager.default.createDirectory(at: record.appendingPathComponent("in the way"), withIntermediateDirectories: true)
            phone.begin(steps: 2)
            try await phone.wait("the refusal") { !phone.core.training.running }
            XCTAssertEqual(phone.state.problem?.fault, .storageFailed)
            XCTAssertFalse(phone.state.run.active)
            try FileManager.default.removeItem(at: record)
            try kept.write(to: record)
            XCTAssertEqual(try phone.adapter(), learned)
        }
    }

    func testTooLittleMemoryIsRefusedWithThePredictionAndMoreMemoryMendsIt() async throws {
        try await onPhone { phone in
            try await phone.useSample()
            phone.app.train.budget = 10_000_000
            phone.begin(steps: 8)
            try await phone.waitForEnd(.failed)
            let problem = phone.state.problem!
            XCTAssertEqual(problem.fault, .memoryTooSmall)
            let said = problem.what(phone.english)
            XCTAssertTrue(said.hasPrefix("Training needs about ") && said.hasSuffix(" and may take 10 MB."), said)
            XCTAssertTrue(problem.what(phone.german).hasSuffix(" Speicher und darf 10 MB nutzen."))
            try await phone.start()
            XCTAssertEqual(phone.state.problem?.what(phone.english), problem.what(phone.english), "it is still said after a restart")
            phone.app.train.budget = nil
            phone.app.train.start()
            try await phone.waitForEnd()
        }
    }

    func testDamagedCheckpointsAreSaidAndStopAndStartBeginAnew() async throws {
        try await onPhone { phone in
            try await phone.useSample()
            phone.begin(steps: 8)
            try await phone.waitForEnd()
            let record = phone.places.runs.appendingPathComponent("tiny/run.json")
            let text = try String(contentsOf: record, encoding: .utf8)
            try text.replacingOccurrences(of: "\"finished\"", with: "\"paused\"").write(to: record, atomically: true, encoding: .utf8)
            for file in try checkpointFiles(phone.core.runs.state("tiny")) {
                var bytes = [UInt8](try Data(contentsOf: file))
                bytes[bytes.count / 2] &+= 1
                try Data(bytes).write(to: file)
            }
            try await phone.start()
            let german = "Das Gespeicherte dieses Trainings ist beschädigt."
            try await phone.assertSaid("What was saved of this run is damaged.", german, .checkpointDamaged)
            phone.app.train.stop()
            try await phone.waitForEnd(.cancelled)
            phone.begin(steps: 8)
            try await phone.waitForEnd()
        }
    }

    func testAnotherModelHasItsOwnRunAndAModelThatIsRemovedTakesItsRunAndAdaptersAlong() async throws {
        try await onPhone { phone in
            try await phone.add("llama")
            try await phone.useSample()
            phone.begin(steps: 2)
            try await phone.waitForEnd()
            XCTAssertEqual(phone.state.adapters.count, 1)
            phone.app.model.choose("tiny")
            try await phone.settle()
            XCTAssertEqual(phone.state.run.phase, .none)
            XCTAssertEqual(phone.state.adapters, [])
            phone.app.model.choose("llama")
            try await phone.settle()
            XCTAssertEqual(phone.state.run.phase, .finished)
            XCTAssertEqual(phone.state.run.step, 2)
            XCTAssertEqual(phone.state.adapters.count, 1)
            phone.app.model.remove("llama")
            await phone.core.bundling.finish()
            try await phone.settle()
            XCTAssertEqual(phone.state.bundles.map(\.name), ["tiny"])
            XCTAssertEqual(phone.state.chosen, "tiny")
            XCTAssertEqual(phone.names(phone.places.runs), [])
            XCTAssertEqual(phone.names(phone.places.adapters), [])
            XCTAssertEqual(phone.names(phone.places.bundles), ["tiny.json"])
        }
    }

    func testARunThatCannotKeepItsAdapterKeepsItAtTheNextStart() async throws {
        try await onPhone { phone in
            try await phone.useSample()
            try FileManager.default.removeItem(at: phone.places.adapters)
            try Data("in the way".utf8).write(to: phone.places.adapters)
            phone.begin(steps: 4)
            try await phone.waitForEnd()
            XCTAssertEqual(phone.state.problem?.fault, .storageFailed)
            XCTAssertEqual(phone.app.share.rows, [])
            try FileManager.default.removeItem(at: phone.places.adapters)
            try await phone.start()
            XCTAssertEqual(phone.app.share.rows.map(\.name), ["Sample messages"])
            try await phone.start()
            XCTAssertEqual(phone.app.share.rows.count, 1, "once")
        }
    }
}
