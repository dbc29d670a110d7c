/// `loss`: mean over the counted labels. `gradients`: layer -> float32 of the size of its vector, for the trained layers only: memory of
/// the runner's, which its next step overwrites; whoever asked for the step may change it.
public struct StepResult {
    public let loss: Float
    public let gradients: [Int: Floats]

    public init(loss: Float, gradients: [Int: Floats]) { (self.loss, self.gradients) = (loss, gradients) }
}

/// The scalars of one layer's update, as the program `adamw` takes them.
public struct LayerUpdate: Sendable {
    public let decay: Float
    public let rate: Float
    public let root: Float

    public init(decay: Float, rate: Float, root: Float) { (self.decay, self.rate, self.root) = (decay, rate, root) }
}

/// Writes one sequence token by token. Logits are float32 [V], of the token after those given.
public protocol SequenceDecoder: AnyObject {
    /// Begins a sequence with 1 to T tokens.
    func prefill(_ ids: [Int]) throws -> [Float]

    /// Appends a token; the sequence must have room for it.
    func next(_ id: Int) throws -> [Float]
}

/// A runtime that computes steps of one bundle, from one thread at a time. `adapter` is float32 [N], and is never written to. Every method
/// throws RUNTIME_FAILED where the runtime refuses.
public protocol StepRunner: AnyObject {
    var name: String { get }
    var version: String { get }

    func step(_ subset: Subset, _ batch: Batch, _ adapter: Floats) throws -> StepResult

    /// Mean loss over the batch's counted labels.
    func evaluate(_ batch: Batch, _ adapter: Floats) throws -> Float

    /// AdamW for one layer, float32 of the size of its vector each: the first three are updated in place. `gradient` nil: zero.
    func updateLayer(
        _ parameters: Floats, _ firstMoment: Floats, _ secondMoment: Floats, _ gradient: Floats?, _ scalars: LayerUpdate
    ) throws

    /// For one sequence of tokens; the adapter must not change meanwhile.
    func decoder(_ adapter: Floats) throws -> any SequenceDecoder
}
