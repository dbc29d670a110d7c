import Foundation
import LCSBKit

/// The one run that is under way in this process, whoever asked for it: the person, or the system at night. It is held to the
/// `TrainingPolicy`; what LCSBKit does in a step and saves is LCSBKit's.
@MainActor final class Training {
    /// `leave`: the system ends the turn, and the run goes on by itself later.
    private enum Asked { case nothing, pause, cancel, leave }

    private static let watchSeconds = 2.0
    private static let waitSeconds = 5.0
    private static let memoryRestSeconds = 60.0

    private unowned let core: Core
    private var asked = Asked.nothing
    private var control: RunControl?
    private var checking: Stop?
    private var sleep: Task<Void, Never>?
    private var turn: Task<Void, Never>?
    private var memoryWantedUntil = Date.distantPast
    private var peak = 0
    private var atNight = false
    /// The system lets the run go on when the app leaves the screen.
    private var continued = false

    /// From a start to its end, of which a record is written.
    private(set) var running = false {
        didSet { core.services.background.keepAwake(running && !atNight) }
    }

    /// Shows what runs have saved.
    private(set) lazy var worker = Worker { [core] in core.tell($0) }
    private let saved: SavedRuns

    init(_ core: Core) { (self.core, saved) = (core, SavedRuns(core)) }

    func finish() async {
        await worker.finish()
        await turn?.value
    }

    /// Shows the chosen bundle's run as it was left, and says so when the system had ended it.
    func showSaved() {
        core.trial.leave()
        if running { return }
        schedule()
        worker.start { [self] _ in
            guard !running, let record = await saved.show({ !running }) else { return }
            if record.wanted == .running { core.state.problem = core.state.problem ?? .interrupted }
            if let fault = record.fault.flatMap(Fault.init) {
                core.state.problem = core.state.problem ?? Problem(fault, record.arguments, detail: record.detail)
            }
            if record.adapter == nil && !record.resumable { await saved.keep(record) }  // it could not be kept when the run ended
        }
    }

    // Beginning

    /// Begins a run of the chosen bundle, or goes on with the one that it has. `atNight`: leaves it to the night.
    func start(atNight: Bool = false) {
        guard !running, let bundle = core.state.bundle else { return }
        let data = core.state.data
        if !core.state.run.resumable { core.state.run = RunState(steps: core.settings[\.steps]) }
        (core.state.run.phase, core.state.problem) = (.opening, nil)
        begin { [self] in
            do {
                guard var record = try await saved.write(bundle, data) else { return _ = await saved.show() }
                if !atNight { return await train(record) }
                record.wanted = .night
                try core.runs.write(record)
            } catch {
                core.tell(error)  // what there was is shown again
            }
            await saved.show()
        }
        if !atNight { ask(bundle) }
    }

    /// A run that the system made wait goes on.
    func goOn() {
        if running {
            atNight = false
            return wake()
        }
        guard let record = saved.unfinished({ $0.wanted == .waiting }) else { return }
        begin { [self] in await train(record) }
        continueInBackground(record.bundle)
    }

    /// The system started the app at night. Whether nothing is left to do.
    func trainAtNight() async -> Bool {
        guard !running, let record = nightly else { return true }
        begin(atNight: true) { [self] in await train(record) }
        await withTaskCancellationHandler {
            await turn?.value
        } onCancel: {
            Task { @MainActor in leave() }
        }
        return !waitsForNight
    }

    private func begin(atNight: Bool = false, _ work: @escaping () async -> Void) {
        (self.atNight, asked, peak) = (atNight, .nothing, 0)
        running = true
        core.protect()
        turn = Task { [before = turn] in
            await before?.value
            core.trial.leave()
            await core.trial.finish()  // two would share the memory
            await work()
            if continued { core.services.background.endContinued(success: core.state.run.phase != .failed) }
            (continued, running) = (false, false)
            schedule()
            if core.inFront { goOn() }  // it is seen again before it was saved
        }
    }

    private func ask(_ bundle: BundleInfo) {
        continueInBackground(bundle.name)
        if core.settings[\.askedToNotify] { return }
        core.settings[\.askedToNotify] = true
        let notifier = core.services.notifier
        Task { if await !notifier.ask() { core.state.problem = core.state.problem ?? .notifications } }
    }

    private func continueInBackground(_ name: String) {
        let title = core.words("note_title", name)
        continued = core.services.background.beginContinued(title: title, text: core.words("phase_opening")) { [weak self] in
            guard let self else { return }
            continued = false
            if !core.inFront { leave() }
        }
    }

    // Asking

    func pause() { ask(.pause) }

    /// The system ends the turn; the run goes on by itself later.
    func leave() { if asked == .nothing { ask(.leave) } }

    private func ask(_ what: Asked) {
        guard running else { return }
        asked = what
        if what == .cancel { control?.stop() } else { control?.pause() }
        checking?.ask()
        wake()
        if core.state.run.active { core.state.run.phase = .pausing }
    }

    /// The run is saved, where the system does not let it go on.
    func wentToBack() {
        if !running || continued || atNight { return }
        let background = core.services.background
        background.beginGrace()
        leave()
        Task {
            await turn?.value
            background.endGrace()
        }
    }

    /// Ends the run where it is; what it has learned stays. One that is under way ends between two layers, one that was paused is opened
    /// and ended.
    func cancel() {
        if running { return ask(.cancel) }
        guard let bundle = core.state.bundle, let record = core.runs.read(bundle.name), record.resumable else { return }
        (core.state.run.phase, core.state.problem) = (.pausing, nil)
        begin { [self] in
            guard core.runs.begun(bundle.name) else {
                core.runs.remove(bundle.name)
                return _ = await saved.show()
            }
            var result: RunResult?
            do {
                let control = RunControl()
                result = try await run(record, bundle, control) { control.stop() }
            } catch {
                core.tell(error)  // whatever it is, the run ends, and what it has learned stays
            }
            await end(record, .cancelled, result)
        }
    }

    /// Its data is gone: it ends, and what it has learned stays.
    func abandon(_ record: RunRecord) async {
        if running { return }
        await saved.end(record, .cancelled, nil, nil, peak: 0)
        schedule()
    }

    /// Saves, and keeps nothing in memory for a while.
    func giveMemoryBack() {
        memoryWantedUntil = core.services.time.now() + Self.memoryRestSeconds
        control?.pause()
    }

    private func wake() { sleep?.cancel() }

    // A turn

    private func train(_ record: RunRecord) async {
        do {
            let bundle = try show(record)
            var running = record
            running.wanted = .running
            try core.runs.write(running)
            try await check(record, bundle)
            try await trainByPolicy(running)
        } catch is CancellationError {
            await end(record, asked == .cancel ? .cancelled : asked == .leave ? .waiting : .paused, nil)
        } catch {
            saved.fail(record, error)
        }
    }

    /// The run under way is what is shown, whatever was: it may be the system that has it go on.
    private func show(_ record: RunRecord) throws -> BundleInfo {
        guard let bundle = core.state.bundles.first(where: { $0.name == record.bundle }) else {
            throw LcsbError(.bundleUnreadable, "\(record.bundle): there is no such model any more", [record.bundle])
        }
        if core.state.chosen != record.bundle {
            core.settings[\.chosen] = record.bundle
            core.bundling.show(record.bundle)
        }
        if core.state.run.phase != .pausing { core.state.run.phase = .opening }
        core.state.run.steps = record.steps
        if core.state.problem == .interrupted { core.state.problem = nil }
        return bundle
    }

    /// Once a phone: whether it computes what the golden trace says.
    private func check(_ record: RunRecord, _ bundle: BundleInfo) async throws {
        if asked != .nothing { throw CancellationError() }
        if bundle.checked { return }
        if core.state.run.phase != .pausing { core.state.run.phase = .testing }
        let (engine, directory, stop) = (core.engine, core.library.directory(bundle), Stop())
        checking = stop
        defer { checking = nil }
        let result = try await offMain("check") { try engine.check(directory, threads: record.threads, stop: stop) }
        var checked = bundle
        checked.verdict = Verdict(runtime: result.runtime, version: result.runtimeVersion, holds: result.refusal == nil)
        (checked.checked, checked.secondsAStep) = (result.refusal == nil, result.secondsAStep ?? checked.secondsAStep)
        try core.bundling.update(checked)
        if let refusal = result.refusal { throw refusal }
    }

    /// Trains, waits and trains again, as the phone allows, until the run is at an end or was asked to stop. A turn that nobody sees does
    /// not wait: it ends, and the run goes on later.
    private func trainByPolicy(_ record: RunRecord) async throws {
        var decision = Decision()
        while true {
            decision = TrainingPolicy.decide(vitals(), before: decision, night: atNight)
            if decision.waits && asked == .nothing {
                (core.state.run.phase, core.state.run.layer, core.state.run.decision) = (.waiting, -1, decision)
                if !core.inFront { return await end(record, .waiting, nil, decision) }
                await rest()
            }
            if asked == .pause { return await end(record, .paused, nil) }
            if asked == .leave { return await end(record, .waiting, nil) }
            if decision.waits && asked == .nothing { continue }
            let result: RunResult
            do {
                result = try await trainOnce(record, decision)
            } catch let error as LcsbError {
                if asked == .cancel {
                    core.tell(error)
                    return await end(record, .cancelled, nil)
                }
                if !comesBack(record, error) { throw error }
                giveMemoryBack()
                continue
            }
            switch result.outcome {
            case .finished: return await end(record, .finished, result)
            case .cancelled: return await end(record, .cancelled, result)
            case .paused: continue
            }
        }
    }

    /// Whether `error` is that of a run which is left too little memory now, and was left enough before.
    private func comesBack(_ record: RunRecord, _ error: LcsbError) -> Bool {
        (error.fault == .memoryTooSmall || error.fault == .memoryExceeded) && record.budget == nil && core.runs.begun(record.bundle)
    }

    /// A while, or until somebody asks for something.
    private func rest() async {
        let time = core.services.time
        let sleep = Task { await time.sleep(seconds: Self.waitSeconds) }
        self.sleep = sleep
        await sleep.value
        self.sleep = nil
    }

    private func vitals() -> Vitals {
        let memory = processAnonymousBytes() ?? 0
        peak = max(peak, memory)
        var vitals = core.services.device.vitals()
        (vitals.memory, vitals.peakMemory) = (memory, peak)
        vitals.memoryLow = core.services.time.now() < memoryWantedUntil
        core.state.vitals = vitals
        return vitals
    }

    private func trainOnce(_ record: RunRecord, _ first: Decision) async throws -> RunResult {
        let control = RunControl()
        self.control = control
        control.delayMillisecondsBetweenLayers = first.delayMillisBetweenLayers
        if asked == .cancel { control.stop() }
        core.state.run.decision = first
        let watcher = Task { await watch(control, first) }
        defer {
            watcher.cancel()
            self.control = nil
        }
        guard let bundle = core.state.bundles.first(where: { $0.name == record.bundle }) else { throw CancellationError() }
        return try await run(record, bundle, control)
    }

    /// Slows the run down and pauses it as the phone wants it.
    private func watch(_ control: RunControl, _ first: Decision) async {
        var decision = first
        while !Task.isCancelled {
            decision = TrainingPolicy.decide(vitals(), before: decision, night: atNight)
            control.delayMillisecondsBetweenLayers = decision.delayMillisBetweenLayers
            core.state.run.decision = decision
            if decision.waits { control.pause() }
            await core.services.time.sleep(seconds: Self.watchSeconds)
        }
    }

    private func run(
        _ record: RunRecord, _ bundle: BundleInfo, _ control: RunControl, loaded: @escaping @Sendable () -> Void = {}
    ) async throws -> RunResult {
        let engine = core.engine
        let job = TrainingJob(
            bundle: core.library.directory(bundle),
            data: core.data.file(record.data),
            state: core.runs.state(record.bundle),
            steps: record.steps,
            budget: record.budget ?? budget(),
            threads: record.threads,
            initial: record.initial ? core.runs.initial(record.bundle) : nil
        )
        let newest = Newest<RunState> { [weak self] in self?.take($0) }
        let progress = RunProgress(core.state.run, bundle, steps: record.steps, loaded: loaded) { newest.send($0) }
        defer { newest.end() }
        return try await offMain("training") { try engine.train(job, control, progress) }
    }

    /// Bytes that training may take in all: what the process has, and what the system would give it but for an eighth.
    private func budget() -> Int? {
        core.services.device.availableMemory().map { $0 - $0 / 8 + (processAnonymousBytes() ?? 0) }
    }

    /// Somebody who asked for a pause sees that until it has come.
    private func take(_ new: RunState) {
        var run = new
        run.decision = core.state.run.decision
        if core.state.run.phase == .pausing { run.phase = .pausing }
        let stepped = run.step != core.state.run.step
        core.state.run = run
        if stepped && continued {
            core.services.background.showContinued(
                done: run.step, total: run.steps, title: core.words("note_title", core.state.chosen ?? ""),
                text: core.words("step_of", core.words.count(run.step), core.words.count(run.steps)))
        }
    }

    private func end(_ record: RunRecord, _ wanted: RunRecord.Wanted, _ result: RunResult?, _ decision: Decision? = nil) async {
        await saved.end(record, wanted, result, decision, peak: peak)
    }

    // The night

    private var nightly: RunRecord? { saved.unfinished { $0.wanted == .night || core.settings[\.trainsAtNight] } }

    var waitsForNight: Bool { nightly != nil }

    /// While a run waits to go on and the person wants it so, the system is asked for a turn at night.
    func schedule() {
        core.services.background.scheduleNight(wanted: waitsForNight)
        core.protect()
    }
}
