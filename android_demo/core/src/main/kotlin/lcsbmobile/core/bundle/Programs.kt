package lcsbmobile.core.bundle

import lcsbmobile.core.io.quoted

/** What a tensor is, on a program's boundary or in `weights.bin`. ANY is a free dimension. */
internal data class TensorType(val dtype: String, val shape: List<Long>) {
    override fun toString() = "$dtype $shape"
}

internal typealias Tensors = Map<String, TensorType>

internal const val ANY = -1L
internal const val KEPT = "kept." // what the names of the tensors begin with that a forward keeps for the backward
internal const val PAST = "past_" // and of the state that a program reads while a text is written
internal const val GRADIENT = "d_" // and of the gradients of what crosses between layers
internal val PRODUCTS = listOf("gemm", "gemm_backward")
internal val FREE = PRODUCTS + "adamw" // the programs that have free dimensions
internal val TOKENS = listOf("input_ids", "position_ids", "segment_ids")

// The programs of a kind: KIND_ROLE.
internal const val FORWARD = "forward"
internal const val BACKWARD = "backward"
internal const val FORWARD_KEEP = "forward_keep"
internal const val BACKWARD_KEPT = "backward_kept"
internal const val PREFILL = "prefill"
internal const val DECODE = "decode"
internal val ROLES = listOf(FORWARD, BACKWARD, FORWARD_KEEP, BACKWARD_KEPT, PREFILL, DECODE)

internal fun program(kind: String, role: String): String = "${kind}_$role"

/**
 * A program's inputs and outputs besides weights, by which a runner makes its buffers. [optional]: inputs that it has if it needs them.
 * [boundInputs], [boundOutputs]: those that are what the layers bind them to (LayerRelations.kt). [readsKept], [writesKept]: it has inputs or
 * outputs `kept.N` besides, of which types the exporter chooses.
 */
internal class Signature(
    val inputs: Tensors,
    val outputs: Tensors,
    val optional: Tensors = emptyMap(),
    val boundInputs: Collection<String> = emptySet(),
    val boundOutputs: Collection<String> = emptySet(),
    val readsKept: Boolean = false,
    val writesKept: Boolean = false,
)

/** By program; of a manifest whose kinds and layers agree. Specification: docs/onnxruntime.md. */
internal fun signatures(manifest: Manifest): Map<String, Signature> =
    commonPrograms(manifest) + manifest.kinds.flatMap { kind -> ROLES.map { program(kind.name, it) to signature(manifest, kind, it) } }

/** What is wrong, tensor by tensor, as sentences. */
internal fun differences(where: String, expected: Tensors, found: Tensors): Sequence<String> =
    (expected.keys + found.keys).asSequence().filter { expected[it] != found[it] }.map {
        "$where: ${quoted(it)}: expected ${expected[it] ?: "none"}, found ${found[it] ?: "none"}"
    }

/** Inputs or outputs of a program besides weights. */
internal fun described(tensors: List<GraphTensor>): Tensors =
    tensors.filter { it.weight == null }.associate { it.name to TensorType(it.dtype, it.shape) }

private fun commonPrograms(manifest: Manifest): Map<String, Signature> {
    val t = manifest.seqLen.toLong()
    val d = manifest.model.hiddenSize.toLong()
    val h = floats("h", t, d)
    val labelled = h + integers(t, listOf("labels"))
    val tables = manifest.layers.flatMapTo(HashSet()) { it.reads.values } - "h"
    val moments = listOf("parameters", "first_moment", "second_moment")
    val product = Signature(floats(listOf("a", "b"), ANY, ANY), floats("y", ANY, ANY))
    val products = if (TARGETS.getValue(manifest.target).measuresProducts) PRODUCTS.associateWith { product } else emptyMap()
    return products + mapOf(
        "embed" to Signature(integers(t, TOKENS), h, boundOutputs = tables),
        "decode_embed" to Signature(integers(1, listOf("input_ids", "position_ids")), floats("h", 1, d), boundOutputs = tables),
        "head" to Signature(labelled, floats("loss") + floats("g", t, d)),
        "head_eval" to Signature(labelled, floats("loss")),
        "logits" to Signature(floats("h", 1, d), floats("logits", manifest.model.vocabSize.toLong())),
        "adamw" to
            Signature(floats(moments + "gradient", ANY) + floats(listOf("decay", "rate", "root")), floats(moments.map { "${it}_next" }, ANY)),
    )
}

/** The names of the programs that are no kind's. */
internal val COMMON = listOf("embed", "decode_embed", "head", "head_eval", "logits", "adamw") + PRODUCTS

private fun signature(manifest: Manifest, kind: Kind, role: String): Signature {
    val hidden = longArrayOf(if (role == DECODE) 1 else manifest.seqLen.toLong(), manifest.model.hiddenSize.toLong())
    val bound = kind.reads + kind.takes
    val fed = floats("h", *hidden) + floats("adapter", kind.size.toLong())
    val given = floats("h_next", *hidden) + gives(manifest, kind, if (role == FORWARD_KEEP) FORWARD else role)
    val state = kind.state.associate { it.name to TensorType("float32", it.shape) }
    return when (role) {
        PREFILL -> Signature(fed, given + state, boundInputs = bound)
        DECODE -> {
            val written = kind.state.associate { it.name to TensorType("float32", if (it.byPosition) listOf(1L) + it.shape.drop(1) else it.shape) }
            Signature(fed, given + written, optional = state.mapKeys { "$PAST${it.key}" }, boundInputs = bound)
        }
        BACKWARD, BACKWARD_KEPT -> {
            val owed = gives(manifest, kind, FORWARD).mapKeys { "$GRADIENT${it.key}" }
            val kept = role == BACKWARD_KEPT // then h may be of no use
            val required = (if (kept) fed - "h" else fed) + floats("g", *hidden) + owed
            val gradients = floats("g_next", *hidden) + floats("d_adapter", kind.size.toLong())
            Signature(required, gradients, floats("h", *hidden), bound, kind.takes.map { "$GRADIENT$it" }, readsKept = kept)
        }
        else -> Signature(fed, given, boundInputs = bound, writesKept = role == FORWARD_KEEP)
    }
}

/** What a program of a kind gives: of which types it does is the exporter's choice. */
internal fun gives(manifest: Manifest, kind: Kind, role: String): Tensors {
    if (kind.gives.isEmpty()) return emptyMap()
    val names = kind.gives.toSet()
    return described(manifest.graphs[program(kind.name, role)]?.outputs.orEmpty()).filterKeys { it in names }
}

private fun floats(name: String, vararg shape: Long): Tensors = floats(listOf(name), *shape)

private fun floats(names: List<String>, vararg shape: Long): Tensors = names.associateWith { TensorType("float32", shape.toList()) }

private fun integers(count: Long, names: List<String>): Tensors = names.associateWith { TensorType("int64", listOf(count)) }
