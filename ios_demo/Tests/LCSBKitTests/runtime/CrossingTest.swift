import XCTest
@testable import LCSBKit

/// Layers of several kinds that give and take, on a bundle whose gradients are known in closed form.
final class CrossingTest: XCTestCase {
    private func withRunner(_ keep: Int = 0, _ use: (TrainingBundle, BlockRunner) throws -> Void) throws {
        try inScratch { scratch in
            let bundle = try TrainingBundle.open(CrossingBundle.write(scratch))
            try use(bundle, makeRunner(bundle, threads: 1, keep: keep))
        }
    }

    private func subsets(_ count: Int) -> [Subset] {
        var random = JavaRandom(seed: 4)
        let layers = Array(CrossingBundle.places.indices)
        return (0..<count).map { _ in
            var train = layers.filter { _ in random.nextDouble() < 1 / 3 }
            if train.isEmpty { train = [Int(random.nextDouble() * 6)] }
            return Subset(train: train, propagate: layers.filter { train.contains($0) || random.nextDouble() < 2 / 3 })
        }
    }

    func testAnySubsetsGradientsWhateverIsKept() throws {
        for keep in [0, 3, 100] {
            try withRunner(keep) { bundle, runner in
                let adapter = try CrossingBundle.adapter()
                let reference = CrossingReference(CrossingBundle.batch)
                let loss = reference.loss
                for subset in subsets(40) + [fullSubset(bundle.manifest)] {
                    let expected = reference.gradients(subset)
                    let found = try runner.step(subset, CrossingBundle.batch, adapter)
                    XCTAssertEqual(Double(found.loss), loss, accuracy: 1e-5 * loss)
                    XCTAssertEqual(found.gradients.keys.sorted(), subset.train)
                    for (layer, gradient) in found.gradients {
                        XCTAssertEqual(gradient.count, bundle.manifest.kind(layer).size)
                        for value in gradient.array {
                            // float32's rounding; what is summed may cancel
                            XCTAssertEqual(Double(value), expected[layer]!, accuracy: 1e-5 * loss, "\(keep) \(subset) \(layer)")
                        }
                    }
                }
                XCTAssertEqual(Double(try runner.evaluate(CrossingBundle.batch, adapter)), loss, accuracy: 1e-5 * loss)
            }
        }
    }

    func testWhatFloat16DoesNotHold() throws {
        func kept(_ bits: UInt16...) throws -> HostTensor {
            let tensor = try HostTensor("float16", [bits.count])
            bits.withUnsafeBytes { tensor.bytes.pointer.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
            return tensor
        }
        XCTAssertTrue(holds(try kept(0, 0x7BFE, 0xFBFE, 0x8000)))  // of 65504 the one below, of either sign
        for bits: UInt16 in [0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00] { XCTAssertFalse(holds(try kept(0, bits, 0)), "\(bits)") }
        let wide = try HostTensor("float32", [1])
        wide.floats[0] = .infinity
        XCTAssertTrue(holds(wide))
    }

    func testWhatTheReferenceSaysOfAValuesGradientIsNotNothing() {
        let subsets = [Subset(train: [2], propagate: [2, 3, 4, 5, 6]), Subset(train: [2], propagate: [2, 5])]
        let found = subsets.map { CrossingReference(CrossingBundle.batch).gradients($0)[2]! }
        XCTAssertGreaterThan(abs(found[0] - found[1]), 1e-2)
    }

    func testTheAdapterStepsByLayersOfTheirOwnSize() throws {
        try withRunner { bundle, runner in
            let layout = bundle.manifest.adapter
            let state = try inScratch { try mappedState($0, layout.size) }
            try bundle.readInitialAdapter(into: state.adapter)
            let before = state.adapter.array
            XCTAssertEqual(before, try CrossingBundle.adapter().array)
            let subset = Subset(train: [1, 3, 5], propagate: [1, 2, 3, 4, 5, 6])
            let gradients = try runner.step(subset, CrossingBundle.batch, state.adapter).gradients
            try AdamW(state, layout, bundle.manifest.optimizer, runner).update(gradients, 1e-2)
            for layer in 0..<layout.numLayers {
                let gradient = gradients[layer]?.array ?? [Float](repeating: 0, count: layout.vectorSize(layer))
                XCTAssertEqual(layout.vector(state.firstMoment, layer).array, gradient)  // this bundle's adamw hands it out
                let offset = CrossingBundle.places[layer].offset
                for (at, found) in state.adapter.part(offset, gradient.count).array.enumerated() {
                    let expected = before[offset + at] * Float(1 - 1e-2 * 0.01) - gradient[at] * Float(1e-2 / (1 - 0.9))
                    XCTAssertEqual(found, expected, accuracy: 1e-6)
                }
            }
        }
    }

    /// h[L] of a token in a text that this bundle's decode programs write: they add to h what they remember, by place, all tokens' places;
    /// whole, the sum of the tokens before. `past`: what each layer's inputs were before, padding of the prompt included.
    private func through(_ id: Int, _ place: Int, _ past: inout [[[Float]]], prompt: Bool) -> [Float] {
        let width = CrossingBundle.width
        var h = embedded(id)
        var values: [String: [Float]] = [:]
        for (layer, own) in CrossingBundle.places.enumerated() {
            let (s, before) = (Float(CrossingReference.factors()[layer]), h)
            func taken(_ name: String, _ at: Int) -> Float { values[own.takes[name]!]![at] }
            h = (0..<width).map { at in
                switch own.kind {
                case "give": before[at] * (1 + s) + (prompt ? 0 : past[layer].reduce(0) { $0 + $1[at] })
                case "take": before[at] + taken("value", at) * s * Float(place + 1)
                default: before[at] + taken("left", at) * taken("right", at) * s
                }
            }
            for value in own.gives.values { values[value] = before.map { $0 * s } }
            past[layer].append(before)
        }
        return h
    }

    private func embedded(_ id: Int) -> [Float] {
        let width = CrossingBundle.width
        return Array(CrossingBundle.embedding[id * width..<(id + 1) * width])
    }

    private func assertLogits(_ found: [Float], of h: [Float], _ accuracy: Float) {
        for (id, value) in found.enumerated() {
            XCTAssertEqual(value, zip(h, embedded(id)).reduce(0) { $0 + $1.0 * $1.1 }, accuracy: accuracy)
        }
        XCTAssertEqual(found.count, CrossingBundle.vocabulary)
    }

    func testAStateByPositionAndOneThatIsReplacedAndValuesThatCrossWhileATextIsWritten() throws {
        try withRunner { bundle, runner in
            let (ids, layers) = ([1, 4, 0, 3], CrossingBundle.places.count)
            let decoder = try runner.decoder(CrossingBundle.adapter())
            for _ in 0..<2 {
                // Prompt of two tokens; the two of padding are of the token 0, at places 0 and 1 of their own segment.
                var seen = [[[Float]]](repeating: [], count: layers)
                let tops = [ids[0], ids[1], 0, 0].enumerated().map { at, id in through(id, at % 2, &seen, prompt: true) }
                assertLogits(try decoder.prefill(Array(ids[..<2])), of: tops[1], 1e-5)
                var totals = seen.map { places in (0..<CrossingBundle.width).map { at in places.reduce(0) { $0 + $1[at] } } }
                for place in 2...3 {
                    var past = zip(seen, totals).map { $0 + [$1] }
                    let expected = through(ids[place], place, &past, prompt: false)
                    assertLogits(try decoder.next(ids[place]), of: expected, 1e-4)
                    for layer in 0..<layers {
                        let written = past[layer].last!
                        seen[layer][place] = written
                        for at in written.indices { totals[layer][at] += written[at] }
                    }
                }
            }
        }
    }
}
