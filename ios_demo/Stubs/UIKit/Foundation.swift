// What Foundation has on Apple's systems alone. A stand-in: see ../README.md for what it does not prove.

extension ProcessInfo {
    public enum ThermalState: Int, Sendable { case nominal, fair, serious, critical }
    public var thermalState: ThermalState { .nominal }
    public var isLowPowerModeEnabled: Bool { false }
}

extension URL {
    public struct BookmarkCreationOptions: OptionSet, Sendable {
        public let rawValue: UInt
        public init(rawValue: UInt) { self.rawValue = rawValue }
    }
    public struct BookmarkResolutionOptions: OptionSet, Sendable {
        public let rawValue: UInt
        public init(rawValue: UInt) { self.rawValue = rawValue }
    }

    /// For tests: false where the path has the word "refused".
    public func startAccessingSecurityScopedResource() -> Bool { !path.contains("refused") }
    public func stopAccessingSecurityScopedResource() {}

    /// The path alone.
    public func bookmarkData(
        options: BookmarkCreationOptions = [], includingResourceValuesForKeys keys: Set<URLResourceKey>? = nil, relativeTo url: URL? = nil
    ) throws -> Data { Data(path.utf8) }

    public init(
        resolvingBookmarkData data: Data, options: BookmarkResolutionOptions = [], relativeTo url: URL? = nil,
        bookmarkDataIsStale: inout Bool
    ) throws {
        bookmarkDataIsStale = false
        self = URL(fileURLWithPath: String(decoding: data, as: UTF8.self))
    }
}

public final class NSFileCoordinator {
    public struct ReadingOptions: OptionSet, Sendable {
        public let rawValue: UInt
        public init(rawValue: UInt) { self.rawValue = rawValue }
    }
    public init(filePresenter: AnyObject? = nil) {}

    /// On Apple's systems, `error` is a pointer to an `NSError?`.
    public func coordinate(readingItemAt url: URL, options: ReadingOptions = [], error: inout NSError?, byAccessor reader: (URL) -> Void) {
        reader(url)
    }
}
