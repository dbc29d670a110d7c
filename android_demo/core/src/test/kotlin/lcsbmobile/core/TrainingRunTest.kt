package lcsbmobile.core

import lcsbmobile.core.adapter.readAdapter
import lcsbmobile.core.bundle.ADAPTER_FILE
import lcsbmobile.core.bundle.Batch
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.checkpoint.RunDirectory
import lcsbmobile.core.checkpoint.readCheckpoint
import lcsbmobile.core.data.DataReport
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.io.recordJson
import lcsbmobile.core.io.sha256
import lcsbmobile.core.io.toArray
import lcsbmobile.core.runs.MemoryWatch
import lcsbmobile.core.runs.PhaseClock
import lcsbmobile.core.runs.RunSetup
import lcsbmobile.core.runs.Running
import lcsbmobile.core.runs.Session
import lcsbmobile.core.runs.readData
import lcsbmobile.core.runtime.StepResult
import lcsbmobile.core.runtime.StepRunner
import lcsbmobile.core.runtime.makeRunner
import lcsbmobile.core.training.StepOutcome
import lcsbmobile.core.training.mappedState
import lcsbmobile.core.training.seconds
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.nio.FloatBuffer
import java.util.Random

/** The whole of it on a small bundle with the real runtime. */
class TrainingRunTest {
    @get:Rule
    val folder = TemporaryFolder()
    private val bundle by lazy { Bundle.open(testBundle("llama")) }
    private val data by lazy {
        File(folder.root, "data.jsonl").apply {
            writeText((1..40).joinToString("") { "{\"text\": \"message $it of many, about ${"boats and ".repeat(it % 5)}rain\"}\n" })
        }
    }
    private val options = RunOptions(steps = 7, accumulation = 2, evaluateEvery = 3, checkpointEvery = 2, threads = 1)

    private fun run(
        name: String,
        options: RunOptions = this.options,
        control: RunControl = RunControl(),
        observer: RunObserver = object : RunObserver {},
        data: File = this.data,
        bundle: Bundle = this.bundle,
    ) = TrainingRun(bundle, data, File(folder.root, name), options).run(control, observer)

    private fun adapter(name: String) = File(folder.root, "$name/$ADAPTER_FILE").readBytes()

    private fun names(name: String) = File(folder.root, name).list().orEmpty().sorted()

    @Test
    fun `a run trains, says what it does, and leaves its adapter and two checkpoints`() {
        val said = mutableListOf<String>()
        val layers = mutableListOf<String>()
        val result = run(
            "a",
            observer = object : RunObserver {
                override fun data(report: DataReport, heldOut: Long) {
                    said += "${report.examples} examples, $heldOut held out"
                }

                override fun evaluated(step: Int, loss: Double) {
                    said += "evaluated $step"
                }

                override fun stepped(outcome: StepOutcome, memory: Long) {
                    assertTrue(memory > 0)
                    said += "step ${outcome.step} of ${outcome.subset.train}"
                }

                override fun layer(index: Int, backward: Boolean) {
                    layers += if (backward) "-$index" else "$index"
                }
            },
        )
        val expected = listOf(
            "40 examples, 4 held out", "evaluated 0", "step 1 of [2]", "step 2 of [1]", "step 3 of [0]", "evaluated 3", "step 4 of [2]",
            "step 5 of [1]", "step 6 of [0]", "evaluated 6", "step 7 of [2]", "evaluated 7",
        )
        assertEquals(expected, said)
        assertEquals(RunOutcome.FINISHED, result.outcome)
        assertEquals(7, result.losses.size)
        assertEquals(listOf(0, 3, 6, 7), result.evaluations.map { it.step })
        assertTrue(result.evalLossAfter!! < result.evalLossBefore!!)
        assertEquals(listOf("adapter.safetensors", "lock", "step-00000006.safetensors", "step-00000007.safetensors"), names("a"))
        assertTrue("0 1 2 -2 0 1 2 -2 0 1 2 -2 -1" in layers.joinToString(" ")) // steps 1 and 2, of two sequences each
        val json = recordJson.parseToJsonElement(result.toJson()).toString()
        assertTrue(json, "\"eval_loss_before\":" in json && "\"counted_labels\":" in json && "\"method\":\"lcsb-exact\"" in json)
    }

    @Test
    fun `paused at any layer and resumed, it ends with the bits of the unbroken run`() {
        val whole = run("whole")
        val random = Random(1)
        var pauses = 0
        while (true) {
            val control = RunControl()
            var left = random.nextInt(60)
            val result = run(
                "broken", control = control,
                observer = object : RunObserver {
                    override fun layer(index: Int, backward: Boolean) {
                        if (left-- == 0) control.pause()
                    }
                },
            )
            if (result.outcome == RunOutcome.FINISHED) {
                assertEquals(whole.losses, result.losses)
                assertEquals(whole.evaluations, result.evaluations)
                break
            }
            assertEquals(RunOutcome.PAUSED, result.outcome)
            assertNull(result.adapter)
            pauses++
        }
        assertTrue("$pauses", pauses > 3)
        assertArrayEquals(adapter("whole"), adapter("broken"))
        assertEquals(names("whole"), names("broken"))
    }

    /** The state of layers of several sizes: what one process saved, the next goes on from. */
    @Test
    fun `layers of several kinds, broken after each checkpoint, end with the bits of the unbroken run`() {
        for (name in listOf("lfm2", "qwen3_5")) {
            val hybrid = Bundle.open(testBundle(name))
            val long = options.copy(steps = 5, keep = 2)
            val whole = run("$name-whole", long, bundle = hybrid)
            var broken = whole
            for (steps in listOf(2, 4, 5)) broken = run("$name-broken", long.copy(steps = steps), bundle = hybrid)
            assertEquals(4, broken.resumedFrom)
            assertEquals(whole.losses, broken.losses)
            assertArrayEquals(adapter("$name-whole"), adapter("$name-broken"))
            val layout = hybrid.manifest.adapter
            assertTrue((0 until layout.numLayers).map { layout.vectorSize(it) }.toSet().size > 1)
            val state = readCheckpoint(File(folder.root, "$name-broken/step-00000005.safetensors"), layout.numLayers, layout.size).state
            val initial = initialAdapter(hybrid)
            for (layer in 0 until layout.numLayers) {
                assertFalse(layout.vector(state.adapter, layer).toArray().contentEquals(layout.vector(initial, layer).toArray()))
            }
        }
    }

    @Test
    fun `stopped, it keeps the adapter of the last whole step and goes on when asked to`() {
        val control = RunControl()
        val observer = object : RunObserver {
            override fun stepped(outcome: StepOutcome, memory: Long) {
                if (outcome.step == 3) control.stop()
            }
        }
        val result = run("a", control = control, observer = observer)
        assertEquals(RunOutcome.CANCELLED, result.outcome)
        assertEquals(3, result.losses.size)
        assertTrue("step-00000003.safetensors" in names("a"))
        val file = File(folder.root, "a/step-00000003.safetensors")
        val layout = bundle.manifest.adapter
        val stored = directFloats(layout.size).also { readAdapter(File(folder.root, "a/$ADAPTER_FILE"), layout, it) }
        assertArrayEquals(readCheckpoint(file, layout.numLayers, layout.size).state.adapter.toArray(), stored.toArray(), 0f)
        val resumed = mutableListOf<Int>()
        val whole = run("b")
        val rest = run(
            "a",
            observer = object : RunObserver {
                override fun resumed(step: Int, history: RunHistory) {
                    assertEquals(result.losses, history.outcomes.map { it.loss })
                    resumed += step
                }
            },
        )
        assertEquals(listOf(3), resumed)
        assertEquals(whole.losses, rest.losses)
        assertEquals(whole.evaluations, rest.evaluations) // that of step 3 was interrupted, and made up for
    }

    @Test
    fun `interrupted before it began, it leaves what there was`() {
        run("a", options.copy(steps = 4))
        val before = names("a").associateWith { File(folder.root, "a/$it").readBytes().toList() } - "lock"
        for (phase in listOf(Phase.READING, Phase.CHECKING, Phase.WRITING)) {
            val control = RunControl()
            val observer = object : RunObserver {
                override fun phase(name: Phase) {
                    if (name == phase) control.stop()
                }
            }
            val prompts = if (phase == Phase.WRITING) listOf("message") else emptyList()
            assertEquals(RunOutcome.CANCELLED, run("a", options.copy(prompts = prompts), control, observer).outcome)
            val after = names("a").associateWith { File(folder.root, "a/$it").readBytes().toList() } - "lock"
            assertEquals("$phase", before, after)
        }
    }

    @Test
    fun `stopped while it reads, a run that was begun says what it had learned`() {
        val long = File(folder.root, "long.jsonl") // above what is read without asking
        long.writeText((1..40).joinToString("") { "{\"text\": \"message $it, ${"boats and ".repeat(1000)}rain\"}\n" })
        for (stop in listOf(false, true)) {
            val control = RunControl()
            val observer = object : RunObserver {
                override fun stepped(outcome: StepOutcome, memory: Long) {
                    if (outcome.step == 2) control.pause()
                }

                override fun phase(name: Phase) {
                    if (stop && name == Phase.READING) control.stop()
                }
            }
            val result = run("a", control = control, observer = observer, data = long)
            assertEquals(if (stop) RunOutcome.CANCELLED else RunOutcome.PAUSED, result.outcome)
            assertEquals(2, result.losses.size)
        }
    }

    @Test
    fun `another bundle's run, or another data file's, is not gone on with`() {
        run("a", options.copy(steps = 2))
        val other = Bundle.open(testBundle("llama-untied-int8"))
        val message = refused(Fault.CHECKPOINT_OTHER_RUN) {
            TrainingRun(other, data, File(folder.root, "a"), options).run(RunControl(), object : RunObserver {})
        }
        assertTrue(message, "step-00000002.safetensors: is of another run: bundle: " in message)
        val changed = File(folder.root, "other.jsonl").apply { writeText(data.readText() + "{\"text\": \"one more\"}\n") }
        assertTrue("data: " in refused(Fault.CHECKPOINT_OTHER_RUN) { run("a", data = changed) })
    }

    @Test
    fun `a flipped bit in the newest checkpoint costs the steps since the one before`() {
        val whole = run("whole")
        run("a", options.copy(steps = 4))
        val newest = File(folder.root, "a/step-00000004.safetensors")
        newest.writeBytes(newest.readBytes().also { it[it.size / 2] = (it[it.size / 2].toInt() xor 4).toByte() })
        val warnings = mutableListOf<String>()
        val result = run(
            "a",
            observer = object : RunObserver {
                override fun warned(text: String) {
                    warnings += text
                }
            },
        )
        assertTrue("$warnings", warnings.single().endsWith("going on from step-00000002.safetensors"))
        assertEquals(2, result.resumedFrom)
        assertEquals(whole.losses, result.losses)
        assertArrayEquals(adapter("whole"), adapter("a"))
    }

    /** A run whose losses are not finite once the adapter was updated [broken] times. */
    private fun trainBreaking(name: String, broken: Int, options: RunOptions) {
        val directory = File(folder.root, name)
        val setup = RunSetup(options, bundle)
        val observer = object : RunObserver {}
        RunDirectory(directory).use { checkpoints ->
            makeRunner(bundle, 1).use { real ->
                var steps = -1 // the golden trace's comes first
                val runner = object : StepRunner by real {
                    override fun step(subset: Subset, batch: Batch, adapter: FloatBuffer): StepResult {
                        val result = real.step(subset, batch, adapter)
                        return StepResult(if (steps++ >= broken) Float.NaN else result.loss, result.gradients)
                    }

                    override fun evaluate(batch: Batch, adapter: FloatBuffer) = if (steps >= broken) Float.NaN else real.evaluate(batch, adapter)
                }
                val examples = readData(setup, data, directory) {}
                val (state, last) = List(2) { mappedState(directory, bundle.manifest.adapter.size) }
                bundle.readInitialAdapter(state.adapter)
                val running = Running(
                    setup, setup.identity(examples), examples, runner, state, last, { 0 }, checkpoints, File(directory, ADAPTER_FILE),
                    MemoryWatch(null), PhaseClock(observer), RunControl(), observer,
                )
                Session(running, null).train()
            }
        }
    }

    @Test
    fun `what is kept was seen to give a finite loss, also where the last step breaks it, and a lower rate goes on`() {
        for ((broken, every) in listOf(2 to 1, 4 to 9)) {
            val four = RunOptions(steps = 4, checkpointEvery = every, threads = 1, learningRate = 1e-3)
            refused(Fault.LOSS_NOT_FINITE) { trainBreaking("broken-$broken", broken, four) }
            run("good-$broken", four.copy(steps = broken - 1))
            assertArrayEquals(adapter("good-$broken"), adapter("broken-$broken"))
            assertEquals("step-0000000${broken - 1}.safetensors", names("broken-$broken").last())
            refused(Fault.CHECKPOINT_OTHER_RUN) { run("broken-$broken", four.copy(learningRate = null)) } // a default is no wish
            val rest = run("broken-$broken", four.copy(learningRate = 1e-4))
            assertEquals(broken - 1, rest.resumedFrom)
            assertEquals(4, rest.losses.size)
        }
    }

    @Test
    fun `an update beyond all sense is not kept`() {
        val message = refused(Fault.LOSS_NOT_FINITE) { run("a", options.copy(learningRate = 1e6)) }
        assertTrue(message, message.startsWith("step 1: its update would make a parameter of "))
        assertEquals(listOf("lock", "step-00000000.safetensors"), names("a"))
    }

    @Test
    fun `a budget that cannot do is refused before anything is run, with the prediction`() {
        val message = refused(Fault.MEMORY_TOO_SMALL) { run("a", options.copy(memoryBudget = 1_000_000)) }
        assertTrue(message, "the run is predicted to need at least " in message)
        assertEquals(listOf("lock"), names("a"))
    }

    @Test
    fun `a budget that is exceeded stops the run, and what was done is kept`() {
        val watch = MemoryWatch(budget = 1)
        watch.sample()
        val message = refused(Fault.MEMORY_EXCEEDED) { watch.stopAboveBudget(3) }
        assertTrue(message, message.startsWith("step 3: the run reached ") && "more than the 0.0 MB allowed; it was stopped" in message)
        MemoryWatch(budget = null).stopAboveBudget(3)
    }

    @Test
    fun `options out of range are refused before the directory is made`() {
        val cases = listOf(
            options.copy(steps = 0) to "steps: expected at least 1, found 0",
            options.copy(checkpointEvery = 0) to "checkpoint-every: expected at least 1, found 0",
            options.copy(evaluateEvery = -1) to "evaluate-every: expected at least 0, found -1",
            options.copy(threads = -1) to "threads: expected at least 0, found -1",
        )
        for ((wrong, message) in cases) assertEquals(message, refused(Fault.OPTION) { run("none", wrong) })
        assertFalse(File(folder.root, "none").exists())
    }

    @Test
    fun `a resting run is slower, and an interrupt ends the rest`() {
        val control = RunControl().apply { delayMillisBetweenLayers = 3_600_000 }
        val started = System.nanoTime()
        val observer = object : RunObserver {
            override fun phase(name: Phase) {
                if (name == Phase.CHECKING) {
                    Thread {
                        Thread.sleep(100)
                        control.pause()
                    }.start()
                }
            }
        }
        assertEquals(RunOutcome.PAUSED, run("a", control = control, observer = observer).outcome)
        assertTrue(seconds(started, System.nanoTime()) in 0.1..60.0)
    }

    @Test
    fun `a run goes on from another one's adapter, with fresh moments`() {
        val first = run("first", options.copy(steps = 3))
        val file = File(folder.root, "first/$ADAPTER_FILE")
        val onward = options.copy(steps = 2, initialAdapter = file)
        val second = run("second", onward)
        assertEquals(first.evalLossAfter, second.evalLossBefore)
        val checkpoint = readCheckpoint(File(folder.root, "second/step-00000002.safetensors"), 3, bundle.manifest.adapter.size)
        assertEquals(sha256(file), checkpoint.place.identity.initialAdapter)
        val longer = run("second", onward.copy(steps = 3))
        assertEquals(2, longer.resumedFrom)
        refused(Fault.CHECKPOINT_OTHER_RUN) { run("second", options.copy(steps = 4)) }
        refused(Fault.ADAPTER) { run("third", onward.copy(initialAdapter = File(folder.root, "none"))) }
        refused(Fault.ADAPTER) { run("third", onward.copy(initialAdapter = data)) }
        assertEquals(emptyList<String>(), names("third").filter { it.startsWith("step-") })
    }

    @Test
    fun `the first held-out example is continued at each evaluation, and changes nothing`() {
        val plain = run("plain")
        val written = mutableListOf<Triple<Int, String, String>>()
        val sampled = run(
            "sampled", options.copy(sampleHeldOut = true, sampling = SamplingConfig(temperature = 0.0, maxTokens = 5)),
            observer = object : RunObserver {
                override fun wrote(step: Int, prompt: String, text: String, whole: Boolean) {
                    written += Triple(step, prompt, text)
                }
            },
        )
        assertEquals(listOf(0, 3, 6, 7), written.map { it.first })
        assertTrue("${written[0]}", "message" in written[0].second || written[0].second.startsWith("mess"))
        assertEquals(1, written.map { it.second }.toSet().size)
        assertEquals(plain.losses, sampled.losses)
        assertArrayEquals(adapter("plain"), adapter("sampled"))
    }
}
