import Foundation

/// What a run in this process works with.
struct Running {
    let setup: RunSetup
    let identity: RunIdentity
    let data: RunData
    let runner: any StepRunner
    let state: AdapterState
    let kept: AdapterState  // room for the one that was last seen to give a finite loss, when that is a later one
    let keptLayers: Int
    let directory: RunDirectory
    let adapterFile: URL
    let memory: MemoryWatch
    let clock: PhaseClock
    let control: RunControl
    let observer: any RunObserver
}

/// The part of a run that this process makes. What is kept was seen to give a finite loss: the state before an update is known to, by the
/// loss that the update was computed from, so it is copied before the update is made, and checkpoints are written then. Where steps are taken
/// back, so are the records of them.
final class Session {
    private let running: Running
    private let checkpoint: RunCheckpoint?
    private let optimizer: AdamW
    private let trainer: Trainer
    private var begun = false  // what the run begins with is there, and was evaluated
    private var seen = true  // the state has given a finite loss
    private var keptStep: Int?  // of `running.kept`, once there is one
    private var keptUpdates: [Int64] = []
    private var saved: Int?  // the step of the newest checkpoint

    private(set) var outcomes: [StepOutcome] = []
    private(set) var memory: [Int] = []
    private(set) var evaluations: [Evaluation] = []
    private(set) var samples: [Sample] = []
    private(set) var resumedFrom: Int?
    private(set) var wroteAdapter = false
    private(set) var ending = false  // interrupted or failed: what is computed now is not to be interrupted again

    init(_ running: Running, _ checkpoint: RunCheckpoint?) throws {
        (self.running, self.checkpoint) = (running, checkpoint)
        let manifest = running.setup.bundle.manifest
        optimizer = AdamW(running.state, manifest.adapter, manifest.optimizer, running.runner)
        trainer = try Trainer(running.runner, running.setup.schedule, optimizer, running.setup.train)
        trainer.accept = { [unowned self] in try self.accept() }
    }

    private var options: RunOptions { running.setup.options }
    private var bundle: TrainingBundle { running.setup.bundle }

    /// From the checkpoint, or the beginning, to the last step and the adapter's file, or until it is interrupted.
    func train() throws -> RunOutcome {
        do {
            running.clock.enter(.checking)
            try checkFirstStep(running.runner, bundle.golden, running.state.adapter)  // of the bundle's own adapter
            try checkUpdate(running.runner, bundle.manifest.adapter, bundle.manifest.optimizer)
            if let initial = options.initialAdapter { try readAdapter(initial, bundle.manifest.adapter, running.state.adapter) }
            let before = try continuePrompts(after: false)
            try restore()
            begun = resumedFrom != nil
            try evaluateIfDue()
            begun = true
            try save()
            try steps()
            try writeAdapter()
            let after = try continuePrompts(after: true)
            samples = options.prompts.indices.map { Sample(prompt: options.prompts[$0], before: before[$0], after: after[$0]) }
            return .finished
        } catch let interrupted as RunInterrupted {
            ending = true
            look()
            try keep(adapter: interrupted.outcome == .cancelled)
            return interrupted.outcome
        } catch {  // whatever it is, what was learnt is worth more
            ending = true
            if begun { try? keep(adapter: true) }
            throw error
        }
    }

    /// Whoever was interrupted has the time for one more look at the newest state.
    private func look() {
        if seen { return }
        let loss = try? evaluate(running.runner, Array(running.data.evaluation.prefix(1)), running.state.adapter)
        seen = loss?.isFinite ?? false
    }

    /// The last state that was seen to give a finite loss.
    private func keep(adapter: Bool) throws {
        try restore()
        if !seen { goBack() }
        if adapter && !outcomes.isEmpty { try writeAdapter() }
        try save()
    }

    /// Before an update: the state has given a finite loss, and is kept as it is.
    private func accept() throws {
        seen = true
        try saveIfDue()
        running.kept.copy(from: running.state)
        (keptUpdates, keptStep) = (optimizer.updates, outcomes.count)
        seen = false
    }

    /// To the state before the last update. A run that has made none stays where it began.
    private func goBack() {
        guard let keptStep else { return }
        running.state.copy(from: running.kept)
        optimizer.updates = keptUpdates
        outcomes.removeSubrange(keptStep...)
        memory.removeSubrange(min(keptStep, memory.count)...)
        evaluations.removeAll { $0.step > keptStep }
        seen = true
    }

    private func steps() throws {
        let start = outcomes.count * options.accumulation
        var batches = try epochs(running.data.training, bundle.manifest.seqLen, bundle.tokenizer.padId, seed: options.seed, start: start)
        for number in outcomes.count..<max(outcomes.count, options.steps) {
            running.clock.enter(.steps)
            try running.control.check()
            let outcome = try trainer.step(number, (0..<options.accumulation).map { _ in try batches.next() })
            outcomes.append(outcome)
            memory.append(running.memory.sample())
            running.observer.stepped(outcome, memory: memory.last!)
            try running.memory.stopAboveBudget(outcome.step)
            try evaluateIfDue()
            if seen { try saveIfDue() }
        }
    }

    /// Before the first step, after the last, and every `evaluateEvery`; a run that was interrupted within an evaluation makes up for it.
    private func evaluateIfDue() throws {
        let step = outcomes.count
        let due = step == 0 || step == options.steps || (options.evaluateEvery > 0 && step % options.evaluateEvery == 0)
        if !due || evaluations.contains(where: { $0.step == step }) { return }
        running.clock.enter(.evaluating)
        let loss = try evaluate(running.runner, running.data.evaluation, running.state.adapter)
        seen = loss.isFinite
        if !seen {
            let what = step > 0 ? "try a lower learning rate" : "nothing can be trained from there; begin with another adapter"
            throw LcsbError(.lossNotFinite, "step \(step): the loss of the evaluation after it is \(loss); \(what)", ["\(step)"])
        }
        evaluations.append(Evaluation(step: step, loss: loss))
        saved = nil
        running.observer.evaluated(step: step, loss: loss)
    }

    private func continuePrompts(after: Bool) throws -> [String] {
        if options.prompts.isEmpty { return [] }
        running.clock.enter(.writing)
        return try options.prompts.map { prompt in
            let pieces = try generate(running.runner, bundle, running.state.adapter, prompt, options.sampling, chat: running.setup.chat)
            var text = ""
            while let piece = try pieces.next() {
                try running.control.check()
                text += piece
            }
            running.observer.sampled(prompt: prompt, text: text, after: after)
            return text
        }
    }

    private func writeAdapter() throws {
        try LCSBKit.writeAdapter(running.adapterFile, bundle.manifest.adapter, running.state.adapter)
        wroteAdapter = true
    }

    private func saveIfDue() throws {
        if outcomes.count == options.steps || outcomes.count % options.checkpointEvery == 0 { try save() }
    }

    /// A checkpoint of the last whole step, unless there is one. Before the first evaluation there is nothing to save.
    private func save() throws {
        let step = outcomes.count
        if saved == step || evaluations.isEmpty { return }
        running.clock.enter(.saving)
        let place = RunPlace(
            identity: running.identity, step: step, sequences: step * options.accumulation,
            runtime: "\(running.runner.name) \(running.runner.version)", keptLayers: running.keptLayers)
        let steps = zip(outcomes, memory).flatMap { outcome, bytes in
            [outcome.loss, outcome.learningRate, outcome.gradientNorm, outcome.gradientSeconds, outcome.optimizerSeconds, Double(bytes)]
        }
        let evaluated = evaluations.flatMap { [Double($0.step), $0.loss] }
        let found = RunCheckpoint(place: place, state: running.state, updates: optimizer.updates, steps: steps, evaluations: evaluated)
        try running.directory.write(found)
        saved = step
    }

    /// The state of the checkpoint, if there is one, in place of the initial one; once.
    private func restore() throws {
        guard let checkpoint, resumedFrom == nil else { return }
        running.state.copy(from: checkpoint.state)
        optimizer.updates = checkpoint.updates
        let schedule = running.setup.schedule
        for number in 0..<checkpoint.place.step {
            let row = checkpoint.steps[(number * stepColumns)..<((number + 1) * stepColumns)].map { $0 }
            outcomes.append(StepOutcome(
                step: number + 1, subset: schedule[number % schedule.count], loss: row[0], learningRate: row[1], gradientNorm: row[2],
                gradientSeconds: row[3], optimizerSeconds: row[4]))
            memory.append(Int(row[5]))
        }
        for index in stride(from: 0, to: checkpoint.evaluations.count, by: 2) {
            evaluations.append(Evaluation(step: Int(checkpoint.evaluations[index]), loss: checkpoint.evaluations[index + 1]))
        }
        resumedFrom = checkpoint.place.step
        saved = resumedFrom
        let history = RunHistory(outcomes: outcomes, memory: memory, evaluations: evaluations)
        running.observer.resumed(step: checkpoint.place.step, history)
    }
}
