import Foundation

let traceBytes = 4 << 20  // that are read here: 7 kB are usual, half a megabyte at 8,192 tokens; Python takes 16 MiB
private let widestTolerance = 5e-2  // in use: of bundles whose forward rounds activations to int8

/// `batch`: index into `GoldenTrace.batches`. `gradientNorms`: of the gradient of each layer in `subset.train`, in its order.
struct GoldenStep: Sendable {
    let subset: Subset
    let batch: Int
    let loss: Double
    let gradientNorms: [Double]
}

/// Steps that the eager reference computed at export. `steps` are single steps at the initial adapter. `run` are consecutive optimizer
/// steps from it, at `learningRate` and with the manifest's AdamW; each records loss and gradient before its update. The tolerances are
/// relative: of a step's loss and gradient norms, and of the run's losses.
struct GoldenTrace: Sendable {
    let batches: [Batch]  // all of length T
    let steps: [GoldenStep]
    let learningRate: Double
    let run: [GoldenStep]
    var stepTolerance = 1e-4
    var runTolerance = 1e-3

    /// Throws BUNDLE_UNREADABLE where it cannot be read, or is not of the manifest's model.
    static func open(_ file: URL, _ manifest: Manifest) throws -> GoldenTrace {
        let trace: GoldenTrace
        func malformed(_ reason: String) -> LcsbError {
            unreadable("\(file.path): not a readable golden trace (\(oneLine(reason))); export the bundle again")
        }
        do {
            trace = try GoldenTrace(parsed(readBounded(file, traceBytes)), "the trace")
        } catch let error as IoError {
            throw malformed(error.reason)
        } catch let error as JsonError {
            throw malformed(error.reason)
        } catch let error as RecordError {
            throw malformed(error.reason)
        }
        let faults = try firstFaults(most: 8 * mostFaults) { try trace.check(manifest, $0) }
        if !faults.isEmpty { throw unreadable("\(file.path): not a golden trace of this bundle: \(some(faults)); export the bundle again") }
        return trace
    }

    private func check(_ manifest: Manifest, _ report: Report) throws {
        for (number, batch) in batches.enumerated() { try checkBatch(batch, manifest) { try report("batch \(number): \($0)") } }
        for (number, step) in (steps + run).enumerated() {
            if let fault = step.subset.fault(manifest.model.numHiddenLayers) { try report("step \(number): \(fault)") }
            if !batches.indices.contains(step.batch) {
                try report("step \(number): expected one of \(batches.count) batches, found \(step.batch)")
            }
            let norms = step.gradientNorms
            if norms.count != step.subset.train.count || !norms.allSatisfy({ $0 >= 0 }) {
                try report("step \(number): expected the norms of \(step.subset.train.count) layers, found \(norms.prefix(20))")
            }
        }
        if !(learningRate > 0 && learningRate <= 1) {
            try report("learning_rate: expected more than 0 and at most 1, found \(learningRate)")
        }
        for (name, value) in [("step_tolerance", stepTolerance), ("run_tolerance", runTolerance)]
        where !(value >= 0 && value <= widestTolerance) {
            try report("\(name): expected 0 to \(widestTolerance), found \(value)")
        }
    }
}

private func checkBatch(_ batch: Batch, _ manifest: Manifest, _ report: Report) throws {
    let (tokens, vocabulary) = (manifest.seqLen, manifest.model.vocabSize)
    let arrays = [
        ("input_ids", batch.inputIds, vocabulary), ("labels", batch.labels, vocabulary),
        ("position_ids", batch.positionIds, tokens), ("segment_ids", batch.segmentIds, tokens),
    ]
    for (name, values, most) in arrays {
        if values.count != tokens {
            try report("\(name): expected \(tokens) numbers, found \(values.count)")
        } else if !values.allSatisfy({ ($0 >= 0 && $0 < most) || (name == "labels" && $0 == ignoredLabel) }) {
            try report("\(name): expected 0 to \(most - 1), found \(values.min() ?? 0) to \(values.max() ?? 0)")
        }
    }
    if batch.labels.allSatisfy({ $0 == ignoredLabel }) { try report("labels: none is counted") }
}

// As data; they throw RecordError.

extension GoldenStep {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        subset = try fields.value("subset", Subset.init)
        batch = try fields.int("batch")
        loss = try fields.double("loss")
        gradientNorms = try fields.list("gradient_norms", Fields.double)
        try fields.finish()
    }
}

extension GoldenTrace {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        batches = try fields.list("batches", Batch.init)
        steps = try fields.list("steps", GoldenStep.init)
        learningRate = try fields.double("learning_rate")
        run = try fields.list("run", GoldenStep.init)
        stepTolerance = try fields.optional("step_tolerance", Fields.double) ?? stepTolerance
        runTolerance = try fields.optional("run_tolerance", Fields.double) ?? runTolerance
        try fields.finish()
    }
}
