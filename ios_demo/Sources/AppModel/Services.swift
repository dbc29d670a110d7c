import Foundation

// What the app asks of the system, so that all of it can be tried without one. The phone's own are in App/System.

/// The phone: what it says of itself, asked anew each time.
public protocol Device: Sendable {
    /// The maker's name for it, as `iPhone17,1`.
    var name: String { get }

    /// All but the memory's figures, which the app counts itself.
    func vitals() -> Vitals

    /// Bytes that the process may still take before the system ends it (`os_proc_available_memory`); nil where the system does not say.
    func availableMemory() -> Int?
}

/// Notices outside of the app.
public protocol Notifier: Sendable {
    /// Asks the person, once; whether they are allowed.
    func ask() async -> Bool

    func post(title: String, text: String) async
}

/// What lets the process work while the app is not seen.
@MainActor public protocol BackgroundWork: AnyObject {
    /// A run that the person starts may go on when the app leaves the screen (`BGContinuedProcessingTask`, iOS 26). `expired` is called when
    /// the system or the person ends that. Whether the system takes it; false before iOS 26.
    func beginContinued(title: String, text: String, expired: @escaping @MainActor () -> Void) -> Bool

    /// What the system shows of it.
    func showContinued(done: Int, total: Int, title: String, text: String)

    func endContinued(success: Bool)

    /// Whether the system is to start the app with external power while nobody uses it (`BGProcessingTask`), and call
    /// `MainModel.trainAtNight`.
    func scheduleNight(wanted: Bool)

    /// Some seconds to save what is under way when the app leaves the screen; until `endGrace`.
    func beginGrace()
    func endGrace()

    /// Whether the screen stays on while the app is seen: where it goes off, the app is not seen any more.
    func keepAwake(_ on: Bool)
}

/// Files outside of the app's own storage, which the person picked.
public protocol FileAccess: Sendable {
    /// With the right to read `url`, for as long as `use` takes. Throws `AccessLost` where there is none.
    func reach<Result>(_ url: URL, _ use: (URL) throws -> Result) throws -> Result

    /// What gives the right again after a restart; nil where the system gives none.
    func remember(_ url: URL) -> Data?
    func recall(_ bookmark: Data) -> URL?
}

/// The app may not, or no longer, read a file that the person picked.
public struct AccessLost: Error, Sendable {
    public let path: String
    public init(path: String) { self.path = path }
}

/// How a file is kept from others.
public protocol FileProtection: Sendable {
    /// Whatever is made below `directory`, and what is there. `night`: it may be opened once the phone was unlocked after its start, else only
    /// while it is unlocked. `backup`: it goes into the phone's backup.
    func protect(_ directory: URL, night: Bool, backup: Bool)
}

/// Files that are as the system makes them: where there are no protection classes.
public struct NoProtection: FileProtection {
    public init() {}
    public func protect(_ directory: URL, night: Bool, backup: Bool) {}
}

/// Files that need no right: where there is no sandbox.
public struct OpenAccess: FileAccess {
    public init() {}
    public func reach<Result>(_ url: URL, _ use: (URL) throws -> Result) throws -> Result { try use(url) }
    public func remember(_ url: URL) -> Data? { Data(url.path.utf8) }
    public func recall(_ bookmark: Data) -> URL? { URL(fileURLWithPath: String(decoding: bookmark, as: UTF8.self)) }
}

/// `now`: seconds since 1970. `sleep` may be cancelled.
public protocol Timekeeper: Sendable {
    func now() -> Date
    func sleep(seconds: Double) async
}

public struct SystemTime: Timekeeper {
    public init() {}
    public func now() -> Date { Date() }
    public func sleep(seconds: Double) async { try? await Task.sleep(nanoseconds: UInt64(seconds * 1e9)) }
}

@MainActor public struct Services {
    public var device: any Device
    public var notifier: any Notifier
    public var background: any BackgroundWork
    public var files: any FileAccess
    public var protection: any FileProtection
    public var time: any Timekeeper

    public init(
        device: any Device, notifier: any Notifier, background: any BackgroundWork, files: any FileAccess = OpenAccess(),
        protection: any FileProtection = NoProtection(), time: any Timekeeper = SystemTime()
    ) {
        (self.device, self.notifier, self.background) = (device, notifier, background)
        (self.files, self.protection, self.time) = (files, protection, time)
    }
}

/// Where the app's files lie. `support`: its own storage; `documents`: where `lcsb ios push` puts bundles, and what the Files app shows;
/// `scratch`: what need not outlive the process; `demo`: the tiny bundle and `sample.jsonl` that ride in the app.
public struct Places: Sendable {
    public var support: URL
    public var documents: URL
    public var scratch: URL
    public var demo: URL?

    public init(support: URL, documents: URL, scratch: URL, demo: URL?) {
        (self.support, self.documents, self.scratch, self.demo) = (support, documents, scratch, demo)
    }

    public var bundles: URL { support.appendingPathComponent("bundles") }
    public var data: URL { support.appendingPathComponent("data") }
    public var runs: URL { support.appendingPathComponent("runs") }
    public var adapters: URL { support.appendingPathComponent("adapters") }
    public var settings: URL { support.appendingPathComponent("settings.json") }
}
