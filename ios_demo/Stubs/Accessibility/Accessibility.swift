// A stand-in: see ../README.md for what it does not prove.

/// Said to who uses VoiceOver, at once.
public enum AccessibilityNotification {
    public struct Announcement: Sendable {
        /// For tests.
        @MainActor public static var posted: [String] = []

        let text: String
        public init(_ announcement: String) { text = announcement }
        @MainActor public func post() { Self.posted.append(text) }
    }
}
