package lcsbmobile.core.bundle

import kotlinx.serialization.Serializable
import kotlinx.serialization.Transient
import lcsbmobile.core.io.part
import java.nio.FloatBuffer

private const val PEFT_PREFIX = "base_model.model."

/**
 * The model that an adapter changes: what it is called, the SHA-256 of its frozen tensors, and the version of the toolkit that exported it;
 * null where the bundle does not say.
 */
internal class Base(val name: String, val digest: String?, val toolkit: String?)

/**
 * Where each layer's vector lies in the adapter, float32 [N] of all layers one after the other, and each LoRA matrix in the vector.
 * [matrices]: of each kind of layers; [kinds]: of each layer. [prefix]: what the names of a checkpoint's text model begin with.
 *
 * For a projection W [out, in]: A is [rank, in], B is [out, rank], and y = x Wᵀ + alpha/rank * (x Aᵀ) Bᵀ.
 */
@Serializable
public data class AdapterLayout(
    val lora: LoraConfig,
    val matrices: Map<String, List<AdapterMatrix>>,
    val kinds: List<String>,
    val prefix: String = "model.",
) {
    /** Null for an adapter of no bundle. */
    @Transient
    internal var base: Base? = null
        private set

    private val ends by lazy { kinds.runningFold(0) { end, kind -> Math.addExact(end, sizeOf(matrices.getValue(kind))) } }

    internal fun of(base: Base): AdapterLayout = copy().also { it.base = base }

    val numLayers: Int get() = kinds.size

    /** Of the whole adapter, in elements. */
    val size: Int get() = ends.last()

    /** The adapted projections of all layers by their names within one, such as self_attn.q_proj. */
    val modules: Set<String>
        get() = matrices.values.flatten().map { it.name }.filter { it.endsWith(".lora_A") }.mapTo(linkedSetOf()) { it.removeSuffix(".lora_A") }

    /** Of a layer's vector, in elements. */
    public fun vectorSize(layer: Int): Int = ends[layer + 1] - ends[layer]

    /** A layer's vector within [adapter], or whatever else is [N]; it shares the memory. */
    public fun vector(adapter: FloatBuffer, layer: Int): FloatBuffer = adapter.part(ends[layer], vectorSize(layer))

    internal fun matrices(layer: Int): List<AdapterMatrix> = matrices.getValue(kinds[layer])

    /** A layer's adapted projections by their names within it, such as self_attn.q_proj. */
    internal fun modules(layer: Int): List<String> =
        matrices(layer).filter { it.name.endsWith(".lora_A") }.map { it.name.removeSuffix(".lora_A") }

    /** A projection's name in the checkpoint, such as model.layers.0.self_attn.q_proj. */
    internal fun moduleName(layer: Int, module: String): String = "${prefix}layers.$layer.$module"

    /** PEFT's name of a layer's matrix, such as self_attn.q_proj.lora_A. */
    internal fun tensorName(layer: Int, matrix: String): String = "$PEFT_PREFIX${moduleName(layer, matrix)}.weight"
}

private fun sizeOf(matrices: List<AdapterMatrix>): Int = matrices.lastOrNull()?.let { Math.addExact(it.offset, it.size) } ?: 0
