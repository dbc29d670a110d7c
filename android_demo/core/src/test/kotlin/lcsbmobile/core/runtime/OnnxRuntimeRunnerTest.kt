package lcsbmobile.core.runtime

import lcsbmobile.core.Bundle
import lcsbmobile.core.Fault
import lcsbmobile.core.bundle.Batch
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.bundle.WEIGHTS_FILE
import lcsbmobile.core.bundleDirectories
import lcsbmobile.core.inScratch
import lcsbmobile.core.initialAdapter
import lcsbmobile.core.io.copyFrom
import lcsbmobile.core.io.directBytes
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.io.toArray
import lcsbmobile.core.openBundle
import lcsbmobile.core.refusal
import lcsbmobile.core.runs.checkFirstStep
import lcsbmobile.core.runs.verify
import lcsbmobile.core.training.AdamW
import lcsbmobile.core.training.fullSubset
import lcsbmobile.core.training.mappedState
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import java.nio.FloatBuffer

/** Steps on the real runtime: the golden trace through its whole run, kept layers, buffers, cancelling. */
class OnnxRuntimeRunnerTest {
    private class Cancelled : Exception()

    private fun <T> withRunner(name: String, keep: Int = 0, between: () -> Unit = {}, use: (Bundle, OnnxRuntimeRunner, FloatBuffer) -> T): T {
        val bundle = openBundle(name)
        return OnnxRuntimeRunner(bundle, 1, keep, between).use { use(bundle, it, initialAdapter(bundle)) }
    }

    /** A copy of what the runner's next step would overwrite. */
    private fun copied(result: StepResult) = result.gradients.mapValues { it.value.toArray() } to result.loss

    private fun assertSame(expected: Pair<Map<Int, FloatArray>, Float>, found: Pair<Map<Int, FloatArray>, Float>) {
        assertEquals(expected.second, found.second, 0f)
        assertEquals(expected.first.keys.toList(), found.first.keys.toList())
        for ((layer, gradient) in expected.first) assertArrayEquals(gradient, found.first.getValue(layer), 0f)
    }

    // The golden trace: float32's rounding is 1e-6, int8 activations' 2e-2; each bundle states what it is held to

    @Test
    fun `every bundle's golden trace holds, two cycles with momentum`() {
        assertTrue(bundleDirectories.size >= 9)
        for (directory in bundleDirectories) {
            withRunner(directory.name) { bundle, runner, _ ->
                assertTrue(bundle.golden.steps.isNotEmpty() && bundle.golden.run.size >= 2 * bundle.manifest.schedule.size)
                var counted = 0
                val found = inScratch { scratch -> verify(bundle, runner, scratch) { done, total -> counted = done.also { assertTrue(it <= total) } } }
                assertEquals(bundle.golden.steps.size + bundle.golden.run.size, counted)
                assertEquals(counted, found.difference.steps)
                // Far tighter than the trace's own tolerance where nothing is rounded to int8
                val most = if (bundle.manifest.accuracyLevel == 0) 3e-6 else found.stepTolerance
                assertTrue("${directory.name} ${found.difference.runLoss}", found.difference.runLoss <= most)
                assertTrue("${directory.name} ${found.difference.stepGradientNorm}", found.difference.stepGradientNorm <= most)
            }
        }
    }

    @Test
    fun `kept layers give the same trace`() {
        val some = listOf("llama", "gemma3", "qwen2", "lfm2", "qwen3_5").flatMap { listOf(it to 1, it to 100) } // all that they have
        for ((name, keep) in some + ("tiny-int8-activations" to 3)) {
            withRunner(name, keep) { bundle, runner, _ -> inScratch { verify(bundle, runner, it) } }
        }
    }

    @Test
    fun `a runtime that computes something else is found out`() {
        val bundle = openBundle("llama")
        val other = directFloats(initialAdapter(bundle).capacity()).also { it.copyFrom(initialAdapter(bundle)) }
        for (at in 0 until other.capacity()) other.put(at, other.get(at) + 0.01f)
        OnnxRuntimeRunner(bundle, 1).use { runner ->
            val message = refusal(Fault.GOLDEN_TRACE) { checkFirstStep(runner, bundle.golden, other) }
            assertTrue(message, message.startsWith("onnxruntime does not reproduce the bundle's golden trace: a step's loss by "))
            assertEquals(1, checkFirstStep(runner, bundle.golden, initialAdapter(bundle)).steps)
        }
    }

    // Buffers

    @Test
    fun `steps do not depend on each other`() = listOf("llama", "lfm2").forEach(::independent)

    private fun independent(name: String) {
        for (keep in listOf(0, 2)) {
            val subsets = openBundle(name).golden.steps.map { it.subset }
            val batches = openBundle(name).golden.batches.map { it.batch() }
            val fresh = subsets.mapIndexed { n, subset ->
                withRunner(name, keep) { _, runner, adapter -> copied(runner.step(subset, batches[n % batches.size], adapter)) }
            }
            withRunner(name, keep) { _, runner, adapter ->
                for (n in subsets.indices + subsets.indices.reversed()) {
                    assertSame(fresh[n], copied(runner.step(subsets[n], batches[n % batches.size], adapter)))
                    runner.evaluate(batches[0], adapter)
                }
            }
        }
    }

    @Test
    fun `a result lasts until the next step and nothing is written to what is given`() = withRunner("gemma3", 1) { bundle, runner, adapter ->
        val step = bundle.golden.steps[0]
        val batch = bundle.golden.batches[0].batch()
        val before = adapter.toArray()
        val result = runner.step(step.subset, batch, adapter)
        val first = copied(result)
        assertEquals(result.loss, runner.evaluate(batch, adapter), 1e-6f)
        runner.decoder(adapter).use { it.prefill(intArrayOf(5, 6, 7)) }
        inScratch { scratch ->
            val state = mappedState(scratch, bundle.manifest.adapter.size)
            state.adapter.copyFrom(adapter)
            AdamW(state, bundle.manifest.adapter, bundle.manifest.optimizer, runner).update(result.gradients, 1e-3)
            assertFalse(state.adapter.toArray().contentEquals(before))
        }
        assertSame(first, copied(result))
        assertArrayEquals(before, adapter.toArray(), 0f)
    }

    @Test
    fun `a heap buffer is refused, which would be copied at each call`() {
        withRunner("llama") { bundle, runner, adapter ->
            assertThrows(IllegalArgumentException::class.java) { runner.evaluate(bundle.golden.batches[0].batch(), FloatBuffer.wrap(adapter.toArray())) }
        }
    }

    @Test
    fun `weights are fed where they are mapped`() {
        val bundle = openBundle("lfm2")
        val whole = java.io.File(bundle.directory, WEIGHTS_FILE).readBytes()
        for (table in bundle.manifest.weights.filter { it.perLayer }) {
            val size = (table.nbytes / table.shape[0]).toInt()
            for (layer in bundle.manifest.layers.filter { it.kind == table.kind }) {
                val slice = bundle.weights.bytes(table.name, layer.number)
                assertTrue(slice.isDirect && slice.isReadOnly)
                val content = ByteArray(size).also { slice.duplicate().get(it) }
                val start = table.offset.toInt() + layer.number * size
                assertArrayEquals(whole.copyOfRange(start, start + size), content)
            }
        }
    }

    // Between the layers

    @Test
    fun `the hook is called before each program of a layer, and told which`() {
        val places = ArrayList<Pair<Int, Boolean>>()
        var runner: OnnxRuntimeRunner? = null
        withRunner("llama", between = { places += runner!!.layer to runner!!.backward }) { bundle, made, adapter ->
            runner = made
            val layers = bundle.manifest.model.numHiddenLayers
            made.step(Subset(listOf(1), listOf(1, layers - 1)), bundle.golden.batches[0].batch(), adapter)
            assertEquals((0..layers).map { it to false } + listOf(layers - 1 to true, 1 to true), places)
        }
    }

    @Test
    fun `a step can be cancelled anywhere and leaves nothing changed`() {
        for (keep in listOf(0, 1)) {
            var left = Int.MAX_VALUE
            withRunner("llama", keep, between = { if (left-- == 0) throw Cancelled() }) { bundle, runner, adapter ->
                val batch = bundle.golden.batches[0].batch()
                val all = fullSubset(bundle.manifest)
                val top = Subset(listOf(1), listOf(1))
                val expected = copied(runner.step(top, batch, adapter))
                val before = adapter.toArray()
                for (calls in 0 until 2 * all.train.size + 1) {
                    left = calls
                    assertThrows(Cancelled::class.java) { runner.step(all, batch, adapter) }
                    left = Int.MAX_VALUE
                    assertArrayEquals(before, adapter.toArray(), 0f)
                    assertSame(expected, copied(runner.step(top, batch, adapter)))
                }
            }
        }
    }

    // Refusals

    @Test
    fun `a runtime that cannot be loaded`() {
        val missing = listOf(UnsatisfiedLinkError("no onnxruntime4j_jni\nin path"), NoClassDefFoundError("ai/onnxruntime/OnnxRuntime"))
        for (error in missing + ExceptionInInitializerError("x")) {
            val message = refusal(Fault.RUNTIME_MISSING) { orMissing("ONNX Runtime", "x") { throw error } }
            assertTrue(message, message.startsWith("ONNX Runtime's native library cannot be loaded (${error.javaClass.simpleName}: "))
        }
    }

    @Test
    fun `what fails when it runs`() = withRunner("llama") { bundle, runner, adapter ->
        val tokens = bundle.manifest.seqLen
        val outside = bundle.golden.batches[0].batch().let { Batch(LongArray(tokens) { 1_000_000 }, it.labels, it.positionIds, it.segmentIds) }
        assertTrue(refusal(Fault.RUNTIME_FAILED) { runner.evaluate(outside, adapter) }.contains("embed.onnx: onnxruntime 1."))
        refusal(Fault.OPTION) { runner.step(Subset(listOf(9999), listOf(9999)), outside, adapter) }
        Unit
    }

    @Test
    fun `more memory than there is`() {
        assertTrue(refusal(Fault.MEMORY_TOO_SMALL) { directBytes(Int.MAX_VALUE) }.startsWith("2147483647 bytes cannot be reserved"))
    }
}
