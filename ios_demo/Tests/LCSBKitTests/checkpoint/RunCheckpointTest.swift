import Foundation
import XCTest
@testable import LCSBKit

private let layers = 3
private let size = 21  // an odd number of elements: what follows is not aligned
private let golden = Repository.golden("run_checkpoint.safetensors")

/// The run of tests/golden/run_checkpoint.safetensors, which Python wrote (tests/helpers/run_checkpoints.py).
let goldenIdentity = RunIdentity(
    bundle: String(repeating: "a", count: 64), data: String(repeating: "b", count: 64), evaluationData: nil,
    tokens: String(repeating: "c", count: 64), evaluationTokens: nil, date: "2026-02-28T23:05:09", holdOut: 0.1,
    initialAdapter: nil, schedule: [Subset(train: [2], propagate: [2]), Subset(train: [0, 1], propagate: [0, 1, 2])],
    train: TrainConfig(steps: 40, learningRate: 1e-3, accumulation: 2), seed: 5
)

/// The same run at another step.
func checkpointAt(_ step: Int, _ identity: RunIdentity = goldenIdentity) throws -> RunCheckpoint {
    let found = try readCheckpoint(golden, layers, size)
    let place = RunPlace(identity: identity, step: step, sequences: 2 * step, runtime: "onnxruntime 1.29.0", keptLayers: 1)
    let steps = (0..<step * stepColumns).map { Double($0) / 3 }
    return RunCheckpoint(place: place, state: found.state, updates: found.updates, steps: steps, evaluations: found.evaluations)
}

final class RunCheckpointTest: XCTestCase {
    private var directory: URL!
    private var file: URL!
    private var raw: [UInt8]!
    private var headerSize: Int!

    override func setUpWithError() throws {
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("lcsb-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        file = directory.appendingPathComponent("state")
        raw = try readBounded(golden, 1 << 20)
        headerSize = Int(raw.withUnsafeBytes { $0.load(as: UInt64.self) })
    }

    override func tearDownWithError() throws { try FileManager.default.removeItem(at: directory) }

    @discardableResult
    private func read(_ bytes: [UInt8]) throws -> RunCheckpoint {
        unlink(file.path)
        try bytes.withUnsafeBytes(OpenFile(file, O_WRONLY | O_CREAT).write)  // Foundation would wait for the disk
        return try readCheckpoint(file, layers, size)
    }

    func testPythonsFileIsReadAndWrittenAgainWithItsBytes() throws {
        let found = try readCheckpoint(golden, layers, size)
        let place = RunPlace(identity: goldenIdentity, step: 4, sequences: 8, runtime: "onnxruntime 1.32.0", keptLayers: 1)
        XCTAssertEqual(found.place, place)
        XCTAssertEqual(found.updates, [4, 0, 4])
        XCTAssertEqual(found.steps.count, 4 * stepColumns)
        XCTAssertEqual(found.evaluations.count, 4)
        try writeCheckpoint(file, found)
        XCTAssertEqual(try readBounded(file, 1 << 20), raw)
    }

    func testARunOfNoStepsIsReadAsItWasWritten() throws {
        try writeCheckpoint(file, checkpointAt(0))
        XCTAssertEqual(try readCheckpoint(file, layers, size).steps, [])
    }

    func testAllOfAPlaceIsReadAsItWasWritten() throws {
        var identity = goldenIdentity
        (identity.evaluationData, identity.initialAdapter) = ("é\"\\\u{1}", "")
        (identity.evaluationTokens, identity.date) = ("d", "2028-02-29T00:00:59")
        (identity.holdOut, identity.seed) = (1e-7, -3)
        identity.train = TrainConfig(steps: 7, learningRate: 1e-5, lrSchedule: .cosine, warmup: 3, accumulation: 2)
        try writeCheckpoint(file, checkpointAt(3, identity))
        XCTAssertEqual(try readCheckpoint(file, layers, size).place, try checkpointAt(3, identity).place)
    }

    func testAFlippedBitIsNoticedWhereverItIs() {
        for byte in raw.indices where byte % 16 == 3 || byte < 64 {
            var flipped = raw!
            flipped[byte] ^= 1 << UInt8.random(in: 0..<8)
            refusal(.checkpointDamaged) { try read(flipped) }
        }
    }

    func testAFileCutShortIsNoticed() {
        for length in [0, 5, 8, 100, raw.count - 200, raw.count - 1] {
            refusal(.checkpointDamaged) { try read(Array(raw.prefix(length))) }
        }
    }

    private var data: [UInt8] { Array(raw.dropFirst(8 + headerSize)) }

    /// The golden file with another header, or other data, and a digest that is right. `filled`: the header's length is a multiple of 8.
    private func forged(_ old: String, _ new: String, _ data: [UInt8]? = nil, filled: Bool = true) throws -> [UInt8] {
        var header = String(decoding: raw[8..<8 + headerSize], as: UTF8.self)
        let digest = try XCTUnwrap(header.range(of: "\"sha256\":\"")).upperBound
        header.replaceSubrange(digest..<header.index(digest, offsetBy: 64), with: String(repeating: "0", count: 64))
        if !old.isEmpty { header.replaceSubrange(try XCTUnwrap(header.range(of: old), old), with: new) }
        var text = Array(header.utf8)
        if filled { text += [UInt8](repeating: 0x20, count: (8 - text.count % 8) % 8) }
        let whole = withUnsafeBytes(of: UInt64(text.count).littleEndian, Array.init) + text + (data ?? self.data)
        let zeros = try XCTUnwrap(whole.firstRange(of: [UInt8](repeating: UInt8(ascii: "0"), count: 64)))
        return whole[..<zeros.lowerBound] + Array(sha256(whole).utf8) + whole[zeros.upperBound...]
    }

    func testAForgeryThatChangesNothingIsRead() throws { XCTAssertEqual(try read(forged("", "")).place.step, 4) }

    func testAForgedHeaderIsRefusedWithWhatIsWrong() throws {
        let steps = #","steps":{"dtype":"F64","shape":[4,6],"data_offsets":[276,468]}"#
        let cases: [(String, String, String)] = [
            ("lcsb_mobile.checkpoint", "other", "expected lcsb_mobile.checkpoint version 3, found 'other' version '3'"),
            (#""version":"3""#, #""version":"2""#, "version '2'; end the run with the app that began it, or begin another"),
            ("2026-02-28T", "2026-02-29T", "malformed: date: expected one as 2026-02-28T23:05:09, found '2026-02-29T23:05:09'"),
            ("2026-02-28T", "26-02-28T", "malformed: date: expected one as"),
            (#""version":"3""#, #""version":"3","more":"x""#, "its metadata: unknown field 'more'"),
            (#""version":"3""#, #""version":"3","version":"3""#, "the key 'version' stands twice in an object"),
            (#"\"step\":4"#, #"\"step\":5"#, "malformed: step 5 after 8 sequences, expected 10"),
            (#"\"step\":4,\"sequences\":8"#, #"\"step\":-1,\"sequences\":-2"#, "malformed: step -1"),
            (#"\"step\":4,"#, #"\"step\":1000000000000,"#, "malformed: step 1000000000000 after 8 sequences"),
            (#"\"step\":4,\"sequences\":8"#, #"\"step\":4611686018427387904,\"sequences\":-9223372036854775808"#, "malformed: step 46116"),
            (
                #"\"accumulation\":2},\"seed\":5},\"step\":4,\"sequences\":8"#,
                #"\"accumulation\":4611686018427387904},\"seed\":5},\"step\":4,\"sequences\":0"#, "malformed: step 4 after 0 sequences"
            ),
            (#"\"step\":4,"#, #"\"step\":4e9,"#, "malformed: run.step: expected a whole number, found 4e9"),
            (#"\"step\":4,"#, #"\"step\":4,\"next\":5,"#, "run: unknown field 'next'"),
            (#"\"initial_adapter\":null,"#, "", "run.identity: has no initial_adapter"),
            (#"\"accumulation\":2"#, #"\"accumulation\":0"#, "malformed: accumulation: expected at least 1, found 0"),
            (#"\"learning_rate\":0.001"#, #"\"learning_rate\":-1"#, "malformed: lr: expected a positive number, found -1.0"),
            (#"\"learning_rate\":0.001"#, #"\"learning_rate\":1e999"#, "malformed: lr: expected a positive number, found inf"),
            (#"\"constant\""#, #"\"other\""#, "run.identity.train.lr_schedule: expected one of constant, cosine, linear, found 'other'"),
            (#""updates":"#, #""upd4tes":"#, "its header: unknown field 'upd4tes'"),
            (steps, "", "steps is missing"),
            (#""adapter":{"dtype":"F32""#, #""adapter":{"dtype":"F64""#, "adapter: expected F32 [21] at byte 0, found F64"),
            (#""adapter":{"dtype":"F32","shape":[21]"#, #""adapter":{"dtype":"F32","shape":[3,7]"#, "adapter: expected F32 [21]"),
            (#""data_offsets":[168,252]"#, #""data_offsets":[0,84]"#, "second_moment: expected F32 [21] at byte 168"),
            (#""shape":[2,2]"#, #""shape":[1000000000000000,2]"#, "evaluations: expected F64 [2, 2]"),
            (#""shape":[4,6]"#, #""shape":["# + String(repeating: "4,", count: 100_000) + "6]", "steps: expected F64 [4, 6]"),
            (#""shape":[4,6]"#, #""shape":["# + String(repeating: "4,", count: 300_000) + "6]", "a value of too many parts"),
        ]
        for (old, new, reason) in cases {
            let message = refusal(.checkpointDamaged) { try read(forged(old, new)) }
            XCTAssert(message.contains(reason) && message.count < 700, "expected \"\(reason)\" in: \(message)")
        }
        let odd = refusal(.checkpointDamaged) { try read(forged("1.32.0", "1.32", filled: false)) }
        XCTAssert(odd.hasSuffix("malformed: a header of \(headerSize - 2) bytes, expected a multiple of 8"), odd)
    }

    /// Whatever its header says, with a digest that is right: Swift would end the process where it counts too far.
    func testChangedHeadersAreReadOrRefused() throws {
        let marks = Array("0129{}[],:\"\\- en\u{7f}".utf8)
        for number in 0..<3000 as Range<UInt64> {
            var changed = try forged("", "")
            for change in 0...number % 3 {
                let hash = splitmix64(number, change)
                changed[8 + Int(hash % UInt64(headerSize))] = marks[Int(hash >> 32) % marks.count]
            }
            let text = String(decoding: changed[8..<8 + headerSize], as: UTF8.self)
            guard let digest = text.range(of: "\"sha256\":\"[0-9a-f]{64}", options: .regularExpression) else { continue }
            let place = 8 + text.utf8.distance(from: text.startIndex, to: digest.upperBound) - 64
            changed.replaceSubrange(place..<place + 64, with: repeatElement(UInt8(ascii: "0"), count: 64))
            changed.replaceSubrange(place..<place + 64, with: Array(sha256(changed).utf8))
            do {
                try read(changed)
            } catch let error as LcsbError {
                XCTAssertEqual(error.fault, .checkpointDamaged, error.message)
                XCTAssertFalse(error.message.contains("damaged: expected SHA-256"), error.message)
            }
        }
    }

    func testDataOfAnotherSizeIsRefused() throws {
        let longer = data + [UInt8](repeating: 0, count: 7)
        for (bytes, reason) in [(longer, "expected 500 bytes of tensors, found 507"), ([], "holds no tensors")] {
            let message = refusal(.checkpointDamaged) { try read(forged("", "", bytes)) }
            XCTAssert(message.hasSuffix(reason), message)
        }
    }

    func testValuesThatNoRunHasAreRefused() throws {
        func changed<Value: BitwiseCopyable>(_ place: Int, _ value: Value) -> [UInt8] {
            var changed = data
            changed.withUnsafeMutableBytes { $0.storeBytes(of: value, toByteOffset: place, as: Value.self) }
            return changed
        }
        let cases = [
            ("adapter holds NaN or infinite values", changed(12, Float.nan)),
            ("second_moment holds negative values", changed(168, Float(-1))),
            ("updates holds negative values", changed(252, Int64(-1))),
            ("steps holds NaN or infinite values", changed(276, Double.infinity)),
        ]
        for (reason, bytes) in cases {
            XCTAssertEqual(refusal(.checkpointDamaged) { try read(forged("", "", bytes)) }, "\(file.path): \(reason)")
        }
    }

    func testWhatIsNoCheckpointIsRefused() {
        let deep = [UInt8](repeating: UInt8(ascii: "["), count: 200_000)
        func start(_ size: Int) -> [UInt8] { withUnsafeBytes(of: UInt64(size).littleEndian, Array.init) }
        let cases: [([UInt8], String)] = [
            ([], "said to have 0 bytes"),
            ([UInt8](repeating: 0xFF, count: 50), "said to have 18446744073709551615 bytes"),
            (start(5 << 20) + [UInt8](repeating: 0, count: 6 << 20), "said to have 5242880 bytes"),
            (start(2) + Array("{}".utf8), "not a checkpoint, or a damaged one"),
            (start(200_000) + deep, "not a checkpoint, or a damaged one"),
            (start(200_007) + Array("{\"x\": ".utf8) + deep + [UInt8(ascii: "}")], "not a checkpoint, or a damaged one"),
            (start(200_013) + Array("{\"adapter\": ".utf8) + deep + [UInt8(ascii: "}")], "not a checkpoint, or a damaged one"),
        ]
        for (bytes, reason) in cases {
            let message = refusal(.checkpointDamaged) { try read(bytes) }
            XCTAssert(message.contains(reason) && message.count < 500, "expected \"\(reason)\" in: \(message)")
        }
        assertRefused(.checkpointDamaged, "cannot be read: no such file") {
            _ = try readCheckpoint(directory.appendingPathComponent("absent"), layers, size)
        }
    }

    func testAnotherAdapterIsRefused() {
        assertRefused(.checkpointDamaged, "does not fit the bundle's adapter: adapter: expected F32 [24]") {
            _ = try readCheckpoint(golden, layers, 24)
        }
        assertRefused(.checkpointDamaged, "updates: expected I64 [4]") { _ = try readCheckpoint(golden, 4, size) }
    }
}
