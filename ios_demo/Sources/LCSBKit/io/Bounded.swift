import Foundation

let mostFaults = 8  // that an error names

/// What an operation on a file failed for, in words.
package struct IoError: Error, Sendable {
    package let reason: String
    let code: Int32

    init(_ reason: String) { (self.reason, code) = (reason, 0) }

    init(_ code: Int32) {
        self.code = code
        switch code {
        case ENOENT: reason = "no such file"
        case EACCES, EPERM: reason = "permission denied"
        default: reason = String(cString: strerror(code))
        }
    }

    /// No room, or no more of it for this user.
    package var isFull: Bool { code == ENOSPC || code == EDQUOT }
}

/// An open file, closed with its last user.
package final class OpenFile {
    let descriptor: Int32

    /// Throws IoError.
    package init(_ file: URL, _ flags: Int32, mode: mode_t = 0o600) throws {
        let opened = open(file.path, flags | O_CLOEXEC, mode)
        if opened < 0 { throw IoError(errno) }  // before `deinit` has anything to close, which sets errno
        descriptor = opened
    }

    deinit { close(descriptor) }

    /// Of a regular file. Throws IoError for what is none (a pipe or a device may never end).
    func size() throws -> Int {
        var status = stat()
        if fstat(descriptor, &status) != 0 { throw IoError(errno) }
        if status.st_mode & S_IFMT != S_IFREG { throw IoError("not a regular file") }
        return Int(status.st_size)
    }

    /// All of `into`, from `offset` on. Throws IoError.
    func read(at offset: Int, into: UnsafeMutableRawBufferPointer) throws {
        var done = 0
        while done < into.count {
            let count = pread(descriptor, into.baseAddress! + done, into.count - done, off_t(offset + done))
            if count < 0 && errno == EINTR { continue }
            if count < 0 { throw IoError(errno) }
            if count == 0 { throw IoError("ended while it was read") }
            done += count
        }
    }

    /// Up to `count` bytes, from `offset` on: fewer at the end. Throws IoError.
    package func read(at offset: Int, upTo count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let found = try bytes.withUnsafeMutableBytes { into in
            while true {
                let found = pread(descriptor, into.baseAddress, count, off_t(offset))
                if found >= 0 { return found }
                if errno != EINTR { throw IoError(errno) }
            }
        }
        bytes.removeLast(count - found)
        return bytes
    }

    /// All of `bytes`, where the last write ended. Throws IoError.
    package func write(_ bytes: UnsafeRawBufferPointer) throws {
        var done = 0
        while done < bytes.count {
            #if canImport(Darwin)
            let count = Darwin.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
            #else
            let count = Glibc.write(descriptor, bytes.baseAddress! + done, bytes.count - done)
            #endif
            if count < 0 && errno == EINTR { continue }
            if count < 0 { throw IoError(errno) }
            done += count
        }
    }

    /// Puts it on the disk. Throws IoError.
    package func sync() throws {
        #if canImport(Darwin)
        if fcntl(descriptor, F_FULLFSYNC) == 0 { return }
        #endif
        if fsync(descriptor) != 0 { throw IoError(errno) }
    }
}

/// Without a file's name for what opening a pipe would wait for.
package func openRegular(_ file: URL) throws -> (file: OpenFile, size: Int) {
    let opened = try OpenFile(file, O_RDONLY | O_NONBLOCK)
    return (opened, try opened.size())
}

/// A regular file's content. Throws IoError for what is none, and for more than `limit` bytes.
package func readBounded(_ file: URL, _ limit: Int) throws -> [UInt8] {
    let (opened, size) = try openRegular(file)
    if size > limit { throw IoError("\(size) bytes, more than the \(limit) that are read") }
    var content = [UInt8](repeating: 0, count: size)
    try content.withUnsafeMutableBytes { try opened.read(at: 0, into: $0) }
    return content
}

/// A regular file's content in place: it costs no memory of the process' own. Throws IoError.
func mapWhole(_ file: URL, _ limit: Int) throws -> Bytes {
    let (opened, size) = try openRegular(file)
    if size > limit { throw IoError("\(size) bytes, more than the \(limit) that are read") }
    return size == 0 ? try Bytes(count: 0) : try Bytes(mapping: opened.descriptor, offset: 0, count: size)
}

/// Whether there is a regular file, every link followed.
package func isFile(_ file: URL) -> Bool {
    var status = stat()
    return stat(file.path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
}

package func isDirectory(_ file: URL) -> Bool {
    var status = stat()
    return stat(file.path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
}

/// Whether there is anything, a link that leads nowhere too.
package func exists(_ file: URL) -> Bool {
    var status = stat()
    return lstat(file.path, &status) == 0
}

/// Of a file, or -1.
package func fileSize(_ file: URL) -> Int {
    var status = stat()
    return stat(file.path, &status) == 0 ? Int(status.st_size) : -1
}

/// With escapes in place of what could change a terminal: control characters, marks that turn the direction of writing.
func printable(_ text: some Sequence<Unicode.Scalar>) -> String {
    var line = String.UnicodeScalarView()
    for scalar in text {
        if scalar == " " || isPrintable(scalar) { line.append(scalar) } else { line.append(contentsOf: escape(scalar).unicodeScalars) }
    }
    return String(line)
}

private func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.properties.generalCategory {
    case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator, .spaceSeparator: false
    default: true
    }
}

private func escape(_ scalar: Unicode.Scalar) -> String {
    let digits = String(scalar.value, radix: 16)
    return scalar.value < 0x100 ? "\\x" + padded(digits, 2) : "\\u" + padded(digits, 4)
}

func padded(_ text: String, _ width: Int, with character: Character = "0") -> String {
    String(repeating: character, count: max(0, width - text.count)) + text
}

private func isBlank(_ scalar: Unicode.Scalar) -> Bool { scalar == " " || (0x09...0x0D).contains(scalar.value) }

/// A text as one printable line, cut to `most` characters.
package func oneLine(_ text: String, _ most: Int = 300) -> String {
    var words: [Unicode.Scalar] = []
    for scalar in text.unicodeScalars.prefix(8 * most) {
        if isBlank(scalar) {
            if !words.isEmpty && words.last != " " { words.append(" ") }
        } else {
            words.append(scalar)
        }
    }
    if words.last == " " { words.removeLast() }
    let line = printable(words.prefix(most + 1)).unicodeScalars
    return line.count <= most ? String(line) : String(String.UnicodeScalarView(line.prefix(most))) + "…"
}

/// In quotes, with escapes.
func quoted(_ text: String, _ most: Int = 300) -> String {
    var escaped: [Unicode.Scalar] = []
    for scalar in text.unicodeScalars.prefix(most) {
        if scalar == "\\" || scalar == "'" { escaped.append("\\") }
        escaped.append(scalar)
    }
    return "'" + printable(escaped) + "'"
}

/// The first `mostFaults` of what is wrong, each as one line, and how many more there are.
func some(_ faults: [String]) -> String {
    let more = faults.count > mostFaults ? " (and \(faults.count - mostFaults) more)" : ""
    return faults.prefix(mostFaults).map { oneLine($0) }.joined(separator: "; ") + more
}
