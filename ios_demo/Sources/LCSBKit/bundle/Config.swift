/// How RoPE's inverse frequencies are stretched: `linear` divides them by `factor`; `llama3` is Llama 3.1's rule; `yarn` divides slow ones,
/// keeps fast ones and interpolates between (arXiv 2309.00071); `longrope` divides each by its own `shortFactor` (arXiv 2402.13753);
/// `dynamic` does nothing to sequences of up to `originalMaxPositionEmbeddings`. cos and sin are multiplied by `attentionFactor`.
public struct RopeScaling: Sendable, Equatable {
    public var ropeType: RopeType
    public var factor: Double
    public var lowFreqFactor = 1.0
    public var highFreqFactor = 4.0
    public var originalMaxPositionEmbeddings = 8192
    public var attentionFactor = 1.0
    public var betaFast = 32.0
    public var betaSlow = 1.0
    public var truncate = true
    public var shortFactor: [Double] = []

    /// Those that are positive.
    var numbers: [Double] { [factor, lowFreqFactor, highFreqFactor, attentionFactor, betaFast, betaSlow] + shortFactor }

    /// Tokens of the longest sequence whose angles depend on a token's position alone (nil: they always do).
    var longest: Int? { ropeType == .dynamic || ropeType == .longrope ? originalMaxPositionEmbeddings : nil }
}

public enum RopeType: String, Sendable, CaseIterable {
    case linear, llama3, dynamic, yarn, longrope
}

/// What distinguishes one layer's attention from another's: the RoPE base, the window (nil: the whole prefix), and whether RoPE turns its
/// queries and keys at all (`rotary`).
public struct AttentionKind: Sendable, Equatable {
    public var ropeTheta: Double
    public var ropeScaling: RopeScaling?
    public var window: Int?
    public var rotary = true
}

/// The heads of a gated delta rule (arXiv 2412.06464). `chunk`: tokens that are computed at once, of which T is a multiple.
public struct LinearAttention: Sendable, Equatable {
    public var numKeyHeads: Int
    public var numValueHeads: Int
    public var keyHeadDim: Int
    public var valueHeadDim: Int
    public var chunk: Int
}

/// The shape of a decoder. `layerTypes`: of each layer, as config.json calls them. `attentionKinds`: of the layer types that attend, how
/// they do. `rotaryDim`: of `headDim`, the part that RoPE turns. `convKernel`: the tokens that a convolution sees, 0 where there is none.
/// `tensorPrefix`: what the names of the text model's tensors begin with in a checkpoint. What a step computes of scales and caps is in the
/// programs.
public struct ModelConfig: Sendable {
    public var modelType: String
    public var vocabSize: Int
    public var hiddenSize: Int
    public var intermediateSize: Int
    public var numHiddenLayers: Int
    public var numAttentionHeads: Int
    public var numKeyValueHeads: Int
    public var headDim: Int
    public var rmsNormEps: Double
    public var tieWordEmbeddings: Bool
    public var layerTypes: [String]
    public var attentionKinds: Entries<AttentionKind>
    public var rotaryDim: Int
    public var qkvBias = false
    public var outputBias = false
    public var mlpBias = false
    public var queryScale: Double
    public var embeddingScale = 1.0
    public var residualMultiplier = 1.0
    public var logitsScaling = 1.0
    public var attnLogitSoftcapping: Double?
    public var finalLogitSoftcapping: Double?
    public var convKernel = 0
    public var linearAttention: LinearAttention?
    public var tensorPrefix = "model."
}

/// LoRA on the matrices of a layer: `y += alpha/rank * (x Aᵀ) Bᵀ` (Hu et al., arXiv 2106.09685).
public struct LoraConfig: Sendable, Equatable {
    public var rank = 8
    public var alpha = 16.0
}

/// Symmetric, group-wise along the input dimension. `bits` for the blocks, `embeddingBits` for embedding and head.
public struct QuantizationConfig: Sendable, Equatable {
    public var bits = 4
    public var embeddingBits = 8
    public var groupSize = 32
    public var quantizer = "search"
    public var calibration: String?
}

public enum ImplicitUpdates: String, Sendable, CaseIterable {
    case momentum, none
}

/// `clipNorm`: the gradient of a step is scaled down to this norm. `implicitUpdates`: what happens to a layer that a step does not train:
/// with `momentum` AdamW sees a zero gradient, so its moments go on moving it; with `none` it rests.
public struct AdamWConfig: Sendable, Equatable {
    public var betas = [0.9, 0.999]
    public var eps = 1e-8
    public var weightDecay = 0.01
    public var clipNorm = 1.0
    public var implicitUpdates = ImplicitUpdates.momentum
}

// As data; they throw RecordError.

extension RopeScaling {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        ropeType = try fields.value("rope_type", Fields.one)
        factor = try fields.double("factor")
        lowFreqFactor = try fields.optional("low_freq_factor", Fields.double) ?? lowFreqFactor
        highFreqFactor = try fields.optional("high_freq_factor", Fields.double) ?? highFreqFactor
        originalMaxPositionEmbeddings = try fields.optional("original_max_position_embeddings", Fields.int) ?? originalMaxPositionEmbeddings
        attentionFactor = try fields.optional("attention_factor", Fields.double) ?? attentionFactor
        betaFast = try fields.optional("beta_fast", Fields.double) ?? betaFast
        betaSlow = try fields.optional("beta_slow", Fields.double) ?? betaSlow
        truncate = try fields.optional("truncate", Fields.bool) ?? truncate
        shortFactor = try fields.optional("short_factor") { try Fields.list($0, $1, Fields.double) } ?? shortFactor
        try fields.finish()
    }
}

extension AttentionKind {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        ropeTheta = try fields.double("rope_theta")
        ropeScaling = try fields.optional("rope_scaling", RopeScaling.init)
        window = try fields.optional("window", Fields.int)
        rotary = try fields.optional("rotary", Fields.bool) ?? rotary
        try fields.finish()
    }
}

extension LinearAttention {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        numKeyHeads = try fields.int("num_key_heads")
        numValueHeads = try fields.int("num_value_heads")
        keyHeadDim = try fields.int("key_head_dim")
        valueHeadDim = try fields.int("value_head_dim")
        chunk = try fields.int("chunk")
        try fields.finish()
    }
}

extension ModelConfig {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        modelType = try fields.string("model_type")
        vocabSize = try fields.int("vocab_size")
        hiddenSize = try fields.int("hidden_size")
        intermediateSize = try fields.int("intermediate_size")
        numHiddenLayers = try fields.int("num_hidden_layers")
        numAttentionHeads = try fields.int("num_attention_heads")
        numKeyValueHeads = try fields.int("num_key_value_heads")
        headDim = try fields.int("head_dim")
        rmsNormEps = try fields.double("rms_norm_eps")
        tieWordEmbeddings = try fields.bool("tie_word_embeddings")
        layerTypes = try fields.strings("layer_types")
        attentionKinds = try fields.ordered("attention_kinds", AttentionKind.init)
        rotaryDim = try fields.int("rotary_dim")
        qkvBias = try fields.optional("qkv_bias", Fields.bool) ?? qkvBias
        outputBias = try fields.optional("output_bias", Fields.bool) ?? outputBias
        mlpBias = try fields.optional("mlp_bias", Fields.bool) ?? mlpBias
        queryScale = try fields.double("query_scale")
        embeddingScale = try fields.optional("embedding_scale", Fields.double) ?? embeddingScale
        residualMultiplier = try fields.optional("residual_multiplier", Fields.double) ?? residualMultiplier
        logitsScaling = try fields.optional("logits_scaling", Fields.double) ?? logitsScaling
        attnLogitSoftcapping = try fields.optional("attn_logit_softcapping", Fields.double)
        finalLogitSoftcapping = try fields.optional("final_logit_softcapping", Fields.double)
        convKernel = try fields.optional("conv_kernel", Fields.int) ?? convKernel
        linearAttention = try fields.optional("linear_attention", LinearAttention.init)
        tensorPrefix = try fields.optional("tensor_prefix", Fields.string) ?? tensorPrefix
        try fields.finish()
    }
}

extension LoraConfig {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        rank = try fields.optional("rank", Fields.int) ?? rank
        alpha = try fields.optional("alpha", Fields.double) ?? alpha
        try fields.finish()
    }
}

extension QuantizationConfig {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        bits = try fields.optional("bits", Fields.int) ?? bits
        embeddingBits = try fields.optional("embedding_bits", Fields.int) ?? embeddingBits
        groupSize = try fields.optional("group_size", Fields.int) ?? groupSize
        quantizer = try fields.optional("quantizer", Fields.string) ?? quantizer
        calibration = try fields.optional("calibration", Fields.string)
        try fields.finish()
    }
}

extension AdamWConfig {
    init(_ value: Json, _ place: String) throws {
        var fields = try Fields(value, place)
        betas = try fields.optional("betas") { try Fields.list($0, $1, Fields.double) } ?? betas
        eps = try fields.optional("eps", Fields.double) ?? eps
        weightDecay = try fields.optional("weight_decay", Fields.double) ?? weightDecay
        clipNorm = try fields.optional("clip_norm", Fields.double) ?? clipNorm
        implicitUpdates = try fields.optional("implicit_updates", Fields.one) ?? implicitUpdates
        try fields.finish()
    }
}
