package lcsbmobile.app

import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

class ViewsTest : AppTest() {
    @Test fun `ticks are round numbers that enclose the curve`() {
        assertEquals(listOf(1.0, 2.0, 3.0, 4.0), LossChart.ticks(1.2, 3.4))
        assertEquals(listOf(0.0, 0.5, 1.0, 1.5), LossChart.ticks(0.1, 1.5))
        val random = java.util.Random(0)
        repeat(1000) {
            val low = random.nextDouble() * 10
            val high = low + random.nextDouble() * 10 * random.nextDouble()
            val ticks = LossChart.ticks(low, high)
            assertTrue("$low $high: $ticks", ticks.size in 3..6 && ticks.first() <= low + 1e-9 && ticks.last() >= high - 1e-9)
        }
        assertTrue(LossChart.ticks(2.0, 2.0).size >= 3)
    }

    @Test fun `layers are counted from one, in ranges`() {
        assertEquals("1–3, 5, 8", LayerStrip.ranges(listOf(0, 1, 2, 4, 7)))
        assertEquals("", LayerStrip.ranges(emptyList()))
    }

    @Test fun `chart and strip say in words what they show`() {
        val activity = open().get()
        val chart = activity.view<LossChart>(R.id.chart)
        chart.show(emptyList(), emptyList(), 20)
        assertEquals("The curve appears with the first steps.", chart.contentDescription)
        chart.show(listOf(LossPoint(1, 3.25), LossPoint(8, 2.5)), listOf(LossPoint(0, 3.3), LossPoint(8, 2.6)), 20)
        val words = "Training loss, smoothed, over 8 steps: from 3.250 to 2.855. On the test examples: from 3.300 to 2.600."
        assertEquals(words, chart.contentDescription)
        val strip = activity.view<LayerStrip>(R.id.layers)
        strip.show(List(2) { LayerRole.SKIPPED } + List(2) { LayerRole.TRAINED } + List(4) { LayerRole.PASSED }, 3)
        assertEquals("8 layers. Being trained: 3–4. Passed through: 5–8.", strip.contentDescription)
    }

    @Test fun `figures are written as the screen's language writes them`() {
        assertEquals("1.4 GB", formatBytes(english(), 1_400_000_000))
        assertEquals("1,4 GB", formatBytes(german(), 1_400_000_000))
        assertEquals("93 MB", formatBytes(german(), 93_400_000))
        assertEquals("1 kB", formatBytes(english(), 1))
        assertEquals("0,06 s", formatSeconds(german(), 0.06))
        assertEquals("–", formatDecimal(english(), Double.NaN, 3))
        assertEquals("less than a minute", formatDuration(english(), 29.0))
        assertEquals("1 Minute", formatDuration(german(), 61.0))
        assertEquals("2 hours", formatDuration(english(), 7000.0))
        assertEquals("100 steps ≈ 4 min", stepsInTime(english(), 100, 2.4))
        assertEquals("1.000 Schritte", stepsInTime(german(), 1000, null))
        assertEquals("≈ 29 s", formatRoughly(english(), 29.0))
        assertEquals("≈ 2 h", formatRoughly(german(), 7000.0))
    }

    @Test fun `what training did is said as figures and in words`() {
        assertEquals("3.40\u00A0→\u00A01.42", lossChange(english(), 3.4, 1.42))
        assertEquals("3,40\u00A0→\u00A01,42", lossChange(german(), 3.4, 1.42))
        val better = lossChangeInWords(english(), 3.4, 1.42)
        assertTrue(better, "of 3.3% before training, and of 24% after" in better)
        val none = "On test examples it had not seen, the model did not get better."
        for (after in listOf(3.399, 3.4, 3.6, Double.NaN)) assertEquals(none, lossChangeInWords(english(), 3.4, after))
    }

    @Test fun `names go on in the next line after their marks, figures do not`() {
        val shown = breakable("Smol-135M-Instruct.Q4_1.gguf: llama, 134.5 M - x").replace('\u200B', '|')
        assertEquals("Smol-|135M-|Instruct.|Q4_|1.|gguf: llama, 134.5 M - x", shown)
    }

    @Test fun `the smoothed curve is a weighted mean of what was, without what is no number`() {
        val smooth = LossChart.smoothed(listOf(3.0, Double.NaN, 1.0, 2.0).mapIndexed { i, loss -> LossPoint(i + 1, loss) })
        assertEquals(listOf(1, 3, 4), smooth.map { it.step })
        val means = listOf(3.0, (0.9 * 3 + 1) / 1.9, (0.81 * 3 + 0.9 * 1 + 2) / 2.71)
        for ((mean, point) in means.zip(smooth)) assertEquals(mean, point.loss, 1e-12)
    }
}
