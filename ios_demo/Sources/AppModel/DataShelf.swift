import Foundation
import LCSBKit

/// The person's own messages are more than `DataShelf.typed` reads.
struct TypedFull: Error, CustomStringConvertible {
    var description: String { "the messages: expected at most \(DataShelf.mostTypedBytes) bytes in all" }
}

/// The data in a directory of the app's: `N.jsonl`, and beside it `N.DIGEST.json`, what it comes to under the bundle of that digest. A file never
/// changes, since a run is bound to its content; an edit makes a new one. Numbers, not times, name them: a clock may be set back.
struct DataShelf: Sendable {
    static let mostTypedBytes = 16 << 20
    private static let blanks: Set<UInt8> = [0xEF, 0xBB, 0xBF, 0x20, 0x09, 0x0D, 0x0A]

    let directory: URL

    func file(_ name: String) -> URL { directory.appendingPathComponent(name) }

    /// Copies JSON lines as they are, and makes them of a text; nothing is held in memory but a block. `progress`: bytes read; it may throw to
    /// stop, and nothing is left then.
    ///
    /// Throws DATA_UNREADABLE, DATA_EMPTY, of a text DATA_ENCODING and DATA_LINE, STORAGE_FULL, STORAGE_FAILED.
    func add(_ source: URL, _ progress: (Int) throws -> Void) throws -> String {
        let (incoming, name) = (file(".incoming"), freeName())
        defer { remove(incoming) }
        remove(incoming)
        let size = try copy(source, to: incoming, progress)
        if try isJson(incoming) {
            try storing(directory) { try move(incoming, to: file(name)) }
        } else {
            _ = try textToJsonl(incoming, file(name)) { try progress(size) }
        }
        return name
    }

    private func copy(_ source: URL, to target: URL, _ progress: (Int) throws -> Void) throws -> Int {
        try storing(directory) {
            try makeDirectories(directory)
            let opened = try OpenFile(target, O_WRONLY | O_CREAT | O_EXCL)
            var size = 0
            try eachBlock(source, fault: .dataUnreadable) { block, done in
                try opened.write(block)
                size = done
                try progress(done)
            }
            try opened.sync()
            if size == 0 { throw LcsbError(.dataEmpty, "the file is empty: expected text") }
            return size
        }
    }

    /// Whether the first character, after a byte order mark, opens an object.
    private func isJson(_ file: URL) throws -> Bool {
        let start = try storing(file) { try OpenFile(file, O_RDONLY).read(at: 0, upTo: 1 << 16) }
        return start.first { !Self.blanks.contains($0) } == UInt8(ascii: "{")
    }

    /// The person's own messages, one a line. Throws TypedFull, STORAGE_FULL, STORAGE_FAILED.
    func addTyped(_ messages: [String]) throws -> String {
        let name = freeName()
        var lines = Data()
        for message in messages {
            lines += try JSONSerialization.data(withJSONObject: ["text": message], options: .withoutEscapingSlashes)
            lines.append(UInt8(ascii: "\n"))
            if lines.count > Self.mostTypedBytes { throw TypedFull() }
        }
        try replaceAtomically(file(name)) { opened in try lines.withUnsafeBytes { try opened.write($0) } }
        return name
    }

    /// The messages of a file that `addTyped` wrote, or nil.
    func typed(_ name: String) -> [String]? {
        guard let bytes = try? readBounded(file(name), Self.mostTypedBytes) else { return nil }
        var messages: [String] = []
        for line in bytes.split(separator: UInt8(ascii: "\n")) {
            let value = try? JSONSerialization.jsonObject(with: Data(line))
            guard let fields = value as? [String: Any], fields.count == 1, let text = fields["text"] as? String else { return nil }
            messages.append(text)
        }
        return messages.isEmpty ? nil : messages
    }

    private func summaryFile(_ name: String, _ digest: String) -> URL { file("\(stem(name)).\(digest.prefix(16)).json") }

    func summary(_ name: String, digest: String) -> DataSummary? { AppModel.read(DataSummary.self, from: summaryFile(name, digest)) }

    /// It is counted anew where it could not be kept.
    func keep(_ summary: DataSummary, _ name: String, digest: String) { try? AppModel.write(summary, to: summaryFile(name, digest)) }

    func discard(_ name: String) { listed(directory).filter { stem($0) == stem(name) }.forEach { remove(file($0)) } }

    /// Removes all files but those that are `used`, and what they come to.
    func keepOnly(_ used: Set<String>) {
        let stems = Set(used.map(stem))
        listed(directory).filter { !stems.contains(stem($0)) }.forEach { remove(file($0)) }
    }

    private func stem(_ name: String) -> String { String(name.prefix { $0 != "." }) }

    private func freeName() -> String { "\((listed(directory).compactMap { Int(stem($0)) }.max() ?? 0) + 1).jsonl" }
}
