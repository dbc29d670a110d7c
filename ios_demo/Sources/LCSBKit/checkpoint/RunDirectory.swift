import Foundation

/// A directory of a run's checkpoints: one process at a time, the last two kept, the newest good one found. Specification:
/// docs/run_checkpoint.md. Locked from its making to `close`, or the end of the process, whatever ends it.
final class RunDirectory {
    let directory: URL
    private let key: String
    private var lock: OpenFile?

    static let kept = 2
    private static let left = [".step-", ".\(adapterFile).", statePrefix, ".spool."]  // what the names of unfinished files begin with

    /// A process has its lock once: opening and closing the file again, even to find it locked, would give the lock away.
    private static let held = Locked<Set<String>>([])

    /// Throws RUN_BUSY when another process, or another run in this one, holds it; STORAGE_FULL, STORAGE_FAILED.
    init(_ directory: URL) throws {
        self.directory = directory
        key = try storing(directory) {
            try makeDirectories(directory)
            guard let path = realpath(directory.path, nil) else { throw IoError(errno) }
            defer { free(path) }
            return String(cString: path)
        }
        let isFirst = Self.held.with { [key] in $0.insert(key).inserted }
        if !isFirst { throw busy(directory, "of this process") }
        do {
            lock = try storing(directory) { try takeLock(directory) }
        } catch {
            Self.held.with { [key] in _ = $0.remove(key) }
            throw error
        }
        try removeLeft()
    }

    deinit { close() }

    /// Gives the lock back.
    func close() {
        if lock == nil { return }
        lock = nil
        Self.held.with { [key] in _ = $0.remove(key) }
    }

    /// What a process left that was killed while it wrote.
    private func removeLeft() throws {
        let names = listed(directory).filter { name in Self.left.contains { name.utf8.starts(with: $0.utf8) } }
        try remove(names.map(directory.appendingPathComponent))
    }

    /// The newest good checkpoint, or nil when there is none at all. `warn` is told of damaged ones that were passed over, and of a learning
    /// rate that is lower from here on (`checkIdentity`). Throws CHECKPOINT_DAMAGED when all are (none is removed), CHECKPOINT_OTHER_RUN
    /// when the newest good one is of another run.
    func newest(
        _ layers: Int, _ size: Int, _ identity: RunIdentity, lowerRate: Bool = false, _ warn: (String) -> Void
    ) throws -> RunCheckpoint? {
        let files = try checkpointFiles(directory)
        if files.isEmpty { return nil }
        let (file, checkpoint, faults) = try newestGood(files, layers, size)
        try checkIdentity(file, checkpoint.place.identity, identity, lowerRate: lowerRate)
        for fault in faults { warn("\(fault); going on from \(file.lastPathComponent)") }
        let (then, now) = (checkpoint.place.identity.train.learningRate, identity.train.learningRate)
        if then != now { warn("going on at a learning rate of \(now), which was \(then) up to step \(checkpoint.place.step)") }
        // A process was killed after it had written and before it removed.
        if faults.count < Self.kept { try remove(Array(files.dropFirst(Self.kept))) }
        return checkpoint
    }

    /// The local time at which the run began: what a chat format writes of it stays the same when the run goes on, on another day or in another
    /// time zone. Throws CHECKPOINT_DAMAGED where no checkpoint is good.
    func beginning(_ layers: Int, _ size: Int) throws -> String {
        let files = try checkpointFiles(directory)
        return files.isEmpty ? LocalTime().text : try newestGood(files, layers, size).checkpoint.place.identity.date
    }

    /// Then removes those older than the last two. Throws STORAGE_FULL, STORAGE_FAILED; what was there before then still is.
    func write(_ checkpoint: RunCheckpoint) throws {
        try writeCheckpoint(directory.appendingPathComponent(checkpointName(checkpoint.place.step)), checkpoint)
        try remove(Array(checkpointFiles(directory).dropFirst(Self.kept)))
    }

    private func remove(_ files: [URL]) throws {
        try storing(directory) { for file in files where unlink(file.path) != 0 && errno != ENOENT { throw IoError(errno) } }
    }
}

/// Takes the lock, and writes who has it. Throws RUN_BUSY, IoError.
private func takeLock(_ directory: URL) throws -> OpenFile {
    let file = try OpenFile(directory.appendingPathComponent("lock"), O_RDWR | O_CREAT)
    var whole = flock()
    (whole.l_type, whole.l_whence) = (Int16(F_WRLCK), Int16(SEEK_SET))
    if fcntl(file.descriptor, F_SETLK, &whole) != 0 {
        if errno != EACCES && errno != EAGAIN { throw IoError(errno) }
        let holder = try String(decoding: file.read(at: 0, upTo: 20), as: UTF8.self)
        throw busy(directory, "process \(holder.isEmpty ? "unknown" : oneLine(holder))")
    }
    if ftruncate(file.descriptor, 0) != 0 { throw IoError(errno) }
    try Array("\(getpid())\n".utf8).withUnsafeBytes(file.write)
    return file
}

private func busy(_ directory: URL, _ holder: String) -> LcsbError {
    let message = "\(directory.path): another run, \(holder), uses these checkpoints; wait for it, or choose another directory"
    return LcsbError(.runBusy, message, [directory.lastPathComponent])
}

/// Throws CHECKPOINT_OTHER_RUN naming what differs. Where the rate does not depend on it, a run may become longer or shorter; with
/// `lowerRate` it may go on at a lower one, as after a loss that was not finite.
func checkIdentity(_ file: URL, _ found: RunIdentity, _ wanted: RunIdentity, lowerRate: Bool = false) throws {
    var faults: [String] = []
    func compare<Value: Equatable>(_ name: String, _ then: Value, _ now: Value, _ show: (Value) -> String = { "\($0)" }) {
        if then != now { faults.append("\(name): \(show(then)) then, \(show(now)) now") }
    }
    let short: (String?) -> String = { $0.map { oneLine($0, 12) } ?? "none" }
    compare("bundle", found.bundle, wanted.bundle, short)
    compare("data", found.data, wanted.data, short)
    compare("evaluation data", found.evaluationData, wanted.evaluationData, short)
    compare("tokens", found.tokens, wanted.tokens, short)
    compare("evaluation tokens", found.evaluationTokens, wanted.evaluationTokens, short)
    compare("date", found.date, wanted.date)
    compare("hold out", found.holdOut, wanted.holdOut)
    compare("initial adapter", found.initialAdapter, wanted.initialAdapter, short)
    compare("schedule", found.schedule, wanted.schedule) { _ in "another schedule" }
    let (then, now) = (found.train, wanted.train)
    if now.lrSchedule != .constant { compare("steps", then.steps, now.steps) }
    if !(lowerRate && now.learningRate < then.learningRate) { compare("learning_rate", then.learningRate, now.learningRate) }
    compare("lr_schedule", then.lrSchedule.rawValue, now.lrSchedule.rawValue)
    compare("warmup", then.warmup, now.warmup)
    compare("accumulation", then.accumulation, now.accumulation)
    compare("seed", found.seed, wanted.seed)
    if !faults.isEmpty {
        let what = "is of another run: \(faults.joined(separator: "; "))"
        let message = "\(file.path): \(what); go on with what it was begun with, or choose another directory"
        throw LcsbError(.checkpointOtherRun, message, [file.lastPathComponent])
    }
}
