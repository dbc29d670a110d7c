// A stand-in: see ../README.md for what it does not prove. The phone is what a test says it is.
@_exported import Foundation

@MainActor public final class UIDevice {
    public enum BatteryState: Int, Sendable { case unknown, unplugged, charging, full }

    public static let current = UIDevice()
    public nonisolated static let batteryLevelDidChangeNotification = NSNotification.Name("UIDeviceBatteryLevelDidChangeNotification")
    public nonisolated static let batteryStateDidChangeNotification = NSNotification.Name("UIDeviceBatteryStateDidChangeNotification")

    public var isBatteryMonitoringEnabled = false
    /// 0 to 1, -1 unknown. For tests too.
    public var batteryLevel: Float = -1
    public var batteryState = BatteryState.unknown
}

public struct UIBackgroundTaskIdentifier: Hashable, Sendable {
    public let rawValue: Int
    public init(rawValue: Int) { self.rawValue = rawValue }
    public static let invalid = UIBackgroundTaskIdentifier(rawValue: 0)
}

@MainActor public final class UIApplication {
    public static let shared = UIApplication()
    public nonisolated static let didReceiveMemoryWarningNotification = NSNotification.Name("UIApplicationDidReceiveMemoryWarning")

    public var isIdleTimerDisabled = false

    /// For tests: what runs, and how the system ends it.
    public var running: [UIBackgroundTaskIdentifier: @MainActor @Sendable () -> Void] = [:]
    private var last = 0

    public func beginBackgroundTask(
        withName taskName: String?, expirationHandler handler: (@MainActor @Sendable () -> Void)? = nil
    ) -> UIBackgroundTaskIdentifier {
        last += 1
        let task = UIBackgroundTaskIdentifier(rawValue: last)
        running[task] = handler ?? {}
        return task
    }
    public func endBackgroundTask(_ identifier: UIBackgroundTaskIdentifier) { running[identifier] = nil }
}
