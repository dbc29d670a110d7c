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
    private static let mostShown = 30

    @ObservationIgnored private let core: Core
    private var state: AppState { core.state }
    private var words: any Words { core.words }

    init(_ core: Core) { self.core = core }

    public var title: String { state.data.map(words.title) ?? words("no_data") }

    public var sentence: String {
        if let reading { return reading.detail.isEmpty ? reading.title : "\(reading.title) · \(reading.detail)" }
        guard let data = state.data else { return words("no_data_text") }
        if state.bundle == nil { return words("data_needs_model") }
        if data.summary == nil { return "" }
        return words(data.suffices ? "data_ready" : "data_needs_two")
    }

    private var summary: DataSummary? { state.data?.summary }

    public var figures: [Figure] {
        guard let summary else { return [] }
        let values = [("examples", summary.examples), ("tokens", summary.tokens), ("counted", summary.counted), ("cut", summary.cut)]
        return values.map { Figure(value: words.count($1), label: words($0)) }
    }

    public var advice: String? {
        summary.map { summary in
            let cut = summary.cut == 0 ? words("data_fits", words.count(state.bundle?.seqLen ?? 0)) : words("data_cut", .count(summary.cut))
            return cut + " " + words("data_epoch", .count(summary.sequences))
        }
    }

    public var reading: TransferRow? { state.reading.map(words.row) }
    public var canChange: Bool { state.reading == nil }
    public var canDelete: Bool { canChange && state.data != nil && !state.run.active }

    // The examples as the loss sees them

    private var page = 0
    @ObservationIgnored private var paged: String?  // the data that `page` is of

    private var previews: [[TextPiece]] { summary?.previews ?? [] }
    private var index: Int { paged == state.data?.file ? min(page, max(previews.count - 1, 0)) : 0 }

    public var preview: Preview? {
        guard previews.indices.contains(index) else { return nil }
        let pieces = previews[index]
        let count = words("preview_count", words.count(index + 1), words.count(previews.count))
        let learned = pieces.filter(\.counted).map(\.text).joined(separator: " ")
        return Preview(pieces: pieces, count: count, spoken: count + ". " + words("preview_words", learned))
    }
    public var hasPrevious: Bool { index > 0 }
    public var hasNext: Bool { index + 1 < previews.count }
    public func previous() { turn(-1) }
    public func next() { turn(1) }

    private func turn(_ by: Int) {
        let wanted = index + by
        if previews.indices.contains(wanted) { (paged, page) = (state.data?.file, wanted) }
    }

    // The person's own messages

    /// The message that is being written.
    public var draft = ""
    public var canAddDraft: Bool { canChange && !plain(draft).isEmpty }

    private func plain(_ text: String) -> String { text.trimmingCharacters(in: .whitespacesAndNewlines) }

    /// The newest first, thirty at most.
    public var typed: [TypedRow] {
        let all = state.data?.typed ?? []
        return all.indices.reversed().prefix(Self.mostShown).map { TypedRow(id: $0, text: all[$0], spoken: words("remove_message", all[$0])) }
    }

    /// "and 12 earlier messages".
    public var more: String? {
        let hidden = (state.data?.typed?.count ?? 0) - Self.mostShown
        return hidden > 0 ? words("messages_more", .count(hidden)) : nil
    }

    /// What could not be stored stays in the field.
    public func addDraft() {
        let message = plain(draft)
        if message.isEmpty { return }
        core.reading.type(message) { [weak self] in
            if let self, plain(draft) == message { draft = "" }
        }
    }

    public func removeTyped(_ index: Int) { core.reading.removeTyped(index) }

    // Importing and deleting

    /// What is asked before the person's own messages are replaced by a file (`replace_title`); nil: there are none.
    public var replaceQuestion: String? { state.data?.typed.map { words("replace_text", .count($0.count)) } }
    /// What is asked before the data is deleted (`delete_data_title`).
    public var deleteQuestion: String { words(state.run.resumable ? "delete_data_run" : "delete_data_text") }

    public func add(file: URL) { core.reading.add(file) }
    public func addSample() { core.reading.addSample() }
    public func cancel() { core.reading.cancel() }
    /// The data is gone then, also for a run that waits to go on with it: that ends, and what it learned stays.
    public func delete() { core.reading.delete() }

    /// A file that came from outside and would take the place of the person's own messages: it is asked for (`replaceQuestion`), then `accept`, or set
    /// to nil.
    public var offered: URL?

    func offer(file: URL) { if replaceQuestion == nil { add(file: file) } else { offered = file } }

    public func accept() {
        if let offered { add(file: offered) }
        offered = nil
    }

    func offer(text: String) {
        let message = plain(text)
        if !message.isEmpty { core.reading.type(message) {} }
    }
}
