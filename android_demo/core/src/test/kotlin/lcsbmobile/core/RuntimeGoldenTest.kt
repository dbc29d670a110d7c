package lcsbmobile.core

import kotlinx.serialization.Serializable
import lcsbmobile.core.io.megabytes
import lcsbmobile.core.io.recordJson
import lcsbmobile.core.runtime.OnnxRuntimeRunner
import lcsbmobile.core.training.planRun
import lcsbmobile.core.training.predictedPeak
import lcsbmobile.core.training.timeShare
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import java.io.File

/** What Python predicts and writes for the same bundles (scripts/testing/export_test_bundles.py writes it beside them). */
class RuntimeGoldenTest {
    @Serializable
    private class WrittenText(val text: String, val tokens: Int, val ended: String)

    /** [peaks]: by kept layers, base 0. [accumulating]: nothing kept, base 1000. [samples]: nothing kept, with texts. [large]: with a head that needs more than a block. [timeShares]: of each step, keeping none, one and all. */
    @Serializable
    private class Expected(
        val peaks: List<Long>,
        val accumulating: Long,
        val samples: Long,
        val large: Long,
        val timeShares: List<List<Double>>,
        val texts: Map<String, WrittenText>,
    )

    private val golden = recordJson.decodeFromString<Map<String, Expected>>(File(System.getProperty("test.bundles"), "runtime.json").readText())

    @Test
    fun `predicted memory and time are Python's`() {
        assertEquals(bundleDirectories.map { it.name }.toSet(), golden.keys)
        for ((name, expected) in golden) {
            val manifest = openBundle(name).manifest
            val layers = manifest.model.numHiddenLayers
            assertEquals(name, expected.peaks, (0..layers).map { predictedPeak(manifest, manifest.schedule, it, 0) })
            assertEquals(name, expected.accumulating, predictedPeak(manifest, manifest.schedule, 0, 1000, 2))
            assertEquals(name, expected.samples, predictedPeak(manifest, manifest.schedule, 0, 0, samples = true))
            val large = manifest.copy(model = manifest.model.copy(vocabSize = 151_936, hiddenSize = 896))
            assertEquals(name, expected.large, predictedPeak(large, manifest.schedule, 0, 0))
            for ((keep, shares) in listOf(0, 1, layers).zip(expected.timeShares)) {
                val found = manifest.schedule.distinct().map { timeShare(manifest, it, keep) }
                for ((share, other) in shares.zip(found)) assertEquals(name, share, other, 1e-12 * share)
                assertEquals(shares.size, found.size)
            }
        }
    }

    @Test
    fun `what a budget allows`() {
        val manifest = openBundle("llama-20-steps").manifest
        val layers = manifest.model.numHiddenLayers
        val peaks = (0..layers).map { predictedPeak(manifest, manifest.schedule, it, 1_000_000) }
        fun plan(budget: Long?, keep: Int? = null) = planRun(manifest, manifest.schedule, 1_000_000, budget, keep)
        assertEquals(0, plan(null).keep)
        assertEquals(3, plan(null, 3).keep)
        assertEquals(layers, plan(null, 1000).keep)
        assertEquals(layers, plan(Long.MAX_VALUE).keep)
        assertEquals(peaks.indices.last { peaks[it] <= peaks[2] }, plan(peaks[2]).keep)
        assertEquals(peaks.min(), plan(null).leastBytes)
        assertEquals(peaks[0], plan(peaks[0], 0).predictedPeakBytes)
        val message = refusal(Fault.MEMORY_TOO_SMALL) { plan(peaks.min() - 1) }
        assertTrue(message, message.startsWith("the run is predicted to need at least ${megabytes(peaks.min())}, 1.0 MB of it this process"))
        val most = peaks.indices.maxBy { peaks[it] }
        val kept = refusal(Fault.MEMORY_TOO_SMALL) { plan(peaks[most] - 1, most) }
        assertTrue(kept, "keeping $most layers is predicted to take ${megabytes(peaks[most])}" in kept && "nothing was run" in kept)
        refusal(Fault.OPTION) { plan(null, -1) }
    }

    // Text

    private fun <T> withRunner(name: String, use: (Bundle, OnnxRuntimeRunner) -> T): T =
        openBundle(name).let { bundle -> OnnxRuntimeRunner(bundle, 1).use { use(bundle, it) } }

    @Test
    fun `greedy text is Python's`() {
        for ((name, expected) in golden) {
            withRunner(name) { bundle, runner ->
                for ((prompt, written) in expected.texts) {
                    val found = generate(runner, bundle, initialAdapter(bundle), prompt, SamplingConfig(temperature = 0.0, maxTokens = 12))
                    assertEquals("$name $prompt", written.text, found.joinToString(""))
                    assertEquals(written.tokens, found.tokens)
                    assertEquals(written.ended.uppercase().replace(' ', '_'), found.ended?.name)
                    assertTrue(found.prefillSeconds > 0 && found.decoded == found.tokens - (if (found.ended == TextEnd.END_TOKEN) 0 else 1))
                }
            }
        }
    }

    @Test
    fun `sampled text is the seed's, and ends where it should`() = withRunner("tiny") { bundle, runner ->
        val adapter = initialAdapter(bundle)
        fun text(config: SamplingConfig) = generate(runner, bundle, adapter, "the ", config).let { it.joinToString("") to it }
        val hot = SamplingConfig(temperature = 1.0, topP = 1.0, maxTokens = 20)
        assertEquals(text(hot).first, text(hot).first)
        assertTrue(text(hot).first != text(hot.copy(seed = 1)).first)
        assertEquals(text(SamplingConfig(temperature = 0.0)).first, text(SamplingConfig(temperature = 2.0, topP = 1e-9)).first)
        val (cut, stopped) = text(SamplingConfig(temperature = 0.0, stop = listOf("zzz", "r is")))
        assertEquals("serve", cut)
        assertEquals(TextEnd.STOP_TEXT, stopped.ended)
        val (whole, filled) = text(SamplingConfig(temperature = 0.0, maxTokens = 1000))
        assertTrue(whole, whole.startsWith("server is a ") && filled.ended == TextEnd.SEQUENCE_FULL)
        assertEquals("server is a", text(SamplingConfig(temperature = 0.0, maxTokens = 12, stop = listOf(" the"))).first.trimEnd())
        refusal(Fault.OPTION) { generate(runner, bundle, adapter, "x".repeat(200), hot) }
        refusal(Fault.OPTION) { generate(runner, bundle, adapter, "", hot) }
        val numbers = listOf(hot.copy(maxTokens = 0), hot.copy(temperature = Double.NaN), hot.copy(topP = 0.0), hot.copy(seed = -1))
        for (bad in numbers + hot.copy(stop = listOf(""))) {
            refusal(Fault.OPTION) { bad.check() }
        }
    }

    @Test
    fun sampling() {
        val logits = floatArrayOf(0f, 3f, 1f, 3f, 2f)
        fun tokens(config: SamplingConfig) = java.util.Random(0).let { random -> List(4000) { sample(logits, config, random) } }
        assertEquals(setOf(1), tokens(SamplingConfig(temperature = 0.0)).toSet())
        assertEquals(setOf(1), tokens(SamplingConfig(topP = 0.3, temperature = 1.0)).toSet()) // 0.38 each of the two likeliest
        assertEquals(setOf(1, 3), tokens(SamplingConfig(topP = 0.5, temperature = 1.0)).toSet())
        assertEquals(setOf(1, 3, 4), tokens(SamplingConfig(topP = 0.85, temperature = 1.0)).toSet())
        val counts = tokens(SamplingConfig(topP = 1.0, temperature = 1.0)).groupingBy { it }.eachCount()
        val weights = logits.map { Math.exp(it.toDouble()) }
        for (token in logits.indices) assertEquals(weights[token] / weights.sum(), (counts[token] ?: 0) / 4000.0, 0.03)
        refusal(Fault.RUNTIME_FAILED) { sample(floatArrayOf(1f, Float.NaN), SamplingConfig(), java.util.Random(0)) }
    }

    @Test
    fun `stop texts across pieces`() {
        fun pieces(stop: List<String>, vararg grown: String): List<String> {
            val texts = StopTexts(stop)
            val found = grown.map { text -> if (texts.met) "" else texts.grow(text) }
            return found + (if (texts.met) "" else texts.end(grown.last()))
        }
        assertEquals(listOf("a", "", "bx", ""), pieces(listOf("bc"), "a", "ab", "abx"))
        assertEquals(listOf("a", "", "", ""), pieces(listOf("bc"), "a", "ab", "abcd"))
        assertEquals(listOf("a", "", "b"), pieces(listOf("bc"), "a", "ab"))
        assertEquals(listOf("", "é", ""), pieces(emptyList(), "", "é"))
        assertEquals(listOf("x", ""), pieces(listOf("cd", "bcde", "b"), "xbcde"))
        assertFalse(StopTexts(listOf("b")).met)
    }
}
