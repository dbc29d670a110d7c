import Foundation
import LCSBKit

/// Writes down what is to become of runs, and shows what was saved of them.
@MainActor final class SavedRuns {
    private unowned let core: Core

    init(_ core: Core) { self.core = core }

    /// A run that goes on without being asked for, of the chosen bundle first.
    func unfinished(_ isWanted: (RunRecord) -> Bool) -> RunRecord? {
        let bundles = Set(core.state.bundles.map(\.name))
        let open = core.runs.all().filter { bundles.contains($0.bundle) && $0.unfinished && isWanted($0) }
        return open.first { $0.bundle == core.state.chosen } ?? open.first
    }

    /// Shows the chosen bundle's run as it was left; its record, nil where there is none, or where it no longer `isWanted` once it was
    /// read.
    @discardableResult func show(_ isWanted: () -> Bool = { true }) async -> RunRecord? {
        guard let bundle = core.state.bundle, let record = core.runs.read(bundle.name) else {
            (core.state.run, core.state.report) = (RunState(steps: core.settings[\.steps]), nil)
            return nil
        }
        let history = await history(bundle)
        guard core.state.chosen == bundle.name, isWanted() else { return nil }
        show(record, history)
        return record
    }

    private func show(_ record: RunRecord, _ history: RunState) {
        var run = history
        (run.phase, run.steps, run.begun) = (record.wanted.phase, record.steps, core.runs.begun(record.bundle))
        (run.secondsAStep, run.chat) = (core.state.run.secondsAStep, record.chat)
        if record.wanted == .waiting { run.decision = Decision(waits: true, reason: .background) }
        (core.state.run, core.state.report) = (run, record.report)
        if core.trial.voices.first == .run { core.trial.choose(.run) } else { core.trial.chooseAnother() }
    }

    /// What is saved; of what cannot be read nothing is shown, and the person is told.
    private func history(_ bundle: BundleInfo) async -> RunState {
        let (engine, state) = (core.engine, core.runs.state(bundle.name))
        do {
            return try await offMain("history") { try engine.history(bundle, state) }
        } catch {
            core.tell(error)
            return RunState()
        }
    }

    /// Writes down what is asked for. A run that failed before anything of it was saved, for its data may be, is none to go on with. Nil
    /// without data.
    func write(_ bundle: BundleInfo, _ data: DataInfo?) async throws -> RunRecord? {
        let (runs, settings) = (core.runs, core.settings.values)
        let before = runs.read(bundle.name).flatMap { $0.resumable ? $0 : nil }
        if var record = before, record.wanted != .failed || runs.begun(bundle.name) {
            (record.wanted, record.budget, record.fault, record.detail, record.arguments) = (.running, settings.budget, nil, nil, [])
            try runs.write(record)
            return record
        }
        guard let file = data?.file ?? before?.data, let name = data?.name ?? before?.dataName else { return nil }
        let beginning = core.state.adapters.first { $0.id == settings.beginning }
        var record = RunRecord(
            bundle: bundle.name, data: file, dataName: name, steps: settings.steps, budget: settings.budget, threads: Engine.threads)
        (record.initial, record.continued) = (beginning != nil, beginning?.name)
        record.chat = (data?.summary?.conversations ?? 0) > 0
        let (written, initial) = (record, beginning.map { core.adapters.file($0.id) })
        try await offMain("begin") { try runs.replace(written, initial: initial) }
        (core.state.report, core.state.run) = (nil, RunState(phase: .opening, steps: record.steps))
        return record
    }

    // The end

    /// `result`: of a run that is over; nil where it can go on, or came to none. `decision`: why it waits. `peak`: bytes of the process.
    func end(_ record: RunRecord, _ wanted: RunRecord.Wanted, _ result: RunResult?, _ decision: Decision?, peak: Int) async {
        var ended = record
        ended.wanted = wanted
        let phone = core.services.device.name
        storing { ended.report = try result.map { try RunReport($0, peak: peak, phone: phone) } }
        storing { try core.runs.write(ended) }  // before what takes longer
        if !ended.resumable { ended.adapter = await keep(ended, result) }
        guard let bundle = core.state.bundles.first(where: { $0.name == record.bundle }) else { return }
        let seconds = core.state.run.secondsAStep
        let history = await history(bundle)
        if core.state.chosen == bundle.name { show(ended, history) }
        if let decision { core.state.run.decision = decision }
        if let seconds {
            var measured = bundle
            measured.secondsAStep = seconds  // says more than a prediction
            storing { try core.bundling.update(measured) }
        }
        notice(ended)
    }

    func fail(_ record: RunRecord, _ error: any Error) {
        let problem = Problem(error)
        var failed = record
        (failed.wanted, failed.fault) = (.failed, problem.fault?.rawValue)
        (failed.arguments, failed.detail) = (problem.arguments, problem.detail)
        storing { try core.runs.write(failed) }
        (core.state.run.phase, core.state.run.layer, core.state.run.begun) = (.failed, -1, core.runs.begun(record.bundle))
        core.state.problem = problem
        notice(failed)
    }

    /// Puts what a run learned on the shelf; its id, nil where nothing was learned, or it could not be kept and is tried again.
    @discardableResult func keep(_ record: RunRecord, _ result: RunResult? = nil) async -> String? {
        do {
            guard let id = try await core.keeping.keep(record, result?.adapter.map { URL(fileURLWithPath: $0) }) else { return nil }
            var kept = core.runs.read(record.bundle) ?? record
            kept.adapter = id
            try core.runs.write(kept)
            return id
        } catch {
            core.tell(error)
            return nil
        }
    }

    /// Storage may be full just then; what the run itself saved does not depend on it.
    private func storing(_ write: () throws -> Void) {
        do { try write() } catch { core.tell(error) }
    }

    /// Who does not see the app is told what became of the run.
    private func notice(_ record: RunRecord) {
        if core.inFront || record.wanted == .paused || record.wanted == .cancelled { return }
        let (words, run, notifier) = (core.words, core.state.run, core.services.notifier)
        let (step, steps) = (words.count(run.step), words.count(run.steps))
        let text = switch record.wanted {
        case .finished: words("note_finished", step)
        case .failed: words("note_failed")
        default: words("note_waiting", step, steps)
        }
        let title = words("note_title", record.bundle)
        Task { await notifier.post(title: title, text: text) }
    }
}
