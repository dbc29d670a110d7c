package lcsbmobile.app

import kotlinx.serialization.Serializable
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.RunResult
import lcsbmobile.core.io.replaceAtomically
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.channels.FileChannel
import java.nio.file.StandardOpenOption

/** What is to become of a run. RUNNING while nothing trains: the process was ended. */
@Serializable
enum class Wanted(val phase: Phase) {
    RUNNING(Phase.TRAINING),
    PAUSED(Phase.PAUSED),
    FINISHED(Phase.FINISHED),
    CANCELLED(Phase.CANCELLED),
    FAILED(Phase.FAILED),
}

/**
 * A run as the person asked for it, from which it is resumed. [data]: a file of the data directory; [dataName]: what the person calls it.
 * [budget]: bytes, null for what is free. [threads]: the same after every resume, or the last bits would differ. [waitsFor]: what ended its
 * turn, until that is over. [fault], [detail]: why it failed. [id]: of this run and no other. [learningRate] null: the core's choice. [initial]: a
 * file beside the run's state, the copy of the adapter that it begins with, which is called [further]. [chat]: it learns from conversations.
 * [samples]: what it wrote at its evaluations. [kept]: it is over, and its adapter, if it has one, was put into the adapters' store.
 */
@Serializable
data class RunRecord(
    val bundle: String,
    val data: String,
    val dataName: String,
    val steps: Int,
    val budget: Long?,
    val threads: Int,
    val wanted: Wanted = Wanted.RUNNING,
    val waitsFor: Reason? = null,
    val fault: Fault? = null,
    val detail: String? = null,
    val report: RunReport? = null,
    val id: String? = null,
    val learningRate: Double? = null,
    val initial: String? = null,
    val further: String? = null,
    val chat: Boolean? = null,
    val samples: List<WrittenSample> = emptyList(),
    val kept: Boolean = false,
) {
    /** What is shown while nothing trains it. */
    val phaseAtRest: Phase get() = when {
        wanted != Wanted.RUNNING -> wanted.phase
        waitsFor != null -> Phase.SUSPENDED
        else -> Phase.INTERRUPTED
    }

    val decisionAtRest: Decision get() = Decision(phaseAtRest == Phase.SUSPENDED, waitsFor)
}

/** What a run came to. [peakPss]: bytes; [phone]: its maker's name for it. */
@Serializable
data class RunReport(val result: RunResult, val peakPss: Long, val phone: String) {
    /** The names of `lcsb simulate --json`, and two of our own. */
    fun toJson(): String {
        val fields = Json.parseToJsonElement(result.toJson()) as JsonObject
        val all = JsonObject(fields + mapOf("phone" to JsonPrimitive(phone), "peak_pss_bytes" to JsonPrimitive(peakPss)))
        return pretty.encodeToString(JsonObject.serializer(), all)
    }

    private companion object {
        val pretty = Json { prettyPrint = true }
    }
}

/** The last run of each bundle: `BUNDLE/run.json`, and `BUNDLE/state` of the core's. */
class RunStore(private val directory: File) {
    fun state(bundle: String) = File(directory, "$bundle/state")

    private fun file(bundle: String) = File(directory, "$bundle/run.json")

    fun read(bundle: String): RunRecord? =
        try {
            onDisk("run.json")
            file(bundle).takeIf { it.isFile }?.let { Json.decodeFromString(RunRecord.serializer(), it.readText()) }
        } catch (error: SerializationException) {
            null
        } catch (error: IOException) {
            null
        }

    /** Whether something of it is saved that it can be resumed from. */
    fun begun(bundle: String): Boolean = state(bundle).list().orEmpty().any { it.startsWith("step-") }

    /** Whether what is saved has learned something. */
    fun learned(bundle: String): Boolean = state(bundle).list().orEmpty().any { name -> name.startsWith("step-") && name.any { it in '1'..'9' } }

    fun all(): List<RunRecord> = directory.list().orEmpty().sorted().mapNotNull(::read)

    /** A run of one of [bundles] that goes on by itself, of the bundle [first] if there is one: not one that the person paused. */
    fun unfinished(bundles: Set<String>, first: String?): RunRecord? {
        val open = all().filter { it.bundle in bundles && it.wanted == Wanted.RUNNING }
        return open.find { it.bundle == first } ?: open.firstOrNull()
    }

    fun write(record: RunRecord) {
        onDisk("run.json")
        val json = Json.encodeToString(RunRecord.serializer(), record).toByteArray()
        replaceAtomically(file(record.bundle)) { it.write(ByteBuffer.wrap(json)) }
    }

    fun initial(record: RunRecord): File? = record.initial?.let { File(directory, "${record.bundle}/$it") }

    /**
     * Begins anew. What the bundle's last run saved goes, but not before [record] is written. [initial]: what the run begins with, which is copied: the
     * adapter may be removed meanwhile.
     */
    fun replace(record: RunRecord, initial: File? = null) {
        val begun = if (initial == null) record.copy(initial = null) else record.copy(initial = "$INITIAL${record.id}.safetensors")
        initial(begun)?.let { copy -> replaceAtomically(copy) { output -> copy(initial!!, output) } }
        val (saved, old) = state(record.bundle) to File(directory, "${record.bundle}/old")
        old.deleteRecursively()
        val moved = saved.renameTo(old)
        try {
            write(begun)
        } catch (error: LcsbException) {
            if (moved) old.renameTo(saved)
            initial(begun)?.delete()
            throw error
        }
        old.deleteRecursively()
        val earlier = File(directory, record.bundle).listFiles().orEmpty().filter { it.name.startsWith(INITIAL) && it.name != begun.initial }
        earlier.forEach { it.delete() }
    }

    private fun copy(from: File, to: FileChannel) = FileChannel.open(from.toPath(), StandardOpenOption.READ).use { source ->
        val size = source.size()
        var done = 0L
        while (done < size) {
            val moved = source.transferTo(done, size - done, to)
            if (moved <= 0) throw IOException("$from: ended while it was copied")
            done += moved
        }
    }

    fun remove(bundle: String) {
        file(bundle).delete()
        File(directory, bundle).deleteRecursively()
    }

    private companion object {
        const val INITIAL = "initial-"
    }
}
