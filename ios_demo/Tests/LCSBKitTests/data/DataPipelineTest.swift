import Foundation
import XCTest
@testable import LCSBKit

/// docs/data.md's lines and files' beginnings, and all from *Order* on, against tests/golden/data_pipeline.json.
final class DataPipelineTest: XCTestCase {
    private let vectors = Result { try Json(content: readBounded(Repository.golden("data_pipeline.json"), 1 << 20)) }

    private func cases(_ name: String) throws -> [Json] {
        let cases = try vectors.get()[name]?.array ?? []
        XCTAssertFalse(cases.isEmpty, name)
        return cases
    }

    /// As scripts/golden/write_data_vectors.py: example e of n tokens is 100 e + t; the first third is not counted.
    private func dataset(_ lengths: [Int], _ seqLen: Int, _ spool: URL) throws -> Dataset {
        try dataset(lengths.enumerated().map { number, length in
            let ids = (0..<length).map { 100 * number + $0 }
            return Example(inputIds: ids, labels: (0..<length).map { $0 >= length / 3 && $0 < length - 1 ? ids[$0] + 1 : -100 })
        }, seqLen, spool)
    }

    private func dataset(_ examples: [Example], _ seqLen: Int, _ spool: URL) throws -> Dataset {
        var writer = try DatasetWriter(seqLen, spool)
        for example in examples { try writer.add(LineExample(example: example, form: .text)) }
        return try writer.dataset(URL(fileURLWithPath: "vectors"), "")
    }

    private func members(_ batch: Batch) -> [Int] {
        let places = batch.inputIds.indices
        let firsts = places.filter { batch.positionIds[$0] == 0 }.map { Int(batch.inputIds[$0]) / 100 }
        let padded = places.allSatisfy { batch.segmentIds[$0] != batch.segmentIds.last || batch.labels[$0] == ignoredLabel }
        return padded ? firsts.dropLast() : firsts
    }

    private func bytes(_ content: some Sequence<UInt8>) throws -> Bytes {
        let content = Array(content)
        let bytes = try Bytes(count: content.count)
        UnsafeMutableRawBufferPointer(start: bytes.pointer, count: bytes.count).copyBytes(from: content)
        return bytes
    }

    func testRecords() throws {
        for vector in try cases("records") {
            let text = vector["line"]!.string!
            do {
                let (line, furtherKeys) = try decodeLine(bytes(text.utf8))
                switch line {
                case .text(let found): XCTAssertEqual(found, vector["text"]?.string, text)
                case .completion(let prompt, let completion):
                    XCTAssertEqual([prompt, completion], [vector["prompt"]?.string, vector["completion"]?.string], text)
                case .chat(let messages):
                    let turns = vector["turns"]?.array?.map { $0.array!.map { $0.string! } }
                    XCTAssertEqual(messages.map { [$0.role, $0.content] }, turns, text)
                }
                XCTAssertEqual(furtherKeys, vector["further_keys"]?.array?.map { $0.string! }, text)
            } catch let error as LineFault {
                XCTAssertEqual(error.reason, vector["reason"]?.string, text)
            }
        }
    }

    func testFileStarts() throws {
        for vector in try cases("file_starts") {
            let digits = Array(vector["start"]!.string!)
            let start = try bytes(stride(from: 0, to: digits.count, by: 2).map { UInt8(String(digits[$0...$0 + 1]), radix: 16)! })
            let answer = withExtendedLifetime(start) { otherFormat(start.units, vector["file"]!.string!) }
            XCTAssertEqual(answer, vector["answer"]?.string)
        }
    }

    func testWhichEndsAreDoubled() throws {
        for vector in try cases("doubled_ends") {
            XCTAssertEqual(hasDoubledEnds(ints(vector["ids"]!), vector["bos"]?.int, vector["eos"]?.int), vector["doubled"]!.bool!)
        }
    }

    func testGenerators() throws {
        for vector in try cases("splitmix64") {
            let outputs = vector["outputs"]!.array!.map { $0.string! }
            let seed = UInt64(bitPattern: Int64(vector["seed"]!.int!))
            XCTAssertEqual(outputs.indices.map { padded(String(splitmix64(seed, UInt64($0)), radix: 16), 16) }, outputs)
        }
    }

    func testOrders() throws {
        try inScratch { spool in
            for vector in try cases("orders") {
                let order = try shuffled(vector["count"]!.int!, seed: vector["seed"]!.int!, epoch: vector["epoch"]!.int!, spool)
                XCTAssertEqual((0..<order.count).map { Int(order[$0]) }, ints(vector["order"]!))
            }
        }
    }

    func testHeldOutParts() throws {
        try inScratch { spool in
            for vector in try cases("held_out") {
                let (count, heldOut) = (vector["count"]!.int!, ints(vector["held_out"]!))
                let whole = try dataset([Int](repeating: 4, count: count), 4, spool)
                let parts = try holdOut(whole, vector["share"]!.double!, seed: vector["seed"]!.int!)
                func numbers(_ part: Dataset) -> [Int] { (0..<part.count).map { part.example($0).inputIds[0] / 100 } }
                XCTAssertEqual(numbers(parts.evaluation), heldOut)
                XCTAssertEqual(numbers(parts.training), (0..<count).filter { !heldOut.contains($0) })
            }
            let one = try dataset([4], 4, spool)
            assertRefused(.dataEmpty, "has one example; expected at least two") { _ = try holdOut(one, 0.5, seed: 0) }
            assertRefused(.option, "hold-out: expected more than 0 and less than 1, found 1.0") { _ = try holdOut(one, 1, seed: 0) }
            assertRefused(.option, "found nan") { _ = try holdOut(one, .nan, seed: 0) }
        }
    }

    func testPacking() throws {
        for vector in try cases("packing") {
            let sizes = ints(vector["sizes"]!)
            let found = Assignment(sizes.count, { $0 }, { sizes[$0] }, vector["seq_len"]!.int!, open: vector["open_sequences"]!.int!)
            XCTAssertEqual(Array(found), vector["sequences"]!.array!.map(ints))
        }
    }

    func testStreamsWithACursor() throws {
        try inScratch { spool in
            for vector in try cases("epochs") {
                let (seqLen, sequences) = (vector["seq_len"]!.int!, vector["sequences"]!.array!.map(ints))
                let data = try dataset(ints(vector["sizes"]!), seqLen, spool)
                var batches = epochs(data, seqLen, 0, seed: vector["seed"]!.int!, start: vector["start"]!.int!)
                XCTAssertEqual(try sequences.map { _ in members(try batches.next()) }, sequences)
            }
        }
    }

    func testWholeSequences() throws {
        try inScratch { spool in
            for vector in try cases("sequences") {
                let seqLen = vector["seq_len"]!.int!
                let examples = vector["examples"]!.array!.map { Example(inputIds: ints($0["input_ids"]!), labels: ints($0["labels"]!)) }
                let data = try dataset(examples, seqLen, spool)
                XCTAssertEqual(data.tokensSha256, vector["tokens_sha256"]!.string)
                // What was cut when the vectors were written has the token after the cut for its last label.
                XCTAssertEqual((0..<data.count).map { data.example($0).inputIds }, examples.map(\.inputIds))
                XCTAssertEqual((0..<data.count).map { data.example($0).labels }, examples.map(\.labels))
                let batches = Array(pack(data, seqLen, vector["pad_id"]!.int!))
                let wanted = vector["batches"]!.array!
                XCTAssertEqual(batches.count, wanted.count)
                for (wanted, found) in zip(wanted, batches) {
                    XCTAssertEqual(found.inputIds.map(Int.init), ints(wanted["input_ids"]!))
                    XCTAssertEqual(found.labels.map(Int.init), ints(wanted["labels"]!))
                    XCTAssertEqual(found.positionIds.map(Int.init), ints(wanted["position_ids"]!))
                    XCTAssertEqual(found.segmentIds.map(Int.init), ints(wanted["segment_ids"]!))
                }
            }
        }
    }

    func testCountedSequencesAreThoseOfAnEpoch() throws {
        try inScratch { spool in
            let data = try dataset((0..<60).map { 2 + $0 * $0 % 19 }, 20, spool)
            var batches = epochs(data, 20, 0, seed: 4)
            let seen = try (0..<countSequences(data, 20, seed: 4)).flatMap { _ in members(try batches.next()) }
            XCTAssertEqual(seen.sorted(), Array(0..<60))
        }
    }

    func testSortingIsUnsignedAndInPlace() throws {
        try inScratch { directory in
            func sorted(_ numbers: [UInt64]) throws -> [UInt64] {
                let spool = try Spool<UInt64>(directory)
                for number in numbers { try spool.append(number) }
                let mapped = try spool.mapped(writable: true)
                mapped.sort()
                return (0..<mapped.count).map { mapped[$0] }
            }
            let cases: [(UInt64) -> UInt64] = [{ splitmix64(3, $0) }, { $0 % 7 }, { $0 }, { 0 &- $0 }, { _ in 1 }]
            for numbers in cases.map({ (0..<20_000).map($0) }) + [[], [2, 1]] { XCTAssertEqual(try sorted(numbers), numbers.sorted()) }
            XCTAssertEqual(listed(directory), [])
        }
    }
}
