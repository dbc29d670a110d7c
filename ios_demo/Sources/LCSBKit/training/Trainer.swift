import Foundation

// The training loop: schedule, AdamW, learning rate, accumulation, clipping, evaluation. It knows no runtime.

/// `learningRate`: the highest of the run. `accumulation`: sequences a step.
public struct TrainConfig: Sendable, Hashable {
    public var steps: Int
    public var learningRate: Double
    public var lrSchedule: LearningRateSchedule
    public var warmup: Int
    public var accumulation: Int

    public init(steps: Int, learningRate: Double, lrSchedule: LearningRateSchedule = .constant, warmup: Int = 0, accumulation: Int = 1) {
        (self.steps, self.learningRate, self.lrSchedule) = (steps, learningRate, lrSchedule)
        (self.warmup, self.accumulation) = (warmup, accumulation)
    }

    /// Throws OPTION.
    public func check() throws {
        for (name, value, least) in [("steps", steps, 1), ("accumulation", accumulation, 1), ("warmup", warmup, 0)] where value < least {
            throw LcsbError(.option, "\(name): expected at least \(least), found \(value)", [name])
        }
        if !learningRate.isFinite || learningRate <= 0 {
            throw LcsbError(.option, "lr: expected a positive number, found \(learningRate)", ["lr"])
        }
    }
}

/// One optimizer step. `loss`: mean over all counted labels of its batches, before the update. `gradientNorm`: before clipping. Seconds:
/// `gradientSeconds` in the runtime, `optimizerSeconds` in AdamW.
public struct StepOutcome: Sendable, Hashable {
    public let step: Int
    public let subset: Subset
    public let loss: Double
    public let learningRate: Double
    public let gradientNorm: Double
    public let gradientSeconds: Double
    public let optimizerSeconds: Double

    public init(
        step: Int, subset: Subset, loss: Double, learningRate: Double, gradientNorm: Double, gradientSeconds: Double,
        optimizerSeconds: Double
    ) {
        (self.step, self.subset, self.loss, self.learningRate) = (step, subset, loss, learningRate)
        (self.gradientNorm, self.gradientSeconds, self.optimizerSeconds) = (gradientNorm, gradientSeconds, optimizerSeconds)
    }
}

/// Trains `optimizer.state` in place, one step at a time. `accept` is called before an update: the adapter as it is has given a finite loss.
final class Trainer {
    private let runner: any StepRunner
    private let schedule: [Subset]
    private let trainable: Set<Int>
    private let optimizer: AdamW
    private let config: TrainConfig
    var accept: () throws -> Void = {}
    private let sums = Pool<Int, Floats> { try Floats(count: $0) }

    /// Throws OPTION.
    init(_ runner: any StepRunner, _ schedule: [Subset], _ optimizer: AdamW, _ config: TrainConfig) throws {
        try config.check()
        (self.runner, self.schedule, self.optimizer, self.config) = (runner, schedule, optimizer, config)
        trainable = Set(schedule.flatMap(\.train))
    }

    /// Step `number` (from 0) on `config.accumulation` sequences. Throws LOSS_NOT_FINITE: before anything was updated, when the loss or the
    /// gradient is NaN or infinite; after the update, when what it made cannot be trained on (`AdamW.fault`).
    func step(_ number: Int, _ batches: [Batch]) throws -> StepOutcome {
        let subset = schedule[number % schedule.count]
        let started = nanoseconds()
        let (loss, gradients) = try gradients(subset, batches)
        let norm = gradientNorm(gradients)
        if !loss.isFinite || !norm.isFinite {
            let message = "step \(number + 1): the loss is \(loss) and the gradient's norm \(norm); the last adapter that gave a finite loss was "
                + "kept; try a lower learning rate"
            throw LcsbError(.lossNotFinite, message, ["\(number + 1)"])
        }
        let computed = nanoseconds()
        let rate = learningRate(config.learningRate, config.lrSchedule, step: number, steps: config.steps, warmup: config.warmup)
        try accept()
        let updating = nanoseconds()
        clipGradients(gradients, norm: norm, clipNorm: optimizer.config.clipNorm)
        try optimizer.update(gradients, rate, trainable: trainable)
        if let fault = optimizer.fault() {
            let message = "step \(number + 1): its update would make \(fault); the adapter before it was kept; try a lower learning rate"
            throw LcsbError(.lossNotFinite, message, ["\(number + 1)"])
        }
        return StepOutcome(
            step: number + 1, subset: subset, loss: loss, learningRate: rate, gradientNorm: norm,
            gradientSeconds: seconds(started, computed), optimizerSeconds: seconds(updating, nanoseconds())
        )
    }

    /// Mean over all counted labels of `batches`: each batch's mean weighs as many labels as it counts.
    private func gradients(_ subset: Subset, _ batches: [Batch]) throws -> (Double, [Int: Floats]) {
        if batches.count == 1 {
            let result = try runner.step(subset, batches[0], optimizer.state.adapter)
            return (Double(result.loss), result.gradients)
        }
        let counts = batches.map(\.countedLabels)
        let total = counts.reduce(0, +)
        let sizes = subset.train.map(optimizer.layout.vectorSize)
        let gradients = Dictionary(uniqueKeysWithValues: zip(subset.train, try sums.lend(sizes)))
        var loss = 0.0
        for (index, batch) in batches.enumerated() {
            let result = try runner.step(subset, batch, optimizer.state.adapter)
            let weight = Double(counts[index]) / Double(total)
            loss += weight * Double(result.loss)
            for (layer, gradient) in result.gradients {
                gradient.scale(Float(weight))
                if index == 0 { gradients[layer]!.copy(from: gradient) } else { gradients[layer]!.add(gradient) }
            }
        }
        return (loss, gradients)
    }
}

/// Mean loss over all counted labels.
func evaluate(_ runner: any StepRunner, _ batches: [Batch], _ adapter: Floats) throws -> Double {
    let sum = try batches.reduce(0.0) { try $0 + Double($1.countedLabels) * Double(runner.evaluate($1, adapter)) }
    return sum / Double(batches.map(\.countedLabels).reduce(0, +))
}
