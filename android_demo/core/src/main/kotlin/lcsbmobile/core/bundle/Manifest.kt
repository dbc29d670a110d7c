package lcsbmobile.core.bundle

import kotlinx.serialization.Serializable

internal const val FORMAT_VERSION = 3L
internal const val MANIFEST_FILE = "manifest.json"
internal const val WEIGHTS_FILE = "weights.bin"
internal const val ADAPTER_FILE = "adapter.safetensors"
internal const val GOLDEN_FILE = "golden.json"
internal const val LAYERS = "layers." // what the names of tensors begin with that are stacked over the layers of a kind

/** An input or output of a graph; -1: any size. [weight]: the tensor of `weights.bin` to feed, of `layers.…` the layer's own slice. */
@Serializable
public data class GraphTensor(val name: String, val dtype: String, val shape: List<Long>, val meaning: String, val weight: String? = null)

/**
 * A program of the bundle: its file, and its inputs and outputs in order.
 *
 * [initializers]: weights that the program holds as constants, which its sessions, one a layer, are given when they are made.
 * [workingBytes]: about what the runtime allocates for the program's own values while it runs; null where it was not determined.
 */
@Serializable
public data class Graph(
    val file: String,
    val inputs: List<GraphTensor>,
    val outputs: List<GraphTensor>,
    val initializers: List<GraphTensor> = emptyList(),
    val workingBytes: Long? = null,
)

@Serializable
public data class FileEntry(val size: Long, val sha256: String)

@Serializable
public data class Arena(val initialBytes: Long)

/** ONNX Runtime's session configuration entries, and the arena that a binding shares between sessions which can; this one cannot. */
@Serializable
public data class RuntimeSettings(val sessionConfig: Map<String, String>, val arena: Arena)

/** [shape] is row-major; of a tensor of the blocks (`layers.KIND.NAME`) the first dimension is the layer's number in its kind. [offset] in bytes. */
@Serializable
public data class WeightTensor(val name: String, val dtype: String, val shape: List<Long>, val offset: Long) {
    val perLayer: Boolean get() = name.startsWith(LAYERS)

    /** Of whose layers it is, if of any. */
    internal val kind: String? get() = if (perLayer) name.removePrefix(LAYERS).substringBefore('.') else null
    val nbytes: Long get() = tensorBytes(dtype, shape)
}

/**
 * `manifest.json`: all that a device must know of a bundle, as data. [files] lists every file of the bundle but the manifest. [schedule]:
 * the steps of one cycle. [accuracyLevel]: of the forward's products, 4 rounds activations to int8. [base]: SHA-256 of the frozen model, by
 * which an adapter knows its base. [digest]: SHA-256 of the manifest's own bytes, in which these 64 characters are zeros.
 */
@Serializable
public data class Manifest(
    val formatVersion: Long,
    val target: String,
    val source: String,
    val model: ModelConfig,
    val lora: LoraConfig,
    val kinds: List<Kind>,
    val layers: List<Layer>,
    val quantization: QuantizationConfig,
    val seqLen: Int,
    val seed: Long,
    val scheduleConfig: ScheduleConfig,
    val schedule: List<Subset>,
    val optimizer: AdamWConfig,
    val accuracyLevel: Int,
    val runtime: RuntimeSettings,
    val graphs: Map<String, Graph>,
    val weights: List<WeightTensor>,
    val reconstructionError: Map<String, Double>,
    val tools: Map<String, String>,
    val files: Map<String, FileEntry>,
    val identity: String? = null,
    val base: String? = null,
    val digest: String? = null,
) {
    /** Where each layer's vector lies in the adapter, and each LoRA matrix in it. */
    public val adapter: AdapterLayout by lazy {
        AdapterLayout(lora, kinds.associate { it.name to it.matrices }, layers.map { it.kind }, model.tensorPrefix).of(baseModel)
    }

    internal val baseModel: Base get() = Base(source.substringBeforeLast(": ", "").ifEmpty { source }, base, tools["lcsb_mobile"])
    private val named by lazy { kinds.associateBy { it.name } }

    /** A layer's. */
    internal fun kind(layer: Int): Kind = named.getValue(layers[layer].kind)
}

/** Bytes of one element. */
internal val DTYPE_BYTES = mapOf("bool" to 1L, "int64" to 8L, "uint8" to 1L, "int8" to 1L, "float16" to 2L, "float32" to 4L)

private const val BEYOND = 1L shl 60 // more bytes than any file has, and few enough to add to

/** Of positive dimensions (a free one counts as 1), at most BEYOND; BEYOND too for a dtype that is none. */
internal fun tensorBytes(dtype: String, shape: List<Long>): Long {
    var bytes = DTYPE_BYTES[dtype] ?: return BEYOND
    for (size in shape) if (size > 1) bytes = if (bytes > BEYOND / size) BEYOND else bytes * size
    return bytes
}
