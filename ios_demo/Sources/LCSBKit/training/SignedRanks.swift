import Foundation

let significance = 0.05  // the largest p that is called a difference
let leastExamples = 6  // of fewer no losses give a p as small: 2 / 2^n is above it
private let exact = 128  // differences, up to which p is counted out

/// Wilcoxon's signed ranks (Biometrics Bulletin 1, 1945): the differences that are not zero, ranked by size, equal ones by the mean of their
/// ranks; `positive` and `negative` are the sums of their ranks, times two, so that they are whole.
///
/// Differences of zero are left out, as Wilcoxon did and as R and SciPy do by default: whoever has the losses finds the same p there.
struct SignedRanks {
    private let ranks: [Int]
    let positive: Int
    let negative: Int

    init(_ differences: [Double]) {
        let sorted = differences.filter { $0 != 0 }.sorted { abs($0) < abs($1) }
        ranks = doubledRanks(sorted)
        positive = zip(sorted, ranks).reduce(0) { $0 + ($1.0 > 0 ? $1.1 : 0) }
        negative = ranks.reduce(0, +) - positive
    }

    /// Two-sided: the probability of sums as unequal, if each difference were as likely of the other sign.
    var p: Double { min(1, 2 * (ranks.count <= exact ? exactTail : normalTail)) }

    /// Of all ways to sign the ranks the share whose positive ones sum to as much as the larger sum.
    private var exactTail: Double {
        var ways = [Double](repeating: 0, count: positive + negative + 1)  // by sum: the share of the ways to sign the ranks so far
        ways[0] = 1
        var top = 0
        for rank in ranks {
            top += rank
            for sum in stride(from: top, through: 0, by: -1) { ways[sum] = (ways[sum] + (sum >= rank ? ways[sum - rank] : 0)) / 2 }
        }
        return ways[max(positive, negative)...].reversed().reduce(0, +)  // the smallest first
    }

    /// The same by the normal distribution with this mean and variance, which is that of the ranks as tied; corrected for continuity by half a
    /// rank.
    private var normalTail: Double {
        let deviation = ranks.reduce(0) { $0 + Double($1) * Double($1) }.squareRoot() / 2
        let beyond = max(0, Double(abs(positive - negative)) / 2 - 1)
        return erfc(beyond / deviation / 2.0.squareRoot()) / 2
    }
}

/// Of differences by size the ranks from 1, times two: of equal ones the first and the last, added.
private func doubledRanks(_ sorted: [Double]) -> [Int] {
    var ranks: [Int] = []
    while ranks.count < sorted.count {
        let first = ranks.count
        var last = first
        while last + 1 < sorted.count && abs(sorted[last + 1]) == abs(sorted[first]) { last += 1 }
        ranks += [Int](repeating: first + last + 2, count: last - first + 1)
    }
    return ranks
}
