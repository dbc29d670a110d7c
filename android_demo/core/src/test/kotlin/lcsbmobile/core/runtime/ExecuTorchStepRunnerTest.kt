package lcsbmobile.core.runtime

import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonObject
import lcsbmobile.core.Bundle
import lcsbmobile.core.Fault
import lcsbmobile.core.OnnxModule
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.inScratch
import lcsbmobile.core.initialAdapter
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.io.toArray
import lcsbmobile.core.openBundle
import lcsbmobile.core.refusal
import lcsbmobile.core.runs.verify
import lcsbmobile.core.writeExecuTorchBundle
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertSame
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

/** The loop on the binding of ExecuTorch, whose methods are the same programs on ONNX Runtime: the library itself is Android's alone. */
class ExecuTorchStepRunnerTest {
    private class Cancelled : Exception()

    private fun <T> withBundle(name: String, use: (Bundle) -> T): T = inScratch { scratch ->
        writeExecuTorchBundle(openBundle(name), scratch)
        use(Bundle.open(scratch))
    }

    private fun runner(bundle: Bundle, module: Module, keep: Int = 0, between: () -> Unit = {}) =
        ExecuTorchStepRunner(bundle, ExecuTorch(bundle, 1) { _, _ -> module }, keep, between)

    private fun copied(result: StepResult) = result.gradients.mapValues { it.value.toArray().toList() } to result.loss

    // The golden trace, and ONNX Runtime's own bits

    @Test
    fun `the golden trace holds, two cycles with momentum`() {
        for ((name, keep) in listOf("tiny" to 0, "tiny" to 3, "gemma3" to 100, "lfm2" to 0, "qwen3_5" to 2)) {
            withBundle(name) { bundle ->
                val module = OnnxModule(openBundle(name))
                val found = runner(bundle, module, keep).use { runner -> inScratch { verify(bundle, runner, it) } }
                assertEquals("executorch", found.runtime)
                // Far tighter than the trace's own tolerance, which is for what is kept in float16
                if (keep == 0) assertTrue("$name ${found.difference.runLoss}", found.difference.runLoss <= 3e-6)
                assertTrue(module.closed)
            }
        }
    }

    @Test
    fun `steps, evaluations and texts are those of the other binding`() {
        for ((name, keep) in listOf("tiny" to 0, "gemma3-untied-int8" to 100, "lfm2" to 2)) {
            withBundle(name) { bundle ->
                val others = OnnxRuntimeRunner(openBundle(name), 1, keep).use { results(bundle, it) }
                assertEquals(others, runner(bundle, OnnxModule(openBundle(name)), keep).use { results(bundle, it) })
            }
        }
    }

    private fun results(bundle: Bundle, runner: BlockRunner): List<Any> {
        val adapter = initialAdapter(bundle)
        val batch = bundle.golden.batches[0].batch()
        val logits = runner.decoder(adapter).use { decoder -> listOf(decoder.prefill(intArrayOf(5, 6, 7))) + (8..11).map(decoder::next) }
        return bundle.golden.steps.map { copied(runner.step(it.subset, batch, adapter)) } + runner.evaluate(batch, adapter) + logits.map { it.toList() }
    }

    // Values

    @Test
    fun `weights and buffers are made into values once`() = withBundle("lfm2") { bundle ->
        val module = OnnxModule(openBundle("lfm2"))
        runner(bundle, module).use { runner -> repeat(2) { runner.evaluate(bundle.golden.batches[0].batch(), initialAdapter(bundle)) } }
        val (first, second) = module.calls.chunked(module.calls.size / 2)
        for ((before, after) in first.zip(second)) {
            assertEquals(before.first, after.first)
            val inputs = bundle.manifest.graphs.getValue(before.first).inputs
            for ((at, x) in inputs.withIndex()) if (x.name != "adapter") assertSame(before.second[at], after.second[at])
        }
    }

    @Test
    fun `a step can be cancelled and leaves nothing changed`() = withBundle("llama") { bundle ->
        var left = Int.MAX_VALUE
        runner(bundle, OnnxModule(openBundle("llama")), between = { if (left-- == 0) throw Cancelled() }).use { runner ->
            val batch = bundle.golden.batches[0].batch()
            val adapter = initialAdapter(bundle)
            val subset = Subset(listOf(1), listOf(1))
            val expected = copied(runner.step(subset, batch, adapter))
            for (calls in 0..bundle.manifest.model.numHiddenLayers + 1) {
                left = calls
                assertThrows(Cancelled::class.java) { runner.step(subset, batch, adapter) }
                left = Int.MAX_VALUE
                assertEquals(expected, copied(runner.step(subset, batch, adapter)))
            }
            assertArrayEquals(initialAdapter(bundle).toArray(), adapter.toArray(), 0f)
        }
    }

    // Refusals

    @Test
    fun `a runner of the other target`() = withBundle("llama") { bundle ->
        val wrong = refusal(Fault.BUNDLE_OTHER_TARGET) { OnnxRuntimeRunner(bundle, 1) }
        assertTrue(wrong, wrong.endsWith("expected a bundle of target onnxruntime, found executorch; export one with --target onnxruntime"))
        val other = refusal(Fault.BUNDLE_OTHER_TARGET) { ExecuTorchStepRunner(openBundle("llama"), 1) }
        assertTrue(other, other.endsWith("expected a bundle of target executorch, found onnxruntime; export one with --target executorch"))
    }

    @Test
    fun `no library, or not for this processor`() = withBundle("llama") { bundle ->
        checkIncluded("onnxruntime", null)
        val absent = refusal(Fault.RUNTIME_NOT_INCLUDED) { checkIncluded("executorch", null) }
        assertTrue(absent, absent.startsWith("this app is built without ExecuTorch, which bundles of target executorch need; add "))
        val message = refusal(Fault.RUNTIME_MISSING) { makeRunner(bundle, 1) } // what stands for the library has no native side
        assertTrue(message, message.startsWith("ExecuTorch's native library cannot be loaded (UnsatisfiedLinkError: no executorch); install "))
    }

    @Test
    fun `a file that the library does not load, or other methods`() = withBundle("llama") { bundle ->
        val failed = refusal(Fault.RUNTIME_FAILED) { ExecuTorch(bundle, 1) { _, _ -> throw IllegalStateException("0x23\nno program") } }
        assertTrue(failed, failed.endsWith("programs.pte: executorch cannot load it: 0x23 no program"))
        val module = object : Module() {
            override fun getMethods() = (bundle.manifest.graphs.keys - "embed" - "head").toTypedArray()
        }
        val message = refusal(Fault.BUNDLE_UNREADABLE) { ExecuTorch(bundle, 1) { _, _ -> module } }
        assertTrue(message, "expected the methods embed, head, found none of these names" in message)
    }

    @Test
    fun `methods that fail or return something else`() = withBundle("llama") { bundle ->
        val methods = OnnxModule(openBundle("llama"))
        fun refused(fault: Fault, change: (Array<EValue>) -> Array<EValue>): String {
            val module = object : Module() {
                override fun getMethods(): Array<String> = methods.getMethods()

                override fun execute(methodName: String, vararg inputs: EValue) =
                    methods.execute(methodName, *inputs).let { if (methodName == "head_eval") change(it) else it }
            }
            return refusal(fault) { runner(bundle, module).evaluate(bundle.golden.batches[0].batch(), initialAdapter(bundle)) }
        }
        assertTrue("programs.pte: head_eval: executorch cannot run it: 0x12" in refused(Fault.RUNTIME_FAILED) { throw RuntimeException("0x12") })
        val wide = EValue.from(Tensor.fromBlob(directFloats(2), longArrayOf(2)))
        val message = refused(Fault.BUNDLE_UNREADABLE) { arrayOf(wide) }
        assertTrue(message, "head_eval: other than the manifest says: outputs: 'loss': expected float32 [], found float32 [2]; export" in message)
        assertTrue("'loss': expected float32 [], found none" in refused(Fault.BUNDLE_UNREADABLE) { emptyArray() })
        assertTrue("outputs: expected 1, found 2" in refused(Fault.BUNDLE_UNREADABLE) { arrayOf(it[0], wide) })
    }

    @Test
    fun `a manifest whose programs lie elsewhere`() {
        fun refused(change: (JsonObject) -> Map<String, JsonElement>): String = inScratch { scratch ->
            writeExecuTorchBundle(openBundle("llama"), scratch) { it + ("graphs" to JsonObject(change(it.getValue("graphs").jsonObject))) }
            refusal(Fault.BUNDLE_UNREADABLE) { Bundle.open(scratch) }
        }
        fun at(graph: JsonElement, file: String) = JsonObject(graph.jsonObject + ("file" to JsonPrimitive(file)))
        assertTrue("graphs: head missing" in refused { it - "head" })
        for (file in listOf("embed.onnx", "../programs.pte", "weights.bin")) {
            val message = refused { it + ("embed" to at(it.getValue("embed"), file)) }
            assertTrue(message, "graphs.embed: expected the file programs.pte, found '$file'" in message)
        }
    }
}
