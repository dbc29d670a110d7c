import Foundation
import XCTest
@testable import LCSBKit

/// Chat formats against the templates that they were derived from, on what scripts/golden/write_chat_golden.py wrote.
final class ChatFormatTest: XCTestCase {
    private static let golden = Result { try JsonReader(readBounded(Repository.golden("chat_formats.json"), 1 << 24)).tree(nodes: .max) }

    private func formats() throws -> [(key: String, value: Json)] { try XCTUnwrap(Self.golden.get()["formats"]?.object) }

    private func format(_ name: String) throws -> Json { try XCTUnwrap(formats().first { $0.key == name }?.value["chat"]) }

    private func messages(_ turns: Json?) throws -> [Message] {
        try XCTUnwrap(turns?.array).map { Message(role: try XCTUnwrap($0["role"]?.string), content: try XCTUnwrap($0["content"]?.string)) }
    }

    private func open(_ chat: String) throws -> ChatFormat {
        try inScratch { folder in
            let file = folder.appendingPathComponent(ChatFormat.file)
            try Data(chat.utf8).write(to: file)
            return try ChatFormat.open(file)
        }
    }

    func testARunsDay() throws {
        let format = try XCTUnwrap(formats().first { $0.key == "llama3.2" }?.value)
        let example = try XCTUnwrap(format["rendered"]?.array?.first { $0["text"]?.string?.contains("\u{E000}") == true })
        let chat = try open(try XCTUnwrap(format["chat"]).text).at("2026-02-28T23:05:09")
        let found = try chat.render(messages(example["messages"]), addGenerationPrompt: example["prompt"]?.bool == true)
        assertSame(found, try XCTUnwrap(example["text"]?.string).replacingOccurrences(of: "\u{E000}", with: "28 Feb 2026"))
    }

    func testConversationsAreWrittenAsTheTemplateDoes() throws {
        let writer = DateFormatter()
        (writer.locale, writer.dateFormat) = (Locale(identifier: "en_US_POSIX"), "dd MMM yyyy")
        let today = writer.string(from: Date())
        for (name, format) in try formats() {
            let chat = try open(try XCTUnwrap(format["chat"]).text)
            let cases = try XCTUnwrap(format["rendered"]?.array)
            var refused = 0
            for example in cases {
                do {
                    let found = try chat.render(messages(example["messages"]), addGenerationPrompt: example["prompt"]?.bool == true)
                    assertSame(found, (example["text"]?.string ?? "refused").replacingOccurrences(of: "\u{E000}", with: today), name)
                } catch let error as LcsbError {
                    XCTAssertEqual(error.fault, .chatUnsupported)
                    refused += 1
                }
            }
            // What a template takes and its format refuses: Gemma's, a system's message in an assistant's place.
            XCTAssert(refused == cases.filter { $0["text"]?.isNull == true }.count || name == "gemma3", name)
        }
    }

    func testLabelsAreThoseOfTheTemplate() throws {
        let tokenizer = try openTokenizer(Array(try XCTUnwrap(Self.golden.get()["tokenizer"]).text.utf8), #"{"bos_token": "<s>"}"#)
        for (name, format) in try formats() {
            let chat = try open(try XCTUnwrap(format["chat"]).text)
            for example in try XCTUnwrap(format["labels"]?.array) {
                let content = Array(#"{"messages": \#(try XCTUnwrap(example["messages"]).text)}"#.utf8)
                let line = try Bytes(count: content.count)
                UnsafeMutableRawBufferPointer(start: line.pointer, count: line.count).copyBytes(from: content)
                let wanted = example["counted"]?.array?.flatMap { run in
                    let run = ints(run)
                    return run[0]..<run[0] + run[1]
                }
                guard let found = try? readLine(line, tokenizer, chat) else {
                    let messages = try messages(example["messages"])
                    XCTAssert(wanted == nil || messages.dropFirst().contains { $0.role == "system" }, name)
                    continue
                }
                let (ids, labels) = (found.example.inputIds, found.example.labels)
                let counted = labels.indices.filter { labels[$0] != -100 }
                XCTAssertEqual(counted, wanted, name)
                XCTAssertEqual(ids.count, example["tokens"]?.int, name)
                XCTAssertEqual(found.uncountedTurns, example["uncounted_turns"]?.int, name)
                for place in counted { XCTAssertEqual(labels[place], ids[place + 1]) }
            }
        }
    }

    func testEachFamilyHasLabelsThatCount() throws {
        for (name, format) in try formats() where name != "llama3.2" {
            XCTAssertGreaterThan(try XCTUnwrap(format["labels"]?.array).filter { $0["counted"]?.array?.isEmpty == false }.count, 20, name)
        }
    }

    func testWhatItDoesNotTake() throws {
        let chat = try open(try format("gemma3").text)
        func refused(_ part: String, _ roles: String...) {
            assertRefused(.chatUnsupported, part) { _ = try chat.render(roles.map { Message(role: $0, content: "x") }) }
        }
        refused("user and assistant must take turns", "user", "user")
        refused("the role 'tool'; expected system, user, assistant", "user", "tool")
        refused("a conversation without messages")
        func reason(_ messages: [Message]) -> String? {
            do { return try "\(chat.conversation(messages))" } catch { return (error as? ChatRefusal)?.reason }
        }
        XCTAssertEqual(
            reason([Message(role: "user", content: "x")]), "messages: expected at least one with the role 'assistant', found none"
        )
        let long = (0..<1001).map { Message(role: $0 % 2 == 0 ? "user" : "assistant", content: "x") }
        XCTAssert(reason(long)?.contains("at most 1000, found 1001") == true)
    }

    func testAMessageOfATool() throws {
        let chat = try open(try format("qwen3").text)
        let message = Message(role: "user", content: "<tool_response>1</tool_response>")
        assertRefused(.chatUnsupported, "takes for a tool's") { _ = try chat.render([message]) }
    }

    /// A mark that follows another character is a Character with it, and "\r\n" is one.
    func testMarksAreFoundByBytes() throws {
        let chat = try open(try format("qwen3").text)
        let content = "<think>\u{301}\r\n\nhm\n</think>\u{301}\r\n\nyes"
        let messages = [Message(role: "user", content: "a"), Message(role: "assistant", content: content)]
        let thought = "<think>\n\u{301}\r\n\nhm\n</think>\n\n\u{301}\r\n\nyes"
        assertSame(try chat.render(messages), "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n\(thought)<|im_end|>\n")
        let tool = Message(role: "user", content: "<tool_response>\u{301}</tool_response>")
        assertRefused(.chatUnsupported, "takes for a tool's") { _ = try chat.render([tool]) }
        assertSame("\u{A0}\r\n q\u{301}\u{2003}".strip(), "q\u{301}")
    }

    func testFilesThatAreRefused() throws {
        let chat = try format("llama3.2").text
        func refused(_ fault: Fault, _ part: String, _ content: String, line: UInt = #line) {
            assertRefused(fault, part, line: line) { _ = try open(content) }
        }
        func changed(_ old: String, _ new: String) -> String {
            XCTAssert(chat.contains(old))
            return chat.replacingOccurrences(of: old, with: new)
        }
        refused(.chatUnsupported, "version 2, this app reads 1", changed(#""format_version":1"#, #""format_version":2"#))
        refused(.chatUnsupported, "a date with '%A'", changed("%b", "%A"))
        refused(.bundleDamaged, "unknown field 'formula'", changed(#""format_version":1"#, #""format_version":1,"formula":1"#))
        refused(.bundleDamaged, "has no empty", changed(#""empty":null,"#, ""))
        refused(.bundleDamaged, "not a chat format", String(chat.dropLast()))
        refused(.bundleDamaged, "not a chat format", String(repeating: "[", count: 60_000))
        refused(.bundleDamaged, "more than the 65536", String(repeating: " ", count: 65_537))
        _ = try inScratch { folder in
            assertRefused(.bundleDamaged, "no such file") { _ = try ChatFormat.open(folder.appendingPathComponent("none")) }
        }
        XCTAssert(try XCTUnwrap(format("llama3")["date_format"]).isNull)
    }
}
