package lcsbmobile.core.bundle

import lcsbmobile.core.io.quoted

/** What a tensor is, on a program's boundary or in `weights.bin`. ANY is a free dimension. */
internal data class TensorType(val dtype: String, val shape: List<Long>) {
    override fun toString() = "$dtype $shape"
}

internal typealias Tensors = Map<String, TensorType>

internal const val ANY = -1L
internal const val KEPT = "kept." // what the names of the tensors begin with that a forward keeps for the backward
internal val PRODUCTS = listOf("gemm", "gemm_backward") // the programs that have free dimensions
internal val TOKENS = listOf("input_ids", "position_ids", "segment_ids")

/** Program -> its inputs and outputs besides weights, by which a runner makes its buffers. Specification: docs/onnxruntime.md. */
internal fun signatures(manifest: Manifest): Map<String, Pair<Tensors, Tensors>> {
    val products = PRODUCTS.associateWith { floats(listOf("a", "b"), ANY, ANY) to floats("y", ANY, ANY) }
    return blockPrograms(manifest) + decodingPrograms(manifest) + products
}

/** What is wrong, tensor by tensor, as sentences. */
internal fun differences(where: String, expected: Tensors, found: Tensors): Sequence<String> =
    (expected.keys + found.keys).asSequence().filter { expected[it] != found[it] }.map {
        "$where: ${quoted(it)}: expected ${expected[it] ?: "none"}, found ${found[it] ?: "none"}"
    }

private fun blockPrograms(manifest: Manifest): Map<String, Pair<Tensors, Tensors>> {
    val t = manifest.seqLen.toLong()
    val n = manifest.adapter.size.toLong()
    val d = manifest.model.hiddenSize.toLong()
    val h = floats("h", t, d)
    val forward = h + attention(manifest, t, t) + floats("adapter", n)
    val backward = forward + floats("g", t, d)
    val gradients = floats("g_next", t, d) + floats("d_adapter", n)
    val next = floats("h_next", t, d)
    val moments = listOf("parameters", "first_moment", "second_moment")
    val labelled = h + integers(t, listOf("labels"))
    return mapOf(
        "embed" to (integers(t, TOKENS) to h + byKind(manifest, attention(manifest, t, t))),
        "block_forward" to (forward to next),
        "block_backward" to (backward to gradients),
        "block_forward_keep" to (forward to next),
        "block_backward_kept" to (backward to gradients),
        "head" to (labelled to floats("loss") + floats("g", t, d)),
        "head_eval" to (labelled to floats("loss")),
        "adamw" to (floats(moments + "gradient", n) + floats(listOf("decay", "rate", "root")) to floats(moments.map { "${it}_next" }, n)),
    )
}

private fun decodingPrograms(manifest: Manifest): Map<String, Pair<Tensors, Tensors>> {
    val model = manifest.model
    val t = manifest.seqLen.toLong()
    val d = model.hiddenSize.toLong()
    val cache = longArrayOf(model.numKeyValueHeads.toLong(), model.headDim.toLong())
    val adapter = floats("adapter", manifest.adapter.size.toLong())
    val prompt = floats("h", t, d) + attention(manifest, t, t) + adapter
    val step = floats("h", 1, d) + floats(listOf("past_keys", "past_values"), t, *cache) + attention(manifest, 1, t + 1) + adapter
    val keyed = listOf("keys", "values")
    return mapOf(
        "block_prefill" to (prompt to floats("h_next", t, d) + floats(keyed, t, *cache)),
        "decode_embed" to
            (integers(1, listOf("input_ids", "position_ids")) to floats("h", 1, d) + byKind(manifest, attention(manifest, 1, t + 1))),
        "block_decode" to (step to floats("h_next", 1, d) + floats(keyed, 1, *cache)),
        "logits" to (floats("h", 1, d) to floats("logits", model.vocabSize.toLong())),
    )
}

private fun floats(name: String, vararg shape: Long): Tensors = floats(listOf(name), *shape)

private fun floats(names: List<String>, vararg shape: Long): Tensors = names.associateWith { TensorType("float32", shape.toList()) }

private fun integers(count: Long, names: List<String>): Tensors = names.associateWith { TensorType("int64", listOf(count)) }

private fun attention(manifest: Manifest, rows: Long, columns: Long): Tensors =
    floats(listOf("cos", "sin"), rows, manifest.model.headDim.toLong()) + floats("mask", rows, columns)

private fun byKind(manifest: Manifest, tensors: Tensors): Tensors =
    manifest.model.attentionKinds.indices.flatMap { kind -> tensors.map { (name, type) -> "$name.$kind" to type } }.toMap()
