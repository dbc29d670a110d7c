package lcsbmobile.core.bundle

import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

/**
 * How RoPE's inverse frequencies are stretched: `linear` divides them by [factor]; `llama3` is Llama 3.1's rule; `yarn` divides slow ones,
 * keeps fast ones and interpolates between (arXiv 2309.00071); `longrope` divides each by its own [shortFactor] (arXiv 2402.13753);
 * `dynamic` does nothing to sequences of up to [originalMaxPositionEmbeddings]. cos and sin are multiplied by [attentionFactor].
 */
@Serializable
public data class RopeScaling(
    val ropeType: RopeType,
    val factor: Double,
    val lowFreqFactor: Double = 1.0,
    val highFreqFactor: Double = 4.0,
    val originalMaxPositionEmbeddings: Long = 8192,
    val attentionFactor: Double = 1.0,
    val betaFast: Double = 32.0,
    val betaSlow: Double = 1.0,
    val truncate: Boolean = true,
    val shortFactor: List<Double> = emptyList(),
) {
    /** Those that are positive. */
    internal val numbers: List<Double>
        get() = listOf(factor, lowFreqFactor, highFreqFactor, attentionFactor, betaFast, betaSlow) + shortFactor

    /** Tokens of the longest sequence whose angles depend on a token's position alone (null: they always do). */
    internal val longest: Long?
        get() = originalMaxPositionEmbeddings.takeIf { ropeType == RopeType.DYNAMIC || ropeType == RopeType.LONGROPE }
}

@Serializable
public enum class RopeType {
    @SerialName("linear")
    LINEAR,

    @SerialName("llama3")
    LLAMA3,

    @SerialName("dynamic")
    DYNAMIC,

    @SerialName("yarn")
    YARN,

    @SerialName("longrope")
    LONGROPE,
}

/**
 * What distinguishes one layer's attention from another's: the RoPE base, the window (null: the whole prefix), and whether RoPE turns its
 * queries and keys at all ([rotary]).
 */
@Serializable
public data class AttentionKind(
    val ropeTheta: Double,
    val ropeScaling: RopeScaling? = null,
    val window: Long? = null,
    val rotary: Boolean = true,
)

/** The heads of a gated delta rule (arXiv 2412.06464). [chunk]: tokens that are computed at once, of which T is a multiple. */
@Serializable
public data class LinearAttention(
    val numKeyHeads: Int,
    val numValueHeads: Int,
    val keyHeadDim: Int,
    val valueHeadDim: Int,
    val chunk: Int,
)

/**
 * The shape of a decoder. [layerTypes]: of each layer, as config.json calls them. [attentionKinds]: of the layer types that attend, how they
 * do. [rotaryDim]: of [headDim], the part that RoPE turns. [convKernel]: the tokens that a convolution sees, 0 where there is none.
 * [tensorPrefix]: what the names of the text model's tensors begin with in a checkpoint. What a step computes of scales and caps is in the
 * programs.
 */
@Serializable
public data class ModelConfig(
    val modelType: String,
    val vocabSize: Int,
    val hiddenSize: Int,
    val intermediateSize: Int,
    val numHiddenLayers: Int,
    val numAttentionHeads: Int,
    val numKeyValueHeads: Int,
    val headDim: Int,
    val rmsNormEps: Double,
    val tieWordEmbeddings: Boolean,
    val layerTypes: List<String>,
    val attentionKinds: Map<String, AttentionKind>,
    val rotaryDim: Int,
    val qkvBias: Boolean = false,
    val outputBias: Boolean = false,
    val mlpBias: Boolean = false,
    val queryScale: Double,
    val embeddingScale: Double = 1.0,
    val residualMultiplier: Double = 1.0,
    val logitsScaling: Double = 1.0,
    val attnLogitSoftcapping: Double? = null,
    val finalLogitSoftcapping: Double? = null,
    val convKernel: Int = 0,
    val linearAttention: LinearAttention? = null,
    val tensorPrefix: String = "model.",
)

/** LoRA on the matrices of a layer: `y += alpha/rank * (x Aᵀ) Bᵀ` (Hu et al., arXiv 2106.09685). */
@Serializable
public data class LoraConfig(val rank: Int = 8, val alpha: Double = 16.0)

/** Symmetric, group-wise along the input dimension. [bits] for the blocks, [embeddingBits] for embedding and head. */
@Serializable
public data class QuantizationConfig(
    val bits: Int = 4,
    val embeddingBits: Int = 8,
    val groupSize: Int = 32,
    val quantizer: String = "search",
    val calibration: String? = null,
)

@Serializable
public enum class ImplicitUpdates {
    @SerialName("momentum")
    MOMENTUM,

    @SerialName("none")
    NONE,
}

/**
 * [clipNorm]: the gradient of a step is scaled down to this norm. [implicitUpdates]: what happens to a layer that a step does not train:
 * with MOMENTUM AdamW sees a zero gradient, so its moments go on moving it; with NONE it rests.
 */
@Serializable
public data class AdamWConfig(
    val betas: List<Double> = listOf(0.9, 0.999),
    val eps: Double = 1e-8,
    val weightDecay: Double = 0.01,
    val clipNorm: Double = 1.0,
    val implicitUpdates: ImplicitUpdates = ImplicitUpdates.MOMENTUM,
)
