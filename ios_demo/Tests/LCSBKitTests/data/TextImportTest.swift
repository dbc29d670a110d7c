import Foundation
import XCTest
@testable import LCSBKit

final class TextImportTest: XCTestCase {
    private var directory: URL!
    private var output: URL!

    override func setUpWithError() throws {
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("lcsb-\(UUID().uuidString)")
        output = directory.appendingPathComponent("out/data.jsonl")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws { try FileManager.default.removeItem(at: directory) }

    private func input(_ content: some Sequence<UInt8>) throws -> URL {
        let file = directory.appendingPathComponent(UUID().uuidString)
        try Data(content).write(to: file)
        return file
    }

    private func imported(_ content: some Sequence<UInt8>) throws -> [String] {
        let count = try textToJsonl(input(content), output)
        var lines: [String] = []
        try eachLine(output) { _, raw, _, _ in
            if case .text(let text) = try decodeLine(raw).line { lines.append(text) }
        }
        XCTAssertEqual(lines.count, count)
        return lines
    }

    private func imported(_ text: String) throws -> [String] { try imported(text.utf8) }

    private var written: [String] { listed(output.deletingLastPathComponent()) }

    func testLinesAreDocumentsWithoutParagraphs() throws {
        XCTAssertEqual(try imported("\u{FEFF}a\r\n b\t\"\\\né\u{1}\n\n"), ["a", " b\t\"\\", "é\u{1}"])
    }

    func testBlankLinesAtBothEndsPartNothing() throws { XCTAssertEqual(try imported("\n\na\nb\n\n"), ["a", "b"]) }

    func testParagraphsAreDocumentsWhereBlankLinesPartThem() throws {
        XCTAssertEqual(try imported("\n\na\r\nb\r\n \r\n\nc"), ["a\nb", "c"])
    }

    func testWhatIsTooLongIsParted() throws {
        let line = String(repeating: "é🙂", count: 100_000)  // 600,000 bytes
        let parts = try imported("\(line)\nnext")
        XCTAssert(parts.dropLast().joined() == line && parts.last == "next")
        XCTAssert(parts.allSatisfy { $0.utf8.count <= 1 << 17 })
        let paragraph = [String](repeating: String(repeating: "\u{1}", count: 30_000), count: 20)
        let found = try imported(paragraph.joined(separator: "\n") + "\n\nx")
        XCTAssert(found.dropLast().flatMap { $0.split(separator: "\n").map(String.init) } == paragraph)
    }

    func testEachLineCanStopIt() throws {
        let file = try input("a\nb\n\nc\n".utf8)
        var calls = 0
        try textToJsonl(file, output) { calls += 1 }
        XCTAssertEqual(calls, 8)
        try FileManager.default.removeItem(at: output)
        for stop in 1...8 {
            calls = 0
            XCTAssertThrowsError(
                try textToJsonl(file, output) {
                    calls += 1
                    if calls == stop { throw CancellationError() }
                }
            ) { XCTAssert($0 is CancellationError) }
            XCTAssertEqual(written, [])
        }
    }

    func testFilesThatAreRefused() throws {
        assertRefused(.dataEmpty, "the file is empty; expected text") { _ = try imported(" \n\n") }
        assertRefused(.dataEncoding, ":2: not UTF-8: invalid continuation byte at byte 0") { _ = try imported([0x61, 0x0A, 0xE9, 0x0A]) }
        assertRefused(.dataEncoding, ":1: not UTF-8 but, by its zero bytes, UTF-16") {
            _ = try imported("ab\n".data(using: .utf16)!)
        }
        assertRefused(.dataUnreadable, "no such file") { try textToJsonl(directory.appendingPathComponent("none"), output) }
        XCTAssertEqual(written, [])
    }

    func testRecordsInAnotherFormatAreNoText() throws {
        for (what, text) in [("a JSON array", "\n[\n{\"text\": \"a\"}]"), ("CSV", "id;text\n1;a\n")] {
            assertRefused(.dataLine, ": \(what); expected one JSON object a line: python3 -c ") { _ = try imported(text) }
        }
        XCTAssertEqual(try imported("[Verse 1]\nla, text"), ["[Verse 1]", "la, text"])
        XCTAssertEqual(try imported("text\na"), ["text", "a"])
    }
}
