import Foundation
import LCSBKit

/// Asks what works off the main thread to end.
final class Stop: Sendable {
    private let asked = Locked(false)

    var isAsked: Bool { asked.with { $0 } }

    func ask() { asked.with { $0 = true } }

    /// Throws CancellationError once it was asked.
    func check() throws { if isAsked { throw CancellationError() } }
}

/// `work` on a thread of its own, which may block.
func offMain<Value: Sendable>(_ name: String, _ work: @escaping @Sendable () throws -> Value) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        let thread = Thread { continuation.resume(with: Result(catching: work)) }
        thread.name = name
        thread.stackSize = 8 << 20
        thread.start()
    }
}

/// Does one thing after the other; each asks its `Stop` now and then, which throws when it was cancelled.
@MainActor final class Worker {
    private var last: Task<Void, Never>?
    private var stops: [ObjectIdentifier: Stop] = [:]  // of what has not ended
    private let failed: (any Error) -> Void

    /// `failed` is told of every error but a CancellationError.
    init(failed: @escaping (any Error) -> Void) { self.failed = failed }

    var busy: Bool { !stops.isEmpty }

    /// Cancels what is under way or waits, if `cancelling`, and begins when all that has ended.
    func start(cancelling: Bool = true, _ work: @escaping (Stop) async throws -> Void) {
        if cancelling { cancel() }
        let (before, stop) = (last, Stop())
        stops[ObjectIdentifier(stop)] = stop
        last = Task {
            await before?.value
            do {
                try await work(stop)
            } catch is CancellationError {
                // as asked
            } catch {
                failed(error)
            }
            stops[ObjectIdentifier(stop)] = nil
        }
    }

    /// All that was started and has not ended.
    func cancel() { stops.values.forEach { $0.ask() } }

    /// Waits for the end of what is under way.
    func finish() async { await last?.value }
}

/// Brings the newest of many values to the main actor, as often as that is free.
final class Newest<Value: Sendable>: Sendable {
    private let waiting = Locked<Value?>(nil)
    private let open = Locked(true)
    private let take: @MainActor (Value) -> Void

    init(_ take: @escaping @MainActor (Value) -> Void) { self.take = take }

    func send(_ value: Value) {
        let isFirst = waiting.with { waiting in
            defer { waiting = value }
            return waiting == nil
        }
        if isFirst { Task { @MainActor in deliver() } }
    }

    @MainActor private func deliver() {
        let value = waiting.with { waiting in
            defer { waiting = nil }
            return waiting
        }
        if let value, open.with({ $0 }) { take(value) }
    }

    /// What still waits is taken, and nothing comes after it.
    @MainActor func end() {
        deliver()
        open.with { $0 = false }
    }
}
