import Foundation

/// What two adapters are compared on. `holdOut`, `seed`: as those of a run, of whose data the examples are compared that it holds out;
/// `holdOut` nil: all examples of the file, none of which was trained on. `examples`: at most so many of them, spread evenly; each takes a
/// forward pass with each adapter. `threads`, `compute`: as those of a run.
public struct CompareOptions: Sendable {
    public var holdOut: Double?
    public var seed: Int
    public var examples: Int
    public var threads: Int
    public var compute: ComputeUnits

    public init(
        holdOut: Double? = heldOutShare, seed: Int = 0, examples: Int = comparedExamples, threads: Int = 0, compute: ComputeUnits = .all
    ) {
        (self.holdOut, self.seed, self.examples, self.threads, self.compute) = (holdOut, seed, examples, threads, compute)
    }
}

/// 64 forward passes with two adapters, some twenty steps' time; a difference shows where some 70 % of so many examples agree.
public let comparedExamples = 32

/// `lossesBefore`, `lossesAfter`: of each example, the mean over its tokens that count.
public struct Comparison: Sendable {
    public let verdict: Verdict
    public let runtime: String
    public let runtimeVersion: String
    public let lossesBefore: [Double]
    public let lossesAfter: [Double]

    /// By the names of `lcsb compare --json`.
    public func toJson() -> String {
        Json.object([
            ("verdict", .object([
                ("outcome", .string(verdict.outcome.rawValue)), ("examples", .integer(verdict.examples)),
                ("improved", .integer(verdict.improved)), ("loss_before", .double(verdict.lossBefore)),
                ("loss_after", .double(verdict.lossAfter)), ("p", .double(verdict.p)),
            ])),
            ("runtime", .string(runtime)),
            ("runtime_version", .string(runtimeVersion)),
            ("losses_before", .list(lossesBefore, Json.double)),
            ("losses_after", .list(lossesAfter, Json.double)),
        ]).text
    }
}

/// Whether examples of `data` that were not trained on have a lower loss with the adapter `after` than with `before`, which is nil for the base
/// model. Both are evaluated on the same examples, one after the other; blocks. `scratch`: a directory for temporary files.
///
/// `goOn` is called between two layers and while the file is read, `progress` after each example, of those of both adapters; either may throw,
/// to cancel. Throws OPTION, ADAPTER (before anything is computed), DATA_…, TOKENIZER_…, CHAT_…, RUNTIME_…, STORAGE_… or LOSS_NOT_FINITE.
public func compareAdapters(
    _ bundle: TrainingBundle, data: URL, before: URL?, after: URL, scratch: URL, _ options: CompareOptions = CompareOptions(),
    goOn: @escaping () throws -> Void = {}, progress: (_ done: Int, _ total: Int) throws -> Void = { _, _ in }
) throws -> Comparison {
    var run = RunOptions(steps: 1, threads: options.threads, compute: options.compute, seed: options.seed)
    if let share = options.holdOut { run.holdOut = share } else { run.evaluationData = data }
    return try Comparing(RunSetup(run, bundle), before: before, after: after, examples: options.examples)
        .on(data, scratch, goOn, progress)
}

/// `setup`: of the run whose held-out examples are compared.
struct Comparing {
    var setup: RunSetup
    private let before: URL?
    private let after: URL
    private let examples: Int
    private let adapter: Floats

    /// Both adapters are read, to be refused before the work. Throws OPTION, ADAPTER.
    init(_ setup: RunSetup, before: URL?, after: URL, examples: Int) throws {
        if examples < leastExamples {
            throw LcsbError(.option, "examples: expected at least \(leastExamples), found \(examples)", ["examples"])
        }
        (self.setup, self.before, self.after, self.examples) = (setup, before, after, examples)
        adapter = try Floats(count: setup.bundle.manifest.adapter.size)
        try read(after)
        try read(before)
    }

    func on(
        _ data: URL, _ scratch: URL, _ goOn: @escaping () throws -> Void, _ progress: (_ done: Int, _ total: Int) throws -> Void
    ) throws -> Comparison {
        let bundle = setup.bundle
        let heldOut = try readHeldOut(setup, data, spool: scratch, check: goOn)
        let chosen = spread(heldOut.count, examples)
        let runner = try makeRunner(bundle, threads: setup.options.threads, compute: setup.options.compute) { _, _ in try goOn() }
        var done = 0

        func losses(_ file: URL?) throws -> [Double] {
            try read(file)
            return try chosen.map { index in
                let batch = alone(heldOut, index, bundle.manifest.seqLen, try bundle.tokenizer.padId)
                let loss = try runner.evaluate(batch, adapter)
                done += 1
                try progress(done, 2 * chosen.count)
                return Double(loss)
            }
        }
        let (old, new) = (try losses(before), try losses(after))
        return Comparison(
            verdict: try judge(before: old, after: new), runtime: runner.name, runtimeVersion: runner.version, lossesBefore: old,
            lossesAfter: new)
    }

    private func read(_ file: URL?) throws {
        guard let file else { return try setup.bundle.readInitialAdapter(into: adapter) }
        try readAdapter(file, setup.bundle.manifest.adapter, adapter)
    }
}

/// At most `most` of `count` numbers from 0, evenly spread, ascending.
func spread(_ count: Int, _ most: Int) -> [Int] {
    let chosen = min(count, most)
    return (0..<chosen).map { $0 * count / chosen }
}
