package lcsbmobile.core.training

import lcsbmobile.core.Bundle
import lcsbmobile.core.CrossingBundle
import lcsbmobile.core.Fault
import lcsbmobile.core.bundle.Manifest
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.inScratch
import lcsbmobile.core.refusal
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

/** Cost and memory are sums over the layers, each as its kind has it. */
class PlanTest {
    private val manifest = inScratch { Bundle.open(CrossingBundle.write(it)).manifest }
    private val top = Subset(listOf(4, 6), listOf(4, 5, 6)) // pair, give, take
    private val hidden = 4L * CrossingBundle.TOKENS * CrossingBundle.WIDTH

    private fun Manifest.file(name: String, size: Long) = copy(files = files + ("$name.onnx" to files.getValue("$name.onnx").copy(size = size)))

    @Test
    fun `work by kind`() {
        // a forward's work is the length of the kind's name, a backward's 10, of what was kept 100
        val head = 2L * 2 * CrossingBundle.TOKENS * CrossingBundle.VOCABULARY * CrossingBundle.WIDTH
        val decompressed = 4L * CrossingBundle.VOCABULARY * CrossingBundle.WIDTH
        assertEquals(7 * 4 + head + 3 * 10, stepCost(manifest, top).flops)
        assertEquals(7 * 4 + head + 1 * 10 + 2 * 100, stepCost(manifest, top, keep = 2).flops)
        assertEquals(7 * 4 + decompressed + 1 * 10 + 2 * 100, stepCost(manifest, top, keep = 2).decompressedBytes)
        assertEquals(2 * 4 + decompressed + 1 * 10 + 2 * 100, stepCost(manifest.copy(accuracyLevel = 4), top, keep = 2).decompressedBytes)
        val wide = manifest.copy(kinds = manifest.kinds.map { if (it.name == "pair") it.copy(flops = it.flops.copy(backward = 1000)) else it })
        assertEquals(7 * 4 + head + 2 * 10 + 1000, stepCost(wide, top).flops)
    }

    @Test
    fun `memory by kind`() {
        val terms = peakTerms(manifest, listOf(top), 0, 1)
        assertEquals(3 * hidden, terms["saved layer inputs"])
        assertEquals(0L, terms["kept activations"])
        assertEquals(4L * (6 + 4 + 5), terms["gradients"]) // the layer between them, which is of another size, has one that nobody reads
        assertEquals(2 * 3 * hidden, terms["crossing values"]) // two that are bound, one that is dropped, and their gradients
        assertEquals(4L * (6 + 4 + 5 + 6 + 5), peakTerms(manifest, listOf(top), 0, 2)["gradients"])
        val pairs = Subset(listOf(3), listOf(3, 4)) // of one size
        assertEquals(4L * (6 + 4 + 5), peakTerms(manifest, listOf(top, pairs), 0, 1)["gradients"])
        assertEquals(4L * 6, peakTerms(manifest, listOf(pairs), 0, 1)["gradients"])
        assertEquals(2 * hidden + 2, peakTerms(manifest, listOf(top), 2, 1)["kept activations"]) // give and take keep [T, D], give a float16 more
        assertEquals(2 * hidden + 2, peakTerms(manifest, listOf(top), 3, 1)["kept activations"]) // a pair nothing
    }

    @Test
    fun `what direct buffers may take caps what is kept, whatever the budget`() {
        val steps = listOf(top)
        val without = bufferBytes(manifest, steps, 0, 1)
        val terms = peakTerms(manifest, steps, 0, 1)
        assertEquals(without, terms.values.sum() - terms.getValue("runtime") - terms.getValue("sessions") - terms.getValue("working set"))
        assertEquals(without + 2 * hidden + 2, bufferBytes(manifest, steps, 2, 1))
        fun plan(direct: Long?, keep: Int? = null) = planRun(manifest, steps, 0, Long.MAX_VALUE, keep, direct = direct).keep
        val layers = manifest.model.numHiddenLayers
        val second = bufferBytes(manifest, steps, 2, 1)
        assertEquals(layers, plan(null))
        assertEquals(layers, plan(second))
        assertEquals(1, plan(second - 1))
        assertEquals(0, plan(without))
        assertEquals(1, plan(second - 1, keep = 1))
        val more = refusal(Fault.MEMORY_TOO_SMALL) { plan(second - 1, keep = 2) }
        assertTrue(more, "keep 1 or fewer" in more)
        val none = refusal(Fault.MEMORY_TOO_SMALL) { plan(without - 1) }
        assertTrue(none, "the app's heap may hold" in none && "nothing was run" in none)
    }

    @Test
    fun `what is beside the steps, and a margin`() {
        val terms = peakTerms(manifest, listOf(top), 0, 1)
        val found = runTerms(manifest, listOf(top), 0, 1, samples = false)
        assertEquals(terms, found - "beside the steps" - "margin")
        assertEquals(10L * manifest.kinds.maxOf { it.size } * 4, found["beside the steps"])
        assertEquals(8_000_000L, found["margin"]) // of a model of next to nothing
        val large = runTerms(manifest.file("pair_forward", 10_000_000), listOf(top), 0, 1, samples = false)
        assertEquals(Math.rint(0.06 * (large - "margin").values.sum()).toLong(), large["margin"])
        assertEquals(1000 + found.values.sum(), predictedPeak(manifest, listOf(top), 0, 1000))
    }

    @Test
    fun `sessions of the kinds that run`() {
        fun sessions(name: String, keep: Int): Long {
            val without = peakTerms(manifest, listOf(top), keep, 1).getValue("sessions")
            return (peakTerms(manifest.file(name, 1_000_000), listOf(top), keep, 1).getValue("sessions") - without) / 40_000_000
        }
        for (kind in listOf("give", "take", "pair")) {
            assertEquals(1L, sessions("${kind}_forward", 0))
            assertEquals(1L, sessions("${kind}_backward", 0))
            assertEquals(0L, sessions("${kind}_forward_keep", 0))
            assertEquals(if (kind == "pair") 1L else 0L, sessions("${kind}_backward", 2))
            assertEquals(if (kind == "pair") 0L else 1L, sessions("${kind}_backward_kept", 2))
        }
    }
}
