import Foundation

/// Of the examples, unless another share is asked for.
public let heldOutShare = 0.1

/// What a run is asked for. `learningRate` nil: `defaultLearningRate`. `method` nil: the bundle's schedule. `holdOut`: the share of the
/// examples that is evaluated instead of trained on, without `evaluationData`. `evaluateEvery` 0: only before and after. `memoryBudget`: bytes
/// of anonymous memory. `keep`: that many of the top layers keep their activations; nil: as many as the budget allows, none without one.
/// `threads` 0: the runtime's choice. `compute`: of targets coreai and coreml; nothing but `cpu` works in an app that has left the screen.
/// `prompts` are continued before and after; with `chat` they are a user's messages that are answered.
/// A run that was begun may go on at a lower `learningRate`, if one is given. `seed`: of the data's order. `initialAdapter`: the adapter file to begin with; nil: the bundle's.
public struct RunOptions: Sendable {
    public var steps: Int
    public var learningRate: Double?
    public var lrSchedule: LearningRateSchedule
    public var warmup: Int
    public var accumulation: Int
    public var method: ScheduleMethod?
    public var evaluationData: URL?
    public var holdOut: Double
    public var evaluateEvery: Int
    public var checkpointEvery: Int
    public var memoryBudget: Int?
    public var keep: Int?
    public var threads: Int
    public var compute: ComputeUnits
    public var prompts: [String]
    public var sampling: SamplingConfig
    public var chat: Bool
    public var seed: Int
    public var initialAdapter: URL?

    public init(
        steps: Int, learningRate: Double? = nil, lrSchedule: LearningRateSchedule = .constant, warmup: Int = 0, accumulation: Int = 1,
        method: ScheduleMethod? = nil, evaluationData: URL? = nil, holdOut: Double = heldOutShare, evaluateEvery: Int = 0, checkpointEvery: Int = 10,
        memoryBudget: Int? = nil, keep: Int? = nil, threads: Int = 0, compute: ComputeUnits = .all, prompts: [String] = [],
        sampling: SamplingConfig = SamplingConfig(), chat: Bool = false, seed: Int = 0, initialAdapter: URL? = nil
    ) {
        (self.steps, self.learningRate, self.lrSchedule, self.warmup) = (steps, learningRate, lrSchedule, warmup)
        (self.accumulation, self.method, self.evaluationData, self.holdOut) = (accumulation, method, evaluationData, holdOut)
        (self.evaluateEvery, self.checkpointEvery, self.memoryBudget, self.keep) = (evaluateEvery, checkpointEvery, memoryBudget, keep)
        (self.threads, self.compute, self.prompts, self.sampling) = (threads, compute, prompts, sampling)
        (self.chat, self.seed, self.initialAdapter) = (chat, seed, initialAdapter)
    }
}
