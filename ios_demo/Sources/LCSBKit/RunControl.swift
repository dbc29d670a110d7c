import Foundation

/// Pauses, stops or slows a run, from any thread. It takes effect between two layers: the step under way is dropped, and redone when the run
/// is resumed. One object serves one run.
public final class RunControl: @unchecked Sendable {
    private let asked = NSCondition()
    private var wanted: RunOutcome?
    private var delay = 0

    public init() {}

    /// How long the run rests before each layer: a cooler phone for a slower run.
    public var delayMillisecondsBetweenLayers: Int {
        get { locked { delay } }
        set { locked { delay = newValue } }
    }

    /// The run's state is saved and the run ends as `paused`.
    public func pause() { ask(.paused) }

    /// Likewise, and the adapter's file is written: `cancelled`.
    public func stop() { ask(.cancelled) }

    private func ask(_ outcome: RunOutcome) {
        locked {
            if wanted != .cancelled { wanted = outcome }
            asked.broadcast()
        }
    }

    /// Called where the run may be interrupted.
    func check() throws { try locked { try interrupt() } }

    /// Likewise, where a stop would come too early: its result is to say what was saved, which is not read yet.
    func checkPaused() throws { try locked { if wanted == .paused { try interrupt() } } }

    /// Called between two layers: rests, unless it is interrupted.
    func rest() throws {
        try locked {
            if delay > 0 {
                let until = Date(timeIntervalSinceNow: Double(delay) / 1000)
                while wanted == nil && asked.wait(until: until) {}
            }
            try interrupt()
        }
    }

    private func interrupt() throws { if let wanted { throw RunInterrupted(outcome: wanted) } }

    private func locked<Result>(_ use: () throws -> Result) rethrows -> Result {
        asked.lock()
        defer { asked.unlock() }
        return try use()
    }
}

/// Somebody asked for it: no failure.
struct RunInterrupted: Error {
    let outcome: RunOutcome
}
