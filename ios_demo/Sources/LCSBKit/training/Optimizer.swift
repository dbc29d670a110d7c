import Foundation

/// The largest float16, which whoever loads the adapter may compute in. LoRA's parameters are below 1 and move by some learning rates a step.
private let mostParameter: Float = 65504

/// Decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), element for element as `torch.optim.AdamW`, over `state`, layer by
/// layer as `layout` says. A layer that a step does not train gets a zero gradient, or rests (`ImplicitUpdates`). `runner` computes a
/// layer's update by the program `adamw`.
final class AdamW {
    let state: AdapterState
    let layout: AdapterLayout
    let config: AdamWConfig
    private let runner: any StepRunner

    /// How often each layer was updated.
    var updates: [Int64]

    init(_ state: AdapterState, _ layout: AdapterLayout, _ config: AdamWConfig, _ runner: any StepRunner) {
        (self.state, self.layout, self.config, self.runner) = (state, layout, config, runner)
        updates = [Int64](repeating: 0, count: layout.numLayers)
    }

    /// One step. `gradients`: layer -> float32 of the size of its vector, for the trained layers. `trainable`: the layers that the method trains
    /// in any step (nil: all); another one is no parameter of the run, and stays bit for bit: no momentum moves it, and no weight decay shrinks
    /// it.
    func update(_ gradients: [Int: Floats], _ learningRate: Double, trainable: Set<Int>? = nil) throws {
        func isMoved(_ layer: Int) -> Bool { config.implicitUpdates == .momentum && trainable?.contains(layer) != false }
        for layer in updates.indices where gradients[layer] != nil || isMoved(layer) {
            updates[layer] += 1
            let parameters = layout.vector(state.adapter, layer)
            let (first, second) = (layout.vector(state.firstMoment, layer), layout.vector(state.secondMoment, layer))
            try runner.updateLayer(parameters, first, second, gradients[layer], scalars(updates[layer], learningRate))
        }
    }

    /// What is not finite, or of the parameters absurd, after an update, if anything. A second moment that overflowed would keep its
    /// parameter where it is, and no loss shows that.
    func fault() -> String? {
        let kinds = [
            ("a parameter", state.adapter, mostParameter), ("a first moment", state.firstMoment, Float.greatestFiniteMagnitude),
            ("a second moment", state.secondMoment, Float.greatestFiniteMagnitude),
        ]
        for (name, values, most) in kinds {
            for i in 0..<values.count where !(abs(values.pointer[i]) <= most) { return "\(name) of \(values.pointer[i])" }
        }
        return nil
    }

    private func scalars(_ count: Int64, _ learningRate: Double) -> LayerUpdate {
        let (beta1, beta2) = (config.betas[0], config.betas[1])
        return LayerUpdate(
            decay: Float(1 - learningRate * config.weightDecay),
            rate: Float(learningRate / (1 - pow(beta1, Double(count)))),
            root: Float((1 - pow(beta2, Double(count))).squareRoot())
        )
    }
}

/// The Euclidean norm over all trained layers, summed in double precision, from the first layer up: so it is the same on every processor to
/// some 1e-15, and the float32 factor that clipping makes of it the same bits but once in many million steps.
func gradientNorm(_ gradients: [Int: Floats]) -> Double {
    gradients.sorted { $0.key < $1.key }.reduce(0) { $0 + sumOfSquares($1.value) }.squareRoot()
}

/// Scales by `clipNorm / norm`, in place, where the norm exceeds it (`torch.nn.utils.clip_grad_norm_`).
func clipGradients(_ gradients: [Int: Floats], norm: Double, clipNorm: Double) {
    let factor = Float(min(1, clipNorm / (norm + 1e-6)))
    if factor != 1 { for gradient in gradients.values { gradient.scale(factor) } }
}

private func sumOfSquares(_ values: Floats) -> Double {
    withExtendedLifetime(values) {
        UnsafeBufferPointer(start: values.pointer, count: values.count).reduce(0) { $0 + Double($1) * Double($1) }
    }
}
