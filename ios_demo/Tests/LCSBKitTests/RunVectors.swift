import XCTest
@testable import LCSBKit

/// What scripts/golden/write_run_vectors.py wrote.
struct RunVectors {
    struct Rates {
        let schedule: LearningRateSchedule
        let steps: Int
        let warmup: Int
        let rates: [Double]
    }

    struct Scheduled {
        let method: ScheduleMethod
        let subsets: Int
        let layers: Int
        let schedule: [Subset]
        let learningRate: Double
    }

    struct AdamWRun {
        let implicitUpdates: ImplicitUpdates
        let norms: [Double]
        let updates: [Int64]
        let sha256: [String]
    }

    static let layers = 3
    static let size = 3072
    private static let trained = [[2], [0, 1], [0, 1, 2], [1]]  // a cycle

    let learningRates: [Rates]
    let schedules: [Scheduled]
    let adamw: [AdamWRun]

    static func read() throws -> RunVectors {
        let reader = try JsonReader(readBounded(Repository.golden("run_vectors.json"), 1 << 24))
        var fields = try Fields(reader.tree(nodes: 1 << 20, unique: true), "run_vectors.json")
        return RunVectors(
            learningRates: try fields.list("learning_rates") { value, place in
                var fields = try Fields(value, place)
                return Rates(
                    schedule: try fields.value("schedule", Fields.one), steps: try fields.int("steps"), warmup: try fields.int("warmup"),
                    rates: try fields.list("rates", Fields.double)
                )
            },
            schedules: try fields.list("schedules") { value, place in
                var fields = try Fields(value, place)
                return Scheduled(
                    method: try fields.value("method", Fields.one), subsets: try fields.int("subsets"), layers: try fields.int("layers"),
                    schedule: try fields.list("schedule", Subset.init), learningRate: try fields.double("learning_rate")
                )
            },
            adamw: try fields.list("adamw") { value, place in
                var fields = try Fields(value, place)
                return AdamWRun(
                    implicitUpdates: try fields.value("implicit_updates", Fields.one), norms: try fields.list("norms", Fields.double),
                    updates: try fields.ints("updates").map(Int64.init), sha256: try fields.strings("sha256")
                )
            }
        )
    }

    /// `element` of the script: exact in float32.
    static func gradient(_ step: Int, _ layer: Int) -> Floats {
        let values = try! Floats(count: size)
        for i in 0..<size {
            let whole = (i * 7919 + step * 104729 + layer * 1_299_709) % 65536 - 32768
            values[i] = Float(Double(whole) / (step % 3 == 0 ? 8_388_608 : 131_072))
        }
        return values
    }

    static func gradients(_ step: Int) -> [Int: Floats] {
        Dictionary(uniqueKeysWithValues: trained[step % trained.count].map { ($0, gradient(step, $0)) })
    }
}
