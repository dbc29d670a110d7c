// What a checkpoint says of its run, as JSON: docs/run_checkpoint.md.

/// What decides a run's result, the runtime and its threads aside; the fields are those of docs/run_checkpoint.md. `date`: a LocalTime's text.
public struct RunIdentity: Sendable, Equatable {
    public var bundle: String
    public var data: String
    public var evaluationData: String?
    public var tokens: String
    public var evaluationTokens: String?
    public var date: String
    public var holdOut: Double
    public var initialAdapter: String?
    public var schedule: [Subset]
    public var train: TrainConfig
    public var seed: Int
}

/// How far a run came. `sequences`: how many the data's endless stream has given. `runtime`, `keptLayers`: of the last step.
public struct RunPlace: Sendable, Equatable {
    public var identity: RunIdentity
    public var step: Int
    public var sequences: Int
    public var runtime: String
    public var keptLayers: Int
}

extension RunPlace {
    /// Throws RecordError.
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        (identity, step) = (try RunIdentity(fields.required("identity"), fields.place("identity")), try fields.int("step"))
        (sequences, runtime) = (try fields.int("sequences"), try fields.string("runtime"))
        keptLayers = try fields.int("kept_layers")
        try fields.finish()
    }

    /// With the bytes that the desktop writes.
    var json: String {
        object([
            ("identity", identity.json), ("step", "\(step)"), ("sequences", "\(sequences)"), ("runtime", asciiJson(runtime)),
            ("kept_layers", "\(keptLayers)"),
        ])
    }
}

extension RunIdentity {
    fileprivate init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        func nullable(_ name: String) throws -> String? {
            let value = try fields.required(name)
            return value.isNull ? nil : try Fields.string(value, fields.place(name))
        }
        (bundle, data) = (try fields.string("bundle"), try fields.string("data"))
        (evaluationData, initialAdapter) = (try nullable("evaluation_data"), try nullable("initial_adapter"))
        (tokens, evaluationTokens, date) = (try fields.string("tokens"), try nullable("evaluation_tokens"), try fields.string("date"))
        (holdOut, seed) = (try fields.double("hold_out"), try fields.int("seed"))
        schedule = try fields.list("schedule", Subset.init)
        train = try trainConfig(fields.required("train"), fields.place("train"))
        try fields.finish()
    }

    fileprivate var json: String {
        object([
            ("bundle", asciiJson(bundle)),
            ("data", asciiJson(data)),
            ("evaluation_data", evaluationData.map(asciiJson) ?? "null"),
            ("tokens", asciiJson(tokens)),
            ("evaluation_tokens", evaluationTokens.map(asciiJson) ?? "null"),
            ("date", asciiJson(date)),
            ("hold_out", msgspecDouble(holdOut)),
            ("initial_adapter", initialAdapter.map(asciiJson) ?? "null"),
            ("schedule", list(schedule.map { object([("train", list($0.train)), ("propagate", list($0.propagate))]) })),
            ("train", object([
                ("steps", "\(train.steps)"),
                ("learning_rate", msgspecDouble(train.learningRate)),
                ("lr_schedule", asciiJson(train.lrSchedule.rawValue)),
                ("warmup", "\(train.warmup)"),
                ("accumulation", "\(train.accumulation)"),
            ])),
            ("seed", "\(seed)"),
        ])
    }
}

private func trainConfig(_ value: Json, _ place: String) throws -> TrainConfig {
    var fields = try Fields(value, place)
    let train = TrainConfig(
        steps: try fields.int("steps"), learningRate: try fields.double("learning_rate"),
        lrSchedule: try Fields.one(fields.required("lr_schedule"), fields.place("lr_schedule")),
        warmup: try fields.int("warmup"), accumulation: try fields.int("accumulation")
    )
    try fields.finish()
    return train
}

private func object(_ members: [(name: String, value: String)]) -> String {
    "{" + members.map { "\"\($0.name)\":\($0.value)" }.joined(separator: ",") + "}"
}

private func list(_ elements: [some CustomStringConvertible]) -> String { "[" + elements.map(\.description).joined(separator: ",") + "]" }
