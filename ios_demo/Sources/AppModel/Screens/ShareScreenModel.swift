import Foundation
import Observation

/// An adapter as the Share screen lists it. `detail`: date, data, steps. `result`: "Loss 3.40 → 1.42". `spoken`: all of it, for VoiceOver.
public struct AdapterRow: Equatable, Sendable, Identifiable {
    public let id: String
    public let name: String
    public let detail: String
    public let result: String?
    public let spoken: String
}

/// A file to hand out. `subject`: what to call it.
public struct SharedFile: Equatable, Sendable, Identifiable {
    public let url: URL
    public let subject: String
    public var id: URL { url }
}

/// What the Share screen shows and can do: the adapters of the chosen bundle, and the last run's report.
@MainActor @Observable public final class ShareScreenModel {
    public var sentence: String { fatalError("in the making") }
    public var rows: [AdapterRow] { fatalError("in the making") }
    public var packing: Bool { fatalError("in the making") }
    public var canImport: Bool { fatalError("in the making") }
    public var canChange: Bool { fatalError("in the making") }

    /// What was packed and is to be handed out; the view sets it to nil when that is over.
    public var shared: SharedFile?

    /// PEFT's directory as a ZIP file; then `shared` is there.
    public func share(_ id: String) { fatalError("in the making") }
    public func rename(_ id: String, to name: String) { fatalError("in the making") }
    /// Ask before (`delete_adapter_title`, `delete_adapter_text`).
    public func delete(_ id: String) { fatalError("in the making") }
    /// The next run begins with it: leads to Train.
    public func continueTraining(_ id: String) { fatalError("in the making") }
    /// Leads to Try it.
    public func tryOut(_ id: String) { fatalError("in the making") }
    /// `id` beside `other`, or beside the model as it came: leads to Try it.
    public func compare(_ id: String, with other: String?) { fatalError("in the making") }
    /// PEFT's directory, or its `adapter_model.safetensors`, or an adapter file of ours.
    public func add(_ url: URL) { fatalError("in the making") }

    // The last run of the chosen bundle.
    public var report: [Figure] { fatalError("in the making") }
    public var canShareReport: Bool { fatalError("in the making") }
    public func shareReport() { fatalError("in the making") }

    /// Whether adapters go into the phone's backup.
    public var backup: Bool {
        get { fatalError("in the making") }
        set { fatalError("in the making") }
    }
}
