package lcsbmobile.core.runtime

import lcsbmobile.core.bundle.DECODE
import lcsbmobile.core.bundle.PAST
import lcsbmobile.core.bundle.PREFILL
import lcsbmobile.core.bundle.StateTensor
import lcsbmobile.core.bundle.program
import lcsbmobile.core.bundle.wholeSequence
import lcsbmobile.core.io.copyFrom
import lcsbmobile.core.io.part
import lcsbmobile.core.io.toArray
import java.nio.FloatBuffer

/**
 * Generation with a state a layer, on the programs `KIND_prefill` and `KIND_decode`. Of a state by position, such as keys and values, a program
 * returns the token's place, which is written among those of the bundle's T positions; any other it returns whole, in place of the old one.
 */
internal class BlockDecoder(private val runner: BlockRunner, private val adapter: FloatBuffer) : Decoder {
    private val manifest = runner.manifest
    private val graphs = manifest.graphs
    private val seqLen = manifest.seqLen
    private val own = ArrayList<HostTensor>()
    private val states = List(runner.layers) { layer -> manifest.kind(layer).state.map(::State) }
    private val places = manifest.kinds.associate { kind ->
        kind.name to kind.state.filter { it.byPosition }.associate { it.name to new(program(kind.name, DECODE), it.name) }
    }
    private val embedded = graphs.getValue("decode_embed").outputs.associate { it.name to new(it.dtype, it.shape) }
    private val turns = List(2) { new("decode_embed", "h") }
    private val crossing = CrossingBuffers { new(it.dtype, it.shape) }
    private val prefills = manifest.layers.map { program(it.kind, PREFILL) }
    private val decodes = manifest.layers.map { program(it.kind, DECODE) }
    private val top = new("logits", "h")
    private val logits = new("logits", "logits")
    private val token = new("decode_embed", "input_ids")
    private val place = new("decode_embed", "position_ids")
    private var position = 0 // of the next token
    private var closed = false

    /** All tokens in one pass of the bundle's length; what is beyond them in a state by position is never attended to. */
    override fun prefill(ids: IntArray): FloatArray {
        require(ids.size in 1..seqLen) { "expected 1 to $seqLen tokens, found ${ids.size}" }
        val values = Crossing(manifest, crossing, PREFILL)
        var h = runner.embed(wholeSequence(ids, seqLen))
        for (layer in 0 until runner.layers) {
            h = runner.forwardLayer(prefills, layer, h, adapter, values, states[layer].associate { it.name to it.now })
        }
        position = ids.size
        val width = top.floats.capacity()
        return logits(h.floats.part((position - 1) * width, width))
    }

    override fun next(id: Int): FloatArray {
        require(position in 1 until seqLen) { "no room for a token at $position of $seqLen" }
        token.bytes.putLong(0, id.toLong())
        place.bytes.putLong(0, position.toLong())
        runner.run("decode_embed", mapOf("input_ids" to token, "position_ids" to place), embedded, last = false)
        val values = Crossing(manifest, crossing, DECODE)
        val top = (0 until runner.layers).fold(embedded.getValue("h")) { h, layer -> decodeLayer(layer, h, values) }
        position++
        return logits(top.floats)
    }

    private fun decodeLayer(layer: Int, h: HostTensor, values: Crossing): HostTensor {
        val next = turns[layer % 2]
        val places = places.getValue(manifest.layers[layer].kind)
        val past = states[layer].associate { "$PAST${it.name}" to it.now }
        val feeds = mapOf("h" to h) + past + runner.read(layer, embedded) + values.taken(layer)
        val outputs = values.given(layer) + ("h_next" to next) + states[layer].associate { it.name to (places[it.name] ?: it.then) }
        runner.withVector(adapter, layer) { runner.run(decodes[layer], feeds + ("adapter" to it), outputs, layer, last = false) }
        for (state in states[layer]) state.follow(places[state.name])
        return next
    }

    /** What a layer remembers under one name. [then]: where the next token's is written, as a program must not write what it reads. */
    private inner class State(described: StateTensor) {
        val name = described.name
        var now = new("float32", described.shape)
            private set
        var then = if (described.byPosition) now else new("float32", described.shape)
            private set

        /** To the state after the token at [position], which a state by position has in [written]. */
        fun follow(written: HostTensor?) {
            written?.floats?.let { now.floats.part(position * it.capacity(), it.capacity()).copyFrom(it) }
            now = then.also { then = now }
        }
    }

    /** h[L] of one token -> [V]. */
    private fun logits(h: FloatBuffer): FloatArray {
        top.floats.copyFrom(h)
        runner.run("logits", mapOf("h" to top), mapOf("logits" to logits), last = false)
        return logits.floats.toArray()
    }

    private fun new(program: String, name: String): HostTensor =
        graphs.getValue(program).run { inputs + outputs }.first { it.name == name }.let { new(it.dtype, it.shape) }

    private fun new(dtype: String, shape: List<Long>): HostTensor = runner.new(dtype, shape).also { own += it }

    /** Again and again without harm: a text that ended is closed by its reader too. */
    override fun close() {
        if (closed) return
        closed = true
        runner.release(own, decodes.distinct() + listOf("decode_embed", "logits"))
    }
}
