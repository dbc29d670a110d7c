import Foundation
import XCTest
@testable import LCSBKit

final class DatasetTest: XCTestCase {
    private var directory: URL!
    private let tiny = TestBundles.directory.appendingPathComponent("tiny")
    private var tokenizer: Tokenizer!  // a token for each byte
    private var chat: ChatFormat!

    override func setUpWithError() throws {
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("lcsb-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        tokenizer = try Tokenizer.open(tiny, 259)
        chat = try ChatFormat.open(tiny.appendingPathComponent(ChatFormat.file))
    }

    override func tearDownWithError() throws { try FileManager.default.removeItem(at: directory) }

    private func write(_ content: some Sequence<UInt8>) throws -> URL {
        let file = directory.appendingPathComponent(UUID().uuidString)
        try Data(content).write(to: file)
        return file
    }

    private func write(_ lines: String...) throws -> URL { try write(lines.map { $0 + "\n" }.joined().utf8) }

    private func read(_ file: URL, seqLen: Int = 64) throws -> Dataset { try readDataset(file, tokenizer, chat, seqLen, directory) }

    private func refused(
        _ fault: Fault, _ part: String, _ content: some Sequence<UInt8>, file: StaticString = #filePath, line: UInt = #line
    ) throws {
        let data = try write(content)
        assertRefused(fault, part, file: file, line: line) {
            do {
                _ = try read(data)
            } catch let error as LcsbError {
                XCTAssertEqual(error.arguments.first, data.lastPathComponent, file: file, line: line)
                XCTAssertEqual(error.message, "\(data.path):\(error.arguments[1]): \(error.arguments[2])", file: file, line: line)
                throw error
            }
        }
    }

    private func pieces(_ pieces: (String, Bool)...) -> [PreviewPiece] { pieces.map { PreviewPiece(text: $0.0, counted: $0.1) } }

    func testWhatEachFormCounts() throws {
        let conversation = #"{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}"#
        let data = try read(write(#"{"text": "ab"}"#, #"{"prompt": "a", "completion": "bc"}"#, conversation))
        XCTAssertEqual(preview(data, 0, tokenizer), pieces(("a", false), ("b<|endoftext|>", true)))
        XCTAssertEqual(preview(data, 1, tokenizer), pieces(("a", false), ("bc<|endoftext|>", true)))
        let before = "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"
        XCTAssertEqual(preview(data, 2, tokenizer), pieces((before, false), ("y<|im_end|>\n", true)))
        XCTAssertEqual(data.report.lines, 3)
        XCTAssertEqual([data.report.texts, data.report.completions, data.report.conversations], [1, 1, 1])
    }

    /// Of the assistant's turns, whatever stands between them.
    func testWhatCountsInAConversationOfManyBytes() throws {
        let turns = #"{"role": "user", "content": "é🙂"}, {"role": "assistant", "content": "ü"}"#
        let data = try read(write(#"{"messages": [\#(turns), \#(turns), {"role": "user", "content": "x"}]}"#), seqLen: 200)
        let found = preview(data, 0, tokenizer)
        XCTAssertEqual(found.filter(\.counted), pieces(("ü<|im_end|>\n", true), ("ü<|im_end|>\n", true)))
        let between = "<|im_start|>user\né🙂<|im_end|>\n<|im_start|>assistant\n"
        XCTAssertEqual(found.filter { !$0.counted }, pieces((between, false), (between, false)))
    }

    private func bytes(_ content: some Sequence<UInt8>) throws -> Bytes {
        let content = Array(content)
        let bytes = try Bytes(count: content.count)
        UnsafeMutableRawBufferPointer(start: bytes.pointer, count: bytes.count).copyBytes(from: content)
        return bytes
    }

    func testAReport() throws {
        let twice = #"{"text": "ab"}"#
        let file = try write(#"{"text": "abcdefgh"}"#, twice, twice + "\r", #"{"prompt": "abcdefgh", "completion": "i"}"#)
        let report = try reportTokens(file, tokenizer, nil, seqLen: 6, accumulation: 1, examples: 1, spool: directory)
        // 9, 3, 3 and 10 tokens; the last line's completion is cut off.
        let data = DataReport(
            lines: 4, examples: 3, tokens: 12, countedLabels: 10, truncated: 2, tokensCut: 7, withoutLabels: 1, texts: 3, completions: 1,
            conversations: 0, uncountedTurns: 0, doubledEnds: 0, duplicates: 1, blankLines: 0, furtherKeys: [], lengthP50: 3, lengthP90: 10,
            lengthP99: 10, longest: 10
        )
        XCTAssertEqual(report.data, data)
        XCTAssertEqual(report.sequences, 2)
        XCTAssertEqual(report.steps, 2)
        XCTAssertEqual(report.fill, 1)
        XCTAssertEqual(report.seqLenToCutNone, 10)
        XCTAssertEqual(report.preview.map { $0.map(\.text).joined() }, ["abcdef"])
        XCTAssertEqual(report.sha256, try sha256(file))
        for (seqLen, accumulation, examples, part) in [(0, 1, 1, "seq-len"), (1, 0, 1, "accumulation"), (1, 1, -1, "preview")] {
            assertRefused(.option, "\(part): expected at least \(part == "preview" ? 0 : 1), found \(part == "preview" ? -1 : 0)") {
                _ = try reportTokens(
                    file, tokenizer, nil, seqLen: seqLen, accumulation: accumulation, examples: examples, spool: directory
                )
            }
        }
    }

    func testLinesThatAreRefused() throws {
        let good = "{\"text\": \"ok\"}\n"
        func line(_ part: String, _ text: String, line: UInt = #line) throws {
            try refused(.dataLine, part, (good + text).utf8, line: line)
        }
        try line(":2: not JSON: ends within a string at byte 11", "{\"text\": \"a")
        try line(":2: not JSON: half a surrogate pair", #"{"text": "\ud800"}"#)
        try line(":2: not JSON: half a surrogate pair", #"{"text": "\udc00\ud800"}"#)
        try line(":2: not JSON: a control character", "{\"text\": \"a\tb\"}")
        try line(":2: not JSON: expected the end", #"{"text": "a"} {"text": "b"}"#)
        try line(":2: not JSON: expected an object", "[1]")
        try line(":2: not JSON: a value nested too deep", "{\"x\": " + String(repeating: "[", count: 100_000))
        try line(":2: not JSON: expected a number", "{\"x\": 01}")
        try line(":2: expected the keys of \(forms), found 'label'", #"{"label": 1}"#)
        try line("found none", "{}")
        try line("found 'messages', 'text'", #"{"text": "a", "messages": []}"#)
        try line("expected the keys of \(forms), found 'prompt'", #"{"prompt": "a"}"#)
        try line("text: expected a string, found a number", #"{"text": -1.5e3}"#)
        try line("text: expected text, found an empty string", #"{"text": ""}"#)
        try line("messages: expected an array, found a string", #"{"messages": "a"}"#)
        try line("messages[1]: expected an object, found null", #"{"messages": [{"role": "user", "content": "x"}, null]}"#)
        let turnKeys = #"{"role", "content"} or {"from", "value"}"#
        try line("messages[0]: expected the keys of \(turnKeys), found 'role'", #"{"messages": [{"role": "user"}]}"#)
        try line("messages[0].role: expected a string, found true or false", #"{"messages": [{"role": true, "content": "x"}]}"#)
        try line("messages[0].role: expected text, found an empty string", #"{"messages": [{"role": "", "content": "x"}]}"#)
        try line("messages: expected text, found an empty string", #"{"messages": [{"role": "assistant", "content": ""}]}"#)
        try line("at least one with the role 'assistant'", #"{"messages": [{"role": "user", "content": "x"}]}"#)
        try line("the role 'tool'", #"{"messages": [{"role": "tool", "content": "x"}, {"role": "assistant", "content": "x"}]}"#)
        try line(":2: a line of more than 1048576 bytes", "{\"text\": \"" + String(repeating: "a", count: 1 << 20) + "\"}\n")
        let many = "{" + (0..<50_000).map { "\"\(1_000_000 - $0)\": 1" }.joined(separator: ",") + "}"
        try line("found '1000000', '950001', '950002',", many)
    }

    /// The fuzzer's findings, and lines with some bytes changed: Swift would end the process where a reader goes too far.
    func testChangedLinesAreReadOrRefused() throws {
        let corpus = Repository.root.appendingPathComponent("fuzz/corpus/data_line")
        var lines = try listed(corpus).map { try readBounded(corpus.appendingPathComponent($0), 1 << 20) }
        XCTAssertFalse(lines.isEmpty)
        lines.append(Array(#"{"messages": [{"role": "user", "content": "\ud83d\ude42"}, {"role": "assistant", "content": "é"}]}"#.utf8))
        lines.append(Array(#"{"prompt": "a\n", "completion": "🙂", "text": [null, 1.5e3, {"x": true}]}"#.utf8))
        for (number, line) in lines.enumerated() {
            for round in 0..<2000 as Range<UInt64> {
                var changed = line
                for change in 0..<round % 4 where !line.isEmpty {
                    let hash = splitmix64(UInt64(number) << 32 | round, change)
                    changed[Int(hash % UInt64(line.count))] = UInt8(truncatingIfNeeded: hash >> 32)
                }
                do {
                    _ = try readLine(bytes(changed), tokenizer, chat)
                } catch let error as LineFault {
                    XCTAssertEqual(printable(error.reason.unicodeScalars), error.reason)
                }
            }
        }
    }

    func testWhatIsTaken() throws {
        let text = #"{"text": "no", "text": "\u0041\ud83d\ude42\n\/"}"#
        let turns = #" {"messages": 1, "messages": [{"role": "assistant", "content": "é"}]} "#
        let data = try read(write("\u{FEFF}\(text)", turns))
        XCTAssertEqual(preview(data, 0, tokenizer).map(\.text).joined(), "A🙂\n/<|endoftext|>")
        XCTAssertEqual(data.count, 2)
        XCTAssertEqual(try read(write("{\"text\": \"a\"}".utf8)).count, 1)  // without an end of line
    }

    func testWhatIsPassedOver() throws {
        let turns = #"{"role": "user", "content": "x", "name": {}}, {"role": "assistant", "content": "y", "name": 1}"#
        let ab = #"{"text": "ab", "id": 1}"#
        let chatLine = #"{"messages": [\#(turns)], "id": 2, "tools": []}"#
        let data = try read(write("", ab, " \t\r", ab, chatLine, "\u{2003}", "\u{FEFF}"), seqLen: 200).report
        XCTAssertEqual([data.lines, data.blankLines, data.duplicates], [3, 4, 1])
        let counts = [("id", 3), ("tools", 1), ("messages[].name", 1)].map { KeyCount(key: $0.0, lines: $0.1) }
        XCTAssertEqual(data.furtherKeys, counts)
        assertRefused(.dataEmpty, "the file is empty") { _ = try read(write("", " ")) }
        try refused(.dataLine, ":3: not JSON", "\(ab)\n\nx".utf8)
        let many = (0..<3).map { line in "{\"text\": \"ab\", \((0..<40).map { "\"\(line) \($0)\": 1" }.joined(separator: ", "))}\n" }
        let named = try read(write(many.joined().utf8)).report.furtherKeys
        XCTAssertEqual(named.count, 21)
        XCTAssertEqual(named.last, KeyCount(key: "…", lines: 100))
    }

    func testOtherFormats() throws {
        try refused(.dataLine, ":2: a JSON array; expected one JSON object a line: python3 -c ", "\n[\n{\"text\": \"a\"}\n]".utf8)
        try refused(.dataLine, ":1: a JSON array", "[{\"text\": \"\(String(repeating: "a", count: 1 << 20))\"}]".utf8)
        try refused(.dataLine, ":1: JSON over several lines; ", "{\n  \"text\": \"a\"\n}".utf8)
        try refused(.dataLine, ":1: CSV; ", "id,text\n1,a\n".utf8)
        try refused(.dataLine, ":2: not JSON", "{\"text\": \"a\"}\n{\n".utf8)
    }

    func testOtherEncodings() throws {
        let line = "{\"text\": \"é\"}\n"
        let sixteen = ":1: not UTF-8 but, by its zero bytes, UTF-16; save the file as UTF-8"
        for encoding in [String.Encoding.utf16, .utf16LittleEndian, .utf16BigEndian] {
            try refused(.dataEncoding, sixteen, line.data(using: encoding)!)
        }
        let latin1 = Array("{\"text\": \"ok\"}\n".utf8) + line.unicodeScalars.map { UInt8($0.value) }
        try refused(.dataEncoding, ":2: not UTF-8: invalid continuation byte at byte 10; save the file as UTF-8", latin1)
        try refused(.dataEncoding, "invalid start byte at byte 1", [0x22, 0x80, 0x41])
        try refused(.dataEncoding, "unexpected end of data at byte 1", [0x22, 0xE2, 0x82])
        try refused(.dataEncoding, "invalid start byte at byte 1", [0xEF, 0xBB, 0xBF, 0x22, 0x80, 0x41])
    }

    func testFilesThatAreRefused() throws {
        assertRefused(.dataEmpty, "the file is empty; expected one JSON object a line") { _ = try read(write([])) }
        let cut = try write(#"{"prompt": "ab", "completion": "c"}"#)
        assertRefused(.dataEmpty, "none of the 1 lines has a counted label within 1 tokens") { _ = try read(cut, seqLen: 1) }
        assertRefused(.dataUnreadable, "no such file") { _ = try read(directory.appendingPathComponent("none")) }
        assertRefused(.dataUnreadable, "not a regular file") { _ = try read(directory) }
        let messages = try write(#"{"messages": [{"role": "assistant", "content": "x"}]}"#)
        assertRefused(.chatUnsupported, ":1: the bundle has no chat format (chat.json)") {
            _ = try readDataset(messages, tokenizer, nil, 64, directory)
        }
        let small = try Tokenizer.open(tiny, 257)
        let special = try write(#"{"text": "<|im_end|>"}"#)
        assertRefused(.tokenizerDamaged, ":1: token 258 ('<|im_end|>') is outside the model's vocabulary of 257") {
            _ = try readDataset(special, small, nil, 8, directory)
        }
        assertRefused(.storageFailed, "cannot be written") {
            _ = try readDataset(special, tokenizer, nil, 8, directory.appendingPathComponent("none"))
        }
    }

    /// Lines of all lengths around the size of what is read at once, and around the longest.
    func testLinesAreReadWhole() throws {
        let lengths = [1, 2, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 3 << 16, (1 << 20) - 1, 1 << 20, 5]
        let lines = lengths.map { [UInt8](repeating: UInt8(ascii: "a") + UInt8($0 % 26), count: $0 - 1) + [UInt8(ascii: "\n")] }
        let file = try write(lines.joined() + [UInt8(ascii: "z")])
        var found: [[UInt8]] = []
        var ends: [Int] = []
        try eachLine(file) { number, raw, done, total in
            found.append(Array(raw.raw))
            ends.append(done)
            XCTAssertEqual(number, found.count)
            XCTAssertEqual(total, fileSize(file))
        }
        XCTAssert(found == lines + [[UInt8(ascii: "z")]])
        XCTAssertEqual(ends.last, fileSize(file))
        let long = try write([UInt8](repeating: 0x20, count: 1 << 20) + [UInt8(ascii: "\n")])
        assertRefused(.dataLine, ":1: a line of more than 1048576 bytes") { try eachLine(long) { _, _, _, _ in } }
    }

    func testProgressMayCancel() throws {
        let line = "{\"text\": \"" + String(repeating: "a", count: 1000) + "\"}\n"
        let file = try write(String(repeating: line, count: 1000).utf8)
        var seen: [Int] = []
        _ = try readDataset(file, tokenizer, chat, 8, directory) { done, total in
            seen.append(done)
            XCTAssertEqual(total, fileSize(file))
        }
        XCTAssertEqual(seen.count, 3)
        XCTAssert(seen.allSatisfy { $0 <= fileSize(file) })
        XCTAssertThrowsError(try readDataset(file, tokenizer, chat, 8, directory) { _, _ in throw CancellationError() }) {
            XCTAssert($0 is CancellationError)
        }
        XCTAssertEqual(listed(directory).filter { $0.hasPrefix(".spool") }, [])
    }

    /// In memory that neither the lines nor the tokens of the file would fit into.
    func testTwentyMegabytesStreamThroughLittleMemory() throws {
        let file = directory.appendingPathComponent("large")
        try replaceAtomically(file) { opened in
            for start in stride(from: 0, to: 100_000, by: 1000) {
                let text = String(repeating: "a little text ", count: 14)
                let lines = (start..<start + 1000).map { "{\"text\": \"\($0) \(text)\"}\n" }.joined()
                try Array(lines.utf8).withUnsafeBytes(opened.write)
            }
        }
        XCTAssertGreaterThan(fileSize(file), 20_000_000)
        _ = try readDataset(write(#"{"text": "ab"}"#), tokenizer, nil, 600, directory)
        let before = try XCTUnwrap(processAnonymousBytes())
        var most = before
        let data = try readDataset(file, tokenizer, nil, 600, directory) { _, _ in most = max(most, processAnonymousBytes() ?? 0) }
        let sequences = try countSequences(data, 600, seed: 0)
        most = max(most, processAnonymousBytes() ?? 0)
        XCTAssertLessThan(most - before, 8_000_000)
        XCTAssertEqual(data.report.examples, 100_000)
        XCTAssertEqual(data.report.tokens, (0..<100_000).reduce(0) { $0 + "\($1)".utf8.count + 1 + 14 * 14 + 1 })
        XCTAssertEqual(sequences, 50_000)
    }
}
