package lcsbmobile.core.runtime

import ai.onnxruntime.OnnxTensor
import lcsbmobile.core.Bundle
import lcsbmobile.core.bundle.BACKWARD
import lcsbmobile.core.bundle.BACKWARD_KEPT
import lcsbmobile.core.bundle.Batch
import lcsbmobile.core.bundle.FORWARD
import lcsbmobile.core.bundle.FORWARD_KEEP
import lcsbmobile.core.bundle.KEPT
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.bundle.TARGET
import lcsbmobile.core.bundle.program
import lcsbmobile.core.io.Pool
import lcsbmobile.core.io.copyFrom
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.io.part
import java.nio.FloatBuffer
import java.nio.LongBuffer

/**
 * Steps on stock ONNX Runtime: the block programs of target `onnxruntime`, by kind of layer, and a loop over the layers. Weights are fed in
 * place from the mapped `weights.bin`, and every large result goes into a buffer of this runner's: what the runtime allocates is the working
 * set of one program.
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
    internal val layers = manifest.model.numHiddenLayers
    private val keep = minOf(keep, layers)
    private val layout = manifest.adapter
    private val weights = WeightTensors(environment, bundle.weights)
    private val programs = HashMap<String, Program>()
    private val own = ArrayList<OwnTensor>() // all there are, to be closed
    private val hidden = listOf(manifest.seqLen.toLong(), manifest.model.hiddenSize.toLong())
    private val saved = Pool<List<Long>, OwnTensor> { new("float32", it) } // the layers' inputs
    private val kept = HashMap<Int, Values>() // layer -> what its forward kept
    private val crossing = CrossingBuffers { new(it.dtype, it.shape) }
    private val gradients = Pool<Int, OwnTensor> { new("float32", listOf(it.toLong())) }
    private val turns = List(2) { new("float32", hidden) } // for results that the next program reads and none after it
    private val g = new("float32", hidden)
    private val loss = new("float32", emptyList())
    private val embedded by lazy { newOutputs("embed") }
    private val largest = manifest.kinds.maxOf { it.size }
    private val updated by lazy { List(3) { directFloats(largest) } }
    private val zeros by lazy { directFloats(largest) }

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
        val saved = propagate.zip(saved.lend(propagate.map { hidden })).toMap()
        val kept = propagate.filter { it >= layers - keep }.associateWith(::keptBuffers)
        val values = Crossing(manifest, crossing, FORWARD)
        val top = forward(embed(batch, saved[0]), adapter, values, saved, kept)
        val loss = head(top, batch)
        val gradients = subset.train.zip(gradients.lend(subset.train.map { layout.vectorSize(it) })).toMap()
        backward(propagate, adapter, values, saved, kept, gradients)
        return StepResult(loss, gradients.mapValues { it.value.floats })
    }

    /** From `g` down through [propagate]. A layer's gradient is written to [gradients] where they have a buffer for it. */
    private fun backward(
        propagate: List<Int>,
        adapter: FloatBuffer,
        values: Crossing,
        saved: Map<Int, OwnTensor>,
        kept: Map<Int, Values>,
        gradients: Map<Int, OwnTensor>,
    ) {
        val owed = CrossingGradients(manifest, crossing, propagate)
        val ran = propagate.asReversed()
        val names = ran.map { program(manifest.layers[it].kind, if (it in kept) BACKWARD_KEPT else BACKWARD) }
        var g = g
        for ((turn, layer) in ran.withIndex()) {
            enter(layer, true)
            val feeds = mapOf("h" to saved.getValue(layer).tensor, "g" to g.tensor) + read(layer, embedded) + values.taken(layer) +
                owed.owed(layer) + (kept[layer] ?: emptyMap())
            val gradient = gradients[layer]?.let { mapOf("d_adapter" to it.tensor) } ?: emptyMap() // not asked for where no one trains
            val outputs = mapOf("g_next" to turns[turn % 2].tensor) + gradient + owed.taken(layer)
            withVector(adapter, layer) { run(names[turn], feeds + ("adapter" to it), outputs, layer, last = names[turn] != names.getOrNull(turn + 1)) }
            owed.settle()
            g = turns[turn % 2]
        }
    }

    override fun evaluate(batch: Batch, adapter: FloatBuffer): Float {
        val top = forward(embed(batch), adapter, Crossing(manifest, crossing, FORWARD))
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
        val size = parameters.capacity()
        val results = state.keys.zip(updated.map { it.part(0, size) }).toMap()
        val vectors = (state + ("gradient" to (gradient ?: zeros.part(0, size)))).mapValues { tensor(it.value) }
        val scalarTensors = mapOf("decay" to scalars.decay, "rate" to scalars.rate, "root" to scalars.root).mapValues { (_, value) ->
            OnnxTensor.createTensor(environment, directFloats(1).also { it.put(0, value) }, longArrayOf())
        }
        val outputs = results.entries.associate { (name, floats) -> "${name}_next" to tensor(floats) }
        try {
            run("adamw", vectors + scalarTensors, outputs, last = false) // little, and used at once for the next layer
        } finally {
            (vectors.values + scalarTensors.values + outputs.values).forEach { it.close() }
        }
        for ((name, target) in state) target.copyFrom(results.getValue(name))
    }

    /** h[0], in [target] if given; the tables that layers read stay in `embedded`. */
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
        values: Crossing,
        saved: Map<Int, OwnTensor> = emptyMap(),
        kept: Map<Int, Values> = emptyMap(),
    ): OwnTensor {
        val names = manifest.layers.mapIndexed { layer, it -> program(it.kind, if (layer in kept) FORWARD_KEEP else FORWARD) }
        return names.indices.fold(h) { input, layer -> forwardLayer(names, layer, input, adapter, values, kept[layer] ?: emptyMap(), saved[layer + 1]) }
    }

    /** A layer's output, in [target] if given, by its program among [names], of all layers; [outputs] are for what else it returns. */
    internal fun forwardLayer(
        names: List<String>,
        layer: Int,
        h: OwnTensor,
        adapter: FloatBuffer,
        values: Crossing,
        outputs: Values,
        target: OwnTensor? = null,
    ): OwnTensor {
        val next = target ?: turns[layer % 2]
        enter(layer, false)
        val feeds = mapOf("h" to h.tensor) + read(layer, embedded) + values.taken(layer)
        withVector(adapter, layer) {
            val results = outputs + values.given(layer) + ("h_next" to next.tensor)
            run(names[layer], feeds + ("adapter" to it), results, layer, last = names[layer] != names.getOrNull(layer + 1))
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

    // Programs and buffers

    /** [feeds] may be more than the program takes. [layer]: whose weights. [last]: another program runs next. */
    internal fun run(name: String, feeds: Values, outputs: Values, layer: Int = 0, last: Boolean = true) =
        programs.getOrPut(name) { Program(environment, bundle, name, threads, weights) }.run(feeds, outputs, manifest.layers[layer].number, last)

    /** The [tables] that [layer] reads, by its kind's names. One that no program takes need not be there. */
    internal fun read(layer: Int, tables: Map<String, OwnTensor>): Values {
        val found = HashMap<String, OnnxTensor>()
        for ((name, table) in manifest.layers[layer].reads) tables[table]?.let { found[name] = it.tensor }
        return found
    }

    /** [use] with a tensor over [layer]'s vector. */
    internal fun withVector(adapter: FloatBuffer, layer: Int, use: (OnnxTensor) -> Unit) = tensor(layout.vector(adapter, layer)).use(use)

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

    private fun keptBuffers(layer: Int): Values = kept.getOrPut(layer) {
        manifest.graphs.getValue(program(manifest.layers[layer].kind, FORWARD_KEEP)).outputs.filter { it.name.startsWith(KEPT) }
            .associate { it.name to new(it.dtype, it.shape).tensor }
    }

    override fun close() {
        programs.values.forEach { it.close() }
        weights.close()
        own.forEach { it.close() }
    }
}

internal fun tensors(own: Map<String, OwnTensor>): Values = own.mapValues { it.value.tensor }
