import Foundation

/// The losses of a run, and its axes: `steps` is the horizontal one's end. `ticks`: of the vertical axis, with their labels; empty without a loss.
/// `spoken`: the curve in words. `current`: the newest training loss.
public struct LossChartData: Equatable, Sendable {
    public var training: [LossPoint]
    public var evaluation: [LossPoint]
    public var steps: Int
    public var ticks: [Double]
    public var labels: [String]
    public var spoken: String
    public var current: String?

    init(_ run: RunState, _ words: any Words) {
        training = run.training.filter(\.loss.isFinite)
        evaluation = run.evaluation.filter(\.loss.isFinite)
        steps = max(run.steps, 1)
        let losses = (training + evaluation).map(\.loss)
        ticks = losses.isEmpty ? [] : Self.ticks(losses.min()!, losses.max()!)
        let digits = ticks.count < 2 ? 0 : max(0, -Int((log10(ticks[1] - ticks[0]) + 1e-9).rounded(.down)))
        labels = ticks.map { words.decimal($0, digits: digits) }
        spoken = Self.spoken(training, evaluation, words)
        current = training.last.map { words.decimal($0.loss, digits: 2) }
    }

    private static func spoken(_ training: [LossPoint], _ evaluation: [LossPoint], _ words: any Words) -> String {
        func decimal(_ point: LossPoint) -> String { words.decimal(point.loss, digits: 3) }
        guard let first = training.first, let last = training.last else { return words("chart_empty") }
        let learned = words("chart_training", words.count(last.step), decimal(first), decimal(last))
        guard let before = evaluation.first, let after = evaluation.last else { return learned }
        return learned + " " + words("chart_evaluation", decimal(before), decimal(after))
    }

    /// Three to six round numbers that enclose `low` and `high`, in equal steps.
    static func ticks(_ low: Double, _ high: Double) -> [Double] {
        let span = max(high - low, max(abs(high), 1e-3) * 0.02)
        let rough = span / 3
        let power = pow(10, log10(rough).rounded(.down))
        let step = [1.0, 2.0, 5.0, 10.0].first { $0 * power >= rough * 0.999 }! * power
        let first = Int((low / step).rounded(.down))
        let last = max(Int((high / step).rounded(.up)), first + 2)
        return (first...last).map { Double($0) * step }
    }
}
