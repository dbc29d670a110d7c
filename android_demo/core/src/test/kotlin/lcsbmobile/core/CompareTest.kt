package lcsbmobile.core

import lcsbmobile.core.adapter.writeAdapter
import lcsbmobile.core.bundle.ADAPTER_FILE
import lcsbmobile.core.data.pack
import lcsbmobile.core.data.readDataset
import lcsbmobile.core.runtime.makeRunner
import org.junit.AfterClass
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNotEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.BeforeClass
import org.junit.Test
import java.io.File
import java.nio.file.Files

/** Losses by example on a small bundle with the real runtime: which examples, what each is computed from, and what is refused. */
class CompareTest {
    private fun compare(
        before: File? = null,
        after: File = run.adapterFile,
        options: CompareOptions = CompareOptions(threads = 1),
        data: File = Companion.data,
        goOn: () -> Unit = {},
        progress: (Int, Int) -> Unit = { _, _ -> },
    ) = compareAdapters(bundle, data, before, after, folder, options, goOn, progress)

    @Test
    fun `a run's verdict is that on what it holds out`() {
        val found = run.compare()
        val same = compare(options = CompareOptions(holdOut = 0.2, seed = 5, threads = 1))
        assertEquals(found, same)
        assertEquals(8, found.verdict.examples)
        assertEquals(Verdict.Outcome.BETTER, found.verdict.outcome)
        assertEquals(found.verdict, judge(found.lossesBefore, found.lossesAfter))
        assertNotEquals(found.lossesBefore, compare(options = CompareOptions(holdOut = 0.2, seed = 6, threads = 1)).lossesBefore)
        val back = run.compare(before = run.adapterFile)
        assertEquals(found.lossesAfter, back.lossesBefore)
        assertEquals(back.lossesAfter, back.lossesBefore)
        assertEquals(Verdict.Outcome.NO_DIFFERENCE, back.verdict.outcome)
        assertTrue(found.toJson(), "\"outcome\":\"better\"" in found.toJson() && "\"losses_before\":[" in found.toJson())
    }

    @Test
    fun `each example is computed by itself`() {
        val held = File(folder, "held.jsonl").apply { writeText(lines.take(8).joinToString("")) }
        val told = mutableListOf<Pair<Int, Int>>()
        val whole = CompareOptions(holdOut = null, examples = 6, threads = 1)
        val found = compare(options = whole, data = held, progress = { done, total -> told += done to total })
        val adapter = initialAdapter(bundle)
        val (seqLen, tokenizer) = bundle.manifest.seqLen to bundle.tokenizer
        val expected = makeRunner(bundle, 1).use { runner ->
            listOf(0, 1, 2, 4, 5, 6).map { number ->
                val line = File(folder, "line.jsonl").apply { writeText(lines[number]) }
                val batch = pack(readDataset(line, tokenizer, null, seqLen, folder) { _, _ -> }, seqLen, tokenizer.padId).single()
                runner.evaluate(batch, adapter).toDouble()
            }
        }
        assertEquals(expected, found.lossesBefore)
        assertEquals((1..12).map { it to 12 }, told)
    }

    @Test
    fun `it is cancelled between layers and between examples`() {
        var layers = 0
        assertThrows(InterruptedException::class.java) { compare(goOn = { if (++layers > 4) throw InterruptedException() }) }
        assertEquals(5, layers)
        var examples = 0
        val stop = { done: Int, _: Int ->
            examples = done
            if (done == 2) throw InterruptedException()
        }
        assertThrows(InterruptedException::class.java) { compare(progress = stop) }
        assertEquals(2, examples)
    }

    @Test
    fun `what cannot be compared is refused before anything is computed`() {
        val cut = File(folder, "cut.safetensors").apply { writeBytes(run.adapterFile.readBytes().dropLast(4).toByteArray()) }
        val other = File(folder, "other.safetensors")
        openBundle("qwen2").let { writeAdapter(other, it.manifest.adapter, initialAdapter(it)) }
        val never = { throw AssertionError("a layer was computed") }
        for ((file, what) in listOf(cut to "", other to "was trained on another base", File(folder, "absent") to "no such file")) {
            for (message in listOf(
                refused(Fault.ADAPTER) { compare(after = file, goOn = never) },
                refused(Fault.ADAPTER) { compare(before = file, goOn = never) },
            )) assertTrue(message, message.startsWith("$file: ") && what in message)
        }
        val few = refused(Fault.OPTION) { compare(options = CompareOptions(examples = 5), goOn = never) }
        assertEquals("examples: expected at least 6, found 5", few)
        refused(Fault.OPTION) { compare(options = CompareOptions(holdOut = 1.0), goOn = never) }
        val one = File(folder, "one.jsonl").apply { writeText(lines[0]) }
        assertTrue("has one example" in refused(Fault.DATA_EMPTY) { compare(data = one, goOn = never) })
        val unfinished = TrainingRun(bundle, data, File(folder, "none"), RunOptions(1))
        assertTrue("no such file" in refused(Fault.ADAPTER) { unfinished.compare() })
        assertTrue(!File(folder, "none").exists())
    }

    companion object {
        private val lines = List(40) { "{\"text\": \"message $it of many, about ${"boats and ".repeat(it % 5)}rain\"}\n" }
        private val bundle by lazy { openBundle("llama") }
        private lateinit var folder: File
        private lateinit var data: File
        private lateinit var run: TrainingRun

        @BeforeClass
        @JvmStatic
        fun train() {
            folder = Files.createTempDirectory("lcsb").toFile()
            data = File(folder, "data.jsonl").apply { writeText(lines.joinToString("")) }
            val options = RunOptions(steps = 20, learningRate = 0.01, holdOut = 0.2, seed = 5, threads = 1)
            run = TrainingRun(bundle, data, File(folder, "run"), options)
            run.run(RunControl(), object : RunObserver {})
            assertEquals(ADAPTER_FILE, run.adapterFile.name)
        }

        @AfterClass
        @JvmStatic
        fun clean() {
            folder.deleteRecursively()
        }
    }
}
