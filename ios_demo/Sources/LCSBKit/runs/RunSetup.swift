import Foundation

let evaluationSequences = 16  // that are evaluated at most

/// What a run needs, from what it was asked for. Nothing is trained here.
struct RunSetup {
    let options: RunOptions
    let bundle: TrainingBundle
    let method: ScheduleMethod
    let schedule: [Subset]
    let train: TrainConfig
    private let format: ChatFormat?

    /// The local time at which the run began; of one that goes on it is its checkpoint's.
    var date = LocalTime().text

    /// As the run's day has it.
    var chatFormat: ChatFormat? { format?.at(date) }
    var chat: Chat? { options.chat ? chatFormat.map { Chat($0) } : nil }

    /// Throws OPTION, CHAT_UNSUPPORTED.
    init(_ options: RunOptions, _ bundle: TrainingBundle) throws {
        (self.options, self.bundle) = (options, bundle)
        try options.sampling.check()
        format = try bundle.chat
        if options.chat && format == nil {
            let message = "chat: the bundle says nothing of how messages become text; give the prompts as they are, or export it again"
            throw LcsbError(.chatUnsupported, message)
        }
        let manifest = bundle.manifest
        let layers = manifest.model.numHiddenLayers
        if let other = options.method, other != manifest.scheduleConfig.method {
            method = other
            schedule = try makeSchedule(other, manifest.scheduleConfig.subsets, layers)
        } else {
            (method, schedule) = (manifest.scheduleConfig.method, manifest.schedule)
        }
        let rate = options.learningRate ?? defaultLearningRate(schedule, layers)
        train = TrainConfig(
            steps: options.steps, learningRate: rate, lrSchedule: options.lrSchedule, warmup: options.warmup, accumulation: options.accumulation)
        try train.check()
        for (name, value, least) in [
            ("checkpoint-every", options.checkpointEvery, 1), ("evaluate-every", options.evaluateEvery, 0), ("threads", options.threads, 0),
        ] where value < least {
            throw LcsbError(.option, "\(name): expected at least \(least), found \(value)", [name])
        }
    }

    /// Bytes of storage that the run takes at once: its state twice, three checkpoints (one is being written) and the adapter.
    var storage: Int {
        let adapter = 4 * bundle.manifest.adapter.size
        let header = 1 << 16  // of a checkpoint
        return (2 + 3) * 3 * adapter + adapter + 3 * options.steps * stepColumns * 8 + 3 * header
    }

    /// Throws ADAPTER where the adapter to begin with cannot be read.
    func identity(_ data: RunData) throws -> RunIdentity {
        RunIdentity(
            bundle: bundle.manifest.identity ?? bundle.digest,
            data: data.training.sha256,
            evaluationData: options.evaluationData == nil ? nil : data.heldOut.sha256,
            tokens: data.training.tokensSha256,
            evaluationTokens: options.evaluationData == nil ? nil : data.heldOut.tokensSha256,
            date: date,
            holdOut: options.holdOut,
            initialAdapter: try options.initialAdapter.map(adapterDigest),
            schedule: schedule,
            train: train,
            seed: options.seed)
    }
}

/// `evaluation`: the first sequences of `heldOut`, packed in file order.
struct RunData {
    let training: Dataset
    let heldOut: Dataset
    let evaluation: [Batch]

    /// `spool`: a directory for temporary files. `check` is called now and then: it may throw. Throws DATA_…, TOKENIZER_…, CHAT_…, OPTION,
    /// STORAGE_….
    init(_ setup: RunSetup, _ data: URL, spool: URL, check: () throws -> Void) throws {
        let options = setup.options
        let examples = try setup.read(data, spool, check)
        if let file = options.evaluationData {
            (training, heldOut) = (examples, try setup.read(file, spool, check))
        } else {
            (training, heldOut) = try holdOut(examples, options.holdOut, seed: options.seed)
        }
        let bundle = setup.bundle
        evaluation = Array(pack(heldOut, bundle.manifest.seqLen, try bundle.tokenizer.padId).prefix(evaluationSequences))
    }
}

/// The held-out examples of `RunData` alone; arguments and errors are its.
func readHeldOut(_ setup: RunSetup, _ data: URL, spool: URL, check: () throws -> Void) throws -> Dataset {
    if let file = setup.options.evaluationData { return try setup.read(file, spool, check) }
    return try holdOut(setup.read(data, spool, check), setup.options.holdOut, seed: setup.options.seed).1
}

extension RunSetup {
    fileprivate func read(_ file: URL, _ spool: URL, _ check: () throws -> Void) throws -> Dataset {
        try readDataset(file, bundle.tokenizer, chatFormat, bundle.manifest.seqLen, spool) { _, _ in try check() }
    }
}

/// Throws ADAPTER.
private func adapterDigest(_ file: URL) throws -> String {
    do {
        return try sha256(file)
    } catch let error as IoError {
        throw LcsbError(.adapter, "\(file.path): cannot be read: \(oneLine(error.reason))", [file.lastPathComponent])
    }
}
