import Foundation

let lineLimit = 1 << 20  // bytes of the longest line
private let progressBytes = 1 << 18  // read between two reports of progress

/// Reads one example a line that is not blank, each cut to `seqLen` tokens, into temporary files in `spool`: neither reading nor holding a
/// file takes memory in proportion to it. `chat`: nil refuses `messages`. `progress` counts bytes (done, total); it may throw to cancel.
///
/// Throws "FILE:LINE: reason" for the first malformed line (the reason of a file of another format is the command that makes JSON lines of
/// it), with DATA_LINE, DATA_ENCODING, or what the tokenizer threw; its arguments are the file's name, the line and the reason. DATA_EMPTY
/// when nothing to train on is left; DATA_UNREADABLE; STORAGE_FULL.
func readDataset(
    _ file: URL, _ tokenizer: Tokenizer, _ chat: ChatFormat?, _ seqLen: Int, _ spool: URL,
    _ progress: (Int, Int) throws -> Void = { _, _ in }
) throws -> Dataset {
    var writer = try DatasetWriter(seqLen, spool)
    var digest = Sha256()
    var reported = 0
    func other(_ raw: Bytes) -> String? {
        withExtendedLifetime(raw) { writer.lines == 0 ? otherFormat(raw.units, file.lastPathComponent) : nil }
    }
    try eachLine(file, other: other) { number, raw, done, total in
        digest.update(raw.raw)
        let line: LineExample?
        do {
            line = isBlankLine(raw) ? nil : try readLine(raw, tokenizer, chat)
        } catch let error as LineFault {
            throw lineError(error.encoding ? .dataEncoding : .dataLine, file, number, other(raw) ?? error.reason)
        } catch let error as LcsbError {
            throw lineError(error.fault, file, number, error.message)
        }
        if let line { try writer.add(line, lineHash: lineHash(raw)) } else { writer.passOverBlank() }
        if done - reported >= progressBytes {
            try progress(done, max(done, total))
            reported = done
        }
    }
    return try writer.dataset(file, digest.hex())
}

func lineError(_ fault: Fault, _ file: URL, _ number: Int, _ reason: String) -> LcsbError {
    LcsbError(fault, "\(file.path):\(number): \(reason)", [file.lastPathComponent, "\(number)", reason])
}

/// Of the line without its end, with a key of this process' own.
private func lineHash(_ raw: Bytes) -> UInt64 {
    var hasher = Hasher()
    hasher.combine(bytes: UnsafeRawBufferPointer(rebasing: raw.raw.prefix(lineEnd(raw))))
    return UInt64(bitPattern: Int64(hasher.finalize()))
}

/// Where the line ends without the characters that end it.
func lineEnd(_ raw: Bytes) -> Int {
    raw.units.lastIndex { $0 != UInt8(ascii: "\n") && $0 != UInt8(ascii: "\r") }.map { $0 + 1 } ?? 0
}

/// `line` gets each line with its number from 1 (its end included, the last may have none), how many bytes are done with it, and the file's
/// size. The memory is used again for the next line. Throws DATA_LINE for a line that is too long, with what `other` says of its
/// beginning, if anything; and DATA_UNREADABLE.
func eachLine(
    _ file: URL, other: (Bytes) -> String? = { _ in nil },
    _ line: (_ number: Int, _ raw: Bytes, _ done: Int, _ total: Int) throws -> Void
) throws {
    func reading<Result>(_ read: () throws -> Result) throws -> Result {
        do {
            return try read()
        } catch let error as IoError {
            throw LcsbError(.dataUnreadable, "\(file.path): \(oneLine(error.reason))", [file.lastPathComponent])
        }
    }
    let (opened, total) = try reading { try openRegular(file) }
    let reader = try LineReader(opened)
    var (number, done) = (0, 0)
    while let raw = try reading(reader.next) {
        number += 1
        done += raw.count
        if raw.count > lineLimit {
            let reason = "a line of more than \(lineLimit) bytes; give it in parts, one JSON object a line: \(forms)"
            throw lineError(.dataLine, file, number, other(raw) ?? reason)
        }
        try line(number, raw, done, total)
    }
}

/// A file's lines, no more of one than `lineLimit` + 1 bytes.
private final class LineReader {
    private let file: OpenFile
    private let line: Bytes  // the system gives it memory as far as it was used
    private var buffer: [UInt8] = []
    private var at = 0  // in `buffer`
    private var offset = 0  // of what follows `buffer` in the file

    init(_ file: OpenFile) throws {
        self.file = file
        line = try Bytes(count: lineLimit + 1)
    }

    /// The next line with its end; nil behind the last. Throws IoError.
    func next() throws -> Bytes? {
        var size = 0
        while size <= lineLimit {
            if at == buffer.count {
                buffer = try file.read(at: offset, upTo: 1 << 16)
                (at, offset) = (0, offset + buffer.count)
                if buffer.isEmpty { break }
            }
            let most = buffer[at..<min(buffer.count, at + lineLimit + 1 - size)]
            let newline = most.withUnsafeBytes { bytes in
                memchr(bytes.baseAddress!, Int32(UInt8(ascii: "\n")), bytes.count).map { UnsafeRawPointer($0) - bytes.baseAddress! }
            }
            let piece = newline.map { most.prefix($0 + 1) } ?? most
            piece.withUnsafeBytes { UnsafeMutableRawBufferPointer(start: line.pointer + size, count: $0.count).copyMemory(from: $0) }
            size += piece.count
            at += piece.count
            if newline != nil { break }
        }
        return size == 0 ? nil : line.part(0, size)
    }
}
