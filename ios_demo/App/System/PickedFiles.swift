import AppModel
import Foundation
import UIKit

/// Files outside of the app's own storage, which the person picked or another app handed over.
struct PickedFiles: FileAccess {
    /// The system waits meanwhile for whoever writes the file, and fetches it where it lies in a cloud.
    func reach<Result>(_ url: URL, _ use: (URL) throws -> Result) throws -> Result {
        let scoped = url.startAccessingSecurityScopedResource()
        defer { if scoped { url.stopAccessingSecurityScopedResource() } }
        if !scoped && !FileManager.default.isReadableFile(atPath: url.path) { throw AccessLost(path: url.path) }
        var refusal: NSError?
        var outcome: Swift.Result<Result, any Error>?
        NSFileCoordinator().coordinate(readingItemAt: url, options: [], error: &refusal) { there in
            outcome = Swift.Result { try use(there) }
        }
        guard let outcome else { throw refusal ?? AccessLost(path: url.path) }
        return try outcome.get()
    }

    func remember(_ url: URL) -> Data? { try? url.bookmarkData(options: [], includingResourceValuesForKeys: nil, relativeTo: nil) }

    func recall(_ bookmark: Data) -> URL? {
        var stale = false
        return try? URL(resolvingBookmarkData: bookmark, options: [], relativeTo: nil, bookmarkDataIsStale: &stale)
    }
}

/// Data protection: the key of a file's class is gone while the phone is locked, or was not unlocked since it was switched on.
struct ProtectionClasses: FileProtection {
    func protect(_ directory: URL, night: Bool, backup: Bool) {
        let kind: FileProtectionType = night ? .completeUntilFirstUserAuthentication : .completeUnlessOpen
        let files = FileManager.default
        // What is made in a directory later takes its class.
        let all = [directory] + (files.enumerator(at: directory, includingPropertiesForKeys: nil)?.compactMap { $0 as? URL } ?? [])
        for each in all { try? files.setAttributes([.protectionKey: kind], ofItemAtPath: each.path) }
        var top = directory
        var values = URLResourceValues()
        values.isExcludedFromBackup = !backup
        try? top.setResourceValues(values)
    }
}
