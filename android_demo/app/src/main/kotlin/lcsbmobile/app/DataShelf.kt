package lcsbmobile.app

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.data.textToJsonl
import lcsbmobile.core.io.replaceAtomically
import lcsbmobile.core.io.storing
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.nio.channels.Channels

/**
 * The data in a directory of the app's. A file never changes, since a run is bound to its content; an edit makes a new one. Numbers, not
 * times, name them: a clock may be set back.
 */
class DataShelf(private val directory: File) {
    fun file(name: String) = File(directory, name)

    /**
     * Copies JSON lines as they are, and makes them of a text; nothing is held in memory but a block. [progress]: bytes read; it may throw
     * to stop.
     *
     * Throws DATA_UNREADABLE, DATA_EMPTY, of a text DATA_ENCODING and DATA_LINE, STORAGE_FULL, STORAGE_FAILED.
     */
    fun add(stream: InputStream, progress: (Long) -> Unit): String {
        onDisk("data")
        val incoming = File(directory, ".incoming")
        val name = freeName()
        try {
            copy(stream, incoming, progress)
            if (isJson(incoming)) {
                storing(directory) { if (!incoming.renameTo(file(name))) throw IOException("cannot be renamed") }
            } else {
                val size = incoming.length()
                textToJsonl(incoming, file(name)) { progress(size) }
            }
            return name
        } finally {
            incoming.delete()
        }
    }

    /** The person's own messages are more than [typed] reads. */
    class Full : Exception("the messages: expected at most $MOST_TYPED_BYTES bytes in all")

    /** The person's own messages, one a line. Throws [Full], STORAGE_FULL, STORAGE_FAILED. */
    fun addTyped(messages: List<String>): String {
        onDisk("data")
        val name = freeName()
        replaceAtomically(file(name)) { channel ->
            val writer = Channels.newOutputStream(channel).bufferedWriter()
            messages.forEach { writer.write(JsonObject(mapOf("text" to JsonPrimitive(it))).toString() + "\n") }
            writer.flush()
            if (channel.position() > MOST_TYPED_BYTES) throw Full()
        }
        return name
    }

    /** The messages of a file that [addTyped] wrote, or null. */
    fun typed(name: String): List<String>? {
        val file = file(name)
        if (!file.isFile || file.length() > MOST_TYPED_BYTES) return null
        return try {
            file.readLines().map { ((Json.parseToJsonElement(it) as? JsonObject)?.values?.singleOrNull() as? JsonPrimitive ?: return null).content }
        } catch (error: IllegalArgumentException) {
            null // no JSON
        } catch (error: IOException) {
            null
        }
    }

    /** Removes all files but those that are [used], and what is known of them. */
    fun keepOnly(used: Set<String>) = directory.listFiles().orEmpty().filter { DataReports.dataOf(it.name) !in used }.forEach { it.delete() }

    private fun freeName(): String {
        val last = directory.list().orEmpty().mapNotNull { it.removeSuffix(".jsonl").toIntOrNull() }.maxOrNull() ?: 0
        return "${last + 1}.jsonl"
    }

    private fun copy(stream: InputStream, file: File, progress: (Long) -> Unit) = storing(directory) {
        directory.mkdirs()
        file.outputStream().use { output ->
            val block = ByteArray(1 shl 18)
            var done = 0L
            while (true) {
                val read = read(stream, block)
                if (read < 0) break
                output.write(block, 0, read)
                done += read
                progress(done)
            }
            output.fd.sync()
            if (done == 0L) throw LcsbException(Fault.DATA_EMPTY, "the file is empty: expected text")
        }
    }

    /** A stream that fails is the source's fault, not the storage's. */
    private fun read(stream: InputStream, block: ByteArray): Int =
        try {
            stream.read(block)
        } catch (error: IOException) {
            throw LcsbException(Fault.DATA_UNREADABLE, "the file cannot be read: ${error.message}", cause = error)
        }

    /** Whether the first character, after a byte order mark, opens an object. */
    private fun isJson(file: File): Boolean = file.inputStream().buffered().use { stream ->
        generateSequence { stream.read().takeIf { it >= 0 } }.take(1 shl 16).firstOrNull { it !in BLANKS } == '{'.code
    }

    private companion object {
        const val MOST_TYPED_BYTES = 16L shl 20
        val BLANKS = setOf(0xEF, 0xBB, 0xBF, ' '.code, '\t'.code, '\r'.code, '\n'.code)
    }
}
