import Foundation

/// The largest relative differences that were found: of single steps' losses and gradient norms, and of the run's losses.
public struct TraceDifference: Sendable {
    public let steps: Int
    public let stepLoss: Double
    public let stepGradientNorm: Double
    public let runLoss: Double

    static let nothing = TraceDifference(steps: 0, stepLoss: 0, stepGradientNorm: 0, runLoss: 0)
}

/// What holding a runner to a bundle's golden trace came to, with the bundle's own tolerances: whether this device may train with it, and how
/// long that takes. `secondsAStep`: the mean of a cycle's steps, by proportion from one that was timed; nil where the trace has no run.
public struct VerifyResult: Sendable {
    public let runtime: String
    public let runtimeVersion: String
    public let difference: TraceDifference
    public let stepTolerance: Double
    public let runTolerance: Double
    public let secondsAStep: Double?

    /// GOLDEN_TRACE with the largest differences; nil where the trace holds.
    public var refusal: LcsbError? { traceRefusal(runtime, difference, stepTolerance: stepTolerance, runTolerance: runTolerance) }
}

/// Every recorded step, and the run through the trainer, whose state lies in a file in `scratch` meanwhile. Throws GOLDEN_TRACE with the
/// largest differences. `progress` counts steps; it may throw, to cancel.
public func verify(
    _ bundle: TrainingBundle, _ runner: any StepRunner, scratch: URL, progress: (_ done: Int, _ total: Int) throws -> Void = { _, _ in }
) throws -> VerifyResult {
    let result = try judge(bundle, runner, scratch: scratch, progress: progress)
    if let refusal = result.refusal { throw refusal }
    return result
}

/// As `verify`; that the trace does not hold is a part of what it returns.
public func judge(
    _ bundle: TrainingBundle, _ runner: any StepRunner, scratch: URL, progress: (_ done: Int, _ total: Int) throws -> Void = { _, _ in }
) throws -> VerifyResult {
    let (trace, layout) = (try bundle.golden, bundle.manifest.adapter)
    let state = try mappedState(scratch, layout.size)
    try bundle.readInitialAdapter(into: state.adapter)
    try checkUpdate(runner, layout, bundle.manifest.optimizer)
    let optimizer = AdamW(state, layout, bundle.manifest.optimizer, runner)
    var (difference, seconds): (TraceDifference, Double?) = (.nothing, nil)
    if let last = trace.run.last {
        difference = try checkTrace(runner, trace, optimizer, progress)
        seconds = try secondsAStep(bundle.manifest, runner, last.subset, trace.batches[last.batch], state.adapter)
    }
    return VerifyResult(
        runtime: runner.name, runtimeVersion: runner.version, difference: difference, stepTolerance: trace.stepTolerance,
        runTolerance: trace.runTolerance, secondsAStep: seconds)
}

/// The mean of the steps of a bundle's cycle, by proportion from one that is timed; a step before it should have warmed up.
public func secondsAStep(_ manifest: Manifest, _ runner: any StepRunner, _ subset: Subset, _ batch: Batch, _ adapter: Floats) throws -> Double {
    let started = nanoseconds()
    _ = try runner.step(subset, batch, adapter)
    let timed = seconds(started, nanoseconds())
    let mean = try manifest.schedule.map { try stepCost(manifest, $0).timeUnits }.reduce(0, +) / Double(manifest.schedule.count)
    return try timed * mean / stepCost(manifest, subset).timeUnits
}

/// One recorded step, if there is one: what a run checks before it starts. Throws GOLDEN_TRACE.
@discardableResult
func checkFirstStep(_ runner: any StepRunner, _ trace: GoldenTrace, _ adapter: Floats) throws -> TraceDifference {
    guard let first = trace.run.first else { return .nothing }
    let (loss, norm) = try compare(runner, trace, first, adapter)
    let difference = TraceDifference(steps: 1, stepLoss: loss, stepGradientNorm: norm, runLoss: loss)
    let refusal = traceRefusal(runner.name, difference, stepTolerance: trace.stepTolerance, runTolerance: trace.runTolerance)
    if let refusal { throw refusal }
    return difference
}

private let updateLeast = 1e-12  // the least gradient that a program of AdamW is held to its constants by
private let updateTolerance = 1e-5  // relative; some square roots are off by a rounding or two
private let updateNegligible = 1e-30  // where a square of a gradient is not a normal float32 any more

/// Holds a runtime's AdamW to the manifest's constants: they stand in the program too, and no loss shows another `eps`. Two updates of a vector
/// of each size, at a rate of 1 and with gradients from far below `eps` to 1. Throws GOLDEN_TRACE.
func checkUpdate(_ runner: any StepRunner, _ layout: AdapterLayout, _ config: AdamWConfig) throws {
    for size in Set((0..<layout.numLayers).map(layout.vectorSize)).sorted() {
        let (parameters, first, second) = (try Floats(count: size), try Floats(count: size), try Floats(count: size))
        for values in [parameters, first, second] { values.fill(0) }
        let gradient = try Floats(count: size)
        for at in 0..<size { gradient[at] = Float(pow(updateLeast, 1 - Double(at) / max(1, Double(size - 1)))) }
        for _ in 0..<2 { try runner.updateLayer(parameters, first, second, gradient, LayerUpdate(decay: 1, rate: 1, root: 1)) }
        for at in 0..<size {
            let expected = updated(Double(gradient[at]), config)
            let found = [parameters[at], first[at], second[at]].map(Double.init)
            if zip(expected, found).allSatisfy({ abs($0 - $1) <= updateNegligible + updateTolerance * abs($0) }) { continue }
            let message = "\(runner.name): the program of AdamW does not compute what the manifest's betas and eps give; do not train with it"
            throw LcsbError(.goldenTrace, message)
        }
    }
}

/// Parameter and moments after two updates from zero.
private func updated(_ gradient: Double, _ config: AdamWConfig) -> [Double] {
    let (beta1, beta2) = (config.betas[0], config.betas[1])
    var (parameter, first, second) = (0.0, 0.0, 0.0)
    for _ in 0..<2 {
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient * gradient
        parameter -= first / (second.squareRoot() + config.eps)
    }
    return [parameter, first, second]
}

private func checkTrace(
    _ runner: any StepRunner, _ trace: GoldenTrace, _ optimizer: AdamW, _ progress: (Int, Int) throws -> Void
) throws -> TraceDifference {
    let total = trace.steps.count + trace.run.count
    var (losses, norms) = (0.0, 0.0)
    for (number, step) in (trace.steps + [trace.run[0]]).enumerated() {
        let (loss, norm) = try compare(runner, trace, step, optimizer.state.adapter)
        (losses, norms) = (max(losses, loss), max(norms, norm))
        try progress(number + 1, total)
    }
    let runLoss = try runLosses(runner, trace, optimizer) { try progress(min(total, trace.steps.count + 1 + $0), total) }
    return TraceDifference(steps: total, stepLoss: losses, stepGradientNorm: norms, runLoss: runLoss)
}

/// The largest difference over the run; it goes no further than a loss that is not finite.
private func runLosses(_ runner: any StepRunner, _ trace: GoldenTrace, _ optimizer: AdamW, _ progress: (Int) throws -> Void) throws -> Double {
    let config = TrainConfig(steps: trace.run.count, learningRate: trace.learningRate)
    let trainer = try Trainer(runner, trace.run.map(\.subset), optimizer, config)
    var largest = 0.0
    for (number, step) in trace.run.enumerated() {
        do {
            let outcome = try trainer.step(number, [trace.batches[step.batch]])
            largest = max(largest, relative(outcome.loss, step.loss))
        } catch let error as LcsbError where error.fault == .lossNotFinite {
            return .infinity  // it is the runtime that is at fault, not a learning rate
        }
        try progress(number)
    }
    return largest
}

/// The relative differences of a single step's loss and, at most, of its gradients' norms.
private func compare(_ runner: any StepRunner, _ trace: GoldenTrace, _ step: GoldenStep, _ adapter: Floats) throws -> (Double, Double) {
    let found = try runner.step(step.subset, trace.batches[step.batch], adapter)
    let norms = zip(step.subset.train, step.gradientNorms).map { layer, expected in
        relative(gradientNorm([layer: found.gradients[layer]!]), expected)
    }
    return (relative(Double(found.loss), step.loss), norms.max() ?? 0)
}

/// NaN counts as infinitely far, so that it can never pass.
private func relative(_ found: Double, _ expected: Double) -> Double {
    let difference = abs(found - expected) / max(abs(expected), 1e-12)
    return difference.isFinite ? difference : .infinity
}

private func traceRefusal(_ name: String, _ difference: TraceDifference, stepTolerance: Double, runTolerance: Double) -> LcsbError? {
    let faults = [
        ("a step's loss", difference.stepLoss, stepTolerance),
        ("a gradient's norm", difference.stepGradientNorm, stepTolerance),
        ("the run's losses", difference.runLoss, runTolerance),
    ].filter { $0.1 > $0.2 }.map { what, found, most in "\(what) by \(figure(found)) (at most \(figure(most)))" }
    if faults.isEmpty { return nil }
    let message = "\(name) does not reproduce the bundle's golden trace: \(faults.joined(separator: ", ")); do not train with it"
    return LcsbError(.goldenTrace, message)
}

private func figure(_ value: Double) -> String { String(format: "%.1e", value) }
