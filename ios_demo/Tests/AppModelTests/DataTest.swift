import Foundation
import XCTest
@testable import AppModel

/// What the person chose or wrote is there until they choose otherwise.
final class DataTest: XCTestCase {
    @MainActor private static func type(_ phone: Phone, _ message: String) async throws {
        phone.app.data.draft = "  \(message)\n"
        phone.app.data.addDraft()
        try await phone.wait("the message") { phone.state.data?.typed?.last == message && phone.state.reading == nil }
        try await phone.settle()
    }

    @MainActor private static func restart(_ phone: Phone) async throws {
        try await phone.settle()
        try await phone.start()
    }

    @MainActor private static func files(_ phone: Phone) -> [String] { phone.names(phone.places.data).filter { $0.hasSuffix(".jsonl") } }

    func testTypedMessagesAreDataCanBeTakenBackAndOutlastTheProcess() async throws {
        try await onPhone { phone in
            for message in ["ok so the bread rose, x", "right then, tea, x", "two things: no gloves, x"] { try await Self.type(phone, message) }
            XCTAssertEqual(phone.app.data.draft, "")
            XCTAssertEqual(phone.app.data.title, "My messages")
            XCTAssertEqual(phone.state.data?.summary?.examples, 3)
            XCTAssertEqual(phone.app.data.typed.map(\.text), ["two things: no gloves, x", "right then, tea, x", "ok so the bread rose, x"])
            XCTAssertEqual(phone.app.data.typed[0].spoken, "Remove message: two things: no gloves, x")
            try await Self.restart(phone)
            XCTAssertEqual(phone.state.data?.typed?.count, 3)
            phone.app.data.removeTyped(phone.app.data.typed[0].id)
            try await phone.wait("two messages") { phone.state.data?.typed?.count == 2 && phone.state.reading == nil }
            try await phone.settle()
            XCTAssertEqual(Self.files(phone).count, 1)
            for _ in 0..<2 {
                phone.app.data.removeTyped(0)
                try await phone.settle()
            }
            XCTAssertNil(phone.state.data)
            XCTAssertEqual(phone.names(phone.places.data), [])
        }
    }

    func testThirtyMessagesAreShownAndTheRestIsCounted() async throws {
        try await onPhone { phone in
            let shelf = phone.core.data
            let file = try shelf.addTyped((1...31).map { "message \($0), x" })
            try phone.core.settings.choose(ChosenData(file: file, name: "My messages", typed: true))
            try await Self.restart(phone)
            XCTAssertEqual(phone.app.data.typed.count, 30)
            XCTAssertEqual(phone.app.data.more, "and 1 earlier message")
            XCTAssertEqual(phone.app.data.replaceQuestion, "31 messages that you wrote here will be deleted.")
        }
    }

    func testAMessageThatCouldNotBeStoredStaysInTheField() async throws {
        try await onPhone { phone in
            try? FileManager.default.removeItem(at: phone.places.data)
            try Data("in the way".utf8).write(to: phone.places.data)
            phone.app.data.draft = "ok so, x"
            phone.app.data.addDraft()
            try await phone.assertSaid("Saving failed.", "Das Speichern ist fehlgeschlagen.", .storageFailed)
            XCTAssertEqual(phone.app.data.draft, "ok so, x")
            try FileManager.default.removeItem(at: phone.places.data)
            phone.app.data.addDraft()
            try await phone.settle()
            XCTAssertEqual(phone.state.data?.typed, ["ok so, x"])
            XCTAssertEqual(phone.app.data.draft, "")
        }
    }

    func testADocumentOfTheNameOfThePersonsOwnMessagesIsADocument() async throws {
        try await onPhone { phone in
            let message = "{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", \"content\": \"hello\"}"
            phone.app.data.add(file: try phone.file("My messages", "{\"messages\": [\(message)]}\n{\"text\": \"a\"}\n"))
            try await phone.settle()
            XCTAssertEqual(phone.app.data.title, "My messages")
            XCTAssertNil(phone.state.data?.typed)
            XCTAssertEqual(phone.state.data?.summary?.conversations, 1)
        }
    }

    func testWhatTheLossSeesIsShownExampleByExample() async throws {
        try await onPhone { phone in
            let data = phone.app.data
            XCTAssertEqual(data.sentence, phone.english("no_data_text"))
            XCTAssertNil(data.preview)
            data.add(file: try phone.file("pairs.jsonl", "{\"prompt\": \"a \", \"completion\": \"b\"}\n{\"text\": \"c\"}\n"))
            try await phone.settle()
            XCTAssertEqual(data.preview?.count, "Example 1 of 2")
            XCTAssertEqual(data.preview?.pieces.map(\.counted), [false, true])
            XCTAssertTrue(data.preview!.spoken.hasPrefix("Example 1 of 2. Learned: b"), data.preview!.spoken)
            XCTAssertFalse(data.hasPrevious)
            data.next()
            data.next()
            XCTAssertEqual(data.preview?.count, "Example 2 of 2")
            XCTAssertFalse(data.hasNext)
            try await phone.useSample()
            XCTAssertEqual(data.preview?.count, "Example 1 of 20", "another file is shown from its beginning")
            XCTAssertEqual(data.sentence, "Ready to train on.")
            XCTAssertTrue(data.advice!.contains(" sequences: so many steps see everything once."), data.advice!)
        }
    }

    func testTheSameDataIsCountedOnceForAModel() async throws {
        try await onPhone { phone in
            try await phone.useSample()
            let counted = phone.state.data!.summary!
            let file = phone.core.data.file(phone.state.data!.file)
            let kept = phone.names(phone.places.data).first { $0.hasSuffix(".json") }!
            try await phone.add("llama")
            XCTAssertNotEqual(phone.state.data?.summary, counted, "another model counts it otherwise")
            try Data("{\"text\": \"other\"}\n".utf8).write(to: file)  // which the app never does
            phone.app.model.choose("tiny")
            try await phone.settle()
            XCTAssertEqual(phone.state.data?.summary, counted)
            try Data("{".utf8).write(to: phone.places.data.appendingPathComponent(kept))
            try await Self.restart(phone)
            XCTAssertEqual(phone.state.data?.summary?.examples, 1, "what cannot be read is counted anew")
        }
    }

    func testDataThatIsDeletedIsGoneAndARunThatWaitedForItEnds() async throws {
        try await onPhone { phone in
            try await phone.useSample()
            XCTAssertEqual(phone.app.data.deleteQuestion, "It is deleted from this app. What was learned from it stays until you delete the adapter.")
            phone.begin(steps: 100)
            try await phone.waitForSteps(2)
            XCTAssertFalse(phone.app.data.canDelete, "it is being learned from")
            phone.app.train.pause()
            try await phone.waitForEnd(.paused)
            XCTAssertTrue(phone.app.data.canDelete)
            XCTAssertTrue(phone.app.data.deleteQuestion.contains("the run that has not finished ends"))
            let step = phone.state.run.step
            phone.app.data.delete()
            try await phone.settle()
            XCTAssertNil(phone.state.data)
            XCTAssertEqual(phone.names(phone.places.data), [])
            XCTAssertEqual(phone.state.run.phase, .cancelled)
            XCTAssertEqual(phone.state.adapters.map(\.steps), [step])
            XCTAssertFalse(phone.background.night)
            try await Self.restart(phone)
            XCTAssertNil(phone.state.data)
            XCTAssertEqual(phone.state.run.phase, .cancelled)
        }
    }

    func testAFileFromOutsideAsksBeforeItReplacesOwnMessagesAndSharedTextJoinsThem() async throws {
        try await onPhone { phone in
            phone.app.receive(text: " shared, x ")
            try await phone.settle()
            XCTAssertEqual(phone.state.data?.typed, ["shared, x"])
            XCTAssertEqual(phone.app.shown, .data)
            let letters = try phone.file("letters.txt", "one\ntwo\n")
            phone.app.open(letters)
            XCTAssertEqual(phone.app.data.offered, letters)
            try await phone.settle()
            XCTAssertEqual(phone.state.data?.typed, ["shared, x"])
            phone.app.receive(text: "more, x")
            try await phone.settle()
            XCTAssertEqual(phone.state.data?.typed, ["shared, x", "more, x"])
            phone.app.data.accept()
            try await phone.settle()
            XCTAssertNil(phone.app.data.offered)
            XCTAssertEqual(phone.app.data.title, "letters.txt")
        }
    }

    func testAnImportThatIsCancelledLeavesNoFile() async throws {
        try await onPhone { phone in
            let line = "{\"text\": \"" + String(repeating: "ab ", count: 300) + "\"}\n"
            let long = try phone.file("long.jsonl", String(repeating: line, count: 20_000))  // 18 MB
            phone.app.data.add(file: long)
            try await phone.wait("reading") { phone.state.reading?.kind == .reading && phone.state.reading!.done > 0 }
            XCTAssertTrue(phone.app.data.sentence.hasPrefix("Reading long.jsonl · "), phone.app.data.sentence)
            XCTAssertFalse(phone.app.data.canChange)
            phone.app.data.cancel()
            try await phone.settle()
            XCTAssertNil(phone.state.problem)
            XCTAssertNil(phone.state.data)
            XCTAssertEqual(phone.names(phone.places.data), [])
        }
    }

    func testWhatAProcessLeftThatEndedWhileCopyingGoesAtTheNextStart() async throws {
        try await onPhone { phone in
            try await Self.type(phone, "ok so, x")
            try Data("half".utf8).write(to: phone.places.data.appendingPathComponent(".incoming"))
            try Data("{}".utf8).write(to: phone.places.data.appendingPathComponent("7.jsonl"))
            try await Self.restart(phone)
            XCTAssertEqual(phone.names(phone.places.data).filter { !$0.hasSuffix(".json") }, [phone.state.data!.file])
        }
    }

    func testOfThreeQuickStartsTheFirstTwoAreCancelled() async {
        let done = await Self.threeStarts()
        XCTAssertEqual(done, [-1, -2, 3])
    }

    @MainActor private static func threeStarts() async -> [Int] {
        let worker = Worker { XCTFail("\($0)") }
        var done: [Int] = []
        for number in 1...3 {
            worker.start { stop in
                try await Task.sleep(nanoseconds: 20_000_000)
                do {
                    try stop.check()
                    done.append(number)
                } catch {
                    done.append(-number)
                    throw error
                }
            }
        }
        await worker.finish()
        XCTAssertFalse(worker.busy)
        return done
    }

    func testSettingsOutlastTheProcessAndWhatIsMissingIsAsAtFirst() async throws {
        try await onPhone { phone in
            phone.app.train.stepChoice = 0
            phone.app.train.budget = 256_000_000
            phone.app.tryIt.temperature = 1.234
            XCTAssertEqual(phone.app.tryIt.temperature, 1.2)
            XCTAssertEqual(phone.app.tryIt.temperatureLabel, "Variety: 1.2")
            try await Self.restart(phone)
            XCTAssertEqual(phone.app.train.stepChoice, 0)
            XCTAssertTrue(phone.app.train.stepsLabel.hasPrefix("8 steps · about "), phone.app.train.stepsLabel)
            XCTAssertEqual(phone.app.train.budget, 256_000_000)
            XCTAssertEqual(phone.app.train.budgets.map(\.title), ["What is free (3.0 GB)", "128 MB", "256 MB", "512 MB", "1.0 GB", "2.0 GB"])
            try Data("{\"steps\": 40}".utf8).write(to: phone.places.settings)
            try await Self.restart(phone)
            XCTAssertEqual(phone.core.settings[\.steps], 40)
            XCTAssertNil(phone.app.train.budget)
            try Data("{".utf8).write(to: phone.places.settings)
            try await Self.restart(phone)
            XCTAssertEqual(phone.core.settings[\.steps], 100)
        }
    }
}
