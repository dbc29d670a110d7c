package lcsbmobile.core.checkpoint

import lcsbmobile.core.Fault
import lcsbmobile.core.refused
import lcsbmobile.core.training.LearningRateSchedule
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.util.concurrent.TimeUnit

class RunDirectoryTest {
    @get:Rule
    val folder = TemporaryFolder()
    private val path by lazy { File(folder.root, "a/run") }

    private fun names() = path.list().orEmpty().sorted()

    private fun RunDirectory.newestStep(warn: (String) -> Unit = { throw AssertionError(it) }) =
        newest(3, 21, goldenIdentity, warn = warn)?.place?.step

    @Test
    fun `the last two are kept and the newest is found`() =
        RunDirectory(path).use { directory ->
            assertNull(directory.newestStep())
            for (step in listOf(0, 9, 10)) directory.write(checkpointAt(step))
            assertEquals(listOf("lock", "step-00000009.safetensors", "step-00000010.safetensors"), names())
            assertEquals(10, directory.newestStep())
        }

    @Test
    fun `a run that goes on has the day on which it began`() =
        RunDirectory(path).use { directory ->
            assertTrue(Regex("[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}").matches(directory.beginning(3, 21)))
            directory.write(checkpointAt(3))
            assertEquals("2026-02-28T23:05:09", directory.beginning(3, 21))
        }

    @Test
    fun `the newest is that of the highest number`() {
        for (name in listOf("step-00000007", "step-100000000", "step-99999999", "step-1", "step-1234567890123456789")) {
            File(folder.root, "$name.safetensors").writeText("")
        }
        assertEquals(listOf(100_000_000L, 99_999_999, 7), checkpointFiles(folder.root).map { it.name.filter(Char::isDigit).toLong() })
    }

    @Test
    fun `what a killed process left is removed`() {
        path.mkdirs()
        for (name in listOf(".step-00000004.safetensors.x7", ".adapter.safetensors.x8", ".state.x9")) File(path, name).writeText("half")
        File(path, "notes.txt").writeText("mine")
        for (step in 5..7) writeCheckpoint(File(path, checkpointName(step)), checkpointAt(step))
        RunDirectory(path).use {
            assertEquals(7, it.newestStep())
            assertEquals(listOf("lock", "notes.txt", "step-00000006.safetensors", "step-00000007.safetensors"), names())
        }
    }

    @Test
    fun `a damaged one is passed over and left`() =
        RunDirectory(path).use { directory ->
            directory.write(checkpointAt(3))
            directory.write(checkpointAt(4))
            val newest = File(path, checkpointName(4))
            newest.writeBytes(newest.readBytes().also { it[it.size - 5] = (it[it.size - 5].toInt() xor 16).toByte() })
            val warnings = mutableListOf<String>()
            assertEquals(3, directory.newestStep(warnings::add))
            assertTrue("$warnings", warnings.size == 1 && "step-00000004.safetensors: damaged" in warnings[0] && "from step-00000003" in warnings[0])
            File(path, checkpointName(3)).writeText("")
            val message = refused(Fault.CHECKPOINT_DAMAGED) { directory.newestStep() }
            assertTrue(message, Regex("step-00000004.*damaged.*step-00000003.*no good checkpoint is left").containsMatchIn(message))
            assertEquals(listOf("lock", checkpointName(3), checkpointName(4)), names())
        }

    @Test
    fun `a full disk loses nothing`() =
        RunDirectory(path).use { directory ->
            directory.write(checkpointAt(3))
            val broken = checkpointAt(4)
            val full = RunCheckpoint(broken.place, broken.state, broken.updates, DoubleArray(0), broken.evaluations) // fails within the write
            try {
                directory.write(full)
                throw AssertionError("it was written")
            } catch (_: IndexOutOfBoundsException) {
                assertEquals(listOf("lock", checkpointName(3)), names())
            }
            assertEquals(3, directory.newestStep())
        }

    @Test
    fun `another run is refused with what differs, but a constant rate's may become longer`() =
        RunDirectory(path).use { directory ->
            directory.write(checkpointAt(4))
            val golden = goldenIdentity

            fun go(identity: RunIdentity) = directory.newest(3, 21, identity) { throw AssertionError(it) }!!.place.step
            assertEquals(4, go(golden.copy(train = golden.train.copy(steps = 80))))
            val other = "a".repeat(12) + "c".repeat(52)
            val cases = listOf(
                golden.copy(bundle = other) to "bundle: aaaaaaaaaaaa… then, aaaaaaaaaaaa… now",
                golden.copy(data = "d".repeat(64)) to "data: bbbbbbbbbbbb… then, dddddddddddd… now",
                golden.copy(evaluationData = "d".repeat(64)) to "evaluation data: none then, dddddddddddd… now",
                golden.copy(holdOut = 0.2) to "hold out: 0.1 then, 0.2 now",
                golden.copy(initialAdapter = other) to "initial adapter: none then",
                golden.copy(schedule = golden.schedule.take(1)) to "schedule: another schedule then, another schedule now",
                golden.copy(seed = 6) to "seed: 5 then, 6 now",
                golden.copy(train = golden.train.copy(learningRate = 2e-3)) to "learning_rate: 0.001 then, 0.002 now",
                golden.copy(train = golden.train.copy(warmup = 1)) to "warmup: 0 then, 1 now",
                golden.copy(train = golden.train.copy(accumulation = 1)) to "accumulation: 2 then, 1 now",
                golden.copy(train = golden.train.copy(steps = 80, lrSchedule = LearningRateSchedule.LINEAR)) to "steps: 40 then, 80 now",
            )
            for ((identity, reason) in cases) {
                val message = refused(Fault.CHECKPOINT_OTHER_RUN) { go(identity) }
                assertTrue(message, "${checkpointName(4)}: is of another run: $reason" in message)
                assertTrue(message, message.endsWith("; go on with what it was begun with, or choose another directory"))
            }
            val lower = golden.copy(train = golden.train.copy(learningRate = 5e-4))
            assertTrue("learning_rate: 0.001 then, " in refused(Fault.CHECKPOINT_OTHER_RUN) { go(lower) })
            val warnings = mutableListOf<String>()
            assertEquals(4, directory.newest(3, 21, lower, lowerRate = true) { warnings += it }!!.place.step)
            assertEquals("going on at a learning rate of 5.0E-4, which was 0.001 up to step 4", warnings.single())
        }

    @Test
    fun `one run at a time in a process`() {
        RunDirectory(path).use { refused(Fault.RUN_BUSY) { RunDirectory(File(path, "../run")) } }
        RunDirectory(path).close()
    }

    @Test
    fun `one process at a time, and its lock goes with it`() {
        val other = ProcessBuilder(
            File(System.getProperty("java.home"), "bin/java").path, "-XX:TieredStopAtLevel=1", "-cp", System.getProperty("java.class.path"),
            "lcsbmobile.core.checkpoint.HoldDirectory", path.path,
        ).redirectError(ProcessBuilder.Redirect.INHERIT).start()
        val said = other.inputStream.bufferedReader().readLine()
        val message = refused(Fault.RUN_BUSY) { RunDirectory(path) }
        assertEquals("$path: another run, process $said, uses these checkpoints; wait for it, or choose another directory", message)
        refused(Fault.RUN_BUSY) { RunDirectory(path) } // to have looked does not free it
        other.destroyForcibly().waitFor(10, TimeUnit.SECONDS)
        RunDirectory(path).use { assertEquals(File("/proc/self").canonicalFile.name, File(path, "lock").readText().trim()) }
    }
}

/** Holds a directory, and says which process it is, until it is killed. */
internal object HoldDirectory {
    @JvmStatic
    fun main(arguments: Array<String>) {
        RunDirectory(File(arguments[0])).use {
            println(File("/proc/self").canonicalFile.name)
            Thread.sleep(60_000)
        }
    }
}
