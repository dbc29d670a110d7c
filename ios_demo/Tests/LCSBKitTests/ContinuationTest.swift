import Foundation
import XCTest
@testable import LCSBKit

/// What an app continues: an adapter that it has, and a conversation.
final class ContinuationTest: XCTestCase {
    private final class Quiet: RunObserver {}

    private func run(_ scratch: URL, _ name: String, steps: Int, _ initial: URL?) throws -> RunResult {
        let data = scratch.file("data.jsonl")
        try data.write((1...30).map { "{\"text\": \"message \($0) of many\"}\n" }.joined())
        let options = RunOptions(steps: steps, threads: 1, initialAdapter: initial)
        return try TrainingRun(openBundle("llama"), data: data, directory: scratch.file(name), options).run(RunControl(), Quiet())
    }

    func testARunBeginsWithAnAdapterWhichIsPartOfWhatItIs() throws {
        try inScratch { scratch in
            let first = try run(scratch, "first", steps: 6, nil)
            let learned = URL(fileURLWithPath: try XCTUnwrap(first.adapter))
            let second = try run(scratch, "second", steps: 3, learned)
            XCTAssertEqual(try XCTUnwrap(second.evalLossBefore), try XCTUnwrap(first.evalLossAfter), accuracy: 1e-9)
            let plain = try run(scratch, "plain", steps: 3, nil)
            XCTAssertNotEqual(second.losses, plain.losses)
            let layout = try openBundle("llama").manifest.adapter
            let checkpoint = try newestGood(checkpointFiles(scratch.file("second")), layout.numLayers, layout.size).checkpoint
            XCTAssertEqual(checkpoint.place.identity.initialAdapter, try sha256(learned))
            XCTAssertEqual(try run(scratch, "second", steps: 5, learned).resumedFrom, 3)
            let other = URL(fileURLWithPath: try XCTUnwrap(plain.adapter))
            let message = refusal(.checkpointOtherRun) { _ = try run(scratch, "second", steps: 7, other) }
            XCTAssert(message.contains("initial adapter: "), message)
            refusal(.checkpointOtherRun) { _ = try run(scratch, "second", steps: 7, nil) }
        }
    }

    func testAnAdapterThatDoesNotFitIsNotBegunWith() throws {
        try inScratch { scratch in
            refusal(.adapter) { _ = try run(scratch, "a", steps: 2, scratch.file("gone")) }
            refusal(.adapter) { _ = try run(scratch, "b", steps: 2, openBundle("gemma3").file(adapterFile)) }
            XCTAssertEqual(try checkpointFiles(scratch.file("b")), [])
        }
    }

    func testAConversationIsRenderedTurnByTurn() throws {
        let bundle = try openBundle("llama")
        let format = try XCTUnwrap(bundle.chat)
        let chat = Chat(format, system: "be kind", earlier: [("hi", "hello"), ("and?", "so")])
        let messages = [
            Message(role: "system", content: "be kind"), Message(role: "user", content: "hi"), Message(role: "assistant", content: "hello"),
            Message(role: "user", content: "and?"), Message(role: "assistant", content: "so"), Message(role: "user", content: "why"),
        ]
        let expected = try bundle.tokenizer.encode(format.render(messages, addGenerationPrompt: true))
        XCTAssertEqual(try chat.promptIds(bundle.tokenizer, "why"), expected)
    }
}
