import XCTest
@testable import LCSBKit

/// No model: steps give what `steps` says, and an update is AdamW operation by operation as NumPy computes it.
final class NumpyRunner: StepRunner {
    private struct NoModel: Error {}

    let name = "numpy"
    let version = "0"
    private let config: AdamWConfig
    private let steps: (Batch) throws -> StepResult

    init(_ config: AdamWConfig = AdamWConfig(), _ steps: @escaping (Batch) throws -> StepResult = { _ in throw NoModel() }) {
        (self.config, self.steps) = (config, steps)
    }

    func step(_ subset: Subset, _ batch: Batch, _ adapter: Floats) throws -> StepResult { try steps(batch) }

    func evaluate(_ batch: Batch, _ adapter: Floats) throws -> Float { try steps(batch).loss }

    func updateLayer(_ parameters: Floats, _ firstMoment: Floats, _ secondMoment: Floats, _ gradient: Floats?, _ scalars: LayerUpdate) {
        let (beta1, beta2) = (config.betas[0], config.betas[1])
        for i in 0..<parameters.count {
            var m = firstMoment[i] * Float(beta1)
            var v = secondMoment[i] * Float(beta2)
            if let gradient {
                let g = gradient[i]
                m += Float(1 - beta1) * g
                v += Float(1 - beta2) * (g * g)
            }
            (firstMoment[i], secondMoment[i]) = (m, v)
            let change = m / (v.squareRoot() / scalars.root + Float(config.eps)) * scalars.rate
            parameters[i] = parameters[i] * scalars.decay - change
        }
    }

    func decoder(_ adapter: Floats) throws -> any SequenceDecoder { throw NoModel() }
}
