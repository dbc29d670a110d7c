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
    @ObservationIgnored private let core: Core
    private var state: AppState { core.state }
    private var words: any Words { core.words }
    /// Shows another section.
    @ObservationIgnored var lead: (Destination) -> Void = { _ in }
    /// What is compared when a comparison was asked for.
    @ObservationIgnored var beside: (Voice, Voice) -> Void = { _, _ in }

    init(_ core: Core) { self.core = core }

    public var sentence: String {
        if packing { return words("packing") }
        if let bundle = state.bundle, !state.adapters.isEmpty { return words("adapter_ready", words.bytes(4 * bundle.adapterSize)) }
        return words("adapter_none")
    }

    public var rows: [AdapterRow] { state.adapters.map(row) }

    private func row(_ adapter: AdapterInfo) -> AdapterRow {
        var details = [words.date(adapter.date)]
        if adapter.origin == .imported { details.append(words("adapter_imported")) }
        if let data = adapter.data, data != adapter.name { details.append(data) }
        if let steps = adapter.steps { details.append(words("steps_label", .count(steps))) }
        if let continued = adapter.continued { details.append(words("adapter_continued", continued)) }
        let detail = details.joined(separator: " · ")
        var result: String?
        if let before = adapter.before, let after = adapter.after {
            result = words("adapter_result", words.decimal(before, digits: 2), words.decimal(after, digits: 2))
        }
        return AdapterRow(
            id: adapter.id, name: adapter.name, detail: detail, result: result,
            spoken: [adapter.name, detail, result].compactMap { $0 }.joined(separator: ". "))
    }

    public var packing: Bool { state.packing }
    public var canImport: Bool { state.bundle != nil && !packing }
    public var canChange: Bool { !packing }
    /// A run is under way or paused: another cannot be begun.
    public var canContinue: Bool { !packing && !state.run.active && !state.run.resumable }

    /// What was packed and is to be handed out; the view sets it to nil when that is over.
    public var shared: SharedFile?

    /// PEFT's directory as a ZIP file; then `shared` is there.
    public func share(_ id: String) { core.keeping.share(id) { [weak self] in self?.shared = $0 } }
    public func rename(_ id: String, to name: String) { core.keeping.rename(id, to: name) }
    /// Ask before (`delete_adapter_title`, `delete_adapter_text`).
    public func delete(_ id: String) { core.keeping.delete(id) }

    /// The next run begins with it: leads to Train.
    public func continueTraining(_ id: String) {
        guard canContinue else { return }
        core.settings[\.beginning] = id
        lead(.train)
    }

    /// Leads to Try it.
    public func tryOut(_ id: String) {
        core.trial.choose(.adapter(id))
        lead(.tryIt)
    }

    /// `id` beside `other`, or beside the model as it came: leads to Try it.
    public func compare(_ id: String, with other: String?) {
        beside(other.map(Voice.adapter) ?? .base, .adapter(id))
        lead(.tryIt)
    }

    /// PEFT's directory, or its `adapter_model.safetensors`, or an adapter file of ours.
    public func add(_ url: URL) { core.keeping.add(url) }

    // The last run of the chosen bundle

    public var report: [Figure] {
        guard let report = state.report else { return [] }
        func loss(_ value: Double?) -> String { value.map { words.decimal($0, digits: 3) } ?? "–" }
        return [
            Figure(value: loss(report.before), label: words("report_before")),
            Figure(value: loss(report.after), label: words("report_after")),
            Figure(value: words.count(report.steps), label: words("report_steps")),
            Figure(value: words.duration(report.seconds), label: words("report_seconds")),
            Figure(value: words.bytes(report.memory), label: words("report_memory")),
            Figure(value: report.runtime, label: words("report_runtime")),
        ]
    }
    public var canShareReport: Bool { state.report != nil && !packing }
    public func shareReport() { core.keeping.shareReport { [weak self] in self?.shared = $0 } }

    /// Whether adapters go into the phone's backup.
    public var backup: Bool {
        get { core.settings[\.backup] }
        set {
            core.settings[\.backup] = newValue
            core.protect()
        }
    }
}
