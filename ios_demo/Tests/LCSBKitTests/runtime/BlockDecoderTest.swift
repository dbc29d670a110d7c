import XCTest
@testable import LCSBKit

/// Generation with a state: at every position the logits of the whole sequence, whatever was prefilled and whatever came before.
final class BlockDecoderTest: XCTestCase {
    /// One row's products and T rows' sum in another order: 8e-7 to 3.8e-6 of the largest were measured. Of Qwen3.5 1.9e-5: the delta rule
    /// goes token by token here, there by chunks, and the norm after it divides by what may be near zero.
    private func assertClose(_ found: [Float], _ expected: [Float], _ what: String) {
        let most: Float = what.hasPrefix("qwen3_5") ? 4e-5 : 8e-6
        let largest = expected.map(abs).max()!
        XCTAssertEqual(found.count, expected.count)
        let difference = zip(found, expected).map { abs($0 - $1) }.max()!
        XCTAssertLessThanOrEqual(difference, most * largest, what)
    }

    /// A prompt of a prefix is a pass over the whole sequence of which one row is read: what the state is held to.
    func testEveryPosition() throws {
        for name in ["llama", "qwen2", "qwen3", "gemma3", "gemma3-untied-int8", "gemma2", "granite", "smollm3", "phi3", "tiny", "lfm2", "qwen3_5"] {
            let bundle = try openBundle(name)
            let tokens = bundle.manifest.seqLen
            let ids = (0..<tokens).map { 4 + ($0 * 37) % (bundle.manifest.model.vocabSize - 4) }
            let runner = try makeRunner(bundle, threads: 1)
            let adapter = try initialAdapter(bundle)
            for at in 0..<adapter.count { adapter[at] += 0.001 * Float(at % 7) }
            let first = try runner.decoder(adapter)
            let whole = try (1...tokens).map { try first.prefill(Array(ids[..<$0])) }
            let decoder = try runner.decoder(adapter)
            for prompt in [1, 11] {
                assertClose(try decoder.prefill(Array(ids[..<prompt])), whole[prompt - 1], "\(name) \(prompt)")
                for at in prompt..<tokens { assertClose(try decoder.next(ids[at]), whole[at], "\(name) \(prompt) \(at)") }
            }
        }
    }

    func testDecodersAndStepsDoNotDisturbEachOther() throws {
        for name in ["gemma3", "lfm2", "qwen3_5"] {
            let bundle = try openBundle(name)
            let runner = try makeRunner(bundle, threads: 1)
            let adapter = try initialAdapter(bundle)
            func text(_ start: Int, _ between: () throws -> Void) throws -> [[Float]] {
                let decoder = try runner.decoder(adapter)
                let prompt = try decoder.prefill([start, 9, 8])
                return try [prompt] + (5...7).map { id in
                    try between()
                    return try decoder.next(id)
                }
            }
            let alone = try text(5) {}
            let other = try runner.decoder(adapter)
            _ = try other.prefill([20, 21, 22, 23])
            let step = try bundle.golden.steps[0]
            let disturbed = try text(5) {
                _ = try runner.step(step.subset, bundle.golden.batches[step.batch], adapter)
                _ = try other.next(30)
            }
            XCTAssertEqual(disturbed, alone)
            XCTAssertNotEqual(try text(6) {}[0], alone[0])
        }
    }
}
