import Foundation

/// The fine-tune, from a bundle and a data file to an adapter: begun, or gone on with from the newest checkpoint in `directory`, bit for bit.
///
/// `directory` holds the run's checkpoints (docs/run_checkpoint.md), `adapterFile` once the run has ended, and files without a name while it
/// runs; it is made if need be.
public struct TrainingRun: Sendable {
    public let bundle: TrainingBundle
    public let data: URL
    public let directory: URL
    public let options: RunOptions

    public init(_ bundle: TrainingBundle, data: URL, directory: URL, _ options: RunOptions) {
        (self.bundle, self.data, self.directory, self.options) = (bundle, data, directory, options)
    }

    public var adapterFile: URL { directory.appendingPathComponent(LCSBKit.adapterFile) }

    /// Runs until the last step, or until `control` interrupts; blocks. Every check that needs no training is made before the first step.
    ///
    /// Throws OPTION, DATA_…, TOKENIZER_…, CHAT_…, RUN_BUSY, CHECKPOINT_DAMAGED, CHECKPOINT_OTHER_RUN, MEMORY_TOO_SMALL (it cannot fit;
    /// nothing was run), GOLDEN_TRACE, RUNTIME_…, STORAGE_FULL, STORAGE_FAILED, LOSS_NOT_FINITE or MEMORY_EXCEEDED. From the first step on,
    /// whatever ends the run leaves the last adapter that was seen to give a finite loss, and a checkpoint of it.
    public func run(_ control: RunControl, _ observer: any RunObserver) throws -> RunResult {
        var setup = try RunSetup(options, bundle)
        let checkpoints = try RunDirectory(directory)
        defer { checkpoints.close() }
        try checkFreeSpace(directory, setup.storage)
        let clock = PhaseClock(observer.phase)
        clock.enter(.reading)
        setup.date = try checkpoints.beginning(bundle.manifest.adapter.numLayers, bundle.manifest.adapter.size)
        do {
            // Of a run that was begun, a stop comes at the first layer, when its steps are known.
            let check = try checkpointFiles(directory).isEmpty ? control.check : control.checkPaused
            let examples = try RunData(setup, data, spool: directory, check: check)
            observer.data(examples.training.report, heldOut: examples.heldOut.count)
            return try train(setup, examples, checkpoints, clock, control, observer)
        } catch let interrupted as RunInterrupted {
            // Nothing was begun, and what there was is still there.
            return try result(setup, interrupted.outcome, nil, clock)
        }
    }

    /// The run on a thread of its own, since it takes hours. Ask `control` to pause or stop it: `result` comes after all was saved. Whoever reads
    /// the events too slowly has them waiting in memory.
    public func launch(_ control: RunControl) -> (events: AsyncStream<RunEvent>, result: Task<RunResult, any Error>) {
        let (events, sink) = AsyncStream.makeStream(of: RunEvent.self, bufferingPolicy: .unbounded)
        let task = Task {
            try await withCheckedThrowingContinuation { (ended: CheckedContinuation<RunResult, any Error>) in
                let thread = Thread {
                    let result = Result { try run(control, Relay(sink)) }
                    sink.finish()
                    ended.resume(with: result)
                }
                thread.name = "LCSB run"
                thread.qualityOfService = .utility
                thread.stackSize = 1 << 20
                thread.start()
            }
        }
        return (events, task)
    }

    /// Whether the run's adapter gives the examples that the run holds out a lower loss than `before`, an adapter's file or nil for the base
    /// model. The run has ended, and is in no other hands. `examples`, `goOn`, `progress` as `compareAdapters` takes them; it throws as that
    /// does, and RUN_BUSY or CHECKPOINT_DAMAGED.
    public func compare(
        before: URL? = nil, examples: Int = comparedExamples, goOn: @escaping () throws -> Void = {},
        progress: (_ done: Int, _ total: Int) throws -> Void = { _, _ in }
    ) throws -> Comparison {
        var comparing = try Comparing(RunSetup(options, bundle), before: before, after: adapterFile, examples: examples)
        let checkpoints = try RunDirectory(directory)
        defer { checkpoints.close() }
        comparing.setup.date = try checkpoints.beginning(bundle.manifest.adapter.numLayers, bundle.manifest.adapter.size)
        return try comparing.on(data, directory, goOn, progress)
    }

    private func train(
        _ setup: RunSetup, _ examples: RunData, _ checkpoints: RunDirectory, _ clock: PhaseClock, _ control: RunControl,
        _ observer: any RunObserver
    ) throws -> RunResult {
        let layout = bundle.manifest.adapter
        let identity = try setup.identity(examples)
        let checkpoint = try checkpoints.newest(
            layout.numLayers, layout.size, identity, lowerRate: options.learningRate != nil, observer.warned)
        clock.enter(.loading)
        let plan = try plan(setup, checkpoint)
        let kept = plan?.keep ?? options.keep ?? 0
        let memory = MemoryWatch(options.memoryBudget)
        weak var under: Session?  // which is made after what asks for its steps, and has it
        let runner = try makeRunner(bundle, threads: options.threads, keep: kept, compute: options.compute) { layer, backward in
            if under?.ending == true { return }
            try control.rest()
            try memory.look((under?.outcomes.count ?? 0) + 1)
            if layer < layout.numLayers { observer.layer(layer, backward: backward) }
        }
        let (state, last) = (try mappedState(directory, layout.size), try mappedState(directory, layout.size))
        try bundle.readInitialAdapter(into: state.adapter)
        let running = Running(
            setup: setup, identity: identity, data: examples, runner: runner, state: state, kept: last, keptLayers: kept,
            directory: checkpoints, adapterFile: adapterFile, memory: memory, clock: clock, control: control, observer: observer)
        let session = try Session(running, checkpoint)
        under = session
        let outcome = try session.train()
        clock.enter(nil)
        return try result(setup, outcome, Begun(data: examples, session: session, runner: runner, plan: plan, kept: kept, memory: memory), clock)
    }

    /// What the run keeps; nil where the system does not say what memory this process has. The step that is checked first counts too.
    private func plan(_ setup: RunSetup, _ checkpoint: RunCheckpoint?) throws -> Plan? {
        guard let base = processAnonymousBytes() else { return nil }
        let subsets = try setup.schedule + bundle.golden.run.prefix(1).map(\.subset)
        let keep = options.keep ?? checkpoint?.place.keptLayers
        return try planRun(
            bundle.manifest, subsets, base: base, budget: options.memoryBudget, keep: keep, accumulation: options.accumulation,
            samples: !options.prompts.isEmpty)
    }

    private struct Begun {
        let data: RunData
        let session: Session
        let runner: any StepRunner
        let plan: Plan?
        let kept: Int
        let memory: MemoryWatch
    }

    private func result(_ setup: RunSetup, _ outcome: RunOutcome, _ begun: Begun?, _ clock: PhaseClock) throws -> RunResult {
        let session = begun?.session
        let outcomes = session?.outcomes ?? []
        let optimizer = outcomes.dropFirst(session?.resumedFrom ?? 0).reduce(0) { $0 + $1.optimizerSeconds }
        return try RunResult(
            outcome: outcome,
            runtime: begun?.runner.name,
            runtimeVersion: begun?.runner.version,
            target: bundle.manifest.target,
            method: setup.method,
            schedule: setup.schedule.map(\.train),
            steps: options.steps,
            resumedFrom: session?.resumedFrom,
            learningRate: setup.train.learningRate,
            losses: outcomes.map(\.loss),
            stepSeconds: outcomes.map { $0.gradientSeconds + $0.optimizerSeconds },
            evaluations: session?.evaluations ?? [],
            peakAnonymousBytes: begun?.memory.peak,
            predictedPeakAnonymousBytes: begun?.plan?.predictedPeakBytes,
            keptLayers: begun?.kept ?? 0,
            phaseSeconds: clock.seconds(optimizer: optimizer),
            data: begun?.data.training.report,
            packingFill: begun.map { try packingFill($0.data.training) },
            samples: session?.samples ?? [],
            adapter: session?.wroteAdapter == true ? adapterFile.path : nil,
            checkpoints: directory.path)
    }

    /// The share of the first epoch's tokens that are not padding.
    private func packingFill(_ training: Dataset) throws -> Double {
        let seqLen = bundle.manifest.seqLen
        let tokens = (0..<training.count).reduce(0) { $0 + training.length($1) }
        return Double(tokens) / Double(try countSequences(training, seqLen, seed: options.seed) * seqLen)
    }
}

/// Puts what an observer is told into a stream.
private final class Relay: RunObserver {
    private let sink: AsyncStream<RunEvent>.Continuation

    init(_ sink: AsyncStream<RunEvent>.Continuation) { self.sink = sink }

    func phase(_ name: Phase) { sink.yield(.phase(name)) }
    func data(_ report: DataReport, heldOut: Int) { sink.yield(.data(report, heldOut: heldOut)) }
    func warned(_ text: String) { sink.yield(.warned(text)) }
    func resumed(step: Int, _ history: RunHistory) { sink.yield(.resumed(step: step, history)) }
    func evaluated(step: Int, loss: Double) { sink.yield(.evaluated(Evaluation(step: step, loss: loss))) }
    func stepped(_ outcome: StepOutcome, memory: Int) { sink.yield(.stepped(outcome, memory: memory)) }
    func layer(_ index: Int, backward: Bool) { sink.yield(.layer(index, backward: backward)) }
    func sampled(prompt: String, text: String, after: Bool) { sink.yield(.sampled(prompt: prompt, text: text, after: after)) }
}
