package lcsbmobile.core.training

import lcsbmobile.core.Fault
import lcsbmobile.core.NumpyRunner
import lcsbmobile.core.bundle.AdamWConfig
import lcsbmobile.core.bundle.Batch
import lcsbmobile.core.bundle.IGNORED_LABEL
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.layoutOf
import lcsbmobile.core.refused
import lcsbmobile.core.runtime.StepResult
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.nio.FloatBuffer

class TrainerTest {
    @get:Rule
    val folder = TemporaryFolder()
    private val layout = layoutOf(3000, 5000)
    private val state by lazy { mappedState(folder.root, 3000 + 5000) }
    private val subset = Subset(listOf(1), listOf(1))

    /** A sequence whose first [counted] labels count. */
    private fun batch(counted: Int): Batch {
        val labels = LongArray(8) { if (it < counted) 1 else IGNORED_LABEL }
        return Batch(LongArray(8), labels, LongArray(8), LongArray(8))
    }

    private fun floats(value: Float): FloatBuffer = directFloats(5000).also { for (i in 0 until 5000) it.put(i, value) }

    @Test
    fun `each batch weighs as many labels as it counts, and the runner's buffer may be its own`() {
        val buffer = floats(0f) // one for all steps, as runners have it
        val runner = NumpyRunner { batch ->
            for (i in 0 until 5000) buffer.put(i, batch.countedLabels.toFloat())
            StepResult(batch.countedLabels.toFloat(), mapOf(1 to buffer))
        }
        val config = AdamWConfig(clipNorm = 1e9)
        val optimizer = AdamW(state, layout, config, runner)
        val schedule = listOf(subset, Subset(listOf(0), listOf(0, 1)))
        val outcome = Trainer(runner, schedule, optimizer, TrainConfig(3, 1e-3, accumulation = 2)).step(0, listOf(batch(2), batch(6)))
        assertEquals(0.25 * 2 + 0.75 * 6, outcome.loss, 0.0)
        assertEquals(5.0 * Math.sqrt(5000.0), outcome.gradientNorm, 1e-9)
        assertEquals((1 - 0.9).toFloat() * 5f, layout.vector(state.firstMoment, 1).get(4999))
        assertEquals(0f, layout.vector(state.firstMoment, 0).get(0))
        assertEquals(listOf(1L, 1L), optimizer.updates.toList()) // layer 0 by a gradient of zero
    }

    @Test
    fun `a layer that no step of the schedule trains is not updated`() {
        val runner = NumpyRunner { StepResult(1f, mapOf(1 to floats(1f))) }
        val optimizer = AdamW(state, layout, AdamWConfig(), runner)
        Trainer(runner, listOf(subset), optimizer, TrainConfig(3, 1e-3)).step(0, listOf(batch(2)))
        assertEquals(listOf(0L, 1L), optimizer.updates.toList())
    }

    @Test
    fun `the evaluation's mean is over labels, not sequences`() {
        val runner = NumpyRunner { StepResult(it.countedLabels.toFloat(), emptyMap()) }
        assertEquals((2.0 * 2 + 6 * 6) / 8, evaluate(runner, listOf(batch(2), batch(6)), state.adapter), 0.0)
    }

    @Test
    fun `a loss or gradient that is not finite is refused before anything is updated`() {
        for ((loss, gradient) in listOf(Float.NaN to 1f, 1f to Float.POSITIVE_INFINITY)) {
            val runner = NumpyRunner { StepResult(loss, mapOf(1 to floats(gradient))) }
            val optimizer = AdamW(state, layout, AdamWConfig(), runner)
            val trainer = Trainer(runner, listOf(subset), optimizer, TrainConfig(3, 1e-3))
            val message = refused(Fault.LOSS_NOT_FINITE) { trainer.step(6, listOf(batch(1))) }
            assertTrue(message, message.startsWith("step 7: the loss is $loss and the gradient's norm ") && "try a lower learning rate" in message)
            assertEquals(listOf(0L, 0L), optimizer.updates.toList())
        }
    }

    @Test
    fun `an update that cannot be trained on is refused, and what was before it accepted`() {
        for ((gradient, rate, fault) in listOf(Triple(1e25f, 1e-3, "a second moment of Infinity"), Triple(1f, 1e6, "a parameter of -"))) {
            val runner = NumpyRunner { StepResult(1f, mapOf(1 to floats(gradient))) }
            val optimizer = AdamW(mappedState(folder.root, 3000 + 5000), layout, AdamWConfig(clipNorm = 1e30), runner)
            val accepted = mutableListOf<Long>()
            val trainer = Trainer(runner, listOf(subset), optimizer, TrainConfig(3, rate)) { accepted += optimizer.updates.sum() }
            val message = refused(Fault.LOSS_NOT_FINITE) { trainer.step(0, listOf(batch(1))) }
            assertTrue(message, message.startsWith("step 1: its update would make $fault") && "try a lower learning rate" in message)
            assertEquals(listOf(0L), accepted)
        }
    }

    @Test
    fun `options out of range are refused`() {
        val config = TrainConfig(3, 1e-3)
        val cases = listOf(
            config.copy(steps = 0) to "steps: expected at least 1, found 0",
            config.copy(accumulation = 0) to "accumulation: expected at least 1, found 0",
            config.copy(warmup = -1) to "warmup: expected at least 0, found -1",
            config.copy(learningRate = 0.0) to "lr: expected a positive number, found 0.0",
            config.copy(learningRate = Double.NaN) to "lr: expected a positive number, found NaN",
        )
        for ((wrong, message) in cases) assertEquals(message, refused(Fault.OPTION) { wrong.check() })
    }
}
