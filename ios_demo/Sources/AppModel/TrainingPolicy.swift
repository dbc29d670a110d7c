/// `ProcessInfo.ThermalState`. `unknown`: of a device that does not say.
public enum Thermal: Int, Sendable, Comparable, CaseIterable {
    case unknown, nominal, fair, serious, critical

    public static func < (one: Thermal, other: Thermal) -> Bool { one.rawValue < other.rawValue }
}

/// What the phone says of itself. `battery`: percent, -1 unknown. `charging`: it has external power. `memoryLow`: the system warned of it a
/// short while ago. `memory`, `peakMemory`: the process's anonymous bytes.
public struct Vitals: Equatable, Sendable {
    public var battery = -1
    public var charging = false
    public var thermal = Thermal.unknown
    public var lowPower = false
    public var memoryLow = false
    public var memory = 0
    public var peakMemory = 0

    public init(battery: Int = -1, charging: Bool = false, thermal: Thermal = .unknown, lowPower: Bool = false) {
        (self.battery, self.charging, self.thermal, self.lowPower) = (battery, charging, thermal, lowPower)
    }
}

/// Why training goes slower or waits. `power`: at night it needs external power. `background`: the system lets the app train only while it is seen.
public enum WaitReason: String, Sendable, CaseIterable { case warm, hot, battery, lowPower, memory, power, background }

/// `waits`: save, give all memory back and wait; otherwise, with a `reason`, rest between layers.
public struct Decision: Equatable, Sendable {
    public var waits: Bool
    public var reason: WaitReason?

    public init(waits: Bool = false, reason: WaitReason? = nil) { (self.waits, self.reason) = (waits, reason) }

    /// A layer's forward or backward takes 20 to 100 ms on a phone: about half the load.
    public var delayMillisBetweenLayers: Int { reason != nil && !waits ? 60 : 0 }
}

/// When training slows down or waits. What made it wait must be well over before it goes on, or it would stop and start with every degree.
///
/// Hot: thermal state `serious`; it goes on below `fair`. Warm: `fair`, or low-power mode on battery: slower. Battery: under 15 % without power.
/// At night, when nobody asked for it just now, it waits for power, and in low-power mode.
public enum TrainingPolicy {
    public static let batteryLow = 15  // percent
    public static let batteryAgain = 20

    public static func decide(_ vitals: Vitals, before: Decision, night: Bool = false) -> Decision {
        func waited(_ reason: WaitReason) -> Bool { before == Decision(waits: true, reason: reason) }
        if vitals.thermal >= (waited(.hot) ? .fair : .serious) { return Decision(waits: true, reason: .hot) }
        if night && !vitals.charging { return Decision(waits: true, reason: .power) }
        if !vitals.charging && (0..<(waited(.battery) ? batteryAgain : batteryLow)).contains(vitals.battery) {
            return Decision(waits: true, reason: .battery)
        }
        if vitals.memoryLow { return Decision(waits: true, reason: .memory) }
        if vitals.thermal == .fair { return Decision(reason: .warm) }
        if vitals.lowPower && !vitals.charging { return Decision(reason: .lowPower) }
        return Decision()
    }
}
