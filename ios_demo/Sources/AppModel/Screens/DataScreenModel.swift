import Foundation
import Observation

/// One of the person's own messages. `spoken`: of the button that removes it.
public struct TypedRow: Equatable, Sendable, Identifiable {
    public let id: Int
    public let text: String
    public let spoken: String
}

/// An example as the loss sees it. `count`: "Example 1 of 20". `spoken`: what is learned of it.
public struct Preview: Equatable, Sendable {
    public let pieces: [TextPiece]
    public let count: String
    public let spoken: String
}

/// What the Data screen shows and can do.
@MainActor @Observable public final class DataScreenModel {
    public var title: String { fatalError("in the making") }
    public var sentence: String { fatalError("in the making") }
    public var figures: [Figure] { fatalError("in the making") }
    public var advice: String? { fatalError("in the making") }
    public var reading: TransferRow? { fatalError("in the making") }
    public var canChange: Bool { fatalError("in the making") }
    public var canDelete: Bool { fatalError("in the making") }

    public var preview: Preview? { fatalError("in the making") }
    public var hasPrevious: Bool { fatalError("in the making") }
    public var hasNext: Bool { fatalError("in the making") }
    public func previous() { fatalError("in the making") }
    public func next() { fatalError("in the making") }

    /// The message that is being written.
    public var draft = ""
    public var canAddDraft: Bool { fatalError("in the making") }
    /// The newest first, thirty at most.
    public var typed: [TypedRow] { fatalError("in the making") }
    /// "and 12 earlier messages".
    public var more: String? { fatalError("in the making") }

    /// What is asked before the person's own messages are replaced by a file; nil: there are none.
    public var replaceQuestion: String? { fatalError("in the making") }
    /// What is asked before the data is deleted.
    public var deleteQuestion: String { fatalError("in the making") }

    public func add(file: URL) { fatalError("in the making") }
    public func addSample() { fatalError("in the making") }
    public func addDraft() { fatalError("in the making") }
    public func removeTyped(_ index: Int) { fatalError("in the making") }
    public func cancel() { fatalError("in the making") }
    /// The data is gone then, also for a run that waits to go on with it: that ends, and what it learned stays.
    public func delete() { fatalError("in the making") }
}
