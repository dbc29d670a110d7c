import Foundation
import LCSBKit

/// A command line: what has no dashes, and the options, each of which may be given again. Throws OPTION.
struct Arguments {
    private(set) var positional: [String] = []
    private var given: [String: [String]] = [:]

    init(_ arguments: some Sequence<String>, names: Set<String> = [], flags: Set<String> = []) throws {
        var left = arguments.makeIterator()
        while let argument = left.next() {
            let name = argument.hasPrefix("--") ? String(argument.dropFirst(2)) : ""
            if name.isEmpty {
                positional.append(argument)
            } else if flags.contains(name) {
                given[name, default: []].append("")
            } else if names.contains(name), let value = left.next() {
                given[name, default: []].append(value)
            } else {
                let known = (names.union(flags)).sorted().map { "--\($0)" }.joined(separator: ", ")
                throw bad("\(argument): expected one of \(known), with a value")
            }
        }
    }

    func all(_ name: String) -> [String] { given[name] ?? [] }

    func flag(_ name: String) -> Bool { given[name] != nil }

    func value<Value>(_ name: String, _ parse: (String) -> Value?) throws -> Value? {
        guard let text = all(name).last else { return nil }
        guard let value = parse(text) else { throw bad("\(name): expected another value than '\(text)'") }
        return value
    }

    func int(_ name: String) throws -> Int? { try value(name) { Int($0) } }

    func double(_ name: String) throws -> Double? { try value(name) { Double($0) } }
}

func bad(_ message: String) -> LcsbError { LcsbError(.option, message) }

let runNames: Set<String> = [
    "steps", "lr", "lr-schedule", "warmup", "accumulation", "method", "eval-data", "hold-out", "eval-every", "checkpoint-every", "memory-budget",
    "keep", "threads", "compute-units", "prompt", "max-tokens", "temperature", "top-p", "stop", "seed", "delay",
]

extension Arguments {
    /// `cpu`, `gpu`, `neural-engine` or `all`, of targets coreai and coreml.
    func computeUnits() throws -> ComputeUnits { try value("compute-units", ComputeUnits.init) ?? .all }

    /// As those of `lcsb simulate`; sizes in bytes, layers as a number. `--delay`: milliseconds of rest before each layer.
    func runOptions() throws -> RunOptions {
        guard let steps = try int("steps") else { throw bad("--steps is missing") }
        var options = RunOptions(steps: steps)
        options.learningRate = try double("lr")
        options.lrSchedule = try value("lr-schedule", LearningRateSchedule.init) ?? options.lrSchedule
        options.warmup = try int("warmup") ?? options.warmup
        options.accumulation = try int("accumulation") ?? options.accumulation
        options.method = try value("method", ScheduleMethod.init)
        options.evaluationData = all("eval-data").last.map(URL.init(fileURLWithPath:))
        options.holdOut = try double("hold-out") ?? options.holdOut
        options.evaluateEvery = try int("eval-every") ?? options.evaluateEvery
        options.checkpointEvery = try int("checkpoint-every") ?? options.checkpointEvery
        options.memoryBudget = try int("memory-budget")
        options.keep = try int("keep")
        options.threads = try int("threads") ?? options.threads
        options.compute = try computeUnits()
        options.prompts = all("prompt")
        options.chat = flag("chat")
        options.seed = try int("seed") ?? options.seed
        options.sampling = try sampling(seed: options.seed)
        return options
    }

    func sampling(seed: Int) throws -> SamplingConfig {
        let usual = SamplingConfig()
        return SamplingConfig(
            temperature: try double("temperature") ?? usual.temperature, topP: try double("top-p") ?? usual.topP, seed: seed,
            maxTokens: try int("max-tokens") ?? usual.maxTokens, stop: all("stop"))
    }
}
