import Foundation

private let mostBytes = 1 << 17  // of a document's text: with escapes it is below lineLimit

/// Writes a plain text of UTF-8 as data of one document a line, and returns how many documents. A document is a paragraph where blank lines
/// part them, else a line; one of more than `mostBytes` is parted at the end of a line, or within one. Nothing is held but one document.
///
/// `output` is replaced. `check` is called for each line of either reading; it may throw to stop. Throws DATA_ENCODING and DATA_LINE for a
/// line as `readDataset` does, DATA_EMPTY, DATA_UNREADABLE, STORAGE_FULL and STORAGE_FAILED.
@discardableResult
public func textToJsonl(_ input: URL, _ output: URL, _ check: () throws -> Void = {}) throws -> Int {
    let byParagraph = try hasParagraphs(input, check)
    var documents = 0
    try replaceAtomically(output) { file in
        var writer = DocumentWriter(file)
        try eachTextLine(input, check) { line in
            if isBlank(line) {
                try writer.finish()
            } else {
                try writer.add(line)
                if !byParagraph { try writer.finish() }
            }
        }
        try writer.finish()
        try writer.flush()
        documents = writer.documents
        if documents == 0 { throw LcsbError(.dataEmpty, "\(input.path): the file is empty; expected text", [input.lastPathComponent]) }
    }
    return documents
}

/// Whether there is a blank line between two that are not.
private func hasParagraphs(_ input: URL, _ check: () throws -> Void) throws -> Bool {
    var state = 0  // 1: text, 2: and a blank line after it, 3: and text again
    try eachTextLine(input, check) { line in
        let blank = isBlank(line)
        if state == 0 && !blank { try refuseRecords(line, input) }
        if state == 1 && blank {
            state = 2
        } else if state != 3 && !blank {
            state = state == 2 ? 3 : 1
        }
    }
    return state == 3
}

/// A text does not begin as records in another format than JSON lines do: to learn their marks would be no use.
private func refuseRecords(_ first: UnsafeBufferPointer<UInt8>, _ input: URL) throws {
    let marks = [",", ";", "\t", "["].map { UInt8(ascii: $0) }
    guard first.contains(where: marks.contains), let reason = otherFormat(first, input.lastPathComponent) else { return }
    throw LcsbError(.dataLine, "\(input.path): \(reason)", [input.lastPathComponent])
}

/// `line` gets each line without its end and without a mark of the byte order.
private func eachTextLine(_ input: URL, _ check: () throws -> Void, _ line: (UnsafeBufferPointer<UInt8>) throws -> Void) throws {
    try eachLine(input) { number, raw, _, _ in
        try check()
        let start: Int
        do {
            start = try checkedStart(raw)
        } catch let error as LineFault {
            throw lineError(.dataEncoding, input, number, error.reason)
        }
        try line(UnsafeBufferPointer(rebasing: raw.units[start..<max(start, lineEnd(raw))]))
    }
}

private func isBlank(_ line: UnsafeBufferPointer<UInt8>) -> Bool { line.allSatisfy { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\t") } }

/// Gathers a document's lines and writes it as JSON. Throws IoError.
private struct DocumentWriter {
    private(set) var documents = 0
    private let file: OpenFile
    private var pending: [UInt8] = []
    private var open = false
    private var size = 0

    init(_ file: OpenFile) { self.file = file }

    /// A line of the document at hand; what is too much begins another.
    mutating func add(_ line: UnsafeBufferPointer<UInt8>) throws {
        if open && size + line.count > mostBytes { try finish() }
        if open { write("\\n") } else { begin() }
        var at = 0
        while at < line.count {
            let length = Utf8.sequence(line, at, line.count)
            if size > 0 && size + length > mostBytes {
                try finish()
                begin()
            }
            for byte in line[at..<at + length] { write(byte) }
            size += length
            at += length
        }
    }

    mutating func finish() throws {
        if !open { return }
        write("\"}\n")
        open = false
        documents += 1
        if pending.count >= 1 << 16 { try flush() }
    }

    mutating func flush() throws {
        try pending.withUnsafeBytes(file.write)
        pending.removeAll(keepingCapacity: true)
    }

    private mutating func begin() {
        write("{\"text\": \"")
        open = true
        size = 0
    }

    private mutating func write(_ byte: UInt8) {
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"): pending += [UInt8(ascii: "\\"), byte]
        case UInt8(ascii: "\t"): write("\\t")
        case ..<0x20: write("\\u00" + padded(String(byte, radix: 16), 2))
        default: pending.append(byte)
        }
    }

    private mutating func write(_ text: String) { pending.append(contentsOf: text.utf8) }
}
