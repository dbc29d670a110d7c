// A stand-in: see ../README.md for what it does not prove.
import Foundation

public struct UNAuthorizationOptions: OptionSet, Sendable {
    public let rawValue: UInt
    public init(rawValue: UInt) { self.rawValue = rawValue }
    public static let sound = UNAuthorizationOptions(rawValue: 2), alert = UNAuthorizationOptions(rawValue: 4)
}
public class UNNotificationContent: @unchecked Sendable {
    public fileprivate(set) var title = ""
    public fileprivate(set) var body = ""
}
public final class UNMutableNotificationContent: UNNotificationContent, @unchecked Sendable {
    public override init() {}
    public override var title: String { get { super.title } set { super.title = newValue } }
    public override var body: String { get { super.body } set { super.body = newValue } }
}
public class UNNotificationTrigger: @unchecked Sendable {}
public final class UNNotificationRequest: Sendable {
    public let identifier: String
    public let content: UNNotificationContent
    public init(identifier: String, content: UNNotificationContent, trigger: UNNotificationTrigger?) {
        (self.identifier, self.content) = (identifier, content)
    }
}
public final class UNUserNotificationCenter: @unchecked Sendable {
    private static let one = UNUserNotificationCenter()
    public static func current() -> UNUserNotificationCenter { one }

    /// For tests.
    public var isAllowed = true
    public var shown: [UNNotificationRequest] = []

    public func requestAuthorization(options: UNAuthorizationOptions = []) async throws -> Bool { isAllowed }
    public func add(_ request: UNNotificationRequest) async throws { shown.append(request) }
}
