package lcsbmobile.core.runtime

import lcsbmobile.core.Bundle
import lcsbmobile.core.CrossingBundle
import lcsbmobile.core.CrossingReference
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.inScratch
import lcsbmobile.core.io.part
import lcsbmobile.core.io.toArray
import lcsbmobile.core.refusal
import lcsbmobile.core.training.AdamW
import lcsbmobile.core.training.fullSubset
import lcsbmobile.core.training.mappedState
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import java.util.Random

/** Layers of several kinds that give and take, on a bundle whose gradients are known in closed form. */
class CrossingTest {
    private fun <T> withRunner(keep: Int = 0, use: (Bundle, OnnxRuntimeRunner) -> T): T = inScratch { scratch ->
        val bundle = Bundle.open(CrossingBundle.write(scratch))
        OnnxRuntimeRunner(bundle, 1, keep).use { use(bundle, it) }
    }

    private fun subsets(count: Int): List<Subset> {
        val random = Random(4)
        val layers = CrossingBundle.places.indices
        return List(count) {
            val train = layers.filter { random.nextInt(3) == 0 }.ifEmpty { listOf(random.nextInt(layers.last)) }
            Subset(train, layers.filter { it in train || random.nextInt(3) > 0 })
        }
    }

    @Test
    fun `any subset's gradients, whatever is kept`() {
        for (keep in listOf(0, 3, 100)) {
            withRunner(keep) { bundle, runner ->
                val adapter = CrossingBundle.adapter()
                val reference = CrossingReference(CrossingBundle.batch())
                val loss = reference.loss
                for (subset in subsets(40) + fullSubset(bundle.manifest)) {
                    val expected = reference.gradients(subset)
                    val found = runner.step(subset, CrossingBundle.batch(), adapter)
                    assertEquals(loss, found.loss.toDouble(), 1e-5 * loss)
                    assertEquals(subset.train, found.gradients.keys.toList())
                    for ((layer, gradient) in found.gradients) {
                        assertEquals(bundle.manifest.kind(layer).size, gradient.capacity())
                        // float32's rounding; what is summed may cancel
                        for (value in gradient.toArray()) assertEquals("$keep $subset $layer", expected.getValue(layer), value.toDouble(), 1e-5 * loss)
                    }
                }
                assertEquals(loss, runner.evaluate(CrossingBundle.batch(), adapter).toDouble(), 1e-5 * loss)
            }
        }
    }

    /** A runner whose buffers are refused from number [from] on, as many as [count], counted from its first step. */
    private fun <T> refusing(from: Int, count: Int, keep: Int, use: (BlockRunner) -> T): T = inScratch { scratch ->
        val bundle = Bundle.open(CrossingBundle.write(scratch))
        var number = Int.MIN_VALUE
        fun make(dtype: String, shape: List<Long>): HostTensor {
            if (number++ in from until from + count) throw LcsbException(Fault.MEMORY_TOO_SMALL, "no room")
            return HostTensor(dtype, shape)
        }
        val runner = object : BlockRunner(bundle, OnnxRuntime(bundle, 1), keep, {}, ::make) {}
        number = 0
        runner.use(use)
    }

    @Test
    fun `where a buffer is refused fewer layers are kept, and the step is the same`() {
        val layers = CrossingBundle.places.indices.toList()
        val all = Subset(layers, layers)
        fun step(runner: BlockRunner) = runner.step(all, CrossingBundle.batch(), CrossingBundle.adapter()).gradients.mapValues { it.value.toArray() }
        val expected = refusing(0, 0, 0, ::step)
        val found = HashSet<Int>()
        for (from in 0 until 40) {
            refusing(from, 1, layers.size) { runner ->
                for ((layer, gradient) in step(runner)) assertArrayEquals("$from", expected.getValue(layer), gradient, 1e-5f)
                found += runner.kept
            }
        }
        assertTrue("$found", found.containsAll(listOf(0, layers.size)) && found.size > 2)
        val message = refusal(Fault.MEMORY_TOO_SMALL) { refusing(0, 100, layers.size, ::step) }
        assertEquals("no room", message)
    }

    @Test
    fun `what float16 does not hold`() {
        fun kept(vararg bits: Int): HostTensor {
            val tensor = HostTensor("float16", listOf(bits.size.toLong()))
            bits.forEachIndexed { at, it -> tensor.bytes.putShort(2 * at, it.toShort()) }
            return tensor
        }
        assertTrue(holds(kept(0, 0x7BFE, 0xFBFE, 0x8000))) // of 65504 the one below, of either sign
        for (bits in listOf(0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00)) assertFalse("$bits", holds(kept(0, bits, 0)))
        assertTrue(holds(HostTensor("float32", listOf(1)).also { it.floats.put(0, Float.POSITIVE_INFINITY) }))
    }

    @Test
    fun `what the reference says of a value's gradient is not nothing`() {
        val top = Subset(listOf(2), listOf(2, 3, 4, 5, 6))
        val dropped = Subset(listOf(2), listOf(2, 5))
        val (all, some) = listOf(top, dropped).map { CrossingReference(CrossingBundle.batch()).gradients(it).getValue(2) }
        assertTrue("$all $some", Math.abs(all - some) > 1e-2)
    }

    @Test
    fun `the adapter steps by layers of their own size`() = withRunner { bundle, runner ->
        inScratch { scratch ->
            val layout = bundle.manifest.adapter
            val state = mappedState(scratch, layout.size).also { bundle.readInitialAdapter(it.adapter) }
            assertArrayEquals(CrossingBundle.adapter().toArray(), state.adapter.toArray(), 0f)
            val subset = Subset(listOf(1, 3, 5), listOf(1, 2, 3, 4, 5, 6))
            val gradients = runner.step(subset, CrossingBundle.batch(), state.adapter).gradients
            val before = state.adapter.toArray()
            AdamW(state, layout, bundle.manifest.optimizer, runner).update(gradients, 1e-2)
            for (layer in 0 until layout.numLayers) {
                val gradient = gradients[layer]?.toArray() ?: FloatArray(layout.vectorSize(layer))
                assertArrayEquals(gradient, layout.vector(state.firstMoment, layer).toArray(), 0f) // this bundle's adamw hands it out
                val offset = CrossingBundle.places[layer].offset
                val expected = FloatArray(gradient.size) { before[offset + it] * (1 - 1e-2 * 0.01).toFloat() - gradient[it] * (1e-2 / (1 - 0.9)).toFloat() }
                assertArrayEquals(expected, state.adapter.part(offset, gradient.size).toArray(), 1e-6f)
            }
        }
    }

    /** This bundle's decode programs add to h what they remember: by place, all tokens' places; whole, the sum of the tokens before. */
    @Test
    fun `a state by position and one that is replaced, and values that cross while a text is written`() = withRunner { bundle, runner ->
        val ids = intArrayOf(1, 4, 0, 3)
        val adapter = CrossingBundle.adapter()
        val layout = bundle.manifest.adapter
        val factors = CrossingBundle.places.mapIndexed { layer, place ->
            layout.vector(adapter, layer).toArray().sum() + (if (place.kind == "give") CrossingBundle.biases[place.number] else 0f)
        }
        fun embedded(id: Int) = FloatArray(CrossingBundle.WIDTH) { CrossingBundle.embedding[id * CrossingBundle.WIDTH + it] }

        /** h[L] of the token at a place; [past]: what each layer's inputs were before, padding of the prompt included. */
        fun through(id: Int, place: Int, past: List<MutableList<FloatArray>>, prompt: Boolean): FloatArray {
            var h = embedded(id)
            val values = HashMap<String, FloatArray>()
            for ((layer, own) in CrossingBundle.places.withIndex()) {
                val s = factors[layer]
                val before = h
                fun taken(name: String, at: Int) = values.getValue(own.takes.getValue(name))[at]
                h = FloatArray(before.size) { at ->
                    before[at] + when (own.kind) {
                        "give" -> before[at] * s + (if (prompt) 0f else past[layer].sumOf { it[at].toDouble() }.toFloat())
                        "take" -> taken("value", at) * s * (place + 1)
                        else -> taken("left", at) * taken("right", at) * s
                    }
                }
                for (value in own.gives.values) values[value] = FloatArray(before.size) { before[it] * s }
                past[layer] += before
            }
            return h
        }
        fun logits(h: FloatArray) = FloatArray(CrossingBundle.VOCABULARY) { id -> h.indices.map { h[it] * embedded(id)[it] }.sum() }

        runner.decoder(adapter).use { decoder ->
            repeat(2) {
                // Prompt of two tokens; the two of padding are of the token 0, at places 0 and 1 of their own segment.
                val seen = List(layout.numLayers) { mutableListOf<FloatArray>() }
                val tops = listOf(ids[0], ids[1], 0, 0).mapIndexed { at, id -> through(id, at % 2, seen, prompt = true) }
                assertArrayEquals(logits(tops[1]), decoder.prefill(ids.copyOf(2)), 1e-5f)
                val totals = seen.map { places -> FloatArray(CrossingBundle.WIDTH) { at -> places.map { it[at] }.sum() } }
                for (place in 2..3) {
                    val past = List(layout.numLayers) { layer -> (seen[layer] + listOf(totals[layer])).toMutableList() }
                    val expected = logits(through(ids[place], place, past, prompt = false))
                    assertArrayEquals("$place", expected, decoder.next(ids[place]), 1e-4f)
                    for (layer in totals.indices) {
                        val written = past[layer].last()
                        seen[layer][place] = written
                        for (at in written.indices) totals[layer][at] += written[at]
                    }
                }
            }
        }
    }
}
