package lcsbmobile.core.runtime

import lcsbmobile.core.initialAdapter
import lcsbmobile.core.openBundle
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

/** Generation with a state: at every position the logits of the whole sequence, whatever was prefilled and whatever came before. */
class BlockDecoderTest {
    /**
     * One row's products and T rows' sum in another order: 8e-7 to 3.8e-6 of the largest were measured. Of Qwen3.5 1.9e-5: the delta rule goes
     * token by token here, there by chunks, and the norm after it divides by what may be near zero.
     */
    private fun assertClose(expected: FloatArray, found: FloatArray, what: String) {
        val most = if (what.startsWith("qwen3_5")) 4e-5f else 8e-6f
        val largest = expected.maxOf { Math.abs(it) }
        assertArrayEquals(what, expected, found, most * largest)
    }

    /** A prompt of a prefix is a pass over the whole sequence of which one row is read: what the state is held to. */
    @Test
    fun `every position`() {
        for (name in listOf("llama", "qwen2", "qwen3", "gemma3", "gemma3-untied-int8", "gemma2", "granite", "smollm3", "phi3", "tiny", "lfm2", "qwen3_5")) {
            val bundle = openBundle(name)
            val tokens = bundle.manifest.seqLen
            val ids = IntArray(tokens) { 4 + (it * 37) % (bundle.manifest.model.vocabSize - 4) }
            OnnxRuntimeRunner(bundle, 1).use { runner ->
                val adapter = initialAdapter(bundle).also { for (at in 0 until it.capacity()) it.put(at, it.get(at) + 0.001f * (at % 7)) }
                val whole = runner.decoder(adapter).use { decoder -> (1..tokens).map { decoder.prefill(ids.copyOf(it)) } }
                runner.decoder(adapter).use { decoder ->
                    for (prompt in listOf(1, 11)) {
                        assertClose(whole[prompt - 1], decoder.prefill(ids.copyOf(prompt)), "$name $prompt")
                        for (at in prompt until tokens) assertClose(whole[at], decoder.next(ids[at]), "$name $prompt $at")
                    }
                    assertThrows(IllegalArgumentException::class.java) { decoder.next(1) }
                }
            }
        }
    }

    @Test
    fun `decoders and steps do not disturb each other`() = listOf("gemma3", "lfm2", "qwen3_5").forEach(::undisturbed)

    private fun undisturbed(name: String) {
        val bundle = openBundle(name)
        OnnxRuntimeRunner(bundle, 1).use { runner ->
            val adapter = initialAdapter(bundle)
            fun text(start: Int, between: () -> Unit) = runner.decoder(adapter).use { decoder ->
                listOf(decoder.prefill(intArrayOf(start, 9, 8))) + (5..7).map { decoder.next(it.also { between() }) }
            }
            val alone = text(5) {}
            val other = runner.decoder(adapter)
            other.prefill(intArrayOf(20, 21, 22, 23))
            val step = bundle.golden.steps[0]
            val disturbed = text(5) {
                runner.step(step.subset, bundle.golden.batches[step.batch].batch(), adapter)
                other.next(30)
            }
            other.close()
            for ((expected, found) in alone.zip(disturbed)) assertArrayEquals(expected, found, 0f)
            assertTrue(!text(6) {}[0].contentEquals(alone[0]))
        }
    }
}
