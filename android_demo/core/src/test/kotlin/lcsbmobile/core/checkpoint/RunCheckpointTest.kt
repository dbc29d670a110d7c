package lcsbmobile.core.checkpoint

import lcsbmobile.core.Fault
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.io.sha256
import lcsbmobile.core.refused
import lcsbmobile.core.testFile
import lcsbmobile.core.training.TrainConfig
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.Random

private const val LAYERS = 3
private const val SIZE = 21 // an odd number of elements: what follows is not aligned

/** The run of tests/golden/run_checkpoint.safetensors, which Python wrote (tests/helpers/run_checkpoints.py). */
internal val goldenIdentity = RunIdentity(
    bundle = "a".repeat(64),
    data = "b".repeat(64),
    evaluationData = null,
    tokens = "c".repeat(64),
    evaluationTokens = null,
    date = "2026-02-28T23:05:09",
    holdOut = 0.1,
    initialAdapter = null,
    schedule = listOf(Subset(listOf(2), listOf(2)), Subset(listOf(0, 1), listOf(0, 1, 2))),
    train = TrainConfig(steps = 40, learningRate = 1e-3, accumulation = 2),
    seed = 5,
)

/** The same run at another step. */
internal fun checkpointAt(step: Int, identity: RunIdentity = goldenIdentity): RunCheckpoint {
    val golden = readCheckpoint(testFile("run_checkpoint.safetensors"), LAYERS, SIZE)
    val place = RunPlace(identity, step, 2L * step, "onnxruntime 1.29.0", 1)
    return RunCheckpoint(place, golden.state, golden.updates, DoubleArray(step * STEP_COLUMNS) { it / 3.0 }, golden.evaluations)
}

class RunCheckpointTest {
    @get:Rule
    val folder = TemporaryFolder()
    private val golden = testFile("run_checkpoint.safetensors")
    private val raw = golden.readBytes()
    private val file by lazy { File(folder.root, "state") }

    private fun read(bytes: ByteArray): RunCheckpoint {
        file.writeBytes(bytes)
        return readCheckpoint(file, LAYERS, SIZE)
    }

    @Test
    fun `python's file is read, and written again with its bytes`() {
        val found = readCheckpoint(golden, LAYERS, SIZE)
        assertEquals(RunPlace(goldenIdentity, 4, 8, "onnxruntime 1.32.0", 1), found.place)
        assertArrayEquals(longArrayOf(4, 0, 4), found.updates)
        assertEquals(4 * STEP_COLUMNS, found.steps.size)
        assertEquals(4, found.evaluations.size)
        writeCheckpoint(file, found)
        assertArrayEquals(raw, file.readBytes())
    }

    @Test
    fun `a run of no steps is read as it was written`() {
        writeCheckpoint(file, checkpointAt(0))
        assertEquals(0, readCheckpoint(file, LAYERS, SIZE).steps.size)
    }

    @Test
    fun `a flipped bit is noticed wherever it is`() {
        val random = Random(3)
        for (byte in raw.indices.filter { it % 16 == 3 || it < 64 }) {
            val bit = 1 shl random.nextInt(8)
            refused(Fault.CHECKPOINT_DAMAGED) { read(raw.copyOf().also { it[byte] = (it[byte].toInt() xor bit).toByte() }) }
        }
    }

    @Test
    fun `a file cut short is noticed`() {
        for (length in listOf(0, 5, 8, 100, raw.size - 200, raw.size - 1)) refused(Fault.CHECKPOINT_DAMAGED) { read(raw.copyOf(length)) }
    }

    private val headerSize = ByteBuffer.wrap(raw).order(ByteOrder.LITTLE_ENDIAN).getLong(0).toInt()

    /** The golden file with another header, or other data, and a digest that is right. */
    private fun forged(old: String, new: String, data: ByteArray = raw.copyOfRange(8 + headerSize, raw.size)): ByteArray {
        val header = String(raw, 8, headerSize, Charsets.US_ASCII)
        assertTrue(old, old in header)
        val zeroed = header.replace(Regex("\"sha256\":\"[0-9a-f]{64}"), "\"sha256\":\"" + "0".repeat(64)).replace(old, new).toByteArray()
        val whole = ByteBuffer.allocate(8 + zeroed.size + data.size).order(ByteOrder.LITTLE_ENDIAN)
        whole.putLong(zeroed.size.toLong()).put(zeroed).put(data)
        val text = String(whole.array(), Charsets.ISO_8859_1).replaceFirst("0".repeat(64), sha256(whole.array()))
        return text.toByteArray(Charsets.ISO_8859_1)
    }

    @Test
    fun `a forgery that changes nothing is read`() = assertEquals(4, read(forged("\"pt\"".drop(4), "")).place.step)

    @Test
    fun `a forged header is refused with what is wrong`() {
        val cases = listOf(
            Triple("lcsb_mobile.checkpoint", "other", "expected lcsb_mobile.checkpoint version 3, found 'other' version '3'"),
            Triple("\"version\":\"3\"", "\"version\":\"2\"", "version '2'; end the run with the app that began it, or begin another"),
            Triple("2026-02-28T", "2026-02-29T", "malformed: date: expected one as 2026-02-28T23:05:09, found '2026-02-29T23:05:09'"),
            Triple("2026-02-28T", "26-02-28T", "malformed: date: expected one as"),
            Triple("\"version\":\"3\"", "\"version\":\"3\",\"more\":\"x\"", "Encountered an unknown key 'more'"),
            Triple("\\\"step\\\":4", "\\\"step\\\":5", "malformed: step 5 after 8 sequences, expected 10"),
            Triple("\\\"step\\\":4,\\\"sequences\\\":8", "\\\"step\\\":-1,\\\"sequences\\\":-2", "malformed: step -1"),
            Triple("\\\"step\\\":4,", "\\\"step\\\":1000000000000,", "malformed: "),
            Triple("\\\"step\\\":4,", "\\\"step\\\":4,\\\"next\\\":5,", "Encountered an unknown key 'next'"),
            Triple("\\\"accumulation\\\":2", "\\\"accumulation\\\":0", "malformed: accumulation: expected at least 1, found 0"),
            Triple("\\\"learning_rate\\\":0.001", "\\\"learning_rate\\\":-1", "malformed: lr: expected a positive number, found -1.0"),
            Triple("\"updates\":", "\"upd4tes\":", "Encountered an unknown key 'upd4tes'"),
            Triple(",\"steps\":{\"dtype\":\"F64\",\"shape\":[4,6],\"data_offsets\":[276,468]}", "", "steps is missing"),
            Triple("\"adapter\":{\"dtype\":\"F32\"", "\"adapter\":{\"dtype\":\"F64\"", "adapter: expected F32 [21] at byte 0, found F64"),
            Triple("\"adapter\":{\"dtype\":\"F32\",\"shape\":[21]", "\"adapter\":{\"dtype\":\"F32\",\"shape\":[3,7]", "adapter: expected F32 [21]"),
            Triple("\"data_offsets\":[168,252]", "\"data_offsets\":[0,84]", "second_moment: expected F32 [21] at byte 168"),
            Triple("\"shape\":[2,2]", "\"shape\":[1000000000000000,2]", "evaluations: expected F64 [2, 2]"),
            Triple("\"shape\":[4,6]", "\"shape\":[" + "4,".repeat(100_000) + "6]", "steps: expected F64 [4, 6]"),
        )
        for ((old, new, reason) in cases) {
            val message = refused(Fault.CHECKPOINT_DAMAGED) { read(forged(old, new)) }
            assertTrue(message, reason in message && "\n" !in message && message.length < 700)
        }
    }

    @Test
    fun `data of another size is refused`() {
        val data = raw.copyOfRange(8 + headerSize, raw.size)
        for ((bytes, reason) in listOf(data + ByteArray(7) to "expected 500 bytes of tensors, found 507", ByteArray(0) to "holds no tensors")) {
            val message = refused(Fault.CHECKPOINT_DAMAGED) { read(forged("F32", "F32", bytes)) }
            assertTrue(message, message.endsWith(reason))
        }
    }

    @Test
    fun `values that no run has are refused`() {
        val data = ByteBuffer.wrap(raw.copyOfRange(8 + headerSize, raw.size)).order(ByteOrder.LITTLE_ENDIAN)
        val cases = listOf<Pair<String, ByteBuffer.() -> ByteBuffer>>(
            "adapter holds NaN or infinite values" to { putFloat(12, Float.NaN) },
            "second_moment holds negative values" to { putFloat(168, -1f) },
            "updates holds negative values" to { putLong(252, -1) },
            "steps holds NaN or infinite values" to { putDouble(276, Double.POSITIVE_INFINITY) },
        )
        for ((reason, change) in cases) {
            val changed = data.array().copyOf()
            ByteBuffer.wrap(changed).order(ByteOrder.LITTLE_ENDIAN).change()
            assertEquals("$file: $reason", refused(Fault.CHECKPOINT_DAMAGED) { read(forged("F32", "F32", changed)) })
        }
    }

    @Test
    fun `what is no checkpoint is refused`() {
        val deep = "[".repeat(200_000)

        fun start(size: Long) = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(size).array()
        val cases = listOf(
            ByteArray(0) to "said to have 0 bytes",
            ByteArray(50) { -1 } to "said to have 18446744073709551615 bytes",
            start(5L shl 20) + ByteArray(6 shl 20) to "said to have 5242880 bytes",
            start(2) + "{}".toByteArray() to "not a checkpoint, or a damaged one",
            start(200_000) + deep.toByteArray() to "not a checkpoint, or a damaged one",
            start(200_007) + "{\"x\": $deep}".toByteArray() to "not a checkpoint, or a damaged one",
            start(200_013) + "{\"adapter\": $deep}".toByteArray() to "not a checkpoint, or a damaged one",
        )
        for ((bytes, reason) in cases) {
            val message = refused(Fault.CHECKPOINT_DAMAGED) { read(bytes) }
            assertTrue(message, reason in message && message.length < 500)
        }
        assertTrue(refused(Fault.CHECKPOINT_DAMAGED) { readCheckpoint(File(folder.root, "absent"), LAYERS, SIZE) }.contains("cannot be read"))
    }

    @Test
    fun `another adapter is refused`() {
        val message = refused(Fault.CHECKPOINT_DAMAGED) { readCheckpoint(golden, LAYERS, 24) }
        assertTrue(message, "does not fit the bundle's adapter: adapter: expected F32 [24]" in message)
        assertTrue("updates: expected I64 [4]" in refused(Fault.CHECKPOINT_DAMAGED) { readCheckpoint(golden, 4, SIZE) })
    }
}
