import Foundation
import LCSBKit

/// The bundles that the app has. `NAME.json` in a directory of the app's is what it knows of one; the bundle itself lies beside it, as it was
/// copied and verified, or where `lcsb ios push` put it below the app's documents, or in the app, and is used there. What is still being copied
/// is in `.incoming`, from which it goes on.
struct BundleLibrary: Sendable {
    let places: Places
    let engine: Engine

    private var directory: URL { places.bundles }
    private var incoming: URL { directory.appendingPathComponent(".incoming") }
    private var files: URL { incoming.appendingPathComponent("files") }
    private func info(_ name: String) -> URL { directory.appendingPathComponent("\(name).json") }

    func directory(_ bundle: BundleInfo) -> URL {
        switch bundle.place {
        case .library: directory.appendingPathComponent(bundle.directory)
        case .documents: places.documents.appendingPathComponent(bundle.directory)
        case .app: places.demo!.appendingPathComponent(bundle.directory)
        }
    }

    /// An info that cannot be read, or whose bundle is gone, is as good as none.
    func list() -> [BundleInfo] {
        listed(directory).filter { $0.hasSuffix(".json") && !$0.hasPrefix(".") }
            .compactMap { AppModel.read(BundleInfo.self, from: directory.appendingPathComponent($0)) }
            .filter { ($0.place != .app || places.demo != nil) && isFile(directory($0).appendingPathComponent("manifest.json")) }
    }

    /// Bundles below the app's documents that are not listed yet.
    func found() -> [FoundBundle] {
        let known = Set(list().filter { $0.place == .documents }.map(\.directory))
        let inbox = listed(places.documents.appendingPathComponent("Inbox")).map { "Inbox/\($0)" }
        return (listed(places.documents) + inbox).filter { path in
            let name = path.split(separator: "/").last!
            return !name.hasPrefix(".") && !known.contains(path)
                && isFile(places.documents.appendingPathComponent(path).appendingPathComponent("manifest.json"))
        }.map(FoundBundle.init)
    }

    /// Removes what a process left that ended in the middle of taking or removing a bundle; a bundle is as large as storage gets. What was being
    /// copied stays: it goes on.
    func tidy() {
        let used = Set(list().filter { $0.place == .library }.map(\.directory))
        for name in listed(directory) where name != ".incoming" && isDirectory(directory.appendingPathComponent(name)) && !used.contains(name) {
            remove(directory.appendingPathComponent(name))
        }
    }

    // Copying

    /// A copy that was begun. `bookmark`: with which its source is found again.
    struct Import: Codable, Sendable {
        var name: String
        var bookmark: Data?
    }

    var unfinished: Import? { AppModel.read(Import.self, from: incoming.appendingPathComponent("import.json")) }

    func discardImport() { remove(incoming) }

    /// Copies, verifies, and only then gives it its name. What was copied before of the same folder is not copied again. `progress` and `stop` may
    /// end it: what was copied stays then, until `discardImport`.
    ///
    /// Throws BUNDLE_…, TOKENIZER_…, STORAGE_FULL, STORAGE_FAILED; the copy of what is no good bundle goes.
    func add(_ source: URL, bookmark: Data?, stop: Stop, _ progress: @escaping @Sendable (Transfer) -> Void) throws -> BundleInfo {
        let root = bundleRoot(source)
        let name = source.lastPathComponent
        try begin(Import(name: name, bookmark: bookmark), root)
        do {
            try copyAll(root, name, stop, progress)
            let title = self.title(name)
            var info = try engine.inspect(files, name: title, stop: stop, progress)
            (info.place, info.directory) = (.library, title)
            let target = directory(info)
            remove(target)  // of a bundle that is not listed
            try storing(directory) { try move(files, to: target) }
            do {
                try save(info)
            } catch {
                remove(target)
                throw error
            }
            remove(incoming)
            return info
        } catch let error as LcsbError where error.fault != .storageFull && error.fault != .storageFailed {
            remove(incoming)
            throw error
        }
    }

    /// Uses a bundle where it lies, once it is verified.
    func adopt(_ place: BundleInfo.Place, _ path: String, stop: Stop, _ progress: @escaping @Sendable (Transfer) -> Void) throws -> BundleInfo {
        let name = title(path.split(separator: "/").last.map(String.init) ?? path)
        let root = (place == .app ? places.demo! : places.documents).appendingPathComponent(path)
        var info = try engine.inspect(root, name: name, stop: stop, progress)
        (info.place, info.directory) = (place, path)
        try save(info)
        return info
    }

    /// Where a folder holds one folder and no manifest, that one is meant.
    private func bundleRoot(_ source: URL) -> URL {
        if exists(source.appendingPathComponent("manifest.json")) { return source }
        let inner = listed(source).filter { !$0.hasPrefix(".") && isDirectory(source.appendingPathComponent($0)) }
        return inner.count == 1 ? source.appendingPathComponent(inner[0]) : source
    }

    private func title(_ wanted: String) -> String { freeName(wanted, default: "bundle") { exists(info($0)) } }

    /// Goes on with what was copied of the same manifest, else begins anew.
    private func begin(_ new: Import, _ root: URL) throws {
        let copied = try? readBounded(files.appendingPathComponent("manifest.json"), 64 << 20)
        let same = copied != nil && copied == (try? readBounded(root.appendingPathComponent("manifest.json"), 64 << 20))
        if !same { remove(incoming) }
        try storing(incoming) { try makeDirectories(files) }
        try AppModel.write(new, to: incoming.appendingPathComponent("import.json"))
    }

    private func copyAll(_ root: URL, _ name: String, _ stop: Stop, _ progress: (Transfer) -> Void) throws {
        if !isDirectory(root) { throw LcsbError(.bundleUnreadable, "\(name): cannot be read: no folder", [name]) }
        // The manifest first: by it the copy is known again.
        let all = filesBelow(root)
        let wanted = all.filter { $0.path == "manifest.json" } + all.filter { $0.path != "manifest.json" }
        let there = wanted.map { min(max(0, fileSize(files.appendingPathComponent($0.path))), $0.size) }
        let total = wanted.reduce(0) { $0 + $1.size }
        var done = there.reduce(0, +)
        try checkFreeSpace(incoming, total - done)
        progress(Transfer(.copying, name, done: done, total: total))
        for (file, start) in zip(wanted, there) where start < file.size {
            let target = files.appendingPathComponent(file.path)
            try storing(target) {
                try makeDirectories(target.deletingLastPathComponent())
                let opened = try OpenFile(target, O_WRONLY | O_CREAT | O_APPEND)
                try eachBlock(root.appendingPathComponent(file.path), from: start, fault: .bundleUnreadable) { block, _ in
                    try stop.check()
                    try opened.write(block)
                    done += block.count
                    progress(Transfer(.copying, name, done: done, total: total))
                }
                try opened.sync()
            }
        }
    }

    func save(_ bundle: BundleInfo) throws { try AppModel.write(bundle, to: info(bundle.name)) }

    /// With its files, but for those that ride in the app.
    func remove(_ bundle: BundleInfo) {
        remove(info(bundle.name))
        if bundle.place != .app { remove(directory(bundle)) }
    }

    private func remove(_ file: URL) { AppModel.remove(file) }
}
