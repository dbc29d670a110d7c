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
 * turn, until that is over. [fault], [detail]: why it failed.
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

    /** Begins anew. What the bundle's last run saved goes, but not before [record] is written. */
    fun replace(record: RunRecord) {
        val (saved, old) = state(record.bundle) to File(directory, "${record.bundle}/old")
        old.deleteRecursively()
        val moved = saved.renameTo(old)
        try {
            write(record)
        } catch (error: LcsbException) {
            if (moved) old.renameTo(saved)
            throw error
        }
        old.deleteRecursively()
    }

    fun remove(bundle: String) {
        file(bundle).delete()
        File(directory, bundle).deleteRecursively()
    }
}
