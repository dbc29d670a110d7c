package lcsbmobile.core.runtime

import lcsbmobile.core.Bundle
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.BACKWARD
import lcsbmobile.core.bundle.BACKWARD_KEPT
import lcsbmobile.core.bundle.Batch
import lcsbmobile.core.bundle.FORWARD
import lcsbmobile.core.bundle.FORWARD_KEEP
import lcsbmobile.core.bundle.KEPT
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.bundle.TOKENS
import lcsbmobile.core.bundle.program
import lcsbmobile.core.io.Pool
import lcsbmobile.core.io.copyFrom
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.io.part
import java.nio.FloatBuffer

/**
 * Steps by block programs, by kind of layer, and a loop over the layers, whatever [runtime] runs them. Weights are fed in place from the mapped
 * `weights.bin`, and every large result goes into a buffer of this runner's: what the runtime allocates is the working set of a program.
 *
 * [keep]: the activations of that many of the top layers are kept in the forward, and their backward does not recompute them; a layer whose
 * activations float16 does not hold recomputes them in that step all the same. Where memory for a buffer is refused, fewer are kept from then on:
 * [kept] says how many. [betweenLayers] is called before each layer of a step, an evaluation or a prompt: it may wait, to pause, or throw, to cancel;
 * then nothing has changed.
 * Meanwhile [layer] and [backward] say what comes next.
 */
public abstract class BlockRunner internal constructor(
    bundle: Bundle,
    private val runtime: Runtime,
    keep: Int,
    private val betweenLayers: () -> Unit,
    private val allocate: (dtype: String, shape: List<Long>) -> HostTensor = ::HostTensor,
) : StepRunner {
    internal val manifest = bundle.manifest
    internal val layers = manifest.model.numHiddenLayers
    private val layout = manifest.adapter
    private val own = ArrayList<HostTensor>() // all there are, to be closed
    private val hidden = listOf(manifest.seqLen.toLong(), manifest.model.hiddenSize.toLong())
    private val saved = Pool<List<Long>, HostTensor> { new("float32", it) } // the layers' inputs
    private val keptBuffers = HashMap<Int, Values>() // layer -> what its forward kept
    private val crossing = CrossingBuffers { new(it.dtype, it.shape) }
    private val gradients = Pool<Int, HostTensor> { new("float32", listOf(it.toLong())) }
    private val turns = List(2) { new("float32", hidden) } // for results that the next program reads and none after it
    private val g = new("float32", hidden)
    private val loss = new("float32", emptyList())
    private val tokens = (TOKENS + LABELS).associateWith { new("int64", listOf(manifest.seqLen.toLong())) }
    private val scalars = listOf("decay", "rate", "root").associateWith { new("float32", emptyList()) } // of an update
    private val embedded by lazy { newOutputs("embed") }
    private val largest = manifest.kinds.maxOf { it.size }
    private val updated by lazy { List(3) { directFloats(largest) } }
    private val zeros by lazy { directFloats(largest) }

    /** The activations of that many of the top layers are kept. */
    public var kept: Int = minOf(keep, layers)
        private set

    override val name: String = runtime.name
    override val version: String = runtime.version

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
        return keepingFewer { tryStep(subset, batch, adapter) }
    }

    private fun tryStep(subset: Subset, batch: Batch, adapter: FloatBuffer): StepResult {
        val propagate = subset.propagate.filter { it >= subset.train[0] }
        val saved = propagate.zip(saved.lend(propagate.map { hidden })).toMap()
        val kept = propagate.filter { it >= layers - kept }.asReversed().associateWithTo(HashMap<Int, Values>(), ::keptBuffers)
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
        saved: Map<Int, HostTensor>,
        kept: Map<Int, Values>,
        gradients: Map<Int, HostTensor>,
    ) {
        val owed = CrossingGradients(manifest, crossing, propagate)
        val ran = propagate.asReversed()
        val names = ran.map { program(manifest.layers[it].kind, if (it in kept) BACKWARD_KEPT else BACKWARD) }
        var g = g
        for ((turn, layer) in ran.withIndex()) {
            enter(layer, true)
            val feeds = mapOf("h" to saved.getValue(layer), "g" to g) + read(layer, embedded) + values.taken(layer) +
                owed.owed(layer) + (kept[layer] ?: emptyMap())
            val gradient = gradients[layer]?.let { mapOf("d_adapter" to it) } ?: emptyMap() // not asked for where no one trains
            val outputs = mapOf("g_next" to turns[turn % 2]) + gradient + owed.taken(layer)
            withVector(adapter, layer) { run(names[turn], feeds + ("adapter" to it), outputs, layer, last = names[turn] != names.getOrNull(turn + 1)) }
            owed.settle()
            g = turns[turn % 2]
        }
    }

    /** [work], which changes nothing before it has all its buffers; where one is refused, what the lowest layers keep makes room for it. */
    private fun <T> keepingFewer(work: () -> T): T {
        while (true) {
            try {
                return work()
            } catch (error: LcsbException) {
                if (error.fault != Fault.MEMORY_TOO_SMALL || kept == 0) throw error
                val lowest = keptBuffers.keys.minOrNull() ?: layers - 1
                kept = layers - lowest - 1
                keptBuffers.remove(lowest)?.let { giveBack(it.values) }
            }
        }
    }

    override fun evaluate(batch: Batch, adapter: FloatBuffer): Float {
        val top = forward(embed(batch), adapter, Crossing(manifest, crossing, FORWARD))
        enter(layers, false)
        run("head_eval", mapOf("h" to top, LABELS to ids(LABELS, batch.labels)), mapOf("loss" to loss))
        return loss.floats.get(0)
    }

    override fun decoder(adapter: FloatBuffer): Decoder = BlockDecoder(this, adapter)

    override fun updateLayer(
        parameters: FloatBuffer,
        firstMoment: FloatBuffer,
        secondMoment: FloatBuffer,
        gradient: FloatBuffer?,
        scalars: LayerUpdate,
    ) {
        val state = mapOf("parameters" to parameters, "first_moment" to firstMoment, "second_moment" to secondMoment)
        val size = parameters.capacity()
        val (updated, zeros) = keepingFewer { updated to zeros }
        val results = state.keys.zip(updated.map { it.part(0, size) }).toMap()
        val vectors = (state + ("gradient" to (gradient ?: zeros.part(0, size)))).mapValues { HostTensor(it.value) }
        for ((name, value) in listOf("decay" to scalars.decay, "rate" to scalars.rate, "root" to scalars.root)) {
            this.scalars.getValue(name).floats.put(0, value)
        }
        val outputs = results.entries.associate { (name, floats) -> "${name}_next" to HostTensor(floats) }
        try {
            run("adamw", vectors + this.scalars, outputs, last = false) // little, and used at once for the next layer
        } finally {
            (vectors.values + outputs.values).forEach { it.close() }
        }
        for ((name, target) in state) target.copyFrom(results.getValue(name))
    }

    /** h[0], in [target] if given; the tables that layers read stay in `embedded`. */
    internal fun embed(batch: Batch, target: HostTensor? = null): HostTensor {
        val h = target ?: embedded.getValue("h")
        val feeds = TOKENS.zip(listOf(batch.inputIds, batch.positionIds, batch.segmentIds)).associate { (name, values) -> name to ids(name, values) }
        run("embed", feeds, embedded + ("h" to h))
        return h
    }

    /**
     * h[0] -> h[L]. A layer's input is written to [saved], and what it keeps to [kept], where they have a buffer for it. What float16 does not
     * hold is taken out of [kept].
     */
    private fun forward(
        h: HostTensor,
        adapter: FloatBuffer,
        values: Crossing,
        saved: Map<Int, HostTensor> = emptyMap(),
        kept: HashMap<Int, Values> = HashMap(),
    ): HostTensor {
        val names = manifest.layers.mapIndexed { layer, it -> program(it.kind, if (layer in kept) FORWARD_KEEP else FORWARD) }
        return names.indices.fold(h) { input, layer ->
            val outputs = kept[layer] ?: emptyMap()
            val next = forwardLayer(names, layer, input, adapter, values, outputs, saved[layer + 1])
            if (!outputs.values.all(::holds)) kept.remove(layer)
            next
        }
    }

    /** A layer's output, in [target] if given, by its program among [names], of all layers; [outputs] are for what else it returns. */
    internal fun forwardLayer(
        names: List<String>,
        layer: Int,
        h: HostTensor,
        adapter: FloatBuffer,
        values: Crossing,
        outputs: Values,
        target: HostTensor? = null,
    ): HostTensor {
        val next = target ?: turns[layer % 2]
        enter(layer, false)
        val feeds = mapOf("h" to h) + read(layer, embedded) + values.taken(layer)
        withVector(adapter, layer) {
            val results = outputs + values.given(layer) + ("h_next" to next)
            run(names[layer], feeds + ("adapter" to it), results, layer, last = names[layer] != names.getOrNull(layer + 1))
        }
        return next
    }

    /** The loss; its gradient goes to `g`. */
    private fun head(top: HostTensor, batch: Batch): Float {
        enter(layers, false)
        run("head", mapOf("h" to top, LABELS to ids(LABELS, batch.labels)), mapOf("loss" to loss, "g" to g))
        return loss.floats.get(0)
    }

    private fun enter(layer: Int, backward: Boolean) {
        this.layer = layer
        this.backward = backward
        betweenLayers()
    }

    // Programs and buffers

    internal fun run(program: String, feeds: Values, outputs: Values, layer: Int = 0, last: Boolean = true): Unit =
        runtime.run(program, feeds, outputs, layer, last)

    /** The [tables] that [layer] reads, by its kind's names. One that no program takes need not be there. */
    internal fun read(layer: Int, tables: Values): Values {
        val found = HashMap<String, HostTensor>()
        for ((name, table) in manifest.layers[layer].reads) tables[table]?.let { found[name] = it }
        return found
    }

    /** [use] with a tensor over [layer]'s vector. */
    internal fun withVector(adapter: FloatBuffer, layer: Int, use: (HostTensor) -> Unit) = HostTensor(layout.vector(adapter, layer)).use(use)

    /** [values] in the buffer for the input of that name. */
    private fun ids(name: String, values: LongArray): HostTensor {
        require(values.size == manifest.seqLen) { "$name: expected ${manifest.seqLen}, found ${values.size}" }
        return tokens.getValue(name).also { it.bytes.asLongBuffer().put(values) }
    }

    internal fun new(dtype: String, shape: List<Long>) = allocate(dtype, shape).also { own += it }

    /** Gives back what a decoder held: its tensors, and the programs that hold on to their memory from token to token. */
    internal fun release(tensors: List<HostTensor>, names: List<String>) {
        giveBack(tensors)
        runtime.release(names)
    }

    private fun giveBack(tensors: Collection<HostTensor>) {
        own.removeAll(tensors.toSet())
        tensors.forEach { it.close() }
    }

    /** A buffer for each of a program's outputs. */
    private fun newOutputs(program: String): Values =
        manifest.graphs.getValue(program).outputs.associate { it.name to new(it.dtype, it.shape) }

    /** All of a layer's, or none. */
    private fun keptBuffers(layer: Int): Values = keptBuffers.getOrPut(layer) {
        val made = HashMap<String, HostTensor>()
        val outputs = manifest.graphs.getValue(program(manifest.layers[layer].kind, FORWARD_KEEP)).outputs
        try {
            for (output in outputs) if (output.name.startsWith(KEPT)) made[output.name] = new(output.dtype, output.shape)
        } catch (error: LcsbException) {
            giveBack(made.values)
            throw error
        }
        made
    }

    override fun close() {
        runtime.close()
        own.forEach { it.close() }
    }

    private companion object {
        const val LABELS = "labels"
    }
}
