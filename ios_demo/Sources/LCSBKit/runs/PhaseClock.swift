/// How long each phase took.
final class PhaseClock {
    private let entered: (Phase) -> Void
    private var taken: [(phase: Phase, nanoseconds: UInt64)] = []
    private var phase: Phase?
    private var since: UInt64 = 0

    /// `entered` is told each phase as it begins.
    init(_ entered: @escaping (Phase) -> Void) { self.entered = entered }

    /// From now on the run is in `next`; nil: in none.
    func enter(_ next: Phase?) {
        let now = nanoseconds()
        if let phase {
            if let at = taken.firstIndex(where: { $0.phase == phase }) {
                taken[at].nanoseconds += now - since
            } else {
                taken.append((phase, now - since))
            }
        }
        (phase, since) = (next, now)
        if let next { entered(next) }
    }

    /// AdamW's `optimizer` seconds are taken out of the steps that contain them.
    func seconds(optimizer: Double) -> [(phase: String, seconds: Double)] {
        let found = taken.map { ($0.phase, Double($0.nanoseconds) / 1e9) }
        let steps = found.first { $0.0 == .steps }?.1 ?? 0
        return found.filter { $0.0 != .steps }.map { ($0.0.rawValue, $0.1) } + [
            (Phase.steps.rawValue, steps - optimizer), (Phase.optimizer.rawValue, optimizer),
        ]
    }
}
