import Foundation
import Observation

/// Everything that the screens show. The screens' models change it, and what works for them.
@MainActor @Observable public final class AppState {
    public internal(set) var bundles: [BundleInfo] = []
    public internal(set) var found: [FoundBundle] = []
    /// The name of the bundle that trains and writes.
    public internal(set) var chosen: String?
    public internal(set) var transfer: Transfer?
    /// The name of a bundle whose copy was broken off.
    public internal(set) var unfinishedImport: String?
    public internal(set) var data: DataInfo?
    public internal(set) var reading: Transfer?
    public internal(set) var run = RunState()
    public internal(set) var vitals = Vitals()
    /// Of the chosen bundle, the newest first.
    public internal(set) var adapters: [AdapterInfo] = []
    /// What "with what it learned" means; nil: nothing was learned.
    public internal(set) var voice: Voice?
    public internal(set) var messages: [ChatMessage] = []
    public internal(set) var comparison = Comparison()
    public internal(set) var report: RunReport?
    public internal(set) var packing = false
    public internal(set) var problem: Problem?

    public init() {}

    public var bundle: BundleInfo? { bundles.first { $0.name == chosen } }
}
