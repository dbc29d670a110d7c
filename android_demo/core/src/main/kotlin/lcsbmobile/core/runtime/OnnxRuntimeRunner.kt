package lcsbmobile.core.runtime

import ai.onnxruntime.OnnxTensor
import lcsbmobile.core.Bundle
import lcsbmobile.core.bundle.Batch
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.bundle.TARGET
import lcsbmobile.core.io.copyFrom
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.io.row
import java.nio.FloatBuffer
import java.nio.LongBuffer

/**
 * Steps on stock ONNX Runtime: the block programs of target `onnxruntime` and a loop over the layers. Weights are fed in place from the mapped
 * `weights.bin`, and every large result goes into a buffer of this runner's: what the runtime allocates is the working set of one program.
 *
 * [threads]: of each program. [keep]: the activations of that many of the top layers are kept in the forward, and their backward does not
 * recompute them. [betweenLayers] is called before each layer of a step, an evaluation or a prompt: it may wait, to pause, or throw, to cancel;
 * then nothing has changed. Meanwhile [layer] and [backward] say what comes next.
 *
 * Throws RUNTIME_MISSING.
 */
public class OnnxRuntimeRunner(
    private val bundle: Bundle,
    private val threads: Int,
    keep: Int = 0,
    private val betweenLayers: () -> Unit = {},
) : StepRunner {
    private val environment = importRuntime()
    internal val manifest = bundle.manifest
    private val model = manifest.model
    internal val layers = model.numHiddenLayers
    private val keep = minOf(keep, layers)
    private val size = manifest.adapter.size
    private val weights = WeightTensors(environment, bundle.weights)
    private val programs = HashMap<String, Program>()
    private val own = ArrayList<OwnTensor>() // all there are, to be closed
    private val hidden = listOf(manifest.seqLen.toLong(), model.hiddenSize.toLong())
    private val saved = ArrayList<OwnTensor>() // [T, D]: as many layers' inputs as a step has needed at once
    private val kept = HashMap<Int, Map<String, OnnxTensor>>() // layer -> what its forward kept
    private val gradients = ArrayList<OwnTensor>() // as many as a step has needed at once
    private val turns = List(2) { new("float32", hidden) } // for results that the next program reads and none after it
    private val g = new("float32", hidden)
    private val loss = new("float32", emptyList())
    private val embedded by lazy { newOutputs("embed") }
    private val updated by lazy { newOutputs("adamw") }
    private val zeros by lazy { new("float32", listOf(size.toLong())) }

    override val name: String = TARGET
    override val version: String = environment.version

    /** The layer whose program runs next, [layers] for the head. */
    @Volatile
    public var layer: Int = 0
        private set

    /** Whether it runs backward. */
    @Volatile
    public var backward: Boolean = false
        private set

    // The step

    override fun step(subset: Subset, batch: Batch, adapter: FloatBuffer): StepResult {
        subset.check(layers)
        val propagate = subset.propagate.filter { it >= subset.train[0] }
        val saved = propagate.zip(reserved(saved, propagate.size, hidden)).toMap()
        val kept = propagate.filter { it >= layers - keep }.associateWith(::keptBuffers)
        val top = forward(embed(batch, saved[0]), adapter, saved, kept)
        val loss = head(top, batch)
        val gradients = subset.train.zip(reserved(gradients, subset.train.size, listOf(size.toLong()))).toMap()
        val unread = gradients.getValue(subset.train[0]) // of a layer that is not trained: overwritten by the lowest trained layer's, the last
        var g = g
        for ((turn, layer) in propagate.asReversed().withIndex()) {
            enter(layer, true)
            val program = if (layer in kept) "block_backward_kept" else "block_backward"
            val last = layer == propagate[0] || layer == kept.keys.minOrNull()
            val outputs = mapOf("g_next" to turns[turn % 2].tensor, "d_adapter" to (gradients[layer] ?: unread).tensor)
            val feeds = mapOf("h" to saved.getValue(layer).tensor, "g" to g.tensor) + attention(layer) + (kept[layer] ?: emptyMap())
            withRow(adapter, layer) { run(program, feeds + ("adapter" to it), outputs, layer, last) }
            g = turns[turn % 2]
        }
        return StepResult(loss, gradients.mapValues { it.value.floats })
    }

    override fun evaluate(batch: Batch, adapter: FloatBuffer): Float {
        val top = forward(embed(batch), adapter)
        enter(layers, false)
        withIds(batch.labels) { run("head_eval", mapOf("h" to top.tensor, "labels" to it), mapOf("loss" to loss.tensor)) }
        return loss.floats.get(0)
    }

    override fun decoder(adapter: FloatBuffer): Decoder = OnnxRuntimeDecoder(this, adapter)

    override fun updateLayer(
        parameters: FloatBuffer,
        firstMoment: FloatBuffer,
        secondMoment: FloatBuffer,
        gradient: FloatBuffer?,
        scalars: LayerUpdate,
    ) {
        val state = mapOf("parameters" to parameters, "first_moment" to firstMoment, "second_moment" to secondMoment)
        val vectors = (state + ("gradient" to (gradient ?: zeros.floats))).mapValues { tensor(it.value) }
        val scalarTensors = mapOf("decay" to scalars.decay, "rate" to scalars.rate, "root" to scalars.root).mapValues { (_, value) ->
            OnnxTensor.createTensor(environment, directFloats(1).also { it.put(0, value) }, longArrayOf())
        }
        try {
            run("adamw", vectors + scalarTensors, tensors(updated), last = false) // little, and used at once for the next layer
        } finally {
            (vectors.values + scalarTensors.values).forEach { it.close() }
        }
        for ((name, target) in state) target.copyFrom(updated.getValue("${name}_next").floats)
    }

    /** h[0], in [target] if given; cos, sin and mask of each kind of layer stay in `embedded`. */
    internal fun embed(batch: Batch, target: OwnTensor? = null): OwnTensor {
        val h = target ?: embedded.getValue("h")
        val feeds = mapOf("input_ids" to batch.inputIds, "position_ids" to batch.positionIds, "segment_ids" to batch.segmentIds)
            .mapValues { OnnxTensor.createTensor(environment, LongBuffer.wrap(it.value), longArrayOf(it.value.size.toLong())) }
        try {
            run("embed", feeds, tensors(embedded) + ("h" to h.tensor))
        } finally {
            feeds.values.forEach { it.close() }
        }
        return h
    }

    /** h[0] -> h[L]. A layer's input is written to [saved], and what it keeps to [kept], where they have a buffer for it. */
    private fun forward(
        h: OwnTensor,
        adapter: FloatBuffer,
        saved: Map<Int, OwnTensor> = emptyMap(),
        kept: Map<Int, Values> = emptyMap(),
    ): OwnTensor = (0 until layers).fold(h) { input, layer ->
        val program = if (layer in kept) "block_forward_keep" else "block_forward"
        val last = layer == layers - 1 || (layer in kept) != (layer + 1 in kept)
        forwardLayer(program, layer, input, adapter, kept[layer] ?: emptyMap(), last, saved[layer + 1])
    }

    /** A layer's output, in [target] if given, by one of the forward programs; [outputs] are for what else it returns, [last] as in [run]. */
    internal fun forwardLayer(
        program: String,
        layer: Int,
        h: OwnTensor,
        adapter: FloatBuffer,
        outputs: Values,
        last: Boolean,
        target: OwnTensor? = null,
    ): OwnTensor {
        val next = target ?: turns[layer % 2]
        enter(layer, false)
        withRow(adapter, layer) {
            run(program, mapOf("h" to h.tensor, "adapter" to it) + attention(layer), outputs + ("h_next" to next.tensor), layer, last)
        }
        return next
    }

    /** The loss; its gradient goes to `g`. */
    private fun head(top: OwnTensor, batch: Batch): Float {
        enter(layers, false)
        withIds(batch.labels) {
            run("head", mapOf("h" to top.tensor, "labels" to it), mapOf("loss" to loss.tensor, "g" to g.tensor))
        }
        return loss.floats.get(0)
    }

    private fun enter(layer: Int, backward: Boolean) {
        this.layer = layer
        this.backward = backward
        betweenLayers()
    }

    private fun attention(layer: Int): Values = byKind(embedded, layer)

    // Programs and buffers

    /** [last]: another program runs next. */
    internal fun run(name: String, feeds: Values, outputs: Values, layer: Int = 0, last: Boolean = true) =
        programs.getOrPut(name) { Program(environment, bundle, name, threads, weights) }.run(feeds, outputs, layer, last)

    /** What `embed` gave for [layer]'s kind. */
    internal fun byKind(embedded: Map<String, OwnTensor>, layer: Int): Values =
        ATTENTION.associateWith { embedded.getValue("$it.${model.layerKinds[layer]}").tensor }

    /** [use] with a tensor over [adapter]'s row of [layer]. */
    internal fun withRow(adapter: FloatBuffer, layer: Int, use: (OnnxTensor) -> Unit) = tensor(adapter.row(layer, size)).use(use)

    internal fun withIds(ids: LongArray, use: (OnnxTensor) -> Unit) =
        OnnxTensor.createTensor(environment, LongBuffer.wrap(ids), longArrayOf(ids.size.toLong())).use(use)

    private fun tensor(floats: FloatBuffer): OnnxTensor {
        require(floats.isDirect) { "a buffer of the heap would be copied" }
        return OnnxTensor.createTensor(environment, floats, longArrayOf(floats.capacity().toLong()))
    }

    internal fun new(dtype: String, shape: List<Long>) = OwnTensor(environment, dtype, shape).also { own += it }

    /** Gives back what a decoder held: its tensors, and the programs that hold on to their memory from token to token. */
    internal fun release(tensors: List<OwnTensor>, names: List<String>) {
        own.removeAll(tensors.toSet())
        tensors.forEach { it.close() }
        names.forEach { programs.remove(it)?.close() }
    }

    /** A buffer for each of a program's outputs. */
    internal fun newOutputs(program: String): Map<String, OwnTensor> =
        manifest.graphs.getValue(program).outputs.associate { it.name to new(it.dtype, it.shape) }

    private fun reserved(tensors: ArrayList<OwnTensor>, count: Int, shape: List<Long>): List<OwnTensor> {
        while (tensors.size < count) tensors += new("float32", shape)
        return tensors.subList(0, count).toList()
    }

    private fun keptBuffers(layer: Int): Values = kept.getOrPut(layer) {
        manifest.graphs.getValue("block_forward_keep").outputs.drop(1).associate { it.name to new(it.dtype, it.shape).tensor }
    }

    override fun close() {
        programs.values.forEach { it.close() }
        weights.close()
        own.forEach { it.close() }
    }
}

private val ATTENTION = listOf("cos", "sin", "mask")

internal fun tensors(own: Map<String, OwnTensor>): Values = own.mapValues { it.value.tensor }
