import Foundation

// Files and directories that are written whole or not at all, for the app alone to read.

/// Turns an IoError while writing below `path` into STORAGE_FULL or STORAGE_FAILED that names it.
package func storing<Result>(_ path: URL, _ write: () throws -> Result) throws -> Result {
    do {
        return try write()
    } catch let error as IoError {
        let message = "\(path.path): cannot be written: \(oneLine(error.reason)); free some space or choose another place"
        throw LcsbError(error.isFull ? .storageFull : .storageFailed, message, [path.lastPathComponent])
    }
}

/// Refuses what cannot be stored before it is begun: STORAGE_FULL, whose arguments are the bytes needed and free.
public func checkFreeSpace(_ directory: URL, _ needed: Int) throws {
    var found = statvfs()
    guard statvfs(directory.path, &found) == 0 else { return }
    let free = Int(found.f_bavail) * Int(found.f_frsize)
    if free < needed {
        let message = "\(directory.path): the run needs \(megabytes(needed)) of storage, \(megabytes(free)) are free; "
            + "free some space or choose another place"
        throw LcsbError(.storageFull, message, ["\(needed)", "\(free)"])
    }
}

/// `write` fills a temporary file beside `file`; then it is synced and renamed over `file`. When it throws, `file` is as it was.
package func replaceAtomically(_ file: URL, _ write: (OpenFile) throws -> Void) throws {
    let temporary = beside(file)
    defer { unlink(temporary.path) }
    try storing(file) {
        try makeDirectories(temporary.deletingLastPathComponent())
        let opened = try OpenFile(temporary, O_WRONLY | O_CREAT | O_EXCL)
        try write(opened)
        try opened.sync()
        try move(temporary, to: file)
        try syncDirectory(temporary.deletingLastPathComponent())
    }
}

/// `fill` writes into a temporary directory beside `directory`, which then takes its place. A crash leaves the old one under its name or
/// beside it, or the new one whole. `directory` must be absent, empty, or hold `marker`: nothing else is ever replaced (OPTION).
func replaceDirectory(_ directory: URL, marker: String, _ fill: (URL) throws -> Void) throws {
    if exists(directory) && !isFile(directory.appendingPathComponent(marker)) && !isEmpty(directory) {
        let message = "\(directory.path): already exists and has no \(marker), so it is not replaced; choose another path"
        throw LcsbError(.option, message, [directory.lastPathComponent])
    }
    let temporary = beside(directory)
    let aside = temporary.appendingPathExtension("old")
    defer {
        if exists(aside) && !exists(directory) { try? move(aside, to: directory) }
        try? FileManager.default.removeItem(at: temporary)
        try? FileManager.default.removeItem(at: aside)
    }
    try storing(directory) {
        try makeDirectories(temporary)
        try fill(temporary)
        try syncDirectory(temporary)
        if exists(directory) { try move(directory, to: aside) }
        try move(temporary, to: directory)
        try syncDirectory(temporary.deletingLastPathComponent())
    }
}

/// With those above it. Throws IoError.
package func makeDirectories(_ directory: URL) throws {
    if isDirectory(directory) { return }
    let parent = directory.deletingLastPathComponent()
    if parent.path != directory.path { try makeDirectories(parent) }
    if mkdir(directory.path, 0o700) != 0 && errno != EEXIST { throw IoError(errno) }
    if !isDirectory(directory) { throw IoError(ENOTDIR) }
}

/// In place of what is there. Throws IoError.
package func move(_ from: URL, to: URL) throws {
    if rename(from.path, to.path) != 0 { throw IoError(errno) }
}

/// Puts a directory's entries on the disk. Throws IoError.
func syncDirectory(_ directory: URL) throws { try OpenFile(directory, O_RDONLY | O_DIRECTORY).sync() }

/// The names in it, sorted by their bytes; none where there is no such directory.
package func listed(_ directory: URL) -> [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []).sorted { ByteText($0) < ByteText($1) }
}

private func isEmpty(_ directory: URL) -> Bool { isDirectory(directory) && listed(directory).isEmpty }

/// Bytes as millions of them: "212.4 MB".
func megabytes(_ count: Int) -> String {
    let tenths = count / 100_000 + (count % 100_000 < 50_000 ? 0 : 1)
    var whole = ""
    for (place, digit) in String(tenths / 10).reversed().enumerated() { whole = "\(digit)" + (place > 0 && place % 3 == 0 ? "," : "") + whole }
    return "\(whole).\(tenths % 10) MB"
}

/// A name of its own that whoever has the directory may remove: it begins with a dot and `target`'s name.
private func beside(_ target: URL) -> URL {
    target.absoluteURL.deletingLastPathComponent().appendingPathComponent(".\(target.lastPathComponent).\(UUID().uuidString.prefix(8).lowercased())")
}
