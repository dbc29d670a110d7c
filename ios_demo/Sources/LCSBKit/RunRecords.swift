/// How a run ended.
public enum RunOutcome: String, Sendable { case finished = "FINISHED", paused = "PAUSED", cancelled = "CANCELLED" }

/// What a run does; `rawValue` as the desktop's report calls it.
public enum Phase: String, Sendable, CaseIterable {
    case reading = "data"
    case loading = "loading"
    case checking = "golden trace"
    case evaluating = "evaluation"
    case steps = "gradients"
    case optimizer = "optimizer"
    case writing = "text samples"
    case saving = "checkpoints"
}

/// The mean loss over the held-out data after `step` steps.
public struct Evaluation: Sendable, Equatable {
    public let step: Int
    public let loss: Double

    public init(step: Int, loss: Double) { (self.step, self.loss) = (step, loss) }
}

/// What a run did before this process: its steps, the anonymous bytes after each, and its evaluations.
public struct RunHistory: Sendable {
    public let outcomes: [StepOutcome]
    public let memory: [Int]
    public let evaluations: [Evaluation]
}

/// What the model wrote after `prompt`, before and after the run.
public struct Sample: Sendable, Equatable {
    public let prompt: String
    public let before: String
    public let after: String
}

/// Is told what happens, on the thread that runs. `layer` comes often: it must be quick.
public protocol RunObserver: AnyObject {
    func phase(_ name: Phase)

    /// `heldOut`: examples to evaluate on.
    func data(_ report: DataReport, heldOut: Int)

    func warned(_ text: String)

    func resumed(step: Int, _ history: RunHistory)

    func evaluated(step: Int, loss: Double)

    /// `memory`: anonymous bytes after the step, 0 where the system does not say.
    func stepped(_ outcome: StepOutcome, memory: Int)

    /// The pass through a layer begins.
    func layer(_ index: Int, backward: Bool)

    func sampled(prompt: String, text: String, after: Bool)
}

extension RunObserver {
    public func phase(_ name: Phase) {}
    public func data(_ report: DataReport, heldOut: Int) {}
    public func warned(_ text: String) {}
    public func resumed(step: Int, _ history: RunHistory) {}
    public func evaluated(step: Int, loss: Double) {}
    public func stepped(_ outcome: StepOutcome, memory: Int) {}
    public func layer(_ index: Int, backward: Bool) {}
    public func sampled(prompt: String, text: String, after: Bool) {}
}

/// What a `RunObserver` is told, as a value.
public enum RunEvent: Sendable {
    case phase(Phase)
    case data(DataReport, heldOut: Int)
    case warned(String)
    case resumed(step: Int, RunHistory)
    case evaluated(Evaluation)
    case stepped(StepOutcome, memory: Int)
    case layer(Int, backward: Bool)
    case sampled(prompt: String, text: String, after: Bool)
}

/// The whole run's figures, named as `lcsb simulate --json` names them; of one that was resumed, memory and phases are of its last process.
/// Seconds are of a monotonic clock; bytes are peaks over the whole process, nil where the system does not say. What was not come to before the
/// run was interrupted is nil or empty.
public struct RunResult: Sendable {
    public let outcome: RunOutcome
    public let runtime: String?
    public let runtimeVersion: String?
    public let target: String
    public let method: ScheduleMethod
    public let schedule: [[Int]]
    public let steps: Int
    public let resumedFrom: Int?
    public let learningRate: Double
    public let losses: [Double]
    public let stepSeconds: [Double]
    public let evaluations: [Evaluation]
    public let peakAnonymousBytes: Int?
    public let predictedPeakAnonymousBytes: Int?
    public let keptLayers: Int
    public let phaseSeconds: [(phase: String, seconds: Double)]
    public let data: DataReport?
    public let packingFill: Double?
    public let samples: [Sample]
    public let adapter: String?
    public let checkpoints: String

    public var evalLossBefore: Double? { evaluations.first?.loss }
    public var evalLossAfter: Double? { evaluations.last?.loss }

    public func toJson() -> String {
        Json.object([
            ("outcome", .string(outcome.rawValue)),
            ("runtime", .optional(runtime, Json.string)),
            ("runtime_version", .optional(runtimeVersion, Json.string)),
            ("target", .string(target)),
            ("method", .string(method.rawValue)),
            ("schedule", .list(schedule) { .list($0, Json.integer) }),
            ("steps", .integer(steps)),
            ("resumed_from", .optional(resumedFrom, Json.integer)),
            ("learning_rate", .double(learningRate)),
            ("losses", .list(losses, Json.double)),
            ("step_seconds", .list(stepSeconds, Json.double)),
            ("evaluations", .list(evaluations) { .object([("step", .integer($0.step)), ("loss", .double($0.loss))]) }),
            ("eval_loss_before", .optional(evalLossBefore, Json.double)),
            ("eval_loss_after", .optional(evalLossAfter, Json.double)),
            ("peak_anonymous_bytes", .optional(peakAnonymousBytes, Json.integer)),
            ("predicted_peak_anonymous_bytes", .optional(predictedPeakAnonymousBytes, Json.integer)),
            ("kept_layers", .integer(keptLayers)),
            ("phase_seconds", .object(phaseSeconds.map { ($0.phase, .double($0.seconds)) })),
            ("data", .optional(data) { .object($0.figures) }),
            ("packing_fill", .optional(packingFill, Json.double)),
            ("samples", .list(samples) {
                .object([("prompt", .string($0.prompt)), ("before", .string($0.before)), ("after", .string($0.after))])
            }),
            ("adapter", .optional(adapter, Json.string)),
            ("checkpoints", .string(checkpoints)),
        ]).text
    }
}

extension DataReport {
    /// By the desktop's names.
    var figures: [(key: String, value: Json)] {
        let keys = furtherKeys.map { (key: $0.key, value: Json.integer($0.lines)) }
        return [
            ("lines", .integer(lines)), ("examples", .integer(examples)), ("tokens", .integer(tokens)),
            ("counted_labels", .integer(countedLabels)), ("truncated", .integer(truncated)), ("tokens_cut", .integer(tokensCut)),
            ("without_labels", .integer(withoutLabels)), ("texts", .integer(texts)), ("completions", .integer(completions)),
            ("conversations", .integer(conversations)), ("uncounted_turns", .integer(uncountedTurns)), ("doubled_ends", .integer(doubledEnds)),
            ("duplicates", .integer(duplicates)), ("blank_lines", .integer(blankLines)), ("further_keys", .object(keys)),
            ("length_p50", .integer(lengthP50)), ("length_p90", .integer(lengthP90)), ("length_p99", .integer(lengthP99)),
            ("longest", .integer(longest)),
        ]
    }
}
