package lcsbmobile.core.runtime

import lcsbmobile.core.bundle.wholeSequence
import lcsbmobile.core.io.copyFrom
import lcsbmobile.core.io.part
import lcsbmobile.core.io.toArray
import java.nio.FloatBuffer

/**
 * Generation with a cache of keys and values, on the programs `block_prefill` and `block_decode`. The cache has a place for each of the
 * bundle's T positions: float32 [T, K, d] keys and values a layer.
 */
internal class OnnxRuntimeDecoder(private val runner: OnnxRuntimeRunner, private val adapter: FloatBuffer) : Decoder {
    private val graphs = runner.manifest.graphs
    private val seqLen = runner.manifest.seqLen
    private val cache = List(runner.layers) { CACHED.associateWith { name -> new("block_prefill", name) } }
    private val embedded = runner.newOutputs("decode_embed")
    private val turns = List(2) { runner.newOutputs("block_decode") }
    private val top = new("logits", "h")
    private val logits = new("logits", "logits")
    private val token = new("decode_embed", "input_ids")
    private val place = new("decode_embed", "position_ids")
    private var position = 0 // of the next token
    private var closed = false

    /** All tokens in one pass of the bundle's length; what is beyond them in the cache is never attended to. */
    override fun prefill(ids: IntArray): FloatArray {
        require(ids.size in 1..seqLen) { "expected 1 to $seqLen tokens, found ${ids.size}" }
        var h = runner.embed(wholeSequence(ids, seqLen))
        for (layer in 0 until runner.layers) {
            h = runner.forwardLayer("block_prefill", layer, h, adapter, tensors(cache[layer]), last = layer == runner.layers - 1)
        }
        position = ids.size
        val width = top.floats.capacity()
        return logits(h.floats.part((position - 1) * width, width))
    }

    override fun next(id: Int): FloatArray {
        require(position in 1 until seqLen) { "no room for a token at $position of $seqLen" }
        token.bytes.putLong(0, id.toLong())
        place.bytes.putLong(0, position.toLong())
        runner.run("decode_embed", mapOf("input_ids" to token.tensor, "position_ids" to place.tensor), tensors(embedded), last = false)
        var h = embedded.getValue("h")
        for (layer in 0 until runner.layers) {
            val outputs = turns[layer % 2]
            val past = cache[layer].map { (name, places) -> "past_$name" to places.tensor }
            val feeds = mapOf("h" to h.tensor) + past + runner.byKind(embedded, layer)
            runner.withRow(adapter, layer) { runner.run("block_decode", feeds + ("adapter" to it), tensors(outputs), layer, last = false) }
            for ((name, places) in cache[layer]) {
                val written = outputs.getValue(name).floats
                places.floats.part(position * written.capacity(), written.capacity()).copyFrom(written)
            }
            h = outputs.getValue("h_next")
        }
        position++
        return logits(h.floats)
    }

    /** h[L] of one token -> [V]. */
    private fun logits(h: FloatBuffer): FloatArray {
        top.floats.copyFrom(h)
        runner.run("logits", mapOf("h" to top.tensor), mapOf("logits" to logits.tensor), last = false)
        return logits.floats.toArray()
    }

    private fun new(program: String, name: String): OwnTensor =
        graphs.getValue(program).run { inputs + outputs }.first { it.name == name }.let { runner.new(it.dtype, it.shape) }

    /** Again and again without harm: a text that ended is closed by its reader too. */
    override fun close() {
        if (closed) return
        closed = true
        val all = cache.flatMap { it.values } + embedded.values + turns.flatMap { it.values } + listOf(top, logits, token, place)
        runner.release(all, STEPWISE)
    }
}

private val STEPWISE = listOf("decode_embed", "block_decode", "logits")
private val CACHED = listOf("keys", "values")
