import Foundation
import LCSBKit

/// What to train. `state`: the run's directory; `budget`: bytes of anonymous memory, nil: no limit; `initial`: the adapter that it begins
/// with, nil: the bundle's.
struct TrainingJob: Sendable {
    var bundle: URL
    var data: URL
    var state: URL
    var steps: Int
    var budget: Int?
    var threads: Int
    var initial: URL?
}

/// What to write: after `prompt`, or with `chat` the answer to it in a conversation. `adapter`: what it is written with.
struct Writing: Sendable {
    /// The newest of a run's checkpoints, or an adapter's file.
    enum Adapter: Equatable, Sendable { case none, run(URL), file(URL) }

    var adapter: Adapter
    var prompt: String
    var earlier: [(question: String, answer: String)] = []
    var chat = false
    var system: String?
    var sampling = SamplingConfig()
}

/// All that the app asks of LCSBKit. Each call takes long, so none is made on the main thread, and throws LcsbError. `scratch`: a
/// directory for what need not outlive a call.
final class Engine: Sendable {
    private static let previews = 20
    private static let evaluateEvery = 20  // steps at least: an evaluation takes as long as some five
    private static let checkpointEvery = 5  // steps: what is lost at most when the system ends the process

    private let scratch: URL
    private let opened = Locked<TrainingBundle?>(nil)
    private let pen = Locked<Pen?>(nil)

    init(scratch: URL) { self.scratch = scratch }

    /// What the system leaves an app that is not seen any more, where a run goes on.
    static let compute = ComputeUnits.cpu

    /// Some of a phone's cores are slow ones.
    static var threads: Int { min(4, max(1, ProcessInfo.processInfo.activeProcessorCount / 2)) }

    /// Verifying reads every byte, so a bundle is opened once a process; its weights are mapped and take no memory that counts.
    private func open(_ directory: URL) throws -> TrainingBundle {
        try opened.with { opened in
            if let opened, opened.directory == directory { return opened }
            let bundle = try TrainingBundle.open(directory)
            opened = bundle
            return bundle
        }
    }

    func forget(_ directory: URL) {
        opened.with { if $0?.directory == directory { $0 = nil } }
        pen.with { if $0?.bundle.directory == directory { $0 = nil } }
    }

    /// Verifies a bundle, tokenizer included, and sees what it takes on this phone.
    func inspect(_ directory: URL, name: String, stop: Stop, _ progress: @escaping @Sendable (Transfer) -> Void) throws -> BundleInfo {
        let bundle = try TrainingBundle.open(directory) { done, total in
            try stop.check()
            progress(Transfer(.verifying, name, done: done, total: total))
        }
        let manifest = bundle.manifest
        try checkIncluded(manifest.target)
        _ = try bundle.tokenizer
        let chats = try bundle.chat != nil
        progress(Transfer(.testing, name))
        let layers = manifest.model.numHiddenLayers
        let base = processAnonymousBytes() ?? 0
        return BundleInfo(
            name: name,
            place: .library,
            directory: name,
            source: manifest.source,
            bytes: manifest.files.values.reduce(0) { $0 + $1.size },
            layers: layers,
            adapterSize: manifest.adapter.size,
            seqLen: manifest.seqLen,
            schedule: manifest.schedule.map { Self.roles($0, layers) },
            digest: bundle.digest,
            chats: chats,
            predictedMemory: try planRun(manifest, manifest.schedule, base: base, budget: nil, keep: nil).predictedPeakBytes,
            secondsAStep: try measure(bundle, stop)
        )
    }

    static func roles(_ subset: Subset, _ layers: Int) -> [LayerRole] {
        (0..<layers).map { subset.train.contains($0) ? .trained : subset.propagate.contains($0) ? .passed : .skipped }
    }

    /// The mean of a cycle's steps, by proportion from one that is timed; the one before it warms up.
    private func measure(_ bundle: TrainingBundle, _ stop: Stop) throws -> Double? {
        guard let batch = bundle.sampleBatch, let subset = bundle.manifest.schedule.first else { return nil }
        let manifest = bundle.manifest
        let adapter = try Floats(count: manifest.adapter.size)
        try bundle.readInitialAdapter(into: adapter)
        let runner = try makeRunner(bundle, threads: Self.threads, compute: Self.compute, betweenLayers: { _, _ in try stop.check() })
        _ = try runner.step(subset, batch, adapter)
        return try LCSBKit.secondsAStep(manifest, runner, subset, batch, adapter)
    }

    /// Holds this phone to the bundle's golden trace: whether the runtime of its target may be used here, and what a step takes. Throws
    /// CancellationError once `stop` was asked.
    func check(_ directory: URL, threads: Int, stop: Stop) throws -> VerifyResult {
        let bundle = try open(directory)
        let runner = try makeRunner(bundle, threads: threads, compute: Self.compute, betweenLayers: { _, _ in try stop.check() })
        try storing(scratch) { try makeDirectories(scratch) }
        return try judge(bundle, runner, scratch: scratch)
    }

    /// `progress`: bytes read of all; it may throw to stop.
    func summarize(_ directory: URL, _ data: URL, _ progress: @escaping (Int, Int) throws -> Void) throws -> DataSummary {
        let bundle = try open(directory)
        try storing(scratch) { try makeDirectories(scratch) }
        let report = try reportTokens(
            data, bundle.tokenizer, bundle.chat, seqLen: bundle.manifest.seqLen, accumulation: 1, examples: Self.previews, spool: scratch,
            progress: progress)
        return DataSummary(
            examples: report.data.examples,
            tokens: report.data.tokens,
            counted: report.data.countedLabels,
            cut: report.data.truncated,
            dropped: report.data.withoutLabels,
            sequences: report.sequences,
            conversations: report.data.conversations,
            previews: report.preview.map { pieces in pieces.map { TextPiece(text: $0.text, counted: $0.counted) } }
        )
    }

    func train(_ job: TrainingJob, _ control: RunControl, _ observer: any RunObserver) throws -> RunResult {
        putDown()
        let options = RunOptions(
            steps: job.steps,
            evaluateEvery: max(job.steps / 4, Self.evaluateEvery),
            checkpointEvery: Self.checkpointEvery,
            memoryBudget: job.budget,
            threads: job.threads,
            compute: Self.compute,
            initialAdapter: job.initial
        )
        return try TrainingRun(open(job.bundle), data: job.data, directory: job.state, options).run(control, observer)
    }

    /// What the run has saved, as the screens show it; nothing where nothing is saved or all is damaged, which going on with it says.
    func history(_ info: BundleInfo, _ state: URL) throws -> RunState {
        var shown = RunState()
        guard let checkpoint = try newest(state, info.layers, info.adapterSize) else { return shown }
        shown.step = checkpoint.place.step
        shown.training = (0..<shown.step).map { LossPoint($0 + 1, checkpoint.steps[$0 * stepColumns]) }
        let evaluations = checkpoint.evaluations
        shown.evaluation = stride(from: 0, to: evaluations.count, by: 2).map { LossPoint(Int(evaluations[$0]), evaluations[$0 + 1]) }
        return shown
    }

    private func newest(_ state: URL, _ layers: Int, _ size: Int) throws -> RunCheckpoint? {
        guard isDirectory(state) else { return nil }
        let files = try checkpointFiles(state)
        return files.isEmpty ? nil : try newestGood(files, layers, size).checkpoint
    }

    // Adapters

    /// What a run has learned so far, as an adapter's file. Throws CHECKPOINT_DAMAGED; false where nothing was learned.
    func saveAdapter(_ directory: URL, state: URL, to file: URL) throws -> Bool {
        let layout = try open(directory).manifest.adapter
        guard let checkpoint = try newest(state, layout.numLayers, layout.size), checkpoint.place.step > 0 else { return false }
        try writeAdapter(file, layout, checkpoint.state.adapter)
        return true
    }

    /// PEFT's directory of an adapter's file.
    func exportPeft(_ directory: URL, _ adapter: URL, to target: URL) throws {
        let manifest = try open(directory).manifest
        let values = try Floats(count: manifest.adapter.size)
        try readAdapter(adapter, manifest.adapter, values)
        try writePeft(manifest, values, target)
    }

    /// PEFT's directory, or an adapter's file, as an adapter's file of the bundle.
    func importAdapter(_ directory: URL, _ source: URL, to file: URL) throws {
        let bundle = try open(directory)
        let values = try Floats(count: bundle.manifest.adapter.size)
        try bundle.readInitialAdapter(into: values)
        try readPeft(source, bundle.manifest.adapter, values)
        try writeAdapter(file, bundle.manifest.adapter, values)
    }

    // Writing

    /// The runner that writes, kept from one text to the next.
    private final class Pen {
        let bundle: TrainingBundle
        private let asked = Locked<Stop?>(nil)
        let runner: any StepRunner

        init(_ bundle: TrainingBundle) throws {
            self.bundle = bundle
            runner = try makeRunner(
                bundle, threads: Engine.threads, compute: Engine.compute, betweenLayers: { [asked] _, _ in try asked.with { $0 }?.check() })
        }

        func heed(_ stop: Stop?) { asked.with { $0 = stop } }
    }

    /// Gives the memory back that writing takes.
    func putDown() { pen.with { $0 = nil } }

    /// Writes each of `writings`, a piece of each in turn; `piece` is told which it belongs to. How each ended. Throws CancellationError
    /// once `stop` was asked.
    func write(_ directory: URL, _ writings: [Writing], stop: Stop, _ piece: (Int, String) -> Void) throws -> [TextEnd?] {
        let bundle = try open(directory)
        return try pen.with { pen in
            if pen?.bundle.directory != directory { pen = nil }
            let held = try pen ?? Pen(bundle)
            pen = held
            held.heed(stop)
            defer { held.heed(nil) }
            let texts = try writings.map { try begin($0, bundle, held.runner) }
            var open = Array(texts.indices)
            while !open.isEmpty {
                try open.removeAll { number in
                    try stop.check()
                    guard let next = try texts[number].next() else { return true }
                    piece(number, next)
                    return false
                }
            }
            return texts.map(\.ended)
        }
    }

    private func begin(_ writing: Writing, _ bundle: TrainingBundle, _ runner: any StepRunner) throws -> Continuation {
        let layout = bundle.manifest.adapter
        let adapter = try Floats(count: layout.size)
        switch writing.adapter {
        case .none: try bundle.readInitialAdapter(into: adapter)
        case .file(let file): try readAdapter(file, layout, adapter)
        case .run(let state):
            if let checkpoint = try newest(state, layout.numLayers, layout.size) {
                adapter.copy(from: checkpoint.state.adapter)
            } else {
                try bundle.readInitialAdapter(into: adapter)
            }
        }
        let chat = writing.chat ? try bundle.chat.map { Chat($0, system: writing.system, earlier: writing.earlier) } : nil
        return try generate(runner, bundle, adapter, writing.prompt, writing.sampling, chat: chat)
    }
}
