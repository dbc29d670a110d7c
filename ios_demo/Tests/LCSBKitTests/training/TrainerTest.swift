import XCTest
@testable import LCSBKit

final class TrainerTest: XCTestCase {
    private let layout = layoutOf(3000, 5000)
    private let state = try! inScratch { try mappedState($0, 3000 + 5000) }
    private let subset = Subset(train: [1], propagate: [1])

    /// A sequence whose first `counted` labels count.
    private func batch(_ counted: Int) -> Batch {
        let zeros = [Int64](repeating: 0, count: 8)
        return Batch(inputIds: zeros, labels: (0..<8).map { $0 < counted ? 1 : ignoredLabel }, positionIds: zeros, segmentIds: zeros)
    }

    private func floats(_ value: Float) -> Floats {
        let floats = try! Floats(count: 5000)
        floats.fill(value)
        return floats
    }

    func testEachBatchWeighsAsManyLabelsAsItCountsAndTheRunnersBufferMayBeItsOwn() throws {
        let buffer = floats(0)  // one for all steps, as runners have it
        let runner = NumpyRunner { batch in
            buffer.fill(Float(batch.countedLabels))
            return StepResult(loss: Float(batch.countedLabels), gradients: [1: buffer])
        }
        let optimizer = AdamW(state, layout, AdamWConfig(clipNorm: 1e9), runner)
        let schedule = [subset, Subset(train: [0], propagate: [0, 1])]
        let trainer = try Trainer(runner, schedule, optimizer, TrainConfig(steps: 3, learningRate: 1e-3, accumulation: 2))
        let outcome = try trainer.step(0, [batch(2), batch(6)])
        XCTAssertEqual(outcome.loss, 0.25 * 2 + 0.75 * 6)
        XCTAssertEqual(outcome.gradientNorm, 5 * 5000.0.squareRoot(), accuracy: 1e-9)
        XCTAssertEqual(layout.vector(state.firstMoment, 1)[4999], Float(1 - 0.9) * 5)
        XCTAssertEqual(layout.vector(state.firstMoment, 0)[0], 0)
        XCTAssertEqual(optimizer.updates, [1, 1])  // layer 0 by a gradient of zero
    }

    func testALayerThatNoStepOfTheScheduleTrainsIsNotUpdated() throws {
        let gradients = floats(1)
        let runner = NumpyRunner { _ in StepResult(loss: 1, gradients: [1: gradients]) }
        let optimizer = AdamW(state, layout, AdamWConfig(), runner)
        _ = try Trainer(runner, [subset], optimizer, TrainConfig(steps: 3, learningRate: 1e-3)).step(0, [batch(2)])
        XCTAssertEqual(optimizer.updates, [0, 1])
    }

    func testTheEvaluationsMeanIsOverLabelsNotSequences() throws {
        let runner = NumpyRunner { StepResult(loss: Float($0.countedLabels), gradients: [:]) }
        XCTAssertEqual(try evaluate(runner, [batch(2), batch(6)], state.adapter), (2.0 * 2 + 6 * 6) / 8)
    }

    func testALossOrGradientThatIsNotFiniteIsRefusedBeforeAnythingIsUpdated() throws {
        for (loss, gradient) in [(Float.nan, Float(1)), (1, .infinity)] {
            let gradients = floats(gradient)
            let runner = NumpyRunner { _ in StepResult(loss: loss, gradients: [1: gradients]) }
            let optimizer = AdamW(state, layout, AdamWConfig(), runner)
            let trainer = try Trainer(runner, [subset], optimizer, TrainConfig(steps: 3, learningRate: 1e-3))
            let message = refusal(.lossNotFinite) { _ = try trainer.step(6, [batch(1)]) }
            XCTAssertTrue(message.hasPrefix("step 7: the loss is \(loss) and the gradient's norm "), message)
            XCTAssertTrue(message.hasSuffix("try a lower learning rate"), message)
            XCTAssertEqual(optimizer.updates, [0, 0])
        }
    }

    func testAnUpdateThatCannotBeTrainedOnIsRefusedAndWhatWasBeforeItAccepted() throws {
        for (gradient, rate, fault) in [(Float(1e25), 1e-3, "a second moment of inf"), (1, 1e6, "a parameter of -")] {
            let gradients = floats(gradient)
            let runner = NumpyRunner { _ in StepResult(loss: 1, gradients: [1: gradients]) }
            let fresh = try inScratch { try mappedState($0, 3000 + 5000) }
            let optimizer = AdamW(fresh, layout, AdamWConfig(clipNorm: 1e30), runner)
            var accepted: [Int64] = []
            let trainer = try Trainer(runner, [subset], optimizer, TrainConfig(steps: 3, learningRate: rate))
            trainer.accept = { accepted += optimizer.updates }
            let message = refusal(.lossNotFinite) { _ = try trainer.step(0, [batch(1)]) }
            XCTAssertTrue(message.hasPrefix("step 1: its update would make \(fault)"), message)
            XCTAssertTrue(message.hasSuffix("try a lower learning rate"), message)
            XCTAssertEqual(accepted, [0, 0])
        }
    }

    func testOptionsOutOfRangeAreRefused() {
        let cases: [(TrainConfig, String)] = [
            (TrainConfig(steps: 0, learningRate: 1e-3), "steps: expected at least 1, found 0"),
            (TrainConfig(steps: 3, learningRate: 1e-3, accumulation: 0), "accumulation: expected at least 1, found 0"),
            (TrainConfig(steps: 3, learningRate: 1e-3, warmup: -1), "warmup: expected at least 0, found -1"),
            (TrainConfig(steps: 3, learningRate: 0), "lr: expected a positive number, found 0.0"),
            (TrainConfig(steps: 3, learningRate: .nan), "lr: expected a positive number, found nan"),
        ]
        for (wrong, message) in cases { XCTAssertEqual(refusal(.option) { try wrong.check() }, message) }
    }
}
