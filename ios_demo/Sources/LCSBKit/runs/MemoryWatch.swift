/// This process's anonymous memory while it trains, and the budget. A phone counts anonymous memory against an app: it cannot be dropped and
/// read again, as the pages of a mapped file can.
final class MemoryWatch {
    private let budget: Int?
    private(set) var peak: Int?
    private var looked = nanoseconds()
    private static let interval = 0.25  // seconds

    init(_ budget: Int?) { self.budget = budget }

    /// Bytes now, 0 where the system does not say.
    @discardableResult
    func sample() -> Int {
        looked = nanoseconds()
        guard let now = processAnonymousBytes() else { return 0 }
        peak = max(peak ?? 0, now)
        return now
    }

    /// Between two layers of step `step`: looks only now and then, as it takes some milliseconds. Throws MEMORY_EXCEEDED.
    func look(_ step: Int) throws {
        if seconds(looked, nanoseconds()) < Self.interval { return }
        sample()
        try stopAboveBudget(step)
    }

    /// Throws MEMORY_EXCEEDED.
    func stopAboveBudget(_ step: Int) throws {
        guard let peak, let budget, peak > budget else { return }
        let message = "step \(step): the run reached \(megabytes(peak)) of anonymous memory, more than the \(megabytes(budget)) allowed; it was "
            + "stopped and the last adapter that gave a finite loss kept; allow more, or export with a shorter --seq-len"
        throw LcsbError(.memoryExceeded, message, ["\(peak)", "\(budget)"])
    }
}
