package lcsbmobile.core.checkpoint

import kotlinx.serialization.DeserializationStrategy
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.json.Json
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.io.MsgspecDouble
import lcsbmobile.core.io.UNKNOWN_DIGEST
import lcsbmobile.core.io.WrittenTensor
import lcsbmobile.core.io.fileDigest
import lcsbmobile.core.io.jsonFault
import lcsbmobile.core.io.quoted
import lcsbmobile.core.io.recordJson
import lcsbmobile.core.io.replaceAtomically
import lcsbmobile.core.io.writeDigested
import lcsbmobile.core.text.calendar
import lcsbmobile.core.training.AdapterState
import lcsbmobile.core.training.TrainConfig
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import java.nio.channels.FileChannel
import java.nio.file.StandardOpenOption.READ

// A run's state in one file, from which it goes on bit for bit. Specification: docs/run_checkpoint.md. The file is safetensors; its metadata
// carries a SHA-256 of the whole file, header included, in which the digest's own 64 characters count as zeros.

/** What decides a run's result, the runtime and its threads aside; the fields are those of docs/run_checkpoint.md. [date]: a `localTime`. */
@Serializable
public data class RunIdentity(
    val bundle: String,
    val data: String,
    val evaluationData: String?,
    val tokens: String,
    val evaluationTokens: String?,
    val date: String,
    @Serializable(MsgspecDouble::class) val holdOut: Double,
    val initialAdapter: String?,
    val schedule: List<Subset>,
    val train: TrainConfig,
    val seed: Long,
)

/** How far a run came. [sequences]: how many the data's endless stream has given. [runtime], [keptLayers]: of the last step. */
@Serializable
public data class RunPlace(
    val identity: RunIdentity,
    val step: Int,
    val sequences: Long,
    val runtime: String,
    val keptLayers: Int,
)

/**
 * [updates]: AdamW's count of each layer. [steps] float64 [step, STEP_COLUMNS] and [evaluations] float64 [e, 2], (step, loss): the run's
 * history. The buffers of one that was read are views of the mapped file.
 */
public class RunCheckpoint(
    public val place: RunPlace,
    public val state: AdapterState,
    public val updates: LongArray,
    public val steps: DoubleArray,
    public val evaluations: DoubleArray,
)

public const val STEP_COLUMNS: Int = 6 // loss, learning rate, gradient norm, gradient seconds, optimizer seconds, anonymous bytes

private const val FORMAT = "lcsb_mobile.checkpoint"
private const val VERSION = "3"
private const val MOST_HEADER_BYTES = 4L shl 20
private const val MOST_HISTORY_BYTES = 48L shl 20 // of a million steps: it is held on the heap
private val NAME = Regex("step-([0-9]{8,18})\\.safetensors")
private val json = Json(recordJson) { encodeDefaults = true }

/** The name of the checkpoint after [step]. */
internal fun checkpointName(step: Int): String = "step-${step.toString().padStart(8, '0')}.safetensors"

/** The checkpoints in a directory, the newest first. */
public fun checkpointFiles(directory: File): List<File> {
    val files = directory.listFiles() ?: throw damaged("$directory: cannot be read", directory)
    val found = files.mapNotNull { file -> NAME.matchEntire(file.name)?.let { it.groupValues[1].toLong() to file } }.filter { it.second.isFile }
    return found.sortedByDescending { it.first }.map { it.second }
}

/** Whole or not at all, and synced. Throws STORAGE_FULL or STORAGE_FAILED. */
internal fun writeCheckpoint(file: File, checkpoint: RunCheckpoint) {
    val state = checkpoint.state
    val flat = listOf(state.size.toLong())
    val tensors = linkedMapOf(
        "adapter" to WrittenTensor.of(flat, state.adapter),
        "first_moment" to WrittenTensor.of(flat, state.firstMoment),
        "second_moment" to WrittenTensor.of(flat, state.secondMoment),
        "updates" to WrittenTensor.of(listOf(checkpoint.updates.size.toLong()), checkpoint.updates),
        "steps" to WrittenTensor.of(listOf(checkpoint.place.step.toLong(), STEP_COLUMNS.toLong()), checkpoint.steps),
        "evaluations" to WrittenTensor.of(listOf(checkpoint.evaluations.size / 2L, 2L), checkpoint.evaluations),
    )
    val run = json.encodeToString(RunPlace.serializer(), checkpoint.place)
    val metadata = linkedMapOf("format" to FORMAT, "version" to VERSION, "sha256" to UNKNOWN_DIGEST, "run" to run)
    replaceAtomically(file) { channel ->
        writeDigested(channel, tensors, metadata)
    }
}

/**
 * Checked before anything of it is used: digest, format, names, shapes, values. [layers] and [size], of all: of the bundle's adapter. Throws
 * CHECKPOINT_DAMAGED with what is wrong.
 */
internal fun readCheckpoint(file: File, layers: Int, size: Int): RunCheckpoint =
    try {
        FileChannel.open(file.toPath(), READ).use { channel ->
            val (header, start) = readHeader(file, channel)
            val data = channel.size() - start
            if (data == 0L) throw damaged("$file: holds no tensors", file)
            val place = decodePlace(file, header.metadata!!)
            checkEntries(file, header, layers, size, place.step, data)
            readTensors(channel, start, place, layers, size, data).also { checkValues(file, it) }
        }
    } catch (error: IOException) {
        throw damaged("$file: cannot be read: ${error.message}", file, error)
    }

/** The first of [files] that can be read, and what is wrong with those before it. Throws CHECKPOINT_DAMAGED when none can. */
public fun newestGood(files: List<File>, layers: Int, size: Int): Triple<File, RunCheckpoint, List<String>> {
    val faults = mutableListOf<String>()
    for (file in files) {
        try {
            return Triple(file, readCheckpoint(file, layers, size), faults)
        } catch (error: LcsbException) {
            faults += error.message.orEmpty()
        }
    }
    throw LcsbException(Fault.CHECKPOINT_DAMAGED, "${faults.joinToString("; ")}; no good checkpoint is left", files.map { it.name })
}

@Serializable
private data class Entry(val dtype: String, val shape: List<Long>, val dataOffsets: List<Long>)

@Serializable
private data class Metadata(val format: String, val version: String, val sha256: String, val run: String)

@Serializable
private class Header(
    @SerialName("__metadata__") val metadata: Metadata? = null,
    val adapter: Entry? = null,
    val firstMoment: Entry? = null,
    val secondMoment: Entry? = null,
    val updates: Entry? = null,
    val steps: Entry? = null,
    val evaluations: Entry? = null,
)

/** The header and where the data starts, once the digest was found right. */
private fun readHeader(file: File, channel: FileChannel): Pair<Header, Long> {
    val start = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN)
    val size = if (fill(channel, start)) start.getLong(0) else 0
    if (size !in 2..minOf(MOST_HEADER_BYTES, channel.size() - 8)) {
        throw damaged("$file: not a checkpoint: its header is said to have ${java.lang.Long.toUnsignedString(size)} bytes", file)
    }
    val text = ByteBuffer.allocate(size.toInt())
    fill(channel, text)
    val header: Header = decode(file, "not a checkpoint, or a damaged one", Header.serializer(), String(text.array(), Charsets.UTF_8))
    val metadata = header.metadata ?: throw damaged("$file: not a checkpoint, or a damaged one: it has no metadata", file)
    if (metadata.format != FORMAT || metadata.version != VERSION) {
        val found = "'${metadata.format.take(40)}' version '${metadata.version.take(10)}'"
        val remedy = "end the run with the app that began it, or begin another in another directory"
        throw damaged("$file: expected $FORMAT version $VERSION, found $found; $remedy", file)
    }
    val found = fileDigest(channel, start.array() + text.array(), metadata.sha256)
    if (found != metadata.sha256) {
        throw damaged("$file: damaged: expected SHA-256 ${metadata.sha256.take(12)}…, found ${found.take(12)}…", file)
    }
    return header to 8 + size
}

private fun decodePlace(file: File, metadata: Metadata): RunPlace {
    val place = decode(file, "malformed", RunPlace.serializer(), metadata.run)
    try {
        place.identity.train.check()
    } catch (error: LcsbException) {
        throw damaged("$file: malformed: ${error.message}", file, error)
    }
    if (calendar(place.identity.date) == null) {
        throw damaged("$file: malformed: date: expected one as 2026-02-28T23:05:09, found ${quoted(place.identity.date, 40)}", file)
    }
    val expected = place.step.toLong() * place.identity.train.accumulation
    if (place.step < 0 || place.sequences != expected) {
        throw damaged("$file: malformed: step ${place.step} after ${place.sequences} sequences, expected $expected", file)
    }
    return place
}

private fun <T> decode(file: File, what: String, type: DeserializationStrategy<T>, text: String): T =
    try {
        json.decodeFromString(type, text)
    } catch (error: IllegalArgumentException) {
        // kotlinx.serialization's
        throw damaged("$file: $what: ${jsonFault(error)}", file, error)
    }

/** The tensors lie one after the other in this order and fill the file: [data] bytes. There are as many evaluations as that makes. */
private fun checkEntries(file: File, header: Header, layers: Int, size: Int, step: Int, data: Long) {
    val flat = listOf(size.toLong())
    val before = 3 * 4L * size + 8L * layers + 8L * step * STEP_COLUMNS
    val evaluations = maxOf(0, data - before) / 16
    val expected = listOf(
        Triple("adapter", header.adapter, "F32" to flat),
        Triple("first_moment", header.firstMoment, "F32" to flat),
        Triple("second_moment", header.secondMoment, "F32" to flat),
        Triple("updates", header.updates, "I64" to listOf(layers.toLong())),
        Triple("steps", header.steps, "F64" to listOf(step.toLong(), STEP_COLUMNS.toLong())),
        Triple("evaluations", header.evaluations, "F64" to listOf(evaluations, 2L)),
    )
    val faults = expected.filter { it.second == null }.map { "${it.first} is missing" }.toMutableList()
    if (data - 12L * size > MOST_HISTORY_BYTES) faults += "expected at most $MOST_HISTORY_BYTES bytes of history"
    var end = 0L
    for ((name, found, wanted) in if (faults.isEmpty()) expected else emptyList()) {
        val (dtype, shape) = wanted
        val start = end
        end += shape.fold(if (dtype == "F32") 4L else 8L) { product, length -> product * length }
        if (found != Entry(dtype, shape, listOf(start, end))) faults += "$name: expected $dtype $shape at byte $start, found ${short(found)}"
    }
    if (faults.isEmpty() && end != data) faults += "expected $end bytes of tensors, found $data"
    if (faults.isNotEmpty()) throw damaged("$file: does not fit the bundle's adapter: ${faults.joinToString("; ")}", file)
}

private fun readTensors(channel: FileChannel, start: Long, place: RunPlace, layers: Int, size: Int, data: Long): RunCheckpoint {
    val bytes = 4L * size
    val (adapter, first, second) = List(3) {
        channel.map(FileChannel.MapMode.READ_ONLY, start + it * bytes, bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
    }
    val history = channel.map(FileChannel.MapMode.READ_ONLY, start + 3 * bytes, data - 3 * bytes).order(ByteOrder.LITTLE_ENDIAN)
    val updates = LongArray(layers) { history.getLong() }
    val steps = DoubleArray(place.step * STEP_COLUMNS) { history.getDouble() }
    val evaluations = DoubleArray(history.remaining() / 8) { history.getDouble() }
    return RunCheckpoint(place, AdapterState(adapter, first, second), updates, steps, evaluations)
}

private fun checkValues(file: File, checkpoint: RunCheckpoint) {
    val state = checkpoint.state
    val floats = listOf("adapter" to state.adapter, "first_moment" to state.firstMoment, "second_moment" to state.secondMoment)
    val doubles = listOf("steps" to checkpoint.steps, "evaluations" to checkpoint.evaluations)
    val infinite = floats.filterNot { it.second.all(Float::isFinite) }.map { it.first } +
        doubles.filterNot { it.second.all(Double::isFinite) }.map { it.first }
    val faults = infinite.mapTo(mutableListOf()) { "$it holds NaN or infinite values" }
    if (!state.secondMoment.all { !(it < 0) }) faults += "second_moment holds negative values"
    if (checkpoint.updates.any { it < 0 }) faults += "updates holds negative values"
    if (faults.isNotEmpty()) throw damaged("$file: ${faults.joinToString("; ")}", file)
}

private inline fun FloatBuffer.all(holds: (Float) -> Boolean): Boolean {
    val values = duplicate()
    while (values.hasRemaining()) if (!holds(values.get())) return false
    return true
}

/** Whether there was enough to read. */
private fun fill(channel: FileChannel, buffer: ByteBuffer): Boolean {
    while (buffer.hasRemaining()) if (channel.read(buffer) < 0) return false
    return true
}

private fun short(entry: Entry?) = "${entry?.dtype} ${entry?.shape} at bytes ${entry?.dataOffsets}".take(120)

private fun damaged(message: String, file: File, cause: Throwable? = null) =
    LcsbException(Fault.CHECKPOINT_DAMAGED, message, listOf(file.name), cause)
