import Foundation
import LCSBKit
import XCTest
@testable import AppModel

/// What comes into the app's storage, and what goes out of it.
final class FilesTest: XCTestCase {
    private func inScratch(_ use: (URL) throws -> Void) throws {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent("lcsb-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        try use(directory)
    }

    private func fault(_ act: () throws -> Void) -> Fault? {
        do { try act() } catch { return (error as? LcsbError)?.fault }
        return nil
    }

    private func names(_ directory: URL) -> [String] { ((try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []).sorted() }

    func testJsonLinesAreKeptAsTheyAreATextsLinesBecomeSome() throws {
        try inScratch { scratch in
            let shelf = DataShelf(directory: scratch.appendingPathComponent("data"))
            func add(_ bytes: [UInt8]) throws -> String {
                let source = scratch.appendingPathComponent("in")
                try Data(bytes).write(to: source)
                return try String(contentsOf: shelf.file(shelf.add(source) { _ in }), encoding: .utf8)
            }
            XCTAssertEqual(try add(Array("{\"text\": \"a\"}\n".utf8)), "{\"text\": \"a\"}\n")
            XCTAssertEqual(try add(Array("\n {\"text\": \"ü\"}".utf8)), "\n {\"text\": \"ü\"}")
            XCTAssertEqual(try add(Array("one \"1\"\r\nzwei ü".utf8)), "{\"text\": \"one \\\"1\\\"\"}\n{\"text\": \"zwei ü\"}\n")
            let before = names(shelf.directory)
            XCTAssertEqual(fault { _ = try add(Array("für".unicodeScalars.map { UInt8($0.value) })) }, .dataEncoding)
            XCTAssertEqual(fault { _ = try add([0xFF, 0xFE, 0x68, 0]) }, .dataEncoding)
            XCTAssertEqual(fault { _ = try add([]) }, .dataEmpty)
            XCTAssertEqual(fault { _ = try add(Array(" \n \n".utf8)) }, .dataEmpty)
            XCTAssertEqual(fault { _ = try shelf.add(scratch.appendingPathComponent("gone")) { _ in } }, .dataUnreadable)
            XCTAssertEqual(fault { _ = try shelf.add(scratch) { _ in } }, .dataUnreadable)
            let text = scratch.appendingPathComponent("text")
            try Data("a\nb\nc\n".utf8).write(to: text)
            for stopAt in 1...3 {
                var calls = 0
                XCTAssertThrowsError(try shelf.add(text) { _ in
                    calls += 1
                    if calls == stopAt { throw CancellationError() }
                }) { XCTAssertTrue($0 is CancellationError) }
            }
            XCTAssertEqual(names(shelf.directory), before, "nothing is left of what was refused or cancelled")
        }
    }

    func testNamesGoUpUnusedFilesGoAndOwnMessagesAreReadAgain() throws {
        try inScratch { scratch in
            let shelf = DataShelf(directory: scratch)
            let (first, second) = (try shelf.addTyped(["a"]), try shelf.addTyped(["a", "line\nbreak \"q\" \u{2028}/"]))
            XCTAssertEqual([first, second], ["1.jsonl", "2.jsonl"])
            XCTAssertEqual(shelf.typed(second), ["a", "line\nbreak \"q\" \u{2028}/"])
            let summary = DataSummary(examples: 2, tokens: 3, counted: 3, cut: 0, dropped: 0, sequences: 1, conversations: 0, previews: [[TextPiece(text: "a", counted: true)]])
            for name in [first, second] { shelf.keep(summary, name, digest: "abc") }
            shelf.keepOnly([second])
            XCTAssertEqual(names(scratch), ["2.abc.json", "2.jsonl"])
            XCTAssertEqual(shelf.summary(second, digest: "abc"), summary)
            XCTAssertNil(shelf.summary(second, digest: "abd"))
            XCTAssertEqual(try shelf.addTyped(["b"]), "3.jsonl")
            shelf.discard(second)
            XCTAssertEqual(names(scratch), ["3.jsonl"])
        }
    }

    func testWhatIsNotThePersonsOwnMessagesIsNotTakenForThemAndMoreThanCanBeReadAgainIsRefused() throws {
        try inScratch { scratch in
            let shelf = DataShelf(directory: scratch)
            for line in ["{\"messages\": [{\"role\": \"user\"}]}", "{\"prompt\": \"a\", \"completion\": \"b\"}", "[1]", "{", ""] {
                try Data((line + "\n").utf8).write(to: shelf.file("1.jsonl"))
                XCTAssertNil(shelf.typed("1.jsonl"), line)
            }
            let most = Array(repeating: String(repeating: "x", count: 1 << 20), count: 16)
            XCTAssertThrowsError(try shelf.addTyped(most)) { XCTAssertTrue($0 is TypedFull) }
            XCTAssertEqual(names(scratch), ["1.jsonl"])
            XCTAssertEqual(shelf.typed(try shelf.addTyped(Array(most.dropFirst())))?.count, 15)
        }
    }

    func testALargeFileIsStreamedThroughLittleMemory() throws {
        try inScratch { scratch in
            let source = scratch.appendingPathComponent("large.jsonl")
            let line = Data(("{\"text\": \"" + String(repeating: "ab ", count: 5_000) + "\"}\n").utf8)
            XCTAssertTrue(FileManager.default.createFile(atPath: source.path, contents: nil))
            let handle = try FileHandle(forWritingTo: source)
            for _ in 0..<6_000 { try handle.write(contentsOf: line) }  // 90 MB
            try handle.close()
            let shelf = DataShelf(directory: scratch.appendingPathComponent("data"))
            let before = try XCTUnwrap(processAnonymousBytes())
            var (most, next) = (0, 0)
            let name = try shelf.add(source) { done in
                if done >= next {
                    next += 20_000_000
                    most = max(most, processAnonymousBytes() ?? 0)
                }
            }
            XCTAssertGreaterThan(fileSize(shelf.file(name)), 88_000_000)
            XCTAssertLessThan(most - before, 20_000_000)
        }
    }

    func testAnAdapterIsOnTheShelfWholeOrNotAtAll() throws {
        try inScratch { scratch in
            let shelf = AdapterShelf(directory: scratch)
            let wanted = AdapterInfo(id: "", name: "notes", bundle: "tiny", digest: "d", date: Date(timeIntervalSince1970: 5), origin: .imported, bytes: 0)
            XCTAssertThrowsError(try shelf.add(wanted) { _ in throw LcsbError(.adapter, "no") })
            XCTAssertEqual(names(scratch), [])
            let first = try shelf.add(wanted) { try Data("one".utf8).write(to: $0) }
            let second = try shelf.add(wanted) { try Data("second".utf8).write(to: $0) }
            XCTAssertEqual([first.name, second.name], ["notes", "notes 2"])
            XCTAssertEqual([first.bytes, second.bytes], [3, 6])
            XCTAssertEqual(shelf.list().map(\.id), ["2", "1"])
            try FileManager.default.removeItem(at: scratch.appendingPathComponent("1/info.json"))  // a process was killed before it had written it
            shelf.tidy()
            XCTAssertEqual(names(scratch), ["2"])
            shelf.remove("2")
            XCTAssertEqual(shelf.list(), [])
        }
    }

    func testAZipFileHoldsWhatItsDirectorySays() throws {
        try inScratch { scratch in
            let directory = scratch.appendingPathComponent("adapter")
            try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
            try Data("{}".utf8).write(to: directory.appendingPathComponent("adapter_config.json"))
            let large = (0..<600_000).map { UInt8(truncatingIfNeeded: $0 * $0 >> 3) }
            try Data(large).write(to: directory.appendingPathComponent("grüße.bin"))
            let file = scratch.appendingPathComponent("a.zip")
            try writeZip(directory, to: file)
            let bytes = [UInt8](try Data(contentsOf: file))
            let read = stored(bytes)
            XCTAssertEqual(read.map(\.name), ["adapter/adapter_config.json", "adapter/grüße.bin"])
            XCTAssertEqual(read[0].content, Array("{}".utf8))
            XCTAssertEqual(read[1].content, large)
        }
        var sum = Crc32()
        Array("123456789".utf8).withUnsafeBytes { sum.update($0) }
        XCTAssertEqual(sum.value, 0xCBF4_3926, "the check value of the sum's catalogue")
    }

    func testFreeNamesAreFilesNamesAndTheirOwn() {
        XCTAssertEqual(freeName("smollm", default: "bundle") { _ in false }, "smollm")
        XCTAssertEqual(freeName("smollm", default: "bundle") { $0 == "smollm" || $0 == "smollm-2" }, "smollm-3")
        XCTAssertEqual(freeName("../../etc", default: "bundle") { _ in false }, "etc")
        XCTAssertEqual(freeName("a/b:c", default: "bundle") { _ in false }, "a-b-c")
        XCTAssertEqual(freeName(".. ", default: "bundle") { _ in false }, "bundle")
        XCTAssertEqual(freeName(String(repeating: "x", count: 300), default: "bundle") { _ in false }.count, 60)
    }
}

/// The entries of a ZIP file that stores them, found as its central directory says.
func stored(_ bytes: [UInt8]) -> [(name: String, content: [UInt8])] {
    func number(_ at: Int, _ count: Int) -> Int { (0..<count).reduce(0) { $0 | Int(bytes[at + $1]) << (8 * $1) } }
    let end = bytes.count - 22
    XCTAssertEqual(number(end, 4), 0x0605_4B50)
    var at = number(end + 16, 4)
    XCTAssertEqual(at + number(end + 12, 4), end)
    return (0..<number(end + 10, 2)).map { _ in
        XCTAssertEqual(number(at, 4), 0x0201_4B50)
        let (sum, size, length, local) = (number(at + 16, 4), number(at + 24, 4), number(at + 28, 2), number(at + 42, 4))
        let name = String(decoding: bytes[(at + 46)..<(at + 46 + length)], as: UTF8.self)
        XCTAssertEqual(Array(bytes[(local + 4)..<(local + 30)]), Array(bytes[(at + 6)..<(at + 32)]), "both headers agree")
        let content = Array(bytes[(local + 30 + length)..<(local + 30 + length + size)])
        var found = Crc32()
        content.withUnsafeBytes { found.update($0) }
        XCTAssertEqual(Int(found.value), sum)
        at += 46 + length
        return (name, content)
    }
}
