import AppModel
import Foundation
import UIKit
import os

/// What the phone says of itself. UIKit tells the main thread alone, so what it told last is kept for whoever asks.
final class Phone: Device, @unchecked Sendable {
    @MainActor static let shared = Phone()

    let name = Phone.model()
    private let lock = NSLock()
    private var battery = -1
    private var charging = false
    @MainActor private var observers: [any NSObjectProtocol] = []

    @MainActor private init() {
        UIDevice.current.isBatteryMonitoringEnabled = true
        observers = [UIDevice.batteryLevelDidChangeNotification, UIDevice.batteryStateDidChangeNotification].map { name in
            NotificationCenter.default.addObserver(forName: name, object: nil, queue: .main) { [weak self] _ in
                MainActor.assumeIsolated { self?.read() }
            }
        }
        read()
    }

    @MainActor private func read() {
        let (level, state) = (UIDevice.current.batteryLevel, UIDevice.current.batteryState)
        lock.withLock {
            battery = level < 0 ? -1 : Int((level * 100).rounded())
            charging = state == .charging || state == .full
        }
    }

    func vitals() -> Vitals {
        let (battery, charging) = lock.withLock { (self.battery, self.charging) }
        let process = ProcessInfo.processInfo
        let thermal = Self.thermal(process.thermalState)
        return Vitals(battery: battery, charging: charging, thermal: thermal, lowPower: process.isLowPowerModeEnabled)
    }

    func availableMemory() -> Int? {
        let bytes = os_proc_available_memory()
        return bytes > 0 ? bytes : nil  // 0 on a simulator
    }

    static func thermal(_ state: ProcessInfo.ThermalState) -> Thermal {
        switch state {
        case .nominal: .nominal
        case .fair: .fair
        case .serious: .serious
        case .critical: .critical
        @unknown default: .unknown
        }
    }

    /// As `iPhone17,1`.
    private static func model() -> String {
        var system = utsname()
        uname(&system)
        return withUnsafeBytes(of: &system.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}

/// Tells when the system wants memory back.
@MainActor final class MemoryWarnings {
    static let shared = MemoryWarnings()
    private var observer: (any NSObjectProtocol)?

    func observe(_ warned: @escaping @MainActor () -> Void) {
        if let observer { NotificationCenter.default.removeObserver(observer) }
        let name = UIApplication.didReceiveMemoryWarningNotification
        observer = NotificationCenter.default.addObserver(forName: name, object: nil, queue: .main) { _ in
            MainActor.assumeIsolated { warned() }
        }
    }
}
