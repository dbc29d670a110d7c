import Foundation
import LCSBKit

/// The adapters in a directory of the app's: `ID/adapter.safetensors`, and `ID/info.json`, without which it is none.
struct AdapterShelf: Sendable {
    let directory: URL

    private func directory(_ id: String) -> URL { directory.appendingPathComponent(id) }
    private func info(_ id: String) -> URL { directory(id).appendingPathComponent("info.json") }
    func file(_ id: String) -> URL { directory(id).appendingPathComponent("adapter.safetensors") }

    /// The newest first.
    func list() -> [AdapterInfo] {
        let found = listed(directory).compactMap { id in AppModel.read(AdapterInfo.self, from: info(id)).flatMap { $0.id == id ? $0 : nil } }
        return found.filter { isFile(file($0.id)) }.sorted { ($0.date, $0.id) > ($1.date, $1.id) }
    }

    /// `make` writes the adapter's file, and says what is to be known of it but id, name and size. Nothing is left where it throws. Throws
    /// STORAGE_FULL, STORAGE_FAILED, and what `make` throws.
    func add(_ wanted: AdapterInfo, _ make: (URL) throws -> Void) throws -> AdapterInfo {
        var added = wanted
        added.id = freeId()
        added.name = freeTitle(wanted.name, among: list())
        do {
            try storing(directory) { try makeDirectories(directory(added.id)) }
            try make(file(added.id))
            added.bytes = fileSize(file(added.id))
            try save(added)
            return added
        } catch {
            remove(added.id)
            throw error
        }
    }

    func save(_ info: AdapterInfo) throws { try AppModel.write(info, to: self.info(info.id)) }

    func remove(_ id: String) {
        AppModel.remove(info(id))
        AppModel.remove(directory(id))
    }

    /// Removes what a process left that ended in the middle of `add` or `remove`.
    func tidy() { listed(directory).filter { !isFile(info($0)) }.forEach { AppModel.remove(directory($0)) } }

    private func freeId() -> String { "\((listed(directory).compactMap { Int($0) }.max() ?? 0) + 1)" }

    private func freeTitle(_ wanted: String, among others: [AdapterInfo]) -> String {
        let names = Set(others.map(\.name))
        if !names.contains(wanted) { return wanted }
        var number = 2
        while names.contains("\(wanted) \(number)") { number += 1 }
        return "\(wanted) \(number)"
    }
}
