package lcsbmobile.core.bundle

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.io.quoted

/** How a manifest's tables must agree with each other, each number being in its range already (ManifestCheck.kt): what is wrong, as sentences. */
internal fun relationFaults(manifest: Manifest): Sequence<String> = sequence {
    val faults = (modelFaults(manifest) + layerFaults(manifest)).take(MOST_FAULTS_SOUGHT).toList()
    yieldAll(faults)
    if (faults.isNotEmpty()) return@sequence // what follows rests on layers that have their kinds
    yieldAll(weightFaults(manifest) + programFaults(manifest, signatures(manifest)) + bindingFaults(manifest))
}

private fun modelFaults(manifest: Manifest): Sequence<String> = sequence {
    val model = manifest.model
    val layers = model.numHiddenLayers
    if (model.layerTypes.size != layers) yield("model.layer_types: expected one for each of $layers layers, found ${model.layerTypes.size}")
    for (type in model.attentionKinds.keys - model.layerTypes.toSet()) yield("model.attention_kinds: no layer is of type ${quoted(type, 80)}")
    if (model.numAttentionHeads % model.numKeyValueHeads != 0) {
        yield("model: ${model.numAttentionHeads} heads are no multiple of ${model.numKeyValueHeads} key-value heads")
    }
    if (model.rotaryDim % 2 != 0 || model.rotaryDim > model.headDim) {
        yield("model.rotary_dim: expected an even number up to ${model.headDim}, found ${model.rotaryDim}")
    }
    val chunk = model.linearAttention?.chunk ?: 1
    if (manifest.seqLen % chunk != 0) yield("seq_len: expected a multiple of $chunk, found ${manifest.seqLen}")
    for (kind in model.attentionKinds.values) {
        val longest = kind.ropeScaling?.longest
        if (longest != null && manifest.seqLen > longest) {
            yield("seq_len: expected at most $longest, as the model's RoPE has it, found ${manifest.seqLen}")
        }
    }
    if (manifest.schedule.isEmpty()) yield("schedule: expected at least one step, found none")
    for ((index, subset) in manifest.schedule.withIndex()) subset.fault(layers)?.let { yield("schedule: step ${index + 1}: $it") }
}

private fun weightFaults(manifest: Manifest): Sequence<String> = sequence {
    yieldAll(repeated("weights", manifest.weights.map { it.name }))
    val table = table(manifest)
    try {
        val expected = expectedWeights(manifest)
        yieldAll(differences("weights", expected, table.filterKeys { it in expected }))
    } catch (error: LcsbException) {
        yield(error.message ?: "")
    }
    val counts = manifest.layers.groupingBy { it.kind }.eachCount()
    for (tensor in manifest.weights.filter { it.perLayer }) {
        val count = counts[tensor.kind]
        if (count == null) {
            yield("weights: ${quoted(tensor.name)}: expected a tensor of one of the kinds ${counts.keys.joinToString()}")
        } else if (tensor.shape[0] != count.toLong()) {
            yield("weights: ${quoted(tensor.name)}: expected $count layers, found ${tensor.shape[0]}")
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
    val tensors = linkedMapOf("norm.weight" to TensorType("float32", listOf(model.hiddenSize.toLong())))
    for (type in model.attentionKinds.keys) {
        for (angle in listOf("cos", "sin")) tensors["rope.$type.$angle"] = TensorType("float32", listOf(manifest.seqLen, model.rotaryDim).map { it.toLong() })
    }
    val vocabulary = if (model.tieWordEmbeddings) listOf("embed_tokens.weight") else listOf("embed_tokens.weight", "lm_head.weight")
    val quantization = manifest.quantization
    val storage = storage(manifest.weights)
    for (name in vocabulary) {
        tensors += matrix(name, emptyList(), model.vocabSize, model.hiddenSize, quantization.embeddingBits, quantization.groupSize, storage)
    }
    for (kind in manifest.kinds) {
        val stack = listOf(manifest.layers.count { it.kind == kind.name }.toLong())
        for ((a, b) in projections(kind)) {
            val name = "$LAYERS${kind.name}.${a.name.removeSuffix(".lora_A")}.weight"
            tensors += matrix(name, stack, b.shape[0], a.shape[1], quantization.bits, quantization.groupSize, storage)
        }
    }
    return tensors
}

private fun matrix(name: String, stack: List<Long>, rows: Int, columns: Int, bits: Int, group: Int, storage: Storage): Tensors {
    if (columns % group != 0 || group % 2 != 0) {
        val expected = "expected an even divisor of the $columns columns of ${quoted(name)}, found $group"
        throw LcsbException(Fault.OPTION, "quantization.group_size: $expected")
    }
    val shape = stack + listOf(rows.toLong(), (columns / group).toLong())
    val packed = if (bits == 4) TensorType("uint8", shape + (group / 2).toLong()) else TensorType(storage.bytes, shape + group.toLong())
    return mapOf("$name.packed" to packed, "$name.scale" to TensorType(storage.scales, shape))
}

/** How a bundle stores scales and 8-bit values, by what its programs are for; on a GPU, a value q is stored as q + 128. */
private enum class Storage(val scales: String, val bytes: String) {
    CPU("float16", "int8"),
    GPU("float32", "uint8"),
}

private fun storage(weights: List<WeightTensor>): Storage {
    val scales = weights.filter { it.name.endsWith(".scale") }.map { it.dtype }.toSet()
    return if (scales == setOf(Storage.GPU.scales)) Storage.GPU else Storage.CPU
}

private fun programFaults(manifest: Manifest, known: Map<String, Signature>): Sequence<String> = sequence {
    val graphs = manifest.graphs
    val table = table(manifest)
    val target = TARGETS.getValue(manifest.target)
    val missing = (known.keys - graphs.keys).sorted()
    if (missing.isNotEmpty()) yield("graphs: ${missing.joinToString()} missing")
    val kinds = manifest.kinds.flatMap { kind -> ROLES.map { program(kind.name, it) to kind.name } }.toMap()
    for ((name, graph) in graphs) {
        yieldAll((fileFaults(target.programFile(name), graph) + weightsOfProgram(graph, table, kinds[name])).map { "graphs.$name: $it" })
        known[name]?.let { signature -> yieldAll(signatureFaults(graph, signature).map { "graphs.$name: $it" }) }
    }
    for (kind in manifest.kinds) {
        val writes = graphs[program(kind.name, FORWARD_KEEP)] ?: continue
        val reads = graphs[program(kind.name, BACKWARD_KEPT)] ?: continue
        val where = "graphs.${program(kind.name, FORWARD_KEEP)}: what ${program(kind.name, BACKWARD_KEPT)} reads"
        yieldAll(differences(where, kept(reads.inputs), kept(writes.outputs)))
    }
}

private fun fileFaults(file: String, graph: Graph): Sequence<String> = sequence {
    if (graph.file != file) yield("expected the file $file, found ${quoted(graph.file)}")
    yieldAll(repeated("inputs", (graph.inputs + graph.initializers).map { it.name }))
    yieldAll(repeated("outputs", graph.outputs.map { it.name }))
}

/** What the layers bind is looked at layer by layer. */
private fun signatureFaults(graph: Graph, signature: Signature): Sequence<String> = sequence {
    val inputs = described(graph.inputs) - signature.boundInputs.toSet()
    val outputs = described(graph.outputs) - signature.boundOutputs.toSet()
    val expected = signature.inputs + signature.optional.filterKeys { it in inputs }
    yieldAll(differences("inputs", expected, inputs.filterKeys { !signature.readsKept || !it.startsWith(KEPT) }))
    yieldAll(differences("outputs", signature.outputs, outputs.filterKeys { !signature.writesKept || !it.startsWith(KEPT) }))
}

private fun kept(tensors: List<GraphTensor>): Tensors = described(tensors).filterKeys { it.startsWith(KEPT) }

/** What a program is fed of `weights.bin` is there, of the dtype and shape that the program takes, and of its own [kind] of layers. */
private fun weightsOfProgram(graph: Graph, table: Tensors, kind: String?): Sequence<String> = sequence {
    for (x in graph.initializers) {
        if (x.weight?.startsWith(LAYERS) != true) yield("${quoted(x.name)}: expected the layers' weight that it is")
    }
    for (x in graph.outputs) if (x.weight != null) yield("the output ${quoted(x.name)} cannot be a weight")
    for (x in graph.inputs + graph.initializers) {
        val weight = x.weight ?: continue
        val stacked = weight.startsWith(LAYERS)
        if (if (kind == null) stacked else !weight.startsWith("$LAYERS$kind.")) {
            yield("${quoted(weight)}: expected ${if (kind == null) "no weight of the layers" else "one of the kind $kind"}")
        }
        val stored = table[weight] ?: TensorType("nothing", emptyList())
        val fed = if (stacked) stored.copy(shape = stored.shape.drop(1)) else stored
        yieldAll(differences("${quoted(weight)} as", mapOf(x.name to fed), mapOf(x.name to TensorType(x.dtype, x.shape))))
    }
}
