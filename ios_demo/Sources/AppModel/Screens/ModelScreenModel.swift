import Foundation
import Observation

/// A bundle as the Model screen shows it. `check`: whether this phone computes it rightly. `spoken`: all of it, for VoiceOver.
public struct BundleRow: Equatable, Sendable, Identifiable {
    public let id: String
    public let source: String
    public let chosen: Bool
    public let figures: [Figure]
    public let check: String
    public let spoken: String
    public let canRemove: Bool
}

/// What the Model screen shows and can do.
@MainActor @Observable public final class ModelScreenModel {
    public var rows: [BundleRow] { fatalError("in the making") }
    /// Bundles that lie in the app's documents, each to be added with a tap.
    public var found: [FoundBundle] { fatalError("in the making") }
    public var transfer: TransferRow? { fatalError("in the making") }
    /// The name of an import that was broken off and can go on; nil: none.
    public var unfinished: String? { fatalError("in the making") }
    public var canAdd: Bool { fatalError("in the making") }
    public var canChoose: Bool { fatalError("in the making") }
    /// The tiny model that rides in the app is not listed, and can be brought back.
    public var canAddDemo: Bool { fatalError("in the making") }

    public func choose(_ name: String) { fatalError("in the making") }
    /// A folder that the person picked.
    public func add(folder: URL) { fatalError("in the making") }
    public func add(found: FoundBundle) { fatalError("in the making") }
    public func addDemo() { fatalError("in the making") }
    public func cancel() { fatalError("in the making") }
    public func goOnImporting() { fatalError("in the making") }
    public func discardImport() { fatalError("in the making") }
    /// With what it learned here: ask before.
    public func remove(_ name: String) { fatalError("in the making") }
}
