package lcsbmobile.core.training

import lcsbmobile.core.NumpyRunner
import lcsbmobile.core.RunVectors
import lcsbmobile.core.bundle.AdamWConfig
import lcsbmobile.core.bundle.makeSchedule
import lcsbmobile.core.io.copyFrom
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.io.sha256
import lcsbmobile.core.layoutOf
import lcsbmobile.core.littleEndian
import lcsbmobile.core.runtime.StepRunner
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import kotlin.math.ulp

class OptimizerTest {
    @get:Rule
    val folder = TemporaryFolder()
    private val vectors = RunVectors.read()

    /** 20 steps with clipping and the implicit update, whose last bits are Python's: parameters and both moments. */
    private fun train(expected: RunVectors.AdamWRun, runner: (AdamWConfig) -> StepRunner) {
        val layout = layoutOf(*IntArray(RunVectors.LAYERS) { RunVectors.SIZE })
        val state = mappedState(folder.root, layout.size)
        for (layer in 0 until layout.numLayers) layout.vector(state.adapter, layer).copyFrom(RunVectors.gradient(100 + layer, 0))
        val config = AdamWConfig(implicitUpdates = expected.implicitUpdates)
        val optimizer = AdamW(state, layout, config, runner(config))
        expected.norms.forEachIndexed { step, wanted ->
            val gradients = RunVectors.gradients(step)
            val norm = gradientNorm(gradients)
            assertEquals(wanted, norm, 1e-14 * wanted) // double sums in another order: some 3,072 roundings of 1e-16, most of which cancel
            clipGradients(gradients, norm, config.clipNorm)
            optimizer.update(gradients, learningRate(1e-3, LearningRateSchedule.COSINE, step, expected.norms.size, warmup = 3))
        }
        assertEquals(expected.updates, optimizer.updates.toList())
        assertEquals(expected.sha256, listOf(state.adapter, state.firstMoment, state.secondMoment).map { sha256(it.littleEndian()) })
    }

    @Test
    fun `adamw and clipping give python's bits`() = vectors.adamw.forEach { train(it, ::NumpyRunner) }

    @Test
    fun `a layer that the method never trains stays bit for bit`() {
        val layout = layoutOf(5, 7)
        val state = mappedState(folder.root, layout.size)
        for (i in 0 until layout.size) state.adapter.put(i, 1f + i)
        val config = AdamWConfig(weightDecay = 0.5)
        val optimizer = AdamW(state, layout, config, NumpyRunner(config))
        repeat(3) { optimizer.update(mapOf(1 to directFloats(7)), 0.1, trainable = setOf(1)) }
        assertEquals(List(5) { 1f + it }, List(5) { state.adapter.get(it) })
        assertTrue(state.adapter.get(5) < 6f) // by weight decay alone
        assertEquals(listOf(0L, 3L), optimizer.updates.toList())
    }

    @Test
    fun `the norm is summed in double precision, over all layers and past whole pieces`() {
        val gradients = mapOf(0 to directFloats(5000), 3 to directFloats(1))
        for (i in 0 until 5000) gradients.getValue(0).put(i, 1e-4f)
        gradients.getValue(3).put(0, 1e4f)
        val small = 1e-4f.toDouble()
        assertEquals(Math.sqrt(5000 * small * small + 1e8), gradientNorm(gradients), 1e-9) // in float32 the small ones would be lost
    }

    @Test
    fun `a norm below the limit leaves the gradients as they are`() {
        val gradients = mapOf(0 to directFloats(5000))
        for (i in 0 until 5000) gradients.getValue(0).put(i, i.toFloat())
        clipGradients(gradients, norm = 0.5, clipNorm = 1.0)
        assertTrue((0 until 5000).all { gradients.getValue(0).get(it) == it.toFloat() })
        clipGradients(gradients, norm = 4.0, clipNorm = 1.0)
        val factor = (1.0 / (4.0 + 1e-6)).toFloat()
        assertTrue((0 until 5000).all { gradients.getValue(0).get(it) == it * factor })
    }

    @Test
    fun `learning rates are python's`() {
        for (case in vectors.learningRates) {
            case.rates.forEachIndexed { step, expected ->
                val found = learningRate(4e-4, case.schedule, step, case.steps, case.warmup)
                // Only the cosine may differ, by its last digit: Java's and C's are both right to one.
                val allowed = if (case.schedule == LearningRateSchedule.COSINE) 2 * expected.ulp + 4e-4 * 1.2e-16 else 0.0
                assertEquals("${case.schedule} ${case.steps} ${case.warmup} step $step", expected, found, allowed)
            }
        }
    }

    @Test
    fun `schedules of every method, and the rate that goes with them, are python's`() {
        for (case in vectors.schedules) {
            val made = makeSchedule(case.method, case.subsets, case.layers)
            assertEquals(case.schedule, made)
            assertEquals(case.learningRate, defaultLearningRate(made, case.layers), 0.0)
        }
    }

    @Test
    fun `the state is zeros in a file that has no name`() {
        val state = mappedState(File(folder.root, "new/run"), 10)
        state.adapter.put(9, 1f)
        state.firstMoment.put(0, 2f)
        assertEquals(0f, state.secondMoment.get(0))
        assertEquals(2f, state.firstMoment.get(0))
        assertEquals(emptyList<String>(), File(folder.root, "new/run").list().orEmpty().toList())
        assertTrue(state.adapter.isDirect)
    }
}
