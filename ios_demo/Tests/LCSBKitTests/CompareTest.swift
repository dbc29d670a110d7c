import XCTest
@testable import LCSBKit

private struct Cancelled: Error {}

/// Losses by example on a small bundle with the real runtime: which examples, what each is computed from, and what is refused.
final class CompareTest: XCTestCase {
    private static let lines = (0..<40).map { "{\"text\": \"message \($0) of many, about \(String(repeating: "boats and ", count: $0 % 5))rain\"}\n" }

    /// A run that has learnt its data, a fifth of which it held out, in a directory that is gone afterwards.
    private func withRun<Result>(_ use: (TrainingRun, URL) throws -> Result) throws -> Result {
        try inScratch { folder in
            let data = folder.file("data.jsonl")
            try data.write(Self.lines.joined())
            let options = RunOptions(steps: 20, learningRate: 0.01, holdOut: 0.2, threads: 1, seed: 5)
            let run = TrainingRun(try openBundle("llama"), data: data, directory: folder.file("run"), options)
            _ = try run.run(RunControl(), Silent())
            return try use(run, folder)
        }
    }

    func testARunsVerdictIsThatOnWhatItHoldsOut() throws {
        try withRun { run, folder in
            func compare(seed: Int) throws -> Comparison {
                let options = CompareOptions(holdOut: 0.2, seed: seed, threads: 1)
                return try compareAdapters(run.bundle, data: run.data, before: nil, after: run.adapterFile, scratch: folder, options)
            }
            let found = try run.compare()
            let same = try compare(seed: 5)
            XCTAssertEqual(found.toJson(), same.toJson())
            XCTAssertEqual(found.verdict.examples, 8)
            XCTAssertEqual(found.verdict.outcome, .better)
            XCTAssertEqual(found.verdict, try judge(before: found.lossesBefore, after: found.lossesAfter))
            XCTAssertNotEqual(try compare(seed: 6).lossesBefore, found.lossesBefore)
            let back = try run.compare(before: run.adapterFile)
            XCTAssertEqual(back.lossesBefore, found.lossesAfter)
            XCTAssertEqual(back.lossesBefore, back.lossesAfter)
            XCTAssertEqual(back.verdict.outcome, .noDifference)
        }
    }

    func testEachExampleIsComputedByItself() throws {
        try withRun { run, folder in
            let (bundle, held) = (run.bundle, folder.file("held.jsonl"))
            try held.write(Self.lines.prefix(8).joined())
            var told: [[Int]] = []
            let options = CompareOptions(holdOut: nil, examples: 6, threads: 1)
            let found = try compareAdapters(
                bundle, data: held, before: nil, after: run.adapterFile, scratch: folder, options, progress: { told.append([$0, $1]) })
            let (adapter, runner) = (try initialAdapter(bundle), try makeRunner(bundle, threads: 1))
            let (seqLen, tokenizer) = (bundle.manifest.seqLen, try bundle.tokenizer)
            let expected = try [0, 1, 2, 4, 5, 6].map { number in
                let line = folder.file("line.jsonl")
                try line.write(Self.lines[number])
                let batches = Array(pack(try readDataset(line, tokenizer, nil, seqLen, folder), seqLen, tokenizer.padId))
                XCTAssertEqual(batches.count, 1)
                return Double(try runner.evaluate(batches[0], adapter))
            }
            XCTAssertEqual(found.lossesBefore, expected)
            XCTAssertEqual(told, (1...12).map { [$0, 12] })
        }
    }

    func testItIsCancelledBetweenLayersAndBetweenExamples() throws {
        try withRun { run, _ in
            let layers = Locked(0)
            XCTAssertThrowsError(
                try run.compare(goOn: {
                    let count = layers.with { layers in
                        layers += 1
                        return layers
                    }
                    if count > 4 { throw Cancelled() }
                })) { XCTAssert($0 is Cancelled) }
            XCTAssertEqual(layers.with { $0 }, 5)
            var examples = 0
            XCTAssertThrowsError(
                try run.compare(progress: { done, _ in
                    examples = done
                    if done == 2 { throw Cancelled() }
                })) { XCTAssert($0 is Cancelled) }
            XCTAssertEqual(examples, 2)
        }
    }

    func testWhatCannotBeComparedIsRefusedBeforeAnythingIsComputed() throws {
        try withRun { run, folder in
            let (cut, other) = (folder.file("cut.safetensors"), folder.file("other.safetensors"))
            try cut.write(run.adapterFile.content.dropLast(4))
            let stranger = try openBundle("qwen2")
            try writeAdapter(other, stranger.manifest.adapter, initialAdapter(stranger))
            func compare(_ before: URL?, _ after: URL, _ options: CompareOptions = CompareOptions(), data: URL? = nil) throws {
                _ = try compareAdapters(
                    run.bundle, data: data ?? run.data, before: before, after: after, scratch: folder, options,
                    goOn: { XCTFail("a layer was computed") })
            }
            for (file, what) in [(cut, "cut.safetensors"), (other, "was trained on another base"), (folder.file("absent"), "no such file")] {
                assertRefused(.adapter, what) { try compare(nil, file) }
                assertRefused(.adapter, what) { try compare(file, run.adapterFile) }
            }
            assertRefused(.option, "examples: expected at least 6, found 5") { try compare(nil, run.adapterFile, CompareOptions(examples: 5)) }
            assertRefused(.option, "hold-out: expected more than 0") { try compare(nil, run.adapterFile, CompareOptions(holdOut: 1)) }
            let one = folder.file("one.jsonl")
            try one.write(Self.lines[0])
            assertRefused(.dataEmpty, "has one example") { try compare(nil, run.adapterFile, data: one) }
            let none = TrainingRun(run.bundle, data: run.data, directory: folder.file("none"), RunOptions(steps: 1))
            assertRefused(.adapter, "no such file") { _ = try none.compare() }
            XCTAssertFalse(FileManager.default.fileExists(atPath: folder.file("none").path))
        }
    }
}

private final class Silent: RunObserver {}
