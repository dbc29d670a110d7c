import Foundation

// The files of a bundle against its manifest: each is inside the directory, of a size that its reader takes, and unchanged.

let manifestBytes = 4 << 20  // 60 kB are usual; the schedule is what grows
private let mostFiles = 1000
private let mostCharacters = 200
private let entryBytes = 256  // of an adapter file's header for each tensor
private let slackBytes = 4096

private let always = [adapterFile, goldenFile, "tokenizer.json", "tokenizer_config.json"]
private let largest: Entries<Int> = [
    goldenFile: traceBytes,
    "tokenizer.json": 64 << 20,
    "tokenizer_config.json": 16 << 20,
    "chat_template.jinja": 1 << 20,
    ChatFormat.file: ChatFormat.fileBytes,
]
private let unasked = ["chat_template.jinja", ChatFormat.file]  // what some reader takes up wherever it lies, listed or not

/// Throws BUNDLE_UNREADABLE for files that are missing, outside, not listed or too large, else BUNDLE_DAMAGED for those that were changed,
/// the manifest among them, whose bytes are `content`. Nothing is read before all are known to be in their place. `progress`: bytes read of
/// all; it may throw.
func checkFiles(_ directory: URL, _ manifest: Manifest, _ content: [UInt8], _ progress: (Int, Int) throws -> Void) throws {
    var faults = nameFaults(manifest)
    if faults.isEmpty { faults = sizeFaults(manifest) + placeFaults(directory, manifest) }
    if !faults.isEmpty { throw unreadable("\(directory.path): \(some(faults))") }
    let changes = try changesOfManifest(manifest, content) + changes(directory, manifest, progress)
    if changes.isEmpty { return }
    let what = some(changes.map { "\($0.name): \($0.what)" })
    let message = "\(directory.path): changed since it was exported: \(what); copy or export it again"
    throw LcsbError(.bundleDamaged, message, changes.map(\.name))
}

/// Whether a bundle's file is in its directory, every link followed. One that is missing is.
func isInside(_ directory: URL, _ name: String) -> Bool {
    do {
        let place = try resolved(directory)
        return try resolved(directory.appendingPathComponent(name)).starts(with: place.last == slash ? place : place + [slash])
    } catch {
        return error.code != ELOOP  // a link to itself
    }
}

private let slash = UInt8(ascii: "/")

/// The true path, every link followed.
private func resolved(_ file: URL) throws(IoError) -> [UInt8] {
    guard let path = realpath(file.path, nil) else { throw IoError(errno) }
    defer { free(path) }
    return Array(UnsafeRawBufferPointer(start: path, count: strlen(path)))
}

private func nameFaults(_ manifest: Manifest) -> [String] {
    let names = manifest.files.keys
    var faults = names.filter { !isPortable($0) }
        .map { "the manifest lists \(quoted($0)), which is outside the bundle or not a name on every system" }
    var counts: Entries<Int> = [:]
    for name in (names + [manifestFile]).map({ $0.lowercased() }) { counts[name] = (counts[name] ?? 0) + 1 }
    for (folded, count) in counts where count > 1 {
        faults.append("the manifest lists \(quoted(folded)) \(count) times for a system that does not tell upper case from lower")
    }
    if manifest.files.contains(manifestFile) { faults.append("the manifest lists itself") }
    let needed = always + manifest.row.files + (manifest.row.holdsWeights ? [] : [weightsFile])
    let missing = Set(needed + manifest.graphs.values.map(\.file)).subtracting(names).sorted()
    if !missing.isEmpty { faults.append("the manifest lists no \(missing.joined(separator: ", ")); export the bundle again") }
    if names.count > mostFiles { faults.append("the manifest lists \(names.count) files, more than \(mostFiles)") }
    return faults
}

/// A relative path of parts that every file system takes as they stand, and means the same by: no blank, backslash or colon, no dot at
/// either end.
private func isPortable(_ name: String) -> Bool {
    let dot = UInt8(ascii: "."), dash = UInt8(ascii: "-")
    return name.utf8.count <= mostCharacters
        && name.utf8.split(separator: slash, omittingEmptySubsequences: false).allSatisfy { part in
            guard let first = part.first, let last = part.last else { return false }
            return isWord(first) && (isWord(last) || last == dash) && part.allSatisfy { isWord($0) || $0 == dot || $0 == dash }
        }
}

/// A letter, digit or underscore of ASCII.
func isWord(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
    default: byte == UInt8(ascii: "_")
    }
}

/// Of what is read whole, and of what an allocation goes by: then nothing larger than the files themselves is allocated.
private func sizeFaults(_ manifest: Manifest) -> [String] {
    let layout = manifest.adapter
    let state = 4 * layout.size
    let header = (0..<layout.numLayers).reduce(0) { $0 + layout.matrices($1).count } * entryBytes + slackBytes
    var bounds = largest.mapValues { 0...$0 }
    for graph in manifest.graphs.values { bounds[graph.file] = 0...programBytes }
    bounds[adapterFile] = state...state + header
    return bounds.compactMap { name, bound in
        guard let size = manifest.files[name]?.size, !bound.contains(size) else { return nil }
        return "\(name): expected \(bound.lowerBound) to \(bound.upperBound) bytes, found \(size)"
    }
}

private func placeFaults(_ directory: URL, _ manifest: Manifest) -> [String] {
    let faults = manifest.files.keys.compactMap { name -> String? in
        if !isInside(directory, name) { return "\(name) is a link that leads outside the bundle" }
        return isFile(directory.appendingPathComponent(name)) ? nil : "\(name) is missing; copy the bundle again, whole"
    }
    let asset = manifest.row.asset.map { filesBelow(directory, $0) } ?? []
    let unlisted = (unasked.filter { exists(directory.appendingPathComponent($0)) } + asset).filter { !manifest.files.contains($0) }
    return faults + unlisted.map { "\(isPortable($0) ? $0 : quoted($0, 80)) is not listed in the manifest; remove it" }
}

/// What lies in `asset`, whose runtime reads all of it: by paths from `directory` on, a link as itself.
private func filesBelow(_ directory: URL, _ asset: String) -> [String] {
    let paths = FileManager.default.enumerator(atPath: directory.appendingPathComponent(asset).path)?.compactMap { $0 as? String } ?? []
    return paths.map { "\(asset)/\($0)" }.sorted { ByteText($0) < ByteText($1) }.filter { path in
        var status = stat()
        return lstat(directory.appendingPathComponent(path).path, &status) == 0 && status.st_mode & S_IFMT != S_IFDIR
    }
}

/// Of a manifest's bytes in which the digest that it states, where it stands last, is zeros.
private func manifestDigest(_ content: [UInt8], _ stated: String) -> String {
    let stated = Array(stated.utf8)
    var content = content
    let places = stride(from: content.count - stated.count, through: 0, by: -1)
    if let place = places.first(where: { content[$0..<$0 + stated.count].elementsEqual(stated) }) {
        content.replaceSubrange(place..<place + stated.count, with: unknownDigest)
    }
    return sha256(content)
}

private func changesOfManifest(_ manifest: Manifest, _ content: [UInt8]) -> [(name: String, what: String)] {
    guard let stated = manifest.digest else { return [] }
    let found = manifestDigest(content, stated)
    return found == stated ? [] : [(manifestFile, "expected SHA-256 \(stated.prefix(12))…, found \(found.prefix(12))…")]
}

private func changes(
    _ directory: URL, _ manifest: Manifest, _ progress: (Int, Int) throws -> Void
) throws -> [(name: String, what: String)] {
    let total = manifest.files.values.reduce(0) { $0 + $1.size }
    var done = 0
    var changes: [(name: String, what: String)] = []
    for (name, entry) in manifest.files {
        let file = directory.appendingPathComponent(name)
        do {
            let size = fileSize(file)
            if size != entry.size {
                changes.append((name, "expected \(entry.size) bytes, found \(size)"))
                continue
            }
            let digest = try sha256(file) { count in
                done += count
                try progress(done, total)
            }
            if digest != entry.sha256 {
                changes.append((name, "expected SHA-256 \(entry.sha256.prefix(12))…, found \(digest.prefix(12))…"))
            }
        } catch let error as IoError {
            throw unreadable("\(directory.path): \(name) cannot be read: \(oneLine(error.reason))")
        }
    }
    return changes
}
