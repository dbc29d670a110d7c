import XCTest
@testable import LCSBKit

/// What Python predicts and writes for the same bundles (scripts/testing/export_test_bundles.py writes it beside them).
final class RuntimeGoldenTest: XCTestCase {
    private struct WrittenText {
        let text: String
        let tokens: Int
        let ended: String
    }

    /// `peaks`: by kept layers, base 0. `accumulating`: nothing kept, base 1000. `samples`: with texts. `large`: with a head that needs more than a block.
    /// `timeShares`: of each step, keeping none, one and all.
    private struct Expected {
        let peaks: [Int]
        let accumulating: Int
        let samples: Int
        let large: Int
        let timeShares: [[Double]]
        let texts: [(prompt: String, written: WrittenText)]

        init(_ value: Json, _ place: String) throws {
            var fields = try Fields(value, place)
            (peaks, accumulating, large) = (try fields.ints("peaks"), try fields.int("accumulating"), try fields.int("large"))
            samples = try fields.int("samples")
            timeShares = try fields.list("time_shares") { try Fields.list($0, $1, Fields.double) }
            texts = try fields.entries("texts") { value, place in
                var fields = try Fields(value, place)
                return WrittenText(text: try fields.string("text"), tokens: try fields.int("tokens"), ended: try fields.string("ended"))
            }.map { ($0.key, $0.value) }
            try fields.finish()
        }
    }

    private let golden: [(key: String, value: Expected)] = try! {
        let reader = try JsonReader(readBounded(TestBundles.directory.appendingPathComponent("runtime.json"), 1 << 22))
        return try Fields.entries(reader.tree(nodes: 1 << 16, unique: true), "runtime.json", Expected.init)
    }()

    func testPredictedMemoryAndTimeArePythons() throws {
        XCTAssertEqual(golden.map(\.key).sorted(), TestBundles.directories.map(\.lastPathComponent).sorted())
        for (name, expected) in golden {
            let manifest = try openBundle(name).manifest
            let layers = manifest.model.numHiddenLayers
            func peak(_ manifest: Manifest, _ keep: Int, _ base: Int = 0, _ accumulation: Int = 1) throws -> Int {
                try predictedPeak(manifest, manifest.schedule, keep: keep, base: base, accumulation: accumulation)
            }
            XCTAssertEqual(try (0...layers).map { try peak(manifest, $0) }, expected.peaks, name)
            XCTAssertEqual(try peak(manifest, 0, 1000, 2), expected.accumulating, name)
            XCTAssertEqual(try predictedPeak(manifest, manifest.schedule, keep: 0, base: 0, samples: true), expected.samples, name)
            var large = manifest
            (large.model.vocabSize, large.model.hiddenSize) = (151_936, 896)
            XCTAssertEqual(try peak(large, 0), expected.large, name)
            var subsets: [Subset] = []
            for subset in manifest.schedule where !subsets.contains(subset) { subsets.append(subset) }
            for (keep, shares) in zip([0, 1, layers], expected.timeShares) {
                let found = try subsets.map { try timeShare(manifest, $0, keep: keep) }
                XCTAssertEqual(found.count, shares.count)
                for (share, wanted) in zip(found, shares) { XCTAssertEqual(share, wanted, accuracy: 1e-12 * wanted, name) }
            }
        }
    }

    func testWhatABudgetAllows() throws {
        let manifest = try openBundle("llama-20-steps").manifest
        let layers = manifest.model.numHiddenLayers
        let peaks = try (0...layers).map { try predictedPeak(manifest, manifest.schedule, keep: $0, base: 1_000_000) }
        func plan(_ budget: Int?, _ keep: Int? = nil) throws -> Plan {
            try planRun(manifest, manifest.schedule, base: 1_000_000, budget: budget, keep: keep)
        }
        XCTAssertEqual(try plan(nil).keep, 0)
        XCTAssertEqual(try plan(nil, 3).keep, 3)
        XCTAssertEqual(try plan(nil, 1000).keep, layers)
        XCTAssertEqual(try plan(Int.max).keep, layers)
        XCTAssertEqual(try plan(peaks[2]).keep, peaks.lastIndex { $0 <= peaks[2] })
        XCTAssertEqual(try plan(nil).leastBytes, peaks.min())
        XCTAssertEqual(try plan(peaks[0], 0).predictedPeakBytes, peaks[0])
        let message = refusal(.memoryTooSmall) { _ = try plan(peaks.min()! - 1) }
        let least = "the run is predicted to need at least \(megabytes(peaks.min()!)), 1.0 MB of it this process"
        XCTAssertTrue(message.hasPrefix(least), message)
        let most = peaks.firstIndex(of: peaks.max()!)!
        let kept = refusal(.memoryTooSmall) { _ = try plan(peaks[most] - 1, most) }
        let taken = "keeping \(most) layers is predicted to take \(megabytes(peaks[most]))"
        XCTAssertTrue(kept.hasPrefix(taken) && kept.contains("nothing was run"), kept)
        refusal(.option) { _ = try plan(nil, -1) }
    }

    // Text

    func testGreedyTextIsPythons() throws {
        for (name, expected) in golden {
            let bundle = try openBundle(name)
            let runner = try makeRunner(bundle, threads: 1)
            for (prompt, written) in expected.texts {
                let found = try generate(runner, bundle, initialAdapter(bundle), prompt, SamplingConfig(temperature: 0, maxTokens: 12))
                XCTAssertEqual(Array(try found.rest().utf8), Array(written.text.utf8), "\(name) \(prompt)")
                XCTAssertEqual(found.tokens, written.tokens)
                XCTAssertEqual(found.ended?.rawValue, written.ended.uppercased().replacingOccurrences(of: " ", with: "_"))
                XCTAssertTrue(found.prefillSeconds > 0 && found.decoded == found.tokens - (found.ended == .endToken ? 0 : 1))
            }
        }
    }

    func testSampledTextIsTheSeedsAndEndsWhereItShould() throws {
        let bundle = try openBundle("tiny")
        let (runner, adapter) = (try makeRunner(bundle, threads: 1), try initialAdapter(bundle))
        func text(_ config: SamplingConfig) throws -> (text: String, end: TextEnd?) {
            let written = try generate(runner, bundle, adapter, "the ", config)
            return (try written.rest(), written.ended)
        }
        let hot = SamplingConfig(temperature: 1, topP: 1, maxTokens: 20)
        XCTAssertEqual(try text(hot).text, try text(hot).text)
        var other = hot
        other.seed = 1
        XCTAssertNotEqual(try text(hot).text, try text(other).text)
        XCTAssertEqual(try text(SamplingConfig(temperature: 0)).text, try text(SamplingConfig(temperature: 2, topP: 1e-9)).text)
        let cut = try text(SamplingConfig(temperature: 0, stop: ["zzz", "r is"]))
        XCTAssertEqual(cut.text, "serve")
        XCTAssertEqual(cut.end, .stopText)
        let whole = try text(SamplingConfig(temperature: 0, maxTokens: 1000))
        XCTAssertTrue(whole.text.hasPrefix("server is a ") && whole.end == .sequenceFull, whole.text)
        let stopped = try text(SamplingConfig(temperature: 0, maxTokens: 12, stop: [" the"]))
        XCTAssertEqual(stopped.text.trimmingCharacters(in: .whitespaces), "server is a")
        refusal(.option) { _ = try generate(runner, bundle, adapter, String(repeating: "x", count: 200), hot) }
        refusal(.option) { _ = try generate(runner, bundle, adapter, "", hot) }
        let wrong = [
            SamplingConfig(maxTokens: 0), SamplingConfig(temperature: .nan), SamplingConfig(topP: 0), SamplingConfig(seed: -1),
            SamplingConfig(stop: [""]),
        ]
        for config in wrong { refusal(.option) { try config.check() } }
    }

    func testSampling() throws {
        let logits: [Float] = [0, 3, 1, 3, 2]
        func tokens(_ config: SamplingConfig) throws -> [Int] {
            var random = JavaRandom(seed: 0)
            return try (0..<4000).map { _ in try sample(logits, config, &random) }
        }
        XCTAssertEqual(Set(try tokens(SamplingConfig(temperature: 0))), [1])
        XCTAssertEqual(Set(try tokens(SamplingConfig(temperature: 1, topP: 0.3))), [1])  // 0.38 each of the two likeliest
        XCTAssertEqual(Set(try tokens(SamplingConfig(temperature: 1, topP: 0.5))), [1, 3])
        XCTAssertEqual(Set(try tokens(SamplingConfig(temperature: 1, topP: 0.85))), [1, 3, 4])
        let found = try tokens(SamplingConfig(temperature: 1, topP: 1))
        let weights = logits.map { exp(Double($0)) }
        for token in logits.indices {
            let share = Double(found.filter { $0 == token }.count) / 4000
            XCTAssertEqual(share, weights[token] / weights.reduce(0, +), accuracy: 0.03)
        }
        var random = JavaRandom(seed: 0)
        refusal(.runtimeFailed) { _ = try sample([1, .nan], SamplingConfig(), &random) }
    }

    func testTheGeneratorIsJavas() {
        var random = JavaRandom(seed: 0)
        XCTAssertEqual((0..<3).map { _ in random.nextDouble() }, [0.730967787376657, 0.24053641567148587, 0.6374174253501083])
    }

    func testStopTextsAcrossPieces() {
        func pieces(_ stop: [String], _ grown: String...) -> [String] {
            let texts = StopTexts(stop)
            let found = grown.map { texts.met ? [] : texts.grow(Array($0.utf8)) }
            let rest = texts.met ? [] : texts.end(Array(grown.last!.utf8))
            return (found + [rest]).map { String(decoding: $0, as: UTF8.self) }
        }
        XCTAssertEqual(pieces(["bc"], "a", "ab", "abx"), ["a", "", "bx", ""])
        XCTAssertEqual(pieces(["bc"], "a", "ab", "abcd"), ["a", "", "", ""])
        XCTAssertEqual(pieces(["bc"], "a", "ab"), ["a", "", "b"])
        XCTAssertEqual(pieces([], "", "é"), ["", "é", ""])
        XCTAssertEqual(pieces(["cd", "bcde", "b"], "xbcde"), ["x", ""])
        XCTAssertEqual(pieces(["e\u{301}"], "\u{E9}"), ["\u{E9}", ""])  // another text, whatever Unicode says
        XCTAssertFalse(StopTexts(["b"]).met)
    }
}
