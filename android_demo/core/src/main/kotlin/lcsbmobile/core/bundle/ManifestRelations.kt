package lcsbmobile.core.bundle

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.io.FLOAT_BYTES
import lcsbmobile.core.io.quoted

private const val KEEPS = "block_forward_keep"
private const val READS_KEPT = "block_backward_kept"

/** How a manifest's tables must agree with each other, each number being in its range already (ManifestCheck.kt): what is wrong, as sentences. */
internal fun relationFaults(manifest: Manifest): Sequence<String> =
    modelFaults(manifest) + adapterFaults(manifest) + weightFaults(manifest) + programFaults(manifest, signatures(manifest))

private fun modelFaults(manifest: Manifest): Sequence<String> = sequence {
    val model = manifest.model
    val layers = model.numHiddenLayers
    val kinds = model.attentionKinds.size
    if (model.layerKinds.size != layers || model.layerKinds.any { it !in 0 until kinds }) {
        yield("model.layer_kinds: expected one of $kinds kinds for each of $layers layers, found ${model.layerKinds.take(layers + 1)}")
    }
    if (model.numAttentionHeads % model.numKeyValueHeads != 0) {
        yield("model: ${model.numAttentionHeads} heads are no multiple of ${model.numKeyValueHeads} key-value heads")
    }
    if (manifest.schedule.isEmpty()) yield("schedule: expected at least one step, found none")
    for ((index, subset) in manifest.schedule.withIndex()) subset.fault(layers)?.let { yield("schedule: step ${index + 1}: $it") }
}

/** The matrices lie one after the other, A and B of a projection in turn, and fill a layer's vector; all layers' fit one buffer. */
private fun adapterFaults(manifest: Manifest): Sequence<String> = sequence {
    val layout = manifest.adapter
    val rank = layout.lora.rank
    if (layout.numLayers != manifest.model.numHiddenLayers) {
        yield("adapter.num_layers: expected ${manifest.model.numHiddenLayers}, found ${layout.numLayers}")
    }
    yieldAll(repeated("adapter.matrices", layout.matrices.map { it.name }))
    var end = 0L
    for ((index, matrix) in layout.matrices.withIndex()) {
        val (part, found) = if (index % 2 == 0) "lora_A" to matrix.shape[0] else "lora_B" to matrix.shape[1]
        if (!matrix.name.endsWith(".$part") || found != rank || matrix.offset.toLong() != end) {
            yield("adapter.matrices: expected a $part of rank $rank at $end, found $matrix")
        }
        end = matrix.offset + matrix.shape[0].toLong() * matrix.shape[1]
    }
    for ((a, b) in projections(layout)) {
        if (a.name.removeSuffix(".lora_A") != b.name.removeSuffix(".lora_B")) {
            yield("adapter.matrices: expected both of one projection, found ${quoted(a.name)} and ${quoted(b.name)}")
        }
    }
    if (end != layout.size.toLong() || layout.matrices.size % 2 != 0) {
        yield("adapter.size: expected $end, where the last of ${layout.matrices.size} matrices ends, found ${layout.size}")
    }
    val bytes = FLOAT_BYTES.toLong() * layout.numLayers * layout.size
    if (bytes > BUFFER_BYTES) yield("adapter: expected at most $BUFFER_BYTES bytes of all layers, found $bytes; export with a smaller --rank")
}

private fun projections(layout: AdapterLayout) = layout.matrices.chunked(2).filter { it.size == 2 }

private fun weightFaults(manifest: Manifest): Sequence<String> = sequence {
    yieldAll(repeated("weights", manifest.weights.map { it.name }))
    val table = table(manifest)
    try {
        val expected = expectedWeights(manifest)
        yieldAll(differences("weights", expected, table.filterKeys { it in expected }))
    } catch (error: LcsbException) {
        yield(error.message ?: "")
    }
    for (tensor in manifest.weights) {
        if (tensor.perLayer && tensor.shape[0] != manifest.model.numHiddenLayers.toLong()) {
            yield("weights: ${quoted(tensor.name)}: expected ${manifest.model.numHiddenLayers} layers, found ${tensor.shape[0]}")
        }
    }
    for ((before, after) in manifest.weights.sortedBy { it.offset }.zipWithNext()) {
        if (before.offset + before.nbytes > after.offset) yield("weights: ${quoted(before.name)} and ${quoted(after.name)} overlap")
    }
    val end = manifest.weights.maxOfOrNull { it.offset + it.nbytes } ?: 0L
    val size = manifest.files[WEIGHTS_FILE]?.size ?: 0L
    if (end > size) yield("weights: the tensors end at byte $end of $WEIGHTS_FILE, which has $size")
}

private fun table(manifest: Manifest): Tensors = manifest.weights.associate { it.name to TensorType(it.dtype, it.shape) }

/** Those that are known without knowing the architecture. Throws OPTION where the group size does not divide a row. */
private fun expectedWeights(manifest: Manifest): Tensors {
    val model = manifest.model
    val rope = TensorType("float32", listOf(model.attentionKinds.size, manifest.seqLen, model.headDim).map { it.toLong() })
    val tensors = linkedMapOf("norm.weight" to TensorType("float32", listOf(model.hiddenSize.toLong())), "rope.cos" to rope, "rope.sin" to rope)
    val vocabulary = if (model.tieWordEmbeddings) listOf("embed_tokens.weight") else listOf("embed_tokens.weight", "lm_head.weight")
    val quantization = manifest.quantization
    for (name in vocabulary) {
        tensors += matrix(name, emptyList(), model.vocabSize, model.hiddenSize, quantization.embeddingBits, quantization.groupSize)
    }
    for ((a, b) in projections(manifest.adapter)) {
        val name = "$LAYERS${a.name.removeSuffix(".lora_A")}.weight"
        val layers = listOf(manifest.adapter.numLayers.toLong())
        tensors += matrix(name, layers, b.shape[0], a.shape[1], quantization.bits, quantization.groupSize)
    }
    return tensors
}

private fun matrix(name: String, stack: List<Long>, rows: Int, columns: Int, bits: Int, group: Int): Tensors {
    if (columns % group != 0 || group % 2 != 0) {
        val expected = "expected an even divisor of the $columns columns of ${quoted(name)}, found $group"
        throw LcsbException(Fault.OPTION, "quantization.group_size: $expected")
    }
    val shape = stack + listOf(rows.toLong(), (columns / group).toLong())
    val packed = if (bits == 4) TensorType("uint8", shape + (group / 2).toLong()) else TensorType("int8", shape + group.toLong())
    return mapOf("$name.packed" to packed, "$name.scale" to TensorType("float16", shape))
}

private fun programFaults(manifest: Manifest, known: Map<String, Pair<Tensors, Tensors>>): Sequence<String> = sequence {
    val graphs = manifest.graphs
    val table = table(manifest)
    val missing = (known.keys - graphs.keys).sorted()
    if (missing.isNotEmpty()) yield("graphs: ${missing.joinToString()} missing")
    for ((name, graph) in graphs) yieldAll(graphFaults(name, graph, table, known[name]).map { "graphs.$name: $it" })
    val writes = graphs[KEEPS]
    val reads = graphs[READS_KEPT]
    if (writes != null && reads != null) {
        val read = described(reads.inputs.filter { it.name.startsWith(KEPT) })
        yieldAll(differences("graphs.$KEEPS: what $READS_KEPT reads", read, described(writes.outputs.drop(1))))
    }
}

private fun graphFaults(name: String, graph: Graph, table: Tensors, known: Pair<Tensors, Tensors>?): Sequence<String> = sequence {
    if (graph.file != "$name.onnx") yield("expected the file $name.onnx, found ${quoted(graph.file)}")
    yieldAll(repeated("inputs", (graph.inputs + graph.initializers).map { it.name }))
    yieldAll(repeated("outputs", graph.outputs.map { it.name }))
    yieldAll(weightsOfProgram(graph, table))
    if (known != null) {
        val inputs = described(graph.inputs).filterKeys { name != READS_KEPT || !it.startsWith(KEPT) }
        val outputs = described(graph.outputs).filterKeys { name != KEEPS || !it.startsWith(KEPT) }
        yieldAll(differences("inputs", known.first, inputs) + differences("outputs", known.second, outputs))
    }
}

private fun described(tensors: List<GraphTensor>): Tensors =
    tensors.filter { it.weight == null }.associate { it.name to TensorType(it.dtype, it.shape) }

/** What a program is fed of `weights.bin` is there, and of the dtype and shape that the program takes. */
private fun weightsOfProgram(graph: Graph, table: Tensors): Sequence<String> = sequence {
    for (x in graph.initializers) {
        if (x.weight?.startsWith(LAYERS) != true) yield("${quoted(x.name)}: expected the layers' weight that it is")
    }
    for (x in graph.outputs) if (x.weight != null) yield("the output ${quoted(x.name)} cannot be a weight")
    for (x in graph.inputs + graph.initializers) {
        val weight = x.weight ?: continue
        val stored = table[weight] ?: TensorType("nothing", emptyList())
        val fed = if (weight.startsWith(LAYERS)) stored.copy(shape = stored.shape.drop(1)) else stored
        yieldAll(differences("${quoted(weight)} as", mapOf(x.name to fed), mapOf(x.name to TensorType(x.dtype, x.shape))))
    }
}

private fun repeated(where: String, names: List<String>): Sequence<String> =
    names.groupingBy { it }.eachCount().asSequence().filter { it.value > 1 }.map { "$where: ${quoted(it.key)} stands twice" }
