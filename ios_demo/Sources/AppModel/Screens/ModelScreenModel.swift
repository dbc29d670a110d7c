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
    @ObservationIgnored private let core: Core
    private var state: AppState { core.state }
    private var words: any Words { core.words }

    init(_ core: Core) { self.core = core }

    public var rows: [BundleRow] { state.bundles.map(row) }

    private func row(_ bundle: BundleInfo) -> BundleRow {
        func about(_ figure: String?) -> String { figure.map { words("about", $0) } ?? words("unknown") }
        let check = check(bundle)
        let chosen = bundle.name == state.chosen
        return BundleRow(
            id: bundle.name,
            source: bundle.source,
            chosen: chosen,
            figures: [
                Figure(value: words.bytes(bundle.bytes), label: words("size")),
                Figure(value: words.count(bundle.layers), label: words("layers")),
                Figure(value: about(bundle.predictedMemory.map(words.bytes)), label: words("memory_needed")),
                Figure(value: about(bundle.secondsAStep.map(words.seconds)), label: words("time_a_step")),
            ],
            check: check,
            spoken: [words("bundle_name", bundle.name), bundle.source, check].joined(separator: ". "),
            canRemove: !(chosen && state.steady.active)
        )
    }

    private func check(_ bundle: BundleInfo) -> String {
        guard let verdict = bundle.verdict else { return words(bundle.checked ? "bundle_checked" : "bundle_unchecked") }
        return verdict.holds
            ? words("bundle_checked_with", words.runtime(verdict.runtime)) : words("bundle_wrong_with", words.runtime(verdict.runtime))
    }

    /// Bundles that lie in the app's documents, each to be added with a tap.
    public var found: [FoundBundle] { state.found }
    public var transfer: TransferRow? { state.transfer.map(words.row) }
    /// The name of an import that was broken off and can go on; nil: none.
    public var unfinished: String? { state.unfinishedImport }
    public var canAdd: Bool { state.transfer == nil }
    public var canChoose: Bool { !state.steady.active }
    /// The tiny model that rides in the app is not listed, and can be brought back.
    public var canAddDemo: Bool { canAdd && core.bundling.canAddDemo }

    public func choose(_ name: String) { core.bundling.choose(name) }
    /// A folder that the person picked.
    public func add(folder: URL) { core.bundling.add(folder) }
    public func add(found: FoundBundle) { core.bundling.add(found) }
    public func addDemo() { core.bundling.addDemo() }
    public func cancel() { core.bundling.cancel() }
    public func goOnImporting() { core.bundling.goOnImporting() }
    public func discardImport() { core.bundling.discardImport() }
    /// With what it learned here: ask before (`remove_title`, `remove_text`).
    public func remove(_ name: String) { core.bundling.remove(name) }
}
