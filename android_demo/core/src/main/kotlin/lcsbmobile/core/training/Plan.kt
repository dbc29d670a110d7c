package lcsbmobile.core.training

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.AdapterLayout
import lcsbmobile.core.bundle.BACKWARD
import lcsbmobile.core.bundle.BACKWARD_KEPT
import lcsbmobile.core.bundle.DECODE
import lcsbmobile.core.bundle.EXECUTORCH
import lcsbmobile.core.bundle.FORWARD
import lcsbmobile.core.bundle.FORWARD_KEEP
import lcsbmobile.core.bundle.GraphTensor
import lcsbmobile.core.bundle.KEPT
import lcsbmobile.core.bundle.Manifest
import lcsbmobile.core.bundle.PREFILL
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.bundle.program
import lcsbmobile.core.bundle.tensorBytes
import lcsbmobile.core.io.FLOAT_BYTES
import lcsbmobile.core.io.megabytes
import kotlin.math.floor
import kotlin.math.log2
import kotlin.math.pow

private const val HEAD_CHUNK_BYTES = 8 shl 20 // of float rows of the head that are decompressed at once

/**
 * [keep]: that many of the top layers keep their activations. Bytes of anonymous memory; [leastBytes]: the least that the run can do with,
 * which is with nothing kept or, in a shallow model, with everything: then no program that recomputes is needed.
 */
public class Plan(public val keep: Int, public val predictedPeakBytes: Long, public val leastBytes: Long)

/**
 * What a run of these steps keeps. [base]: anonymous bytes of the process with its runtime imported; [budget]: the most bytes allowed, null for
 * no limit; [keep] null: as many layers as the budget allows, none without one; [accumulation]: sequences a step; [samples]: texts are written
 * before and after; [direct]: the most bytes that its direct buffers may take, null for no limit.
 *
 * Throws MEMORY_TOO_SMALL when the run cannot fit, with the least that it needs and the budget, in bytes, as arguments; OPTION.
 */
public fun planRun(
    manifest: Manifest,
    subsets: List<Subset>,
    base: Long,
    budget: Long?,
    keep: Int?,
    accumulation: Int = 1,
    samples: Boolean = false,
    direct: Long? = null,
): Plan {
    val layers = manifest.model.numHiddenLayers
    if (keep != null && keep < 0) throw LcsbException(Fault.OPTION, "keep: expected 0 or more layers, found $keep", listOf("keep"))
    val most = direct?.let { mostKept(manifest, subsets, accumulation, it) } ?: layers
    val peaks = (0..layers).map { predictedPeak(manifest, subsets, it, base, accumulation, samples) }
    val least = peaks.min()
    val now = "${megabytes(base)} of it this process as it is now"
    if (budget != null && least > budget) {
        throw tooSmall(
            "the run is predicted to need at least ${megabytes(least)}, $now; more than the ${megabytes(budget)} allowed; nothing was run; " +
                "allow more, or export with a --seq-len shorter than ${manifest.seqLen} or a --rank below ${manifest.lora.rank}",
            least, budget,
        )
    }
    val fitting = (0..most).lastOrNull { budget == null || peaks[it] <= budget }
        ?: throw tooSmall("keeping $most layers, as the app's heap allows, is predicted to take ${megabytes(peaks[most])}, $now", peaks[most], budget!!)
    val chosen = if (keep != null) {
        minOf(keep, layers)
    } else if (budget == null) {
        0
    } else {
        fitting
    }
    if (budget != null && peaks[chosen] > budget) {
        throw tooSmall(
            "keeping $chosen layers is predicted to take ${megabytes(peaks[chosen])}, $now; more than the ${megabytes(budget)} allowed; " +
                "nothing was run; keeping $fitting fits, and the least for this run is ${megabytes(least)}; allow more, or keep that many",
            peaks[chosen], budget,
        )
    }
    if (chosen > most) {
        val needed = bufferBytes(manifest, subsets, chosen, accumulation)
        throw tooSmall("keeping $chosen layers takes ${megabytes(needed)} of buffers; ${heapHolds(direct!!)}; keep $fitting or fewer", needed, direct)
    }
    return Plan(chosen, peaks[chosen], least)
}

/** Of the top layers as many as [direct] bytes of buffers can keep the activations of. Throws MEMORY_TOO_SMALL where there is no room for the rest. */
internal fun mostKept(manifest: Manifest, subsets: List<Subset>, accumulation: Int, direct: Long): Int {
    val needed = (0..manifest.model.numHiddenLayers).map { bufferBytes(manifest, subsets, it, accumulation) }
    val most = needed.indices.lastOrNull { needed[it] <= direct }
    return most ?: throw tooSmall(
        "the run needs at least ${megabytes(needed.min())} of buffers; ${heapHolds(direct)}; nothing was run; " +
            "export with a --seq-len shorter than ${manifest.seqLen} or a --rank below ${manifest.lora.rank}",
        needed.min(), direct,
    )
}

private fun heapHolds(direct: Long) = "the app's heap may hold ${megabytes(direct)} of them"

// Of the terms of [peakTerms] those that are in direct buffers; the runtime allocates the rest.
private val BUFFERS = setOf("saved layer inputs", "kept activations", "crossing values", "gradients", "other buffers")

/** Bytes of direct buffers of a run of these steps. */
internal fun bufferBytes(manifest: Manifest, subsets: List<Subset>, keep: Int, accumulation: Int): Long =
    peakTerms(manifest, subsets, keep, accumulation).filterKeys { it in BUFFERS }.values.sum()

private fun tooSmall(message: String, needed: Long, budget: Long) =
    LcsbException(Fault.MEMORY_TOO_SMALL, message, listOf(needed.toString(), budget.toString()))

/** Peak anonymous bytes of a run of these steps, from its start-up to its end. [base], [accumulation] and [samples] as in [planRun]. */
internal fun predictedPeak(
    manifest: Manifest,
    subsets: List<Subset>,
    keep: Int,
    base: Long,
    accumulation: Int = 1,
    samples: Boolean = false,
): Long = base + runTerms(manifest, subsets, keep, accumulation, samples).values.sum()

/**
 * Anonymous bytes of a run beyond its base, by what holds them: of its steps and evaluations, beside them, and a margin: what the fit to other
 * runs leaves, so that it is never too little.
 */
internal fun runTerms(manifest: Manifest, subsets: List<Subset>, keep: Int, accumulation: Int, samples: Boolean): Map<String, Long> {
    val checked = CHECKED_VECTORS * manifest.kinds.maxOf { it.size.toLong() } * FLOAT_BYTES
    val writing = if (samples) writingBytes(manifest) + LOGITS_HELD * manifest.model.vocabSize.toLong() * FLOAT_BYTES else 0L
    val terms = peakTerms(manifest, subsets, keep, accumulation) + ("beside the steps" to maxOf(checked, writing))
    return terms + ("margin" to maxOf(MARGIN_BYTES, Math.rint(MARGIN_SHARE * terms.values.sum()).toLong()))
}

// What is admitted is to run to its end.
private const val MARGIN_BYTES = 8_000_000L
private const val MARGIN_SHARE = 0.06

// At start-up, of the longest layer's vectors: two states, a gradient and what comparing them takes, when AdamW's constants are checked.
private const val CHECKED_VECTORS = 10L
private const val LOGITS_HELD = 5L // float32 and float64 [V] while a token is chosen

/** What writes a text: its sessions, which stay, and what each layer remembers of it; results of two layers in turns. */
private fun writingBytes(manifest: Manifest): Long {
    val names = manifest.kinds.flatMap { listOf(program(it.name, PREFILL), program(it.name, DECODE)) } + listOf("decode_embed", "logits")
    val graphs = names.map { manifest.graphs.getValue(it) }
    val sessions = if (manifest.target == EXECUTORCH) graphs.sumOf { it.workingBytes ?: 0 } else names.sumOf { sessionBytes(manifest, it) }
    val state = manifest.layers.indices.sumOf { layer -> manifest.kind(layer).state.sumOf { tensorBytes("float32", it.shape) } }
    return sessions + state + graphs.sumOf { 2 * bytesOf(it.outputs) }
}

// Fitted to runs of several shapes (lcsb_mobile/planning/memory.py): the runtime's own, and the parsed graphs and kernels of a block program's session
// by its file's size.
private const val RUNTIME_BYTES = 5_500_000L
private const val SESSION_SHARE = 45
private const val UPDATE_OUTPUTS = 3 // of AdamW: parameters and moments

// Of what a chunk of the head holds: the memory's blocks that were split badly.
private const val HEAD_HOLES = 2.9

/**
 * Anonymous bytes of a run beyond its base, by what holds them; the twin of lcsb_mobile/planning/memory.py's. Adapter and moments are in a mapped file.
 * Buffers are exact; the rest was fitted to Python's runs, where all sessions share one arena: SESSIONS_APART.
 */
internal fun peakTerms(manifest: Manifest, subsets: List<Subset>, keep: Int, accumulation: Int): Map<String, Long> {
    val backward = subsets.map { backwardLayers(manifest, it, keep) }
    val kept = backward.flatMap { it.second }.toSet()
    val programs = programs(manifest, manifest.layers.indices, FORWARD) + // of the evaluation, if nothing else
        programs(manifest, backward.flatMap { it.first }, BACKWARD) +
        programs(manifest, kept, FORWARD_KEEP) + programs(manifest, kept, BACKWARD_KEPT)
    val unrolled = unrolledHeads(manifest)
    val used = programs + listOf("embed", "adamw")
    val working = (used + unrolled).map { manifest.graphs.getValue(it).workingBytes ?: 0 }
    val head = if (unrolled.isEmpty()) headSet(manifest) else 0
    return linkedMapOf(
        "runtime" to RUNTIME_BYTES,
        "sessions" to if (manifest.target == EXECUTORCH) methodBytes(manifest, used) else (programs + unrolled).sumOf { sessionBytes(manifest, it) },
        "saved layer inputs" to backward.maxOf { it.first.size + it.second.size } * hiddenBytes(manifest),
        "kept activations" to kept.sumOf { keptBytes(manifest, it) },
        "crossing values" to crossingBytes(manifest),
        "gradients" to gradientBytes(manifest.adapter, subsets, accumulation),
        "other buffers" to fixedBuffers(manifest),
        "working set" to if (manifest.target == EXECUTORCH) head else maxOf(head, working.max()),
    )
}

/** What a layer's forward keeps for its backward. */
internal fun keptBytes(manifest: Manifest, layer: Int): Long =
    bytesOf(manifest.graphs.getValue(program(manifest.layers[layer].kind, FORWARD_KEEP)).outputs.filter { it.name.startsWith(KEPT) })

/**
 * Of each size as many buffers as a step needs at most: a trained layer has its own, and so have, in Python's runner, the untrained ones of a
 * size that no trained layer below them has, one for all. What is accumulated is a copy.
 */
private fun gradientBytes(layout: AdapterLayout, subsets: List<Subset>, accumulation: Int): Long {
    val needed = HashMap<Int, Int>()
    for (subset in subsets) {
        val trained = subset.train.map(layout::vectorSize)
        val unread = subset.propagate.filter { it > subset.train[0] && it !in subset.train }
            .filter { layer -> subset.train.none { it < layer && layout.vectorSize(it) == layout.vectorSize(layer) } }
        val sizes = trained + unread.map(layout::vectorSize).distinct()
        for ((size, count) in sizes.groupingBy { it }.eachCount()) needed.merge(size, count, ::maxOf)
    }
    val copies = if (accumulation > 1) subsets.maxOf { subset -> subset.train.sumOf { layout.vectorSize(it).toLong() } } else 0
    return (needed.entries.sumOf { (size, count) -> size.toLong() * count } + copies) * FLOAT_BYTES
}

/** What layers give to others, with its gradients, and once more for a kind's gives that go to none. */
private fun crossingBytes(manifest: Manifest): Long {
    val bound = manifest.layers.flatMap { layer -> given(manifest, layer.kind).filter { it.name in layer.gives } }
    return 2 * bytesOf(bound + manifest.kinds.flatMap { given(manifest, it.name) })
}

private fun given(manifest: Manifest, kind: String): List<GraphTensor> {
    val names = manifest.kinds.first { it.name == kind }.gives
    return manifest.graphs.getValue(program(kind, FORWARD)).outputs.filter { it.name in names }
}

/** Those that [layers] are run by, one a kind. */
private fun programs(manifest: Manifest, layers: Iterable<Int>, role: String): List<String> =
    layers.map { program(manifest.layers[it].kind, role) }.distinct()

/**
 * Of a program's session; of one whose weights are constants, a session a layer, with its packed copy of them (MatMulNBits with int8
 * activations: the values, and for each scale two more float32 of sums beside it).
 */
private fun sessionBytes(manifest: Manifest, name: String): Long {
    val graph = manifest.graphs.getValue(name)
    val session = SESSION_SHARE * manifest.files.getValue(graph.file).size
    if (graph.initializers.isEmpty()) return session
    val values = bytesOf(graph.initializers.filter { it.name.endsWith(".packed") })
    val scales = bytesOf(graph.initializers.filter { it.name.endsWith(".scale") })
    return manifest.layers.count { it.kind == name.substringBefore('_') } * (session + values + 6 * scales)
}

/** Of target executorch: the Java binding makes an arena for each method, where Python's makes one for all. */
private fun methodBytes(manifest: Manifest, used: List<String>): Long =
    (used + listOf("head", "head_eval")).sumOf { manifest.graphs.getValue(it).workingBytes ?: 0 }

/** Two results that layers take in turns, the gradient, what `embed` and the update of each kind return, and a gradient of zero. */
private fun fixedBuffers(manifest: Manifest): Long {
    val sizes = manifest.kinds.map { it.size.toLong() }.toSet()
    val vectors = UPDATE_OUTPUTS * sizes.sum() + sizes.max()
    return 3 * hiddenBytes(manifest) + bytesOf(manifest.graphs.getValue("embed").outputs) + vectors * FLOAT_BYTES
}

/** The head's programs of ONNX Runtime that have no loop, as those for a GPU: what they hold is known. */
private fun unrolledHeads(manifest: Manifest): List<String> =
    if (manifest.target == EXECUTORCH) emptyList() else listOf("head", "head_eval").filter { manifest.graphs.getValue(it).workingBytes != null }

/** A chunk of the head's rows in float, its logits and their exponentials, and five [T, D]. */
private fun headSet(manifest: Manifest): Long {
    val hidden = manifest.model.hiddenSize
    val rows = minOf(headRows(hidden), manifest.model.vocabSize).toLong()
    val held = rows * hidden * FLOAT_BYTES + 2 * activations(manifest, rows) + 5 * hiddenBytes(manifest)
    return Math.rint(HEAD_HOLES * held).toLong()
}

/** Rows of the head in a chunk: a power of two. */
private fun headRows(hiddenSize: Int): Int = 2.0.pow(floor(log2(maxOf(256.0, HEAD_CHUNK_BYTES / (4.0 * hiddenSize))))).toInt()

private fun bytesOf(tensors: List<GraphTensor>): Long = tensors.sumOf { tensorBytes(it.dtype, it.shape) }

private fun hiddenBytes(manifest: Manifest) = activations(manifest, manifest.model.hiddenSize.toLong())

/** Bytes of float32 [T, width]. */
private fun activations(manifest: Manifest, width: Long) = manifest.seqLen * width * FLOAT_BYTES
