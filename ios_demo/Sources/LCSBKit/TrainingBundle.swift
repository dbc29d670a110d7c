import Foundation

/// The TrainingBundle: a directory that holds all that a device needs, verified when it is opened. Specification: docs/bundle.md.
///
/// Nothing is held but the manifest; weights are mapped when asked for. `digest`: SHA-256 of manifest.json, hex.
public final class TrainingBundle: Sendable {
    public let directory: URL
    public let manifest: Manifest
    public let digest: String
    private let madeWeights = Once<MappedWeights>()
    private let madeTokenizer = Once<Tokenizer>()
    private let madeChat = Once<ChatFormat>()
    private let madeGolden = Once<GoldenTrace>()

    private init(_ directory: URL, _ manifest: Manifest, _ digest: String) {
        (self.directory, self.manifest, self.digest) = (directory, manifest, digest)
    }

    func file(_ name: String) -> URL { directory.appendingPathComponent(name) }

    /// Throws BUNDLE_OTHER_TARGET where the programs hold them.
    var weights: MappedWeights {
        get throws {
            if manifest.row.holdsWeights {
                let message = "\(directory.path): expected a bundle with \(weightsFile), found one of target \(manifest.target); "
                    + "export one with --target \(onnxruntimeTarget)"
                throw LcsbError(.bundleOtherTarget, message, [manifest.target])
            }
            return try madeWeights.get { try MappedWeights(file(weightsFile), manifest.weights) }
        }
    }

    public var tokenizer: Tokenizer {
        get throws { try madeTokenizer.get { try Tokenizer.open(directory, manifest.model.vocabSize) } }
    }

    /// How messages become text; nil when the bundle says nothing of it.
    public var chat: ChatFormat? {
        get throws { manifest.files.contains(ChatFormat.file) ? try madeChat.get { try ChatFormat.open(file(ChatFormat.file)) } : nil }
    }

    var golden: GoldenTrace {
        get throws { try madeGolden.get { try GoldenTrace.open(file(goldenFile), manifest) } }
    }

    /// A batch that the bundle brings, to time a step on.
    public var sampleBatch: Batch? { (try? golden)?.batches.first }

    /// Into all of `into`, float32 [N]. Throws ADAPTER.
    public func readInitialAdapter(into: Floats) throws { try readAdapter(file(adapterFile), manifest.adapter, into) }

    /// Reads the manifest, checks it, and every file against it: place, size and SHA-256; and that the golden trace is of its model.
    ///
    /// The bundle may come from anywhere (docs/hostile_input.md). `progress`: bytes verified of all; it may throw, to cancel. Throws
    /// BUNDLE_UNREADABLE, BUNDLE_OTHER_TARGET, BUNDLE_NEWER_VERSION, BUNDLE_OLDER_VERSION or BUNDLE_DAMAGED.
    public static func open(_ directory: URL, progress: (_ done: Int, _ total: Int) throws -> Void = { _, _ in }) throws -> TrainingBundle {
        let content = try readManifest(directory)
        let (manifest, read) = try decode(directory.appendingPathComponent(manifestFile), content)
        try checkManifest(manifest, read, directory.appendingPathComponent(manifestFile))
        try checkFiles(directory, manifest, content, progress)
        let bundle = TrainingBundle(directory, manifest, sha256(content))
        _ = try bundle.golden
        return bundle
    }
}

private func readManifest(_ directory: URL) throws -> [UInt8] {
    if !isInside(directory, manifestFile) { throw unreadable("\(directory.path): \(manifestFile) is a link that leads outside the bundle") }
    do {
        return try readBounded(directory.appendingPathComponent(manifestFile), manifestBytes)
    } catch let error as IoError {
        let reason = oneLine(error.reason)
        throw unreadable("\(directory.path): not a bundle: \(manifestFile) cannot be read (\(reason)); write one with lcsb export")
    }
}

/// With the tree that it was read from.
private func decode(_ path: URL, _ content: [UInt8]) throws -> (Manifest, Json) {
    func malformed(_ reason: String) -> LcsbError {
        unreadable("\(path.path): malformed manifest: \(oneLine(reason)); export the bundle again")
    }
    do {
        _ = try Utf8.strict(content)
        let (version, target) = try statedVersion(content)
        if version > formatVersion {
            let message = "\(path.path): format version \(version) is newer than \(formatVersion), the newest known; update the app"
            throw LcsbError(.bundleNewerVersion, message)
        }
        if version < formatVersion {
            let message = "\(path.path): format version \(version) is older than \(formatVersion); export the bundle again"
            throw LcsbError(.bundleOlderVersion, message)
        }
        if !targets.contains(target) { throw otherTarget(path.path, target, targets.keys) }
        let tree = try parsed(content)
        return (try Manifest(tree, "manifest"), tree)
    } catch let error as IoError {
        throw malformed(error.reason)
    } catch let error as JsonError {
        throw malformed(error.reason)
    } catch let error as RecordError {
        throw malformed(error.reason)
    }
}

/// What a bundle says of itself before anything else of it is read.
private func statedVersion(_ content: [UInt8]) throws -> (version: Int, target: String) {
    var (version, target): (Int?, String) = (nil, "")
    let reader = try JsonReader(content)
    try reader.object { key in
        switch key {
        case "format_version": version = try Fields.int(reader.tree(), "format_version")
        case "target": target = try Fields.string(reader.tree(), "target")
        default: try reader.skip()
        }
    }
    try reader.finish()
    guard let version else { throw RecordError("the manifest: has no format_version") }
    return (version, target)
}
