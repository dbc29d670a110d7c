package lcsbmobile.core

import kotlinx.serialization.Serializable
import kotlinx.serialization.json.JsonElement
import lcsbmobile.core.bundle.AdapterLayout
import lcsbmobile.core.bundle.ImplicitUpdates
import lcsbmobile.core.bundle.Method
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.io.part
import lcsbmobile.core.io.recordJson
import lcsbmobile.core.training.LearningRateSchedule
import org.junit.Assert.assertEquals
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer

/** What scripts/golden/write_run_vectors.py wrote. */
@Serializable
internal class RunVectors(
    val learningRates: List<Rates>,
    val schedules: List<Scheduled>,
    val adamw: List<AdamWRun>,
    val doubles: List<Number>,
    val texts: List<Text>,
    val peftConfigs: List<Peft>,
) {
    @Serializable
    class Rates(val schedule: LearningRateSchedule, val steps: Int, val warmup: Int, val rates: List<Double>)

    @Serializable
    class Scheduled(val method: Method, val subsets: Int, val layers: Int, val schedule: List<Subset>, val learningRate: Double)

    @Serializable
    class AdamWRun(val implicitUpdates: ImplicitUpdates, val norms: List<Double>, val updates: List<Long>, val sha256: List<String>)

    @Serializable
    class Number(val value: JsonElement, val repr: String, val msgspec: String)

    @Serializable
    class Text(val text: String, val json: String)

    @Serializable
    class Peft(val layout: AdapterLayout, val base: String, val text: String)

    companion object {
        const val LAYERS = 3
        const val SIZE = 3072
        private val trained = listOf(listOf(2), listOf(0, 1), listOf(0, 1, 2), listOf(1)) // a cycle

        fun read(): RunVectors = recordJson.decodeFromString(serializer(), testFile("run_vectors.json").readText())

        /** `element` of the script: exact in float32. */
        fun gradient(step: Int, layer: Int): FloatBuffer {
            val values = directFloats(SIZE)
            for (i in 0 until SIZE) {
                val whole = (i * 7919L + step * 104729L + layer * 1299709L) % 65536 - 32768
                values.put(i, (whole / if (step % 3 == 0) 8388608.0 else 131072.0).toFloat())
            }
            return values
        }

        fun gradients(step: Int): Map<Int, FloatBuffer> = trained[step % trained.size].associateWith { gradient(step, it) }
    }
}

internal fun testFile(name: String) = File(System.getProperty("test.data"), name)

internal fun testBundle(name: String) = File(System.getProperty("test.bundles"), name)

/** The bytes as they lie in a little-endian file. */
internal fun FloatBuffer.littleEndian(): ByteArray {
    val bytes = ByteBuffer.allocate(capacity() * Float.SIZE_BYTES).order(ByteOrder.LITTLE_ENDIAN)
    bytes.asFloatBuffer().put(part(0, capacity()))
    return bytes.array()
}

/** Runs [block], which must refuse with [fault], and returns what it said. */
internal fun refused(fault: Fault, block: () -> Unit): String {
    try {
        block()
    } catch (error: LcsbException) {
        assertEquals(error.message, fault, error.fault)
        return error.message.orEmpty()
    }
    throw AssertionError("nothing was refused; expected $fault")
}
