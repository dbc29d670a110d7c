import XCTest
@testable import LCSBKit

final class OptimizerTest: XCTestCase {
    private let vectors = try! RunVectors.read()

    /// 20 steps with clipping and the implicit update, whose last bits are Python's: parameters and both moments.
    private func train(_ expected: RunVectors.AdamWRun) throws {
        let layout = layoutOf(RunVectors.size, RunVectors.size, RunVectors.size)
        let state = try inScratch { try mappedState($0, layout.size) }
        for layer in 0..<layout.numLayers { layout.vector(state.adapter, layer).copy(from: RunVectors.gradient(100 + layer, 0)) }
        let config = AdamWConfig(implicitUpdates: expected.implicitUpdates)
        let optimizer = AdamW(state, layout, config, NumpyRunner(config))
        for (step, wanted) in expected.norms.enumerated() {
            let gradients = RunVectors.gradients(step)
            let norm = gradientNorm(gradients)
            // double sums in another order: some 3,072 roundings of 1e-16, most of which cancel
            XCTAssertEqual(norm, wanted, accuracy: 1e-14 * wanted)
            clipGradients(gradients, norm: norm, clipNorm: config.clipNorm)
            try optimizer.update(gradients, learningRate(1e-3, .cosine, step: step, steps: expected.norms.count, warmup: 3))
        }
        XCTAssertEqual(optimizer.updates, expected.updates)
        XCTAssertEqual([state.adapter, state.firstMoment, state.secondMoment].map { sha256(Array($0.bytes.raw)) }, expected.sha256)
    }

    func testAdamWAndClippingGivePythonsBits() throws {
        XCTAssertEqual(Set(vectors.adamw.map(\.implicitUpdates)), [.momentum, .none])
        for run in vectors.adamw { try train(run) }
    }

    func testALayerThatTheMethodNeverTrainsStaysBitForBit() throws {
        let layout = layoutOf(5, 7)
        let state = try inScratch { try mappedState($0, layout.size) }
        let before = (0..<layout.size).map { Float($0) + 1 }
        state.adapter.copy(from: before)
        let config = AdamWConfig(weightDecay: 0.5)
        let optimizer = AdamW(state, layout, config, NumpyRunner(config))
        for _ in 0..<3 { try optimizer.update([1: Floats(count: 7)], 0.1, trainable: [1]) }
        XCTAssertEqual(layout.vector(state.adapter, 0).array, Array(before[..<5]))
        XCTAssertLessThan(state.adapter[5], before[5])  // by weight decay alone
        XCTAssertEqual(optimizer.updates, [0, 3])
    }

    func testTheNormIsSummedInDoublePrecisionOverAllLayers() throws {
        let gradients = [0: try Floats(count: 5000), 3: try Floats(count: 1)]
        gradients[0]!.fill(1e-4)
        gradients[3]!.fill(1e4)
        let small = Double(Float(1e-4))
        // in float32 the small ones would be lost
        XCTAssertEqual(gradientNorm(gradients), (5000 * small * small + 1e8).squareRoot(), accuracy: 1e-9)
    }

    func testANormBelowTheLimitLeavesTheGradientsAsTheyAre() throws {
        let gradients = [0: try Floats(count: 5000)]
        let values = (0..<5000).map(Float.init)
        gradients[0]!.copy(from: values)
        clipGradients(gradients, norm: 0.5, clipNorm: 1)
        XCTAssertEqual(gradients[0]!.array, values)
        clipGradients(gradients, norm: 4, clipNorm: 1)
        let factor = Float(1 / (4 + 1e-6))
        XCTAssertEqual(gradients[0]!.array, values.map { $0 * factor })
    }

    func testLearningRatesArePythons() {
        for wanted in vectors.learningRates {
            for (step, expected) in wanted.rates.enumerated() {
                let found = learningRate(4e-4, wanted.schedule, step: step, steps: wanted.steps, warmup: wanted.warmup)
                // Only the cosine may differ, by its last digit: another machine's library may round it otherwise.
                let allowed = wanted.schedule == .cosine ? 2 * expected.ulp + 4e-4 * 1.2e-16 : 0
                XCTAssertEqual(found, expected, accuracy: allowed, "\(wanted.schedule) \(wanted.steps) \(wanted.warmup) step \(step)")
            }
        }
    }

    func testSchedulesOfEveryMethodAndTheRateThatGoesWithThemArePythons() throws {
        for wanted in vectors.schedules {
            let made = try makeSchedule(wanted.method, wanted.subsets, wanted.layers)
            XCTAssertEqual(made, wanted.schedule)
            XCTAssertEqual(defaultLearningRate(made, wanted.layers), wanted.learningRate)
        }
    }

    func testTheStateIsZerosInAFileThatHasNoName() throws {
        try inScratch { scratch in
            let directory = scratch.appendingPathComponent("new/run")
            let before = processAnonymousBytes()!
            let state = try mappedState(directory, 4 << 20)
            XCTAssertTrue((0..<state.size).allSatisfy { state.secondMoment[$0] == 0 })
            state.adapter.fill(1)
            state.firstMoment[0] = 2
            XCTAssertEqual([state.adapter[state.size - 1], state.firstMoment[0], state.firstMoment[1], state.secondMoment[0]], [1, 2, 0, 0])
            XCTAssertEqual(listed(directory), [])
            XCTAssertLessThan(processAnonymousBytes()! - before, 8 << 20)  // of 50 MB
        }
    }
}
