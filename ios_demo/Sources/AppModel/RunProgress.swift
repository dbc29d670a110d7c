import LCSBKit

/// Makes of what a run tells what the screens show. `shown`: as it was before. `tell` is given the newest, `loaded` is called when what the run
/// had saved was found. Used from the thread that runs.
final class RunProgress: RunObserver, @unchecked Sendable {
    private let info: BundleInfo
    private let steps: Int
    private let tell: @Sendable (RunState) -> Void
    private let loaded: @Sendable () -> Void
    private var shown: RunState
    private var recent: [Double] = []  // seconds of the last steps of a cycle or two

    init(_ shown: RunState, _ info: BundleInfo, steps: Int, loaded: @escaping @Sendable () -> Void = {}, tell: @escaping @Sendable (RunState) -> Void) {
        (self.shown, self.info, self.steps, self.loaded, self.tell) = (shown, info, steps, loaded, tell)
        self.shown.steps = steps
    }

    private func show(_ change: (inout RunState) -> Void) {
        change(&shown)
        tell(shown)
    }

    func phase(_ name: Phase) {
        if name == .loading { loaded() }
        show { run in
            switch name {
            case .reading, .loading, .checking: run.phase = .opening
            case .evaluating:
                run.phase = .evaluating
                run.roles = Array(repeating: .skipped, count: info.layers)
            case .steps:
                run.phase = .training
                run.roles = info.schedule[run.step % info.schedule.count]
            default: break
            }
        }
    }

    func resumed(step: Int, _ history: RunHistory) {
        show { run in
            run.step = step
            run.training = history.outcomes.map { LossPoint($0.step, $0.loss) }
            run.evaluation = history.evaluations.map { LossPoint($0.step, $0.loss) }
        }
    }

    func evaluated(step: Int, loss: Double) {
        show { run in
            run.evaluation.removeAll { $0.step == step }
            run.evaluation.append(LossPoint(step, loss))
        }
    }

    func stepped(_ outcome: StepOutcome, memory: Int) {
        recent.append(outcome.gradientSeconds + outcome.optimizerSeconds)
        if recent.count > 2 * info.schedule.count { recent.removeFirst() }
        show { run in
            run.step = outcome.step
            if run.training.last.map({ $0.step >= outcome.step }) == true { run.training.removeAll { $0.step >= outcome.step } }
            run.training.append(LossPoint(outcome.step, outcome.loss))
            run.roles = info.schedule[outcome.step % info.schedule.count]
            run.secondsAStep = recent.reduce(0, +) / Double(recent.count)
        }
    }

    func layer(_ index: Int, backward: Bool) {
        show { run in (run.layer, run.backward) = (index, backward) }
    }
}
