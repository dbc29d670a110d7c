package lcsbmobile.core.bundle

import lcsbmobile.core.io.FLOAT_BYTES
import lcsbmobile.core.io.quoted

// How kinds and layers must agree: with each other, and then what the layers bind with the programs that take it. Each number is in its
// range already (ManifestCheck.kt).

/** What is wrong with kinds and layers by themselves, as sentences. Where it is nothing, every layer has its kind, and the adapter a layout. */
internal fun layerFaults(manifest: Manifest): Sequence<String> = sequence {
    yieldAll(repeated("kinds", manifest.kinds.map { it.name }))
    val used = manifest.layers.mapTo(HashSet()) { it.kind }
    for (kind in manifest.kinds) {
        if (kind.name !in used) yield("kinds: no layer is of ${quoted(kind.name)}")
        yieldAll(kindFaults(manifest, kind).map { "kinds.${kind.name}: $it" })
    }
    if (manifest.layers.size != manifest.model.numHiddenLayers) {
        yield("layers: expected ${manifest.model.numHiddenLayers}, found ${manifest.layers.size}")
    }
    yieldAll(placeFaults(manifest))
    yieldAll(crossingFaults(manifest))
}

private fun kindFaults(manifest: Manifest, kind: Kind): Sequence<String> = sequence {
    for (program in ROLES.map { program(kind.name, it) }) if (program in COMMON) yield("another program is called $program")
    yieldAll(repeated("names", kind.reads + kind.takes + kind.gives + kind.state.map { it.name })) // a program may have all of them
    for (state in kind.state) {
        if (state.byPosition && state.shape[0] != manifest.seqLen.toLong()) {
            yield("state: ${quoted(state.name)}: expected ${manifest.seqLen} places, found ${state.shape}")
        }
    }
    yieldAll(matrixFaults(manifest.lora.rank, kind))
}

/** The matrices lie one after the other, A and B of a projection in turn, and fill a layer's vector. */
private fun matrixFaults(rank: Int, kind: Kind): Sequence<String> = sequence {
    yieldAll(repeated("matrices", kind.matrices.map { it.name }))
    var end = 0L
    for ((index, matrix) in kind.matrices.withIndex()) {
        val (part, found) = if (index % 2 == 0) "lora_A" to matrix.shape[0] else "lora_B" to matrix.shape[1]
        if (!matrix.name.endsWith(".$part") || found != rank || matrix.offset.toLong() != end) {
            yield("matrices: expected a $part of rank $rank at $end, found $matrix")
        }
        end = matrix.offset + matrix.shape[0].toLong() * matrix.shape[1]
    }
    for ((a, b) in projections(kind)) {
        if (a.name.removeSuffix(".lora_A") != b.name.removeSuffix(".lora_B")) {
            yield("matrices: expected both of one projection, found ${quoted(a.name)} and ${quoted(b.name)}")
        }
    }
    if (end != kind.size.toLong() || kind.matrices.size % 2 != 0) {
        yield("size: expected $end, where the last of ${kind.matrices.size} matrices ends, found ${kind.size}")
    }
}

/** The A and B of each adapted projection. */
internal fun projections(kind: Kind): List<List<AdapterMatrix>> = kind.matrices.chunked(2).filter { it.size == 2 }

/** Each layer is the next of its kind, and its vector lies behind the one before; all vectors fit one buffer. */
private fun placeFaults(manifest: Manifest): Sequence<String> = sequence {
    val kinds = manifest.kinds.associateBy { it.name }
    val counts = HashMap<String, Int>()
    var end = 0L
    for ((index, layer) in manifest.layers.withIndex()) {
        val kind = kinds[layer.kind]
        if (kind == null) {
            yield("layers.$index: expected one of the kinds ${kinds.keys.joinToString()}, found ${quoted(layer.kind, 80)}")
            continue
        }
        val number = counts.merge(layer.kind, 1, Int::plus)!! - 1
        if (layer.number != number) yield("layers.$index: number: expected $number, found ${layer.number}")
        if (layer.offset.toLong() != end) yield("layers.$index: offset: expected $end, found ${layer.offset}")
        end += kind.size
        for ((what, declared, bound) in listOf(Triple("reads", kind.reads, layer.reads), Triple("takes", kind.takes, layer.takes))) {
            if (bound.keys != declared.toSet()) yield("layers.$index: $what: expected ${few(declared)}, found ${few(bound.keys)}")
        }
        if (!kind.gives.toSet().containsAll(layer.gives.keys)) {
            yield("layers.$index: gives: expected of ${few(kind.gives)}, found ${few(layer.gives.keys)}")
        }
    }
    if (end * FLOAT_BYTES > BUFFER_BYTES) {
        yield("layers: expected at most $BUFFER_BYTES bytes of adapter, found ${end * FLOAT_BYTES}; export with a smaller --rank")
    }
}

/** Names as a message shows them: it is made for each of many layers. */
private fun few(names: Collection<String>) = names.joinToString(", ", "[", "]", limit = 10) { quoted(it, 40) }

/** A value is given once, and before it is taken. */
private fun crossingFaults(manifest: Manifest): Sequence<String> = sequence {
    val given = HashSet<String>()
    for ((index, layer) in manifest.layers.withIndex()) {
        for ((name, value) in layer.takes) {
            if (value !in given) yield("layers.$index: takes: ${quoted(name)}: no earlier layer gives ${quoted(value)}")
        }
        for (value in layer.gives.values) if (!given.add(value)) yield("layers.$index: gives: ${quoted(value)} is given twice")
    }
}

/** What the layers bind is what their programs take: the tables of `embed` and `decode_embed`, and what the giver's program gives. */
internal fun bindingFaults(manifest: Manifest): Sequence<String> = sequence {
    for (kind in manifest.kinds) {
        for (role in listOf(FORWARD, PREFILL, DECODE)) {
            val found = gives(manifest, kind, role)
            for (name in kind.gives) {
                if (found[name]?.dtype != "float32") {
                    yield("graphs.${program(kind.name, role)}: outputs: ${quoted(name)}: expected a float32 that it gives, found ${found[name] ?: "none"}")
                }
            }
        }
    }
    val fed = manifest.graphs.mapValues { described(it.value.inputs) }
    val returned = manifest.graphs.mapValues { described(it.value.outputs) }
    val givers = manifest.layers.flatMap { layer -> layer.gives.map { (name, value) -> value to (layer.kind to name) } }.toMap()
    for ((index, layer) in manifest.layers.withIndex()) {
        for (role in ROLES) {
            val program = program(layer.kind, role)
            val (inputs, outputs) = (fed[program] ?: continue) to returned.getValue(program)
            val tables = returned[if (role == DECODE) "decode_embed" else "embed"].orEmpty()
            val where = "layers.$index: $program"
            for ((name, table) in layer.reads) if (name in inputs) yieldAll(bound(where, name, inputs[name], table, tables[table]))
            for ((name, value) in layer.takes) {
                val (kind, given) = givers.getValue(value)
                val type = returned[program(kind, if (role == PREFILL || role == DECODE) role else FORWARD)]?.get(given)
                if (name in inputs) yieldAll(bound(where, name, inputs[name], value, type))
                if (role == BACKWARD || role == BACKWARD_KEPT) yieldAll(bound(where, "$GRADIENT$name", outputs["$GRADIENT$name"], value, type))
            }
        }
    }
}

private fun bound(where: String, name: String, type: TensorType?, to: String, found: TensorType?): Sequence<String> =
    if (type == found) emptySequence() else sequenceOf("$where: ${quoted(name)} is ${quoted(to)}: expected ${type ?: "none"}, found ${found ?: "none"}")

internal fun repeated(where: String, names: List<String>): Sequence<String> =
    names.groupingBy { it }.eachCount().asSequence().filter { it.value > 1 }.map { "$where: ${quoted(it.key)} stands twice" }
