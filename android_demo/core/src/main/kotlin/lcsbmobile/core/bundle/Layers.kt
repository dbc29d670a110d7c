package lcsbmobile.core.bundle

import kotlinx.serialization.Serializable

// The layers of a model as data: kinds of layers with their adapter and their state, and each layer as one of a kind. A kind has programs of
// its own. Its reads are tables without a gradient that `embed` makes once a step; its gives are values that later layers take, and whose
// gradients come back summed. Each layer binds these names to the tables and values of the step.

/** What one layer does on T tokens; [backward] contains the recomputed forward, [backwardKept] reads what the forward kept instead. */
@Serializable
public data class BlockWork(val forward: Long, val backward: Long, val backwardKept: Long)

/** One LoRA matrix within a layer's flat vector: [shape] row-major from [offset] (elements). [name]: such as self_attn.q_proj.lora_A. */
@Serializable
public data class AdapterMatrix(val name: String, val shape: List<Int>, val offset: Int) {
    val size: Int get() = shape[0] * shape[1]
}

/**
 * float32 that a layer remembers while a text is written. [byPosition]: [T, …], to which each token adds one place; else every token replaces
 * the whole.
 */
@Serializable
public data class StateTensor(val name: String, val shape: List<Long>, val byPosition: Boolean)

/**
 * [size]: elements of a layer's adapter. [attentionWidth]: query heads times head dimension, 0 without attention: what of a layer's products
 * grows with the square of T. [flops]: of matrix products; [decompressedBytes]: of float32 weights.
 */
@Serializable
public data class Kind(
    val name: String,
    val reads: List<String>,
    val takes: List<String>,
    val gives: List<String>,
    val size: Int,
    val matrices: List<AdapterMatrix>,
    val state: List<StateTensor>,
    val attentionWidth: Long,
    val flops: BlockWork,
    val decompressedBytes: BlockWork,
)

/**
 * [number]: among the layers of its kind, by which their weights are stacked. [offset]: of its vector in the flat adapter. [reads], [takes],
 * [gives]: the kind's name -> that of the step's table or value; what it gives under no name is dropped.
 */
@Serializable
public data class Layer(
    val kind: String,
    val number: Int,
    val offset: Int,
    val reads: Map<String, String>,
    val takes: Map<String, String> = emptyMap(),
    val gives: Map<String, String> = emptyMap(),
)
