package lcsbmobile.core.bundle

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.io.quoted
import lcsbmobile.core.io.repeatedKey
import lcsbmobile.core.io.some
import java.io.File

// What a manifest must hold before anything of its bundle is read, however it came here. Specification: docs/hostile_input.md.

internal const val BUFFER_BYTES = 1L shl 30 // of one tensor that a runner makes a buffer for; a mask [T, T] has them at 16,384 tokens
internal const val PAGE = 4096
private const val MOST_DIMENSIONS = 8
private const val MOST_WIDTH = 1L shl 24 // of attention: heads times a head's dimension
private const val MOST_INTEGER = 1L shl 53 // what every reader of JSON has exactly
internal const val MOST_FAULTS_SOUGHT = 1000
private const val MOST_KINDS = 64 // of attention, and of layers; a model has one or two
private val DIGEST = Regex("[0-9a-f]{64}")
private val KIND = Regex("[a-z][a-z0-9]{0,30}") // no underscore: the first one in a program's name ends its kind
private val NAME = Regex("[a-z][a-z0-9_]*") // of what a kind reads, takes, gives and remembers
private const val MOST_PREFIX = 200
private val PREFIX = Regex("(?:[A-Za-z0-9_]+\\.)*")
private val HEADS = 1..4096
private val RESERVED = setOf("h", "g", "adapter", "h_next", "g_next") // what else a program takes and returns, as what begins so:
private val RESERVED_BEGINNINGS = listOf(PAST, GRADIENT)
private val STORED = setOf("uint8", "int8", "float16", "float32") // the dtypes of weights.bin

// The session configuration entries that a manifest may have; each is "0" or "1". Others make ONNX Runtime write and read files at a path of
// the manifest's choice, or take a model for another format.
private val SESSION_CONFIG = setOf("session.disable_quant_qdq", "session.force_spinning_stop", "mlas.disable_kleidiai")

private class Bounds(val field: String, val least: Double, val most: Double, val value: (Manifest) -> Number)

// Far above any model: what is allocated is bounded by BUFFER_BYTES and by the sizes of the files.
private val RANGES = listOf(
    Bounds("seq_len", 1.0, 1048576.0) { it.seqLen },
    Bounds("seed", 0.0, MOST_INTEGER.toDouble()) { it.seed },
    Bounds("model.vocab_size", 1.0, 16777216.0) { it.model.vocabSize },
    Bounds("model.hidden_size", 1.0, 262144.0) { it.model.hiddenSize },
    Bounds("model.intermediate_size", 1.0, 1048576.0) { it.model.intermediateSize },
    Bounds("model.num_hidden_layers", 1.0, 4096.0) { it.model.numHiddenLayers },
    Bounds("model.num_attention_heads", 1.0, 4096.0) { it.model.numAttentionHeads },
    Bounds("model.num_key_value_heads", 1.0, 4096.0) { it.model.numKeyValueHeads },
    Bounds("model.head_dim", 1.0, 4096.0) { it.model.headDim },
    Bounds("model.rms_norm_eps", 0.0, 1.0) { it.model.rmsNormEps },
    Bounds("model.query_scale", 1e-9, 1e9) { it.model.queryScale },
    Bounds("model.embedding_scale", 1e-9, 1e9) { it.model.embeddingScale },
    Bounds("model.residual_multiplier", 1e-9, 1e9) { it.model.residualMultiplier },
    Bounds("model.logits_scaling", 1e-9, 1e9) { it.model.logitsScaling },
    Bounds("model.attn_logit_softcapping", 1e-9, 1e9) { it.model.attnLogitSoftcapping ?: 1.0 },
    Bounds("model.final_logit_softcapping", 1e-9, 1e9) { it.model.finalLogitSoftcapping ?: 1.0 },
    Bounds("model.rotary_dim", 2.0, 4096.0) { it.model.rotaryDim },
    Bounds("model.conv_kernel", 0.0, 256.0) { it.model.convKernel },
    Bounds("lora.rank", 1.0, 65536.0) { it.lora.rank },
    Bounds("lora.alpha", 1e-9, 1e9) { it.lora.alpha },
    Bounds("quantization.group_size", 2.0, 65536.0) { it.quantization.groupSize },
    Bounds("schedule_config.subsets", 1.0, 4096.0) { it.scheduleConfig.subsets },
    Bounds("optimizer.eps", 0.0, 1.0) { it.optimizer.eps },
    Bounds("optimizer.weight_decay", 0.0, 1e3) { it.optimizer.weightDecay },
    Bounds("optimizer.clip_norm", 1e-30, 1e30) { it.optimizer.clipNorm },
    Bounds("runtime.arena.initial_bytes", 0.0, 68719476736.0) { it.runtime.arena.initialBytes },
)

/** [text]: the manifest as it was read. Throws BUNDLE_UNREADABLE with all that is wrong; relations are looked at once each value is in its range. */
internal fun checkManifest(manifest: Manifest, text: String, path: File) {
    repeatedKey(text)?.let {
        throw unreadable("$path: malformed manifest: the key ${quoted(it)} stands twice in an object; export the bundle again")
    }
    val faults = valueFaults(manifest, Json.parseToJsonElement(text)).take(MOST_FAULTS_SOUGHT).toList()
        .ifEmpty { relationFaults(manifest).take(MOST_FAULTS_SOUGHT).toList() }
    if (faults.isNotEmpty()) throw unreadable("$path: malformed manifest: ${some(faults)}; export the bundle again")
}

internal fun unreadable(message: String, cause: Throwable? = null) = LcsbException(Fault.BUNDLE_UNREADABLE, message, cause = cause)

private fun valueFaults(manifest: Manifest, read: JsonElement): Sequence<String> = sequence {
    for (range in RANGES) {
        val value = range.value(manifest)
        if (!(value.toDouble() in range.least..range.most)) {
            yield("${range.field}: expected ${figure(range.least)} to ${figure(range.most)}, found $value")
        }
    }
    yieldAll(choiceFaults(manifest))
    if (manifest.model.attentionKinds.size > MOST_KINDS) {
        yield("model.attention_kinds: expected at most $MOST_KINDS, found ${manifest.model.attentionKinds.size}")
    }
    for (kind in manifest.model.attentionKinds.values) {
        if (!numbers(kind).all { it > 0 && it <= 1e12 }) yield("model.attention_kinds: expected positive numbers, found $kind")
    }
    for ((field, value) in listOf("identity" to manifest.identity, "base" to manifest.base, "digest" to manifest.digest)) {
        if (value != null && !DIGEST.matches(value)) yield("$field: expected a SHA-256, found ${quoted(value, 80)}")
    }
    for ((key, value) in manifest.runtime.sessionConfig) {
        if (key !in SESSION_CONFIG || value !in setOf("0", "1")) {
            yield("runtime.session_config: ${quoted(key)} = ${quoted(value, 80)} is none of the entries that an export writes")
        }
    }
    yieldAll(leafFaults(read))
    yieldAll(tableFaults(manifest))
    if (manifest.kinds.size !in 1..MOST_KINDS) yield("kinds: expected 1 to $MOST_KINDS, found ${manifest.kinds.size}")
    for (kind in manifest.kinds) yieldAll(kindFaults(kind).map { "kinds.${quoted(kind.name, 80)}: $it" })
    for ((index, layer) in manifest.layers.withIndex()) {
        if (minOf(layer.number, layer.offset) < 0) yield("layers.$index: expected 0 or more, found number ${layer.number} at ${layer.offset}")
    }
    for ((name, graph) in manifest.graphs) yieldAll(graphFaults(name, graph).map { "graphs.$name: $it" })
}

private fun choiceFaults(manifest: Manifest): Sequence<String> = sequence {
    val prefix = manifest.model.tensorPrefix
    if (prefix.length > MOST_PREFIX || !PREFIX.matches(prefix)) yield("model.tensor_prefix: expected words that end with dots, found ${quoted(prefix, 80)}")
    manifest.model.linearAttention?.let { if (!heads(it).all { number -> number in HEADS }) yield("model.linear_attention: expected $HEADS, found $it") }
    val quantization = manifest.quantization
    for ((field, bits) in listOf("bits" to quantization.bits, "embedding_bits" to quantization.embeddingBits)) {
        if (bits != 4 && bits != 8) yield("quantization.$field: expected 4 or 8, found $bits")
    }
    if (quantization.quantizer !in setOf("search", "gptq")) {
        yield("quantization.quantizer: expected search or gptq, found ${quoted(quantization.quantizer)}")
    }
    if (manifest.accuracyLevel != 0 && manifest.accuracyLevel != 4) yield("accuracy_level: expected 0 or 4, found ${manifest.accuracyLevel}")
    val order = manifest.scheduleConfig.order
    if (order !in setOf("cyclic", "shuffled")) yield("schedule_config.order: expected cyclic or shuffled, found ${quoted(order)}")
    val betas = manifest.optimizer.betas
    if (betas.size != 2 || !betas.all { it >= 0 && it < 1 }) yield("optimizer.betas: expected two of 0 to less than 1, found $betas")
}

private fun heads(linear: LinearAttention) = linear.run { listOf(numKeyHeads, numValueHeads, keyHeadDim, valueHeadDim, chunk) }

private fun numbers(kind: AttentionKind): List<Double> {
    val scaling = kind.ropeScaling
    val numbers = listOfNotNull(kind.ropeTheta, kind.window?.toDouble())
    return if (scaling == null) numbers else numbers + scaling.numbers
}

/** Of every text, keys too, and every whole number; [where]: the key that an element stands under. No deeper than a manifest. */
private fun leafFaults(element: JsonElement, where: String = "manifest"): Sequence<String> = sequence {
    when (element) {
        is JsonObject -> for ((key, inner) in element) {
            if (key.any(::isControl)) yield("$where: expected a text without control characters, found ${quoted(key, 80)}")
            yieldAll(leafFaults(inner, key))
        }
        is JsonArray -> for (inner in element) yieldAll(leafFaults(inner, where))
        is JsonPrimitive -> {
            val number = if (element.isString) null else element.content.toLongOrNull()
            if (element.isString && element.content.any(::isControl)) {
                yield("$where: expected a text without control characters, found ${quoted(element.content, 80)}")
            } else if (number != null && number !in -MOST_INTEGER..MOST_INTEGER) {
                yield("$where: expected a number of at most 2^53, found $number")
            }
        }
    }
}

private fun isControl(character: Char) = character < ' ' || character in '\u007f'..'\u009f'

private fun tableFaults(manifest: Manifest): Sequence<String> = sequence {
    for (tensor in manifest.weights) {
        val dimensions = tensor.shape.size in 1..MOST_DIMENSIONS && tensor.shape.all { it >= 1 }
        if (!dimensions || tensor.offset < 0 || tensor.offset % PAGE != 0L || tensor.dtype !in STORED) {
            yield(
                "weights: ${quoted(tensor.name)}: expected positive dimensions at a multiple of $PAGE bytes, found ${quoted(tensor.dtype, 20)} " +
                    "${tensor.shape} at byte ${tensor.offset}",
            )
        }
    }
}

private fun kindFaults(kind: Kind): Sequence<String> = sequence {
    if (!KIND.matches(kind.name)) yield("name: expected lower-case letters and digits")
    for (name in kind.reads + kind.takes + kind.gives + kind.state.map { it.name }) {
        if (!NAME.matches(name) || name in RESERVED || RESERVED_BEGINNINGS.any(name::startsWith)) {
            yield("${quoted(name, 80)}: expected the name of a table, a value or a state")
        }
    }
    if (kind.size < 1) yield("size: expected 1 or more, found ${kind.size}")
    for (matrix in kind.matrices) {
        if (matrix.shape.size != 2 || matrix.shape.any { it < 1 } || matrix.offset < 0) {
            yield("matrices: ${quoted(matrix.name)}: expected positive dimensions, found ${matrix.shape} at ${matrix.offset}")
        }
    }
    for (state in kind.state) {
        if (state.shape.size !in 1..MOST_DIMENSIONS || state.shape.any { it < 1 }) {
            yield("state: ${quoted(state.name)}: expected positive dimensions, found ${state.shape}")
        }
    }
    if (kind.attentionWidth !in 0..MOST_WIDTH) yield("attention_width: expected 0 to $MOST_WIDTH, found ${kind.attentionWidth}")
    for ((field, work) in listOf("flops" to kind.flops, "decompressed_bytes" to kind.decompressedBytes)) {
        if (minOf(work.forward, work.backward, work.backwardKept) < 0) yield("$field: expected 0 or more, found $work")
    }
}

private fun graphFaults(name: String, graph: Graph): Sequence<String> = sequence {
    val least = if (name in FREE) ANY else 1L
    for (x in graph.inputs + graph.initializers + graph.outputs) {
        if (x.dtype !in DTYPE_BYTES || x.shape.size > MOST_DIMENSIONS || x.shape.any { it == 0L || it < least }) {
            yield("${quoted(x.name)}: expected a dtype and positive dimensions, found ${quoted(x.dtype, 20)} ${x.shape}")
        } else if (x.weight == null && tensorBytes(x.dtype, x.shape) > BUFFER_BYTES) {
            yield("${quoted(x.name)}: expected at most $BUFFER_BYTES bytes, found ${x.dtype} ${x.shape}; export with a shorter --seq-len")
        }
    }
    if (graph.workingBytes != null && graph.workingBytes < 0) yield("working_bytes: expected 0 or more, found ${graph.workingBytes}")
}

/** A bound as a person writes it. */
private fun figure(value: Double) = if (value % 1 == 0.0 && value < 1e16) value.toLong().toString() else value.toString()
