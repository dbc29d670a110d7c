package lcsbmobile.app

import kotlinx.serialization.Serializable
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import lcsbmobile.core.io.replaceAtomically
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer

/**
 * What a model learned in one run, or was given by an import. [id]: a number, of this bundle. [made]: milliseconds since 1970. [data]: what the person
 * calls the data. [lossBefore], [lossAfter]: on the held-out examples. [chat]: whether it learned from conversations. [example]: the beginning of the
 * first held-out example. [verdict]: null where none was asked for. [digest]: the bundle's identity. [run]: of the run it is from.
 * [further]: the name of the adapter that the run began with.
 */
@Serializable
data class AdapterRecord(
    val id: Int,
    val bundle: String,
    val name: String,
    val made: Long,
    val data: String? = null,
    val steps: Int? = null,
    val lossBefore: Double? = null,
    val lossAfter: Double? = null,
    val chat: Boolean? = null,
    val example: String? = null,
    val verdict: StoredVerdict? = null,
    val digest: String? = null,
    val run: String? = null,
    val further: String? = null,
)

/** What changes files, never on the main thread; a test ends the process between two of its calls. */
open class Disk {
    /** Whole or not at all, and on the disk when it returns. */
    open fun replace(file: File, bytes: ByteArray) {
        onDisk("an adapter")
        replaceAtomically(file) { channel ->
            val left = ByteBuffer.wrap(bytes)
            while (left.hasRemaining()) channel.write(left)
        }
    }

    /** Likewise: [write] replaces [file]. */
    open fun write(file: File, write: (File) -> Unit) = write(file)

    open fun delete(file: File) {
        onDisk("an adapter")
        file.deleteRecursively()
    }
}

/**
 * The adapters of each bundle: `BUNDLE/ID.safetensors`, and `BUNDLE/ID.json`, which makes it one: it is written after the other and goes before it, so
 * that a process may end at any moment. `BUNDLE/in-use` has the number of the one that is tried and shared first.
 */
class AdapterStore(private val directory: File, private val disk: Disk = Disk()) {
    private fun of(bundle: String) = File(directory, bundle)

    fun file(record: AdapterRecord) = File(of(record.bundle), "${record.id}.safetensors")

    private fun info(record: AdapterRecord) = File(of(record.bundle), "${record.id}.json")

    private fun inUseFile(bundle: String) = File(of(bundle), IN_USE)

    /** The newest first. */
    @Synchronized
    fun list(bundle: String): List<AdapterRecord> {
        onDisk("adapters")
        return of(bundle).listFiles().orEmpty().filter { it.name.endsWith(".json") }.mapNotNull(::read).sortedByDescending { it.id }
    }

    /** What cannot be read, or has no parameters, is none. */
    private fun read(info: File): AdapterRecord? =
        try {
            Json.decodeFromString(AdapterRecord.serializer(), info.readText())
                .takeIf { info.name == "${it.id}.json" && it.bundle == info.parentFile!!.name && file(it).isFile }
        } catch (error: SerializationException) {
            null
        } catch (error: IOException) {
            null
        }

    fun find(bundle: String, id: Int?): AdapterRecord? = id?.let { wanted -> list(bundle).find { it.id == wanted } }

    /** The adapter of a run takes the place of an earlier one of the same run, and has its number and name. [write] makes the file. */
    @Synchronized
    fun add(record: AdapterRecord, write: (File) -> Unit): AdapterRecord {
        val before = record.run?.let { run -> list(record.bundle).find { it.run == run } }
        val added = if (before == null) record.copy(id = freeId(record.bundle)) else record.copy(id = before.id, name = before.name)
        disk.write(file(added), write)
        update(added)
        return added
    }

    @Synchronized
    fun update(record: AdapterRecord) = disk.replace(info(record), Json.encodeToString(AdapterRecord.serializer(), record).toByteArray())

    /** If it is still there: it may have been removed or renamed while [change] was found out. */
    @Synchronized
    fun change(record: AdapterRecord, change: (AdapterRecord) -> AdapterRecord): AdapterRecord? =
        find(record.bundle, record.id)?.let(change)?.also(::update)

    @Synchronized
    fun remove(record: AdapterRecord) {
        disk.delete(info(record))
        disk.delete(file(record))
        if (markedInUse(record.bundle) == record.id) disk.delete(inUseFile(record.bundle))
    }

    fun removeAll(bundle: String) = disk.delete(of(bundle))

    private fun markedInUse(bundle: String): Int? =
        try {
            inUseFile(bundle).takeIf { it.isFile }?.readText()?.toIntOrNull()
        } catch (error: IOException) {
            null
        }

    /** Null where none is, or the one that was is gone. */
    fun inUse(bundle: String): Int? = markedInUse(bundle)?.takeIf { find(bundle, it) != null }

    @Synchronized
    fun use(record: AdapterRecord) = disk.replace(inUseFile(record.bundle), "${record.id}".toByteArray())

    /** Removes parameters that a process left without their record, and what it was writing. */
    @Synchronized
    fun tidy() {
        for (bundle in directory.listFiles().orEmpty().filter { it.isDirectory }) {
            val known = list(bundle.name).flatMap { listOf("${it.id}.json", "${it.id}.safetensors") } + IN_USE
            bundle.listFiles().orEmpty().filter { it.name !in known && !it.name.endsWith(".json") }.forEach(disk::delete)
        }
    }

    /** Files in the order in which a backup is to have them, for each bundle: the one in use, then the newest. */
    fun byWorth(): List<List<File>> = directory.list().orEmpty().sorted().flatMap { bundle ->
        val used = inUse(bundle)
        val mark = listOf(inUseFile(bundle)).filter { used != null }
        list(bundle).sortedByDescending { it.id == used }.map { record ->
            listOf(file(record), info(record)) + mark.filter { record.id == used }
        }
    }

    private fun freeId(bundle: String): Int =
        (of(bundle).list().orEmpty().mapNotNull { it.substringBefore('.').toIntOrNull() }.maxOrNull() ?: 0) + 1

    private companion object {
        const val IN_USE = "in-use"
    }
}
