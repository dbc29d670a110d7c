import Foundation
import LCSBKit

private let usage = """
    simulate BUNDLE DATA DIRECTORY --steps N [options of lcsb simulate] | verify BUNDLE | \
    generate BUNDLE PROMPT [--adapter FILE] [--chat] [--seed N] [options of sampling] | peft BUNDLE ADAPTER OUTPUT | \
    compare BUNDLE DATA AFTER [options of lcsb compare]
    """

/// Prints JSON lines, the result last. The exit code is 0, 1 for a failure at run time, or 2 for bad input.
@main
enum Main {
    static func main() {
        signal(SIGXFSZ, SIG_IGN)  // a file that may not grow is an error like a full disk
        do {
            try command(Array(CommandLine.arguments.dropFirst()))
        } catch let error as LcsbError {
            line([("fault", .string(error.fault.rawValue)), ("error", .string(error.message))])
            let failures: Set<Fault> = [.memoryExceeded, .lossNotFinite, .goldenTrace, .storageFull, .storageFailed, .runtimeFailed]
            exit(failures.contains(error.fault) ? 1 : 2)
        } catch {
            FileHandle.standardError.write(Data("lcsb-swift: \(error)\n".utf8))
            exit(1)
        }
    }
}

private func command(_ arguments: [String]) throws {
    switch arguments.first {
    case "simulate": try simulate(Arguments(arguments.dropFirst(), names: runNames, flags: ["chat"]))
    case "verify": try verify(Arguments(arguments.dropFirst(), names: ["threads", "compute-units"]))
    case "generate":
        let names: Set<String> = ["adapter", "max-tokens", "temperature", "top-p", "stop", "seed", "threads", "compute-units"]
        try generate(Arguments(arguments.dropFirst(), names: names, flags: ["chat"]))
    case "compare":
        try compare(Arguments(arguments.dropFirst(), names: ["before", "hold-out", "seed", "examples", "threads", "compute-units"], flags: ["whole"]))
    case "peft": try peft(Arguments(arguments.dropFirst()).positional)
    default: throw bad("expected: \(usage)")
    }
}

private func places(_ positional: [String], _ count: Int) throws -> [URL] {
    if positional.count != count { throw bad("expected: \(usage)") }
    return positional.map { URL(fileURLWithPath: $0) }
}

private func simulate(_ arguments: Arguments) throws {
    let places = try places(arguments.positional, 3)
    let control = RunControl()
    control.delayMillisecondsBetweenLayers = try arguments.int("delay") ?? 0
    let run = try TrainingRun(.open(places[0]), data: places[1], directory: places[2], arguments.runOptions())
    write(try run.run(control, Lines()).toJson())
}

private func verify(_ arguments: Arguments) throws {
    let bundle = try TrainingBundle.open(places(arguments.positional, 1)[0])
    let runner = try makeRunner(bundle, threads: arguments.int("threads") ?? 0, compute: arguments.computeUnits())
    let found = try LCSBKit.verify(bundle, runner, scratch: FileManager.default.temporaryDirectory)
    line([
        ("runtime", .string("\(found.runtime) \(found.runtimeVersion)")), ("steps", .integer(found.difference.steps)),
        ("step_loss", .double(found.difference.stepLoss)), ("step_gradient_norm", .double(found.difference.stepGradientNorm)),
        ("run_loss", .double(found.difference.runLoss)), ("seconds_a_step", found.secondsAStep.map(Json.double) ?? .null),
    ])
}

private func generate(_ arguments: Arguments) throws {
    if arguments.positional.count != 2 { throw bad("expected: \(usage)") }
    let bundle = try TrainingBundle.open(URL(fileURLWithPath: arguments.positional[0]))
    let adapter = try Floats(count: bundle.manifest.adapter.size)
    if let file = arguments.all("adapter").last {
        try readAdapter(URL(fileURLWithPath: file), bundle.manifest.adapter, adapter)
    }
    let runner = try makeRunner(bundle, threads: arguments.int("threads") ?? 0, compute: arguments.computeUnits())
    var chat: Chat?
    if arguments.flag("chat") {
        guard let format = try bundle.chat else { throw bad("chat: the bundle says nothing of how messages become text") }
        chat = Chat(format)
    }
    let sampling = try arguments.sampling(seed: arguments.int("seed") ?? 0)
    let pieces = try LCSBKit.generate(runner, bundle, adapter, arguments.positional[1], sampling, chat: chat)
    while let piece = try pieces.next() { line([("text", .string(piece))]) }
    line([
        ("tokens", .integer(pieces.tokens)), ("prefill_seconds", .double(pieces.prefillSeconds)),
        ("decode_seconds", .double(pieces.decodeSeconds)),
    ])
}

/// `--whole`: the data is that of `--eval-data`, all of which is held out.
private func compare(_ arguments: Arguments) throws {
    let places = try places(arguments.positional, 3)
    var options = CompareOptions()
    options.holdOut = arguments.flag("whole") ? nil : try arguments.double("hold-out") ?? options.holdOut
    options.seed = try arguments.int("seed") ?? options.seed
    options.examples = try arguments.int("examples") ?? options.examples
    options.threads = try arguments.int("threads") ?? options.threads
    options.compute = try arguments.computeUnits()
    let before = arguments.all("before").last.map(URL.init(fileURLWithPath:))
    let scratch = FileManager.default.temporaryDirectory
    write(try compareAdapters(.open(places[0]), data: places[1], before: before, after: places[2], scratch: scratch, options).toJson())
}

private func peft(_ positional: [String]) throws {
    let places = try places(positional, 3)
    let bundle = try TrainingBundle.open(places[0])
    let layout = bundle.manifest.adapter
    let adapter = try Floats(count: layout.size)
    try readAdapter(places[1], layout, adapter)
    try writePeft(bundle.manifest, adapter, places[2])
    line([("directory", .string(places[2].path))])
}

private final class Lines: RunObserver {
    func phase(_ name: Phase) { line([("phase", .string(name.rawValue))]) }

    func data(_ report: DataReport, heldOut: Int) { line([("examples", .integer(report.examples)), ("held_out", .integer(heldOut))]) }

    func warned(_ text: String) { line([("warning", .string(text))]) }

    func resumed(step: Int, _ history: RunHistory) { line([("resumed", .integer(step))]) }

    func evaluated(step: Int, loss: Double) { line([("evaluated", .integer(step)), ("loss", .double(loss))]) }

    func stepped(_ outcome: StepOutcome, memory: Int) {
        let seconds = outcome.gradientSeconds + outcome.optimizerSeconds
        line([
            ("step", .integer(outcome.step)), ("loss", .double(outcome.loss)), ("seconds", .double(seconds)),
            ("anonymous_bytes", .integer(memory)),
        ])
    }

    func sampled(prompt: String, text: String, after: Bool) {
        line([("prompt", .string(prompt)), ("text", .string(text)), ("after", .bool(after))])
    }
}

private func line(_ fields: [(key: String, value: Json)]) { write(Json.object(fields).text) }

/// At once, since whoever reads may be waiting for it.
private func write(_ line: String) { FileHandle.standardOutput.write(Data((line + "\n").utf8)) }
