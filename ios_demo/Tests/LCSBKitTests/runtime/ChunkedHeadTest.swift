#if os(Linux)
import XCTest
@testable import LCSBKit

/// The head over chunks of its rows, the last of which overlaps the one before, is the head over all rows.
final class ChunkedHeadTest: XCTestCase {
    private struct Found {
        let losses: [Float]
        let g: [Float]
        let logits: [Float]
        let calls: [String]
        let chunks: [Values]
        let between: Int
    }

    private func found(_ name: String, _ target: String, _ rows: Int) throws -> Found {
        var result: Found?
        try withStaticBundle(name, target) { bundle in
            let (manifest, programs) = (bundle.manifest, try StaticPrograms(name))
            let weights = WeightTensors(try programs.bundle.weights)
            var (calls, chunks, between): ([String], [Values], Int) = ([], [], 0)
            let head = try ChunkedHead(
                manifest, manifest.row.holdsWeights ? nil : bundle.weights, rows: rows, between: { between += 1 }
            ) { program, feeds, outputs in
                calls.append(program)
                if program.hasSuffix("_chunk") { chunks.append(feeds) }
                let graph = manifest.graphs[program]!
                var fed = feeds
                for x in graph.inputs + graph.initializers where fed[x.name] == nil { fed[x.name] = weights[x.weight!, 0] }
                try programs.run(program, fed, outputs.filter { name, _ in graph.outputs.contains { $0.name == name } })
            }
            let (tokens, width) = (manifest.seqLen, manifest.model.hiddenSize)
            let (h, g, labels) = (
                try HostTensor("float32", [tokens, width]), try HostTensor("float32", [tokens, width]), try HostTensor("int32", [tokens])
            )
            for at in 0..<h.floats.count { h.floats[at] = Float((at * 7919) % 1009) / 300 - 1.5 }
            labels.write((0..<tokens).map { $0 % 3 == 0 ? ignoredLabel : Int64($0 * 37 % manifest.model.vocabSize) })
            let one = HostTensor("float32", [1, width], h.bytes.part(0, 4 * width))
            let losses = [try head.train(h, labels, g), try head.evaluate(h, labels)]
            result = Found(
                losses: losses, g: g.floats.array, logits: try head.logits(one), calls: calls, chunks: chunks, between: between)
        }
        return result!
    }

    func testAnyChunksGiveTheSame() throws {
        for (name, target) in [("tiny", coreaiTarget), ("tiny", coremlTarget), ("qwen2-untied-int4-head", coreaiTarget)] {
            let vocabulary = try openBundle(name).manifest.model.vocabSize
            let whole = try found(name, target, vocabulary)
            XCTAssertEqual(whole.losses[0], whole.losses[1], accuracy: 1e-6 * whole.losses[0])
            for rows in [100, 37, vocabulary - 1] {
                let parts = try found(name, target, rows)
                for (loss, expected) in zip(parts.losses, whole.losses) { XCTAssertEqual(loss, expected, accuracy: 1e-6 * expected) }
                let most = whole.g.map(abs).max()!
                XCTAssertLessThanOrEqual(zip(parts.g, whole.g).map { abs($0 - $1) }.max()!, 1e-6 * most)
                XCTAssertEqual(parts.logits, whole.logits)
            }
        }
    }

    func testWhatIsCalledWithWhat() throws {
        let vocabulary = try openBundle("tiny").manifest.model.vocabSize
        XCTAssertEqual(vocabulary, 264)
        let fed = try found("tiny", coreaiTarget, 100)
        let chunks = Array(repeating: "_chunk", count: 3)
        let expected = ["head_start"] + chunks.map { "head" + $0 } + ["head_end", "head_start"] + chunks.map { "eval" + $0 }
            + ["eval_end", "logits_start"] + chunks.map { "logits" + $0 }
        XCTAssertEqual(fed.calls, expected)
        XCTAssertEqual(fed.between, 2 * (1 + 3), "before each program over whole sequences but the last")
        let weights = try openBundle("tiny").weights
        for (at, start) in [0, 100, 164].enumerated() {
            let chunk = fed.chunks[at]
            XCTAssertEqual(chunk["packed"]!.shape, [100, 5, 32])
            XCTAssertEqual(chunk["packed"]!.dtype, "int8")
            let mapped = weights.bytes("embed_tokens.weight.packed", 0).pointer + start * 5 * 32
            XCTAssertEqual(memcmp(chunk["packed"]!.bytes.pointer, mapped, 100 * 5 * 32), 0)
            let bias = chunk["bias"]!.floats.array
            XCTAssertEqual(bias.prefix { $0 == -1e30 }.count, at == 2 ? 36 : 0)
            XCTAssertEqual(bias.count { $0 == 0 }, at == 2 ? 64 : 100)
        }
        let held = try found("tiny", coremlTarget, 100)
        let starts = held.chunks.prefix(3).map { $0["start"]!.bytes.raw.load(as: Int32.self) }
        XCTAssertEqual(starts, [0, 100, 164])
        XCTAssertNil(held.chunks[0]["packed"])
    }
}
#endif
