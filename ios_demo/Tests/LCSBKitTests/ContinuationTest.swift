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

    /// As SentencePiece's with byte fallback: 2, 3 and 4 are the bytes of a euro sign.
    private func fallback() throws -> Tokenizer {
        let names = ["<end>", "a", "<0xE2>", "<0x82>", "<0xAC>", "<s>", "\u{FFFD}", "\u{2581}b"]
        let vocabulary = names.enumerated().map { "\"\($1)\": \($0)" }.joined(separator: ", ")
        let added = [0, 5].map { #"{"id": \#($0), "content": "\#(names[$0])", "special": true}"# }.joined(separator: ", ")
        let blank = #"{"type": "Replace", "pattern": {"String": "\#u{2581}"}, "content": " "}"#
        let strip = #"{"type": "Strip", "content": " ", "start": 1, "stop": 0}"#
        let decoder = #"{"type": "Sequence", "decoders": [\#(blank), {"type": "ByteFallback"}, {"type": "Fuse"}, \#(strip)]}"#
        let model = #"{"type": "BPE", "vocab": {\#(vocabulary)}, "merges": [], "byte_fallback": true}"#
        let file = #"{"added_tokens": [\#(added)], "model": \#(model), "decoder": \#(decoder)}"#
        return try openTokenizer(Array(file.utf8), #"{"eos_token": "<end>"}"#, names.count)
    }

    /// Writes the given tokens, then the end.
    private final class Script: SequenceDecoder {
        private let tokens: [Int]
        private let size: Int
        private var count = 0

        init(_ tokens: [Int], _ size: Int) { (self.tokens, self.size) = (tokens, size) }

        func prefill(_ ids: [Int]) throws -> [Float] { try next(0) }

        func next(_ id: Int) throws -> [Float] {
            var logits = [Float](repeating: 0, count: size)
            logits[count < tokens.count ? tokens[count] : 0] = 9
            count += 1
            return logits
        }
    }

    private func pieces(
        _ tokenizer: Tokenizer, _ prompt: [Int], _ ids: [Int], stop: [String] = []
    ) throws -> (pieces: [String], ended: TextEnd?) {
        let config = SamplingConfig(temperature: 0, stop: stop)
        let continuation = try Continuation(Script(ids, tokenizer.vocabSize), tokenizer, prompt, 64, config)
        var found: [String] = []
        while let piece = try continuation.next() { found.append(piece) }
        XCTAssertNil(try continuation.next())
        return (found, continuation.ended)
    }

    func testWhatIsNoTextIsReplacedAndTheRestIsGivenOut() throws {
        let tokenizer = try fallback()
        func written(_ ids: Int..., prompt: [Int] = [1]) throws -> [String] { try pieces(tokenizer, prompt, ids).pieces }
        let four = String(repeating: "\u{FFFD}", count: 4)
        XCTAssertEqual(try written(2, 3, 4, 2, 1, 2, 3, 4), ["\(four)a", "€"])  // a stray byte after a good character
        XCTAssertEqual(try written(2, 3, 4, 1, 7), ["€a", " b"])
        XCTAssertEqual(try written(2, 5, 3, 4, 1), ["€a"])  // a special token within the run
        XCTAssertEqual(try written(2, 3), ["\u{FFFD}\u{FFFD}"])
        XCTAssertEqual(try written(6), ["\u{FFFD}"])  // a text that ends in a real one keeps it
        XCTAssertEqual(try written(1, 6), ["a", "\u{FFFD}"])
        XCTAssertEqual(try written(2, 1, prompt: [1, 2, 3, 4]), ["\u{FFFD}a"])  // it breaks the prompt's last character
        XCTAssertEqual(try written(2, 3, 4, 1, prompt: [1, 2, 3, 4]), ["€a"])
        for ids in [[2, 3, 4, 1], [2, 3, 4]] {
            let stopped = try pieces(tokenizer, [1], ids, stop: ["€"])
            XCTAssertEqual(stopped.pieces, [])
            XCTAssertEqual(stopped.ended, .stopText)
        }
    }

    func testByteLevelTokensThatEndWithinACharacter() throws {
        // The bytes of a euro sign as byte-level vocabularies write them.
        let vocabulary = ["<end>", "a", "\u{E2}", "\u{124}", "\u{AC}"].enumerated().map { "\"\($1)\": \($0)" }.joined(separator: ", ")
        let added = #"{"id": 0, "content": "<end>", "special": true}"#
        let model = #"{"type": "BPE", "vocab": {\#(vocabulary)}, "merges": []}"#
        let file = #"{"added_tokens": [\#(added)], "decoder": {"type": "ByteLevel"}, "model": \#(model)}"#
        let tokenizer = try openTokenizer(Array(file.utf8), #"{"eos_token": "<end>"}"#, 5)
        XCTAssertEqual(try pieces(tokenizer, [1], [2, 3, 4, 2, 1]).pieces, ["€", "\u{FFFD}a"])
        XCTAssertEqual(try pieces(tokenizer, [1], [1, 2, 3]).pieces, ["a", "\u{FFFD}"])
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
