import Foundation

let baseLearningRate = 4e-4

/// What follows the warm-up.
public enum LearningRateSchedule: String, Sendable, CaseIterable {
    case constant, cosine, linear
}

/// The rate of step `step` (from 0) of `steps`: a linear warm-up over `warmup` steps, then constant, or a cosine or a line down to zero.
func learningRate(_ base: Double, _ schedule: LearningRateSchedule, step: Int, steps: Int, warmup: Int) -> Double {
    if step < warmup { return base * Double(step + 1) / Double(warmup) }
    let progress = Double(step - warmup) / Double(max(1, steps - warmup))
    switch schedule {
    case .constant: return base
    case .cosine: return base * 0.5 * (1 + cos(Double.pi * progress))
    case .linear: return base * (1 - progress)
    }
}

/// 4e-4, times the square root of how many steps a layer waits for its gradient on average, where the gradient is exact.
///
/// With gradients in one step of K, AdamW's update is 1/sqrt(K) as large. The identity path's gradient is biased too strongly to be
/// followed at the higher rate (docs/decisions.md).
func defaultLearningRate(_ schedule: [Subset], _ numLayers: Int) -> Double {
    if schedule.contains(where: { $0.propagate != Array($0.train[0]..<numLayers) }) { return baseLearningRate }
    let trained = schedule.map(\.train.count).reduce(0, +)
    let layers = Set(schedule.flatMap(\.train)).count
    return baseLearningRate * (Double(schedule.count) * Double(layers) / Double(trained)).squareRoot()
}
