import XCTest
@testable import LCSBKit

/// Cost and memory are sums over the layers, each as its kind has it.
final class PlanTest: XCTestCase {
    private let manifest = try! inScratch { try TrainingBundle.open(CrossingBundle.write($0)).manifest }
    private let top = Subset(train: [4, 6], propagate: [4, 5, 6])  // pair, give, take
    private let hidden = 4 * CrossingBundle.tokens * CrossingBundle.width

    func testWorkByKind() throws {
        // a forward's work is the length of the kind's name, a backward's 10, of what was kept 100
        let head = 2 * 2 * CrossingBundle.tokens * CrossingBundle.vocabulary * CrossingBundle.width
        let decompressed = 4 * CrossingBundle.vocabulary * CrossingBundle.width
        XCTAssertEqual(try stepCost(manifest, top).flops, 7 * 4 + head + 3 * 10)
        XCTAssertEqual(try stepCost(manifest, top, keep: 2).flops, 7 * 4 + head + 1 * 10 + 2 * 100)
        XCTAssertEqual(try stepCost(manifest, top, keep: 2).decompressedBytes, 7 * 4 + decompressed + 1 * 10 + 2 * 100)
        var rounded = manifest
        rounded.accuracyLevel = 4
        XCTAssertEqual(try stepCost(rounded, top, keep: 2).decompressedBytes, 2 * 4 + decompressed + 1 * 10 + 2 * 100)
        var wide = manifest
        wide.kinds[wide.kinds.firstIndex { $0.name == "pair" }!].flops.backward = 1000
        XCTAssertEqual(try stepCost(wide, top).flops, 7 * 4 + head + 2 * 10 + 1000)
    }

    func testMemoryByKind() throws {
        func terms(_ subsets: [Subset], _ keep: Int, _ accumulation: Int) throws -> [String: Int] {
            try peakTerms(manifest, subsets, keep: keep, accumulation: accumulation)
        }
        let found = try terms([top], 0, 1)
        XCTAssertEqual(found["saved layer inputs"], 3 * hidden)
        XCTAssertEqual(found["kept activations"], 0)
        XCTAssertEqual(found["gradients"], 4 * (6 + 4 + 5))  // the layer between them, which is of another size, has one that nobody reads
        XCTAssertEqual(found["crossing values"], 2 * 3 * hidden)  // two that are bound, one that is dropped, and their gradients
        XCTAssertEqual(try terms([top], 0, 2)["gradients"], 4 * (6 + 4 + 5 + 6 + 5))
        let pairs = Subset(train: [3], propagate: [3, 4])  // of one size
        XCTAssertEqual(try terms([top, pairs], 0, 1)["gradients"], 4 * (6 + 4 + 5))
        XCTAssertEqual(try terms([pairs], 0, 1)["gradients"], 4 * 6)
        XCTAssertEqual(try terms([top], 2, 1)["kept activations"], 2 * hidden + 2)  // give and take keep [T, D], give a float16 more
        XCTAssertEqual(try terms([top], 3, 1)["kept activations"], 2 * hidden + 2)  // a pair nothing
    }

    func testWhatIsBesideTheStepsAndAMargin() throws {
        let terms = try peakTerms(manifest, [top], keep: 0, accumulation: 1)
        let found = try runTerms(manifest, [top], keep: 0, accumulation: 1, samples: false)
        XCTAssertEqual(terms, found.filter { !["beside the steps", "margin"].contains($0.key) })
        XCTAssertEqual(found["beside the steps"], 10 * manifest.kinds.map(\.size).max()! * 4)
        XCTAssertEqual(found["margin"], 8_000_000)  // of a model of next to nothing
        var large = manifest
        large.files["pair_forward.onnx"]!.size = 10_000_000
        let larger = try runTerms(large, [top], keep: 0, accumulation: 1, samples: false)
        let rest = larger.filter { $0.key != "margin" }.values.reduce(0, +)
        XCTAssertEqual(larger["margin"], Int((0.06 * Double(rest)).rounded(.toNearestOrEven)))
        XCTAssertEqual(try predictedPeak(manifest, [top], keep: 0, base: 1000), 1000 + found.values.reduce(0, +))
    }

    func testSessionsOfTheKindsThatRun() throws {
        func sessions(_ name: String, _ keep: Int) throws -> Int {
            func bytes(_ manifest: Manifest) throws -> Int { try peakTerms(manifest, [top], keep: keep, accumulation: 1)["sessions"]! }
            var larger = manifest
            larger.files["\(name).onnx"]!.size = 1_000_000
            return try (bytes(larger) - bytes(manifest)) / 40_000_000
        }
        for kind in ["give", "take", "pair"] {
            XCTAssertEqual(try sessions("\(kind)_forward", 0), 1)
            XCTAssertEqual(try sessions("\(kind)_backward", 0), 1)
            XCTAssertEqual(try sessions("\(kind)_forward_keep", 0), 0)
            XCTAssertEqual(try sessions("\(kind)_backward", 2), kind == "pair" ? 1 : 0)
            XCTAssertEqual(try sessions("\(kind)_backward_kept", 2), kind == "pair" ? 0 : 1)
        }
    }

    /// No library is needed to plan.
    func testMethodsHaveAnArenaEach() throws {
        var methods = manifest
        methods.target = executorchTarget
        let names = methods.graphs.keys
        for (at, name) in names.enumerated() { methods.graphs[name]!.workingBytes = 1 << at }
        let always = ["embed", "adamw", "head", "head_eval", "give_forward", "take_forward", "pair_forward"]
        let recomputed = ["give_backward", "take_backward", "pair_backward"]
        let two = ["pair_backward", "give_forward_keep", "give_backward_kept", "take_forward_keep", "take_backward_kept"]
        for (keep, others) in [(0, recomputed), (2, two)] {
            let (found, sessions) = (
                try peakTerms(methods, [top], keep: keep, accumulation: 1), try peakTerms(manifest, [top], keep: keep, accumulation: 1)
            )
            XCTAssertEqual(found["sessions"], (always + others).map { 1 << names.firstIndex(of: $0)! }.reduce(0, +))
            XCTAssertEqual(found["working set"], 1044)  // 2.9 times the chunk of the head, alone
            for term in ["saved layer inputs", "kept activations", "crossing values", "gradients", "other buffers", "runtime"] {
                XCTAssertEqual(found[term], sessions[term], term)
            }
            let plan = try planRun(methods, [top], base: 1000, budget: nil, keep: keep)
            let whole = try runTerms(methods, [top], keep: keep, accumulation: 1, samples: false)
            XCTAssertEqual(plan.predictedPeakBytes, 1000 + whole.values.reduce(0, +))
        }
    }
}
