/// Whether `examples` that were not trained on have a lower loss after than before (docs/verdict.md). `improved`: how many of them have. Losses
/// are means over the examples, each of which counts once, however long it is. `p`: two-sided, of Wilcoxon's signed ranks; the outcome is a
/// difference where it is at most 0.05.
public struct Verdict: Sendable, Equatable {
    /// What a comparison came to. `tooFew`: of so few examples that no losses of them could have shown a difference.
    public enum Outcome: String, Sendable, CaseIterable {
        case better, worse
        case noDifference = "no-difference"
        case tooFew = "too-few"
    }

    public let outcome: Outcome
    public let examples: Int
    public let improved: Int
    public let lossBefore: Double
    public let lossAfter: Double
    public let p: Double

    public init(outcome: Outcome, examples: Int, improved: Int, lossBefore: Double, lossAfter: Double, p: Double) {
        (self.outcome, self.examples, self.improved) = (outcome, examples, improved)
        (self.lossBefore, self.lossAfter, self.p) = (lossBefore, lossAfter, p)
    }

    /// 0 to 1.
    public var improvedShare: Double { Double(improved) / Double(examples) }
}

/// The verdict on the losses of the same examples, in the same order. Throws OPTION where their number differs, DATA_EMPTY where there are none,
/// LOSS_NOT_FINITE.
public func judge(before: [Double], after: [Double]) throws -> Verdict {
    try checkLosses(before, after)
    let ranks = SignedRanks(zip(before, after).map { $0 - $1 })
    let p = ranks.p
    let outcome: Verdict.Outcome =
        if before.count < leastExamples {
            .tooFew
        } else if p > significance {
            .noDifference
        } else {
            ranks.positive > ranks.negative ? .better : .worse
        }
    let improved = zip(before, after).filter { $1 < $0 }.count
    return Verdict(outcome: outcome, examples: before.count, improved: improved, lossBefore: mean(before), lossAfter: mean(after), p: p)
}

private func mean(_ losses: [Double]) -> Double { losses.reduce(0, +) / Double(losses.count) }

private func checkLosses(_ before: [Double], _ after: [Double]) throws {
    if before.count != after.count {
        let message = "losses: expected as many after as before, found \(after.count) and \(before.count); compare the same examples"
        throw LcsbError(.option, message)
    }
    if before.isEmpty { throw LcsbError(.dataEmpty, "losses: expected those of at least one example, found none") }
    for (name, losses) in [("before", before), ("after", after)] {
        guard let bad = losses.firstIndex(where: { !$0.isFinite }) else { continue }
        let message = "example \(bad + 1) of \(losses.count): its loss \(name) is \(losses[bad]); an adapter that gives such a loss is of no use"
        throw LcsbError(.lossNotFinite, message, ["\(bad + 1)"])
    }
}
