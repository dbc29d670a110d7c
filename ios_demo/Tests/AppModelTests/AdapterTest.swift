import Foundation
import LCSBKit
import XCTest
@testable import AppModel

/// Several adapters: kept, named, brought in, continued, compared, deleted; and a conversation with them and without.
final class AdapterTest: XCTestCase {
    @MainActor private static func train(_ phone: Phone, steps: Int = 4) async throws -> AdapterInfo {
        if phone.state.data == nil { try await phone.useSample() }
        phone.begin(steps: steps)
        try await phone.waitForEnd()
        try await phone.settle()
        return phone.state.adapters[0]
    }

    @MainActor private static func values(_ phone: Phone, _ id: String) throws -> [Float] {
        let layout = try TrainingBundle.open(phone.core.library.directory(phone.state.bundle!)).manifest.adapter
        let values = try Floats(count: layout.size)
        try readAdapter(phone.core.adapters.file(id), layout, values)
        return values.array
    }

    func testEachRunLeavesAnAdapterThatCanBeNamedAndDeleted() async throws {
        try await onPhone { phone in
            let first = try await Self.train(phone)
            let second = try await Self.train(phone, steps: 8)
            let share = phone.app.share
            XCTAssertEqual(share.rows.map(\.id), [second.id, first.id])
            XCTAssertNotEqual(try Self.values(phone, first.id), try Self.values(phone, second.id))
            share.rename(first.id, to: "  short  ")
            share.rename(second.id, to: " ")
            XCTAssertEqual(share.rows.map(\.name), ["Sample messages 2", "short"])
            XCTAssertTrue(share.rows[1].detail.contains(" · Sample messages · 4 steps"), share.rows[1].detail)
            XCTAssertEqual(share.rows[1].spoken, "short. \(share.rows[1].detail). \(share.rows[1].result!)")
            XCTAssertTrue(share.sentence.hasPrefix("Each is "), share.sentence)
            try await phone.start()
            XCTAssertEqual(phone.app.share.rows.map(\.name), ["Sample messages 2", "short"])
            XCTAssertEqual(phone.state.voice, .adapter(second.id))
            phone.app.share.delete(second.id)
            XCTAssertEqual(phone.app.share.rows.map(\.name), ["short"])
            XCTAssertEqual(phone.state.voice, .adapter(first.id))
            phone.app.share.delete(first.id)
            XCTAssertNil(phone.state.voice)
            XCTAssertEqual(phone.app.tryIt.sentence, "Train the model to see the difference.")
            XCTAssertEqual(phone.names(phone.places.adapters), [])
            try await phone.start()
            XCTAssertEqual(phone.app.share.rows, [], "a finished run does not bring back what was deleted")
        }
    }

    func testWhatIsSharedIsReadByAnotherPhone() async throws {
        try await onPhone { phone in
            let learned = try await Self.train(phone)
            phone.app.share.share(learned.id)
            try await phone.wait("the file") { phone.app.share.shared != nil }
            let directory = phone.root.appendingPathComponent("received")
            try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
            for (name, content) in stored([UInt8](try Data(contentsOf: phone.app.share.shared!.url))) {
                try Data(content).write(to: directory.appendingPathComponent(String(name.dropFirst("adapter/".count))))
            }
            try await onPhone { other in
                for source in [directory, directory.appendingPathComponent("adapter_model.safetensors")] {
                    other.app.share.add(source)
                    try await other.settle()
                    XCTAssertNil(other.state.problem)
                    XCTAssertEqual(try Self.values(other, other.state.adapters[0].id), try Self.values(phone, learned.id))
                }
                XCTAssertEqual(other.app.share.rows.map(\.name), ["adapter_model", "received"])
                XCTAssertTrue(other.app.share.rows[0].detail.hasSuffix(" · imported"))
                XCTAssertEqual(other.protection.of("adapters")?.backup, false)
                other.app.share.backup = true
                XCTAssertEqual(other.protection.of("adapters")?.backup, true)
            }
        }
    }

    func testTrainingContinuesAnAdapterWhichStaysAsItIs() async throws {
        try await onPhone { phone in
            let first = try await Self.train(phone, steps: 8)
            let before = try Self.values(phone, first.id)
            phone.app.share.continueTraining(first.id)
            XCTAssertEqual(phone.app.shown, .train)
            XCTAssertEqual(phone.app.train.beginning, first.id)
            XCTAssertEqual(phone.app.train.beginnings.map(\.title), ["The model as it came", "Sample messages"])
            phone.begin(steps: 40)
            try await phone.waitForSteps(3)
            XCTAssertFalse(phone.app.share.canContinue)
            phone.app.train.pause()
            try await phone.waitForEnd(.paused)
            phone.app.share.delete(first.id)  // the run has a copy
            phone.app.train.start()
            try await phone.waitForEnd()
            let second = try XCTUnwrap(phone.state.adapters.first)
            XCTAssertEqual(second.continued, "Sample messages")
            XCTAssertTrue(phone.app.share.rows[0].detail.hasSuffix("continues “Sample messages”"), phone.app.share.rows[0].detail)
            XCTAssertEqual(second.before!, first.after!, accuracy: 1e-6, "it begins where the first ended")
            XCTAssertNotEqual(try Self.values(phone, second.id), before)
            XCTAssertNil(phone.app.train.beginning, "what is gone is not begun with")
        }
    }

    func testAdaptersAreOfTheirModelWhateverItIsCalled() async throws {
        try await onPhone { phone in
            _ = try await Self.train(phone)
            try await phone.add("llama")
            XCTAssertEqual(phone.app.share.rows, [])
            XCTAssertEqual(phone.app.share.sentence, "Nothing yet. When a run is finished, the adapter can be shared from here.")
            try FileManager.default.copyItem(at: testBundles.appendingPathComponent("tiny"), to: phone.places.documents.appendingPathComponent("again"))
            phone.app.cameToFront()
            phone.app.model.add(found: phone.app.model.found[0])
            try await phone.wait("it") { phone.state.chosen == "again" }
            try await phone.settle()
            XCTAssertEqual(phone.app.share.rows.map(\.name), ["Sample messages"])
            phone.app.model.remove("tiny")
            await phone.core.bundling.finish()
            XCTAssertEqual(phone.app.share.rows.map(\.name), ["Sample messages"], "the same model is still there")
            phone.app.model.remove("again")
            await phone.core.bundling.finish()
            XCTAssertEqual(phone.names(phone.places.adapters), [])
        }
    }

    // Trying

    func testTheSamePromptWithAndWithoutWhatWasLearned() async throws {
        try await onPhone { phone in
            let learned = try await Self.train(phone, steps: 40)
            let tryIt = phone.app.tryIt
            XCTAssertFalse(tryIt.canCompare)
            tryIt.asChat = false
            tryIt.temperature = 0
            tryIt.prompt = "ok so "
            XCTAssertEqual(tryIt.sides.map(\.title), ["The model as it came", "Sample messages"])
            XCTAssertEqual([tryIt.left, tryIt.right], [.base, .adapter(learned.id)])
            tryIt.compare()
            try await phone.wait("both texts") { !tryIt.comparison.writing && tryIt.comparison.prompt != nil }
            let both = tryIt.comparison
            XCTAssertTrue(!both.left.isEmpty && !both.right.isEmpty)
            XCTAssertNotEqual(both.left, both.right)
            phone.app.share.compare(learned.id, with: learned.id)
            XCTAssertEqual(phone.app.shown, .tryIt)
            tryIt.compare()
            try await phone.wait("both texts") { !tryIt.comparison.writing && !tryIt.comparison.left.isEmpty }
            try await phone.settle()
            XCTAssertEqual(tryIt.comparison.left, both.right)
            XCTAssertEqual(tryIt.comparison.right, both.right)
        }
    }

    func testAConversationWithTheAdapterSwitchedOnAndOff() async throws {
        try await onPhone { phone in
            let learned = try await Self.train(phone, steps: 40)
            let tryIt = phone.app.tryIt
            @MainActor func answer(_ text: String, on: Bool) async throws -> ChatMessage {
                tryIt.adapterOn = on
                tryIt.draft = text
                tryIt.send()
                XCTAssertEqual(tryIt.draft, "")
                try await phone.wait("the answer") { !tryIt.writing }
                try await phone.settle()
                return try XCTUnwrap(tryIt.messages.last)
            }
            tryIt.temperature = 0
            XCTAssertTrue(tryIt.chats)
            XCTAssertFalse(tryIt.asChat, "it learned from texts")
            let plain = try await answer("ok so ", on: false)
            let adapted = try await answer("ok so ", on: true)
            XCTAssertEqual([plain.voice, adapted.voice], [.base, .adapter(learned.id)])
            XCTAssertEqual([tryIt.title(of: .base), tryIt.title(of: .adapter(learned.id))], ["The model as it came", "Sample messages"])
            XCTAssertNotEqual(plain.text, adapted.text)
            XCTAssertTrue(plain.complete && adapted.complete)
            let again = try await answer("ok so ", on: false)
            XCTAssertEqual(again.text, plain.text)
            XCTAssertEqual(tryIt.messages.map(\.mine), [true, false, true, false, true, false])
            XCTAssertEqual(Set(tryIt.messages.map(\.id)).count, 6)

            tryIt.clear()
            tryIt.asChat = true
            _ = try await answer("a", on: true)
            let second = try await answer("b", on: true)
            XCTAssertNil(phone.state.problem, "what no longer fits of the conversation is forgotten")
            XCTAssertEqual(second.id, 10, "numbers are not given twice")
            tryIt.system = "be kind"
            tryIt.draft = "and longer than the model reads at once"
            tryIt.send()
            try await phone.assertSaid("The message is too long for this model.", "Die Nachricht ist zu lang für dieses Modell.", nil)
            tryIt.clear()
            try await phone.settle()
            XCTAssertEqual(tryIt.messages, [])
            try await phone.start()
            XCTAssertEqual(phone.app.tryIt.system, "be kind")
            XCTAssertTrue(phone.app.tryIt.asChat)
        }
    }

    func testWritingIsStoppedAndEndsWhenTrainingBegins() async throws {
        try await onPhone { phone in
            let tryIt = phone.app.tryIt
            try await phone.useSample()
            XCTAssertFalse(tryIt.canSwitch)
            for end in [{ tryIt.stop() }, { phone.begin(steps: 2) }] {
                tryIt.draft = "ok"
                tryIt.asChat = false
                tryIt.send()
                XCTAssertFalse(tryIt.canSend)
                end()
                try await phone.wait("its end") { !tryIt.writing }
                try await phone.settle()
                XCTAssertNil(phone.state.problem)
            }
            try await phone.waitForEnd()
            phone.begin(steps: 100)
            XCTAssertEqual(tryIt.sentence, "The model is training. Pause it to try it.")
            XCTAssertFalse(tryIt.canWrite)
        }
    }

    func testAPausedRunIsTriedAsItIs() async throws {
        try await onPhone { phone in
            try await phone.useSample()
            phone.begin(steps: 100)
            try await phone.waitForSteps(6)
            phone.app.train.pause()
            try await phone.waitForEnd(.paused)
            XCTAssertEqual(phone.app.tryIt.voices.map(\.title), ["What it has learned so far"])
            XCTAssertEqual(phone.app.tryIt.sentence, phone.english("try_paused"))
            phone.app.tryIt.asChat = false
            phone.app.tryIt.draft = "ok so "
            phone.app.tryIt.send()
            try await phone.wait("the answer") { !phone.app.tryIt.writing }
            XCTAssertEqual(phone.app.tryIt.messages.last?.voice, .run)
            phone.app.memoryIsShort()  // gives back what writing takes
            try await phone.settle()
            phone.time.advance(61)
            phone.app.train.start()
            try await phone.waitForSteps(phone.state.run.step + 1)
        }
    }
}
