package lcsbmobile.app

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.io.checkFreeSpace
import lcsbmobile.core.io.storing
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.util.zip.ZipEntry
import java.util.zip.ZipInputStream

private const val MOST_ENTRIES = 1000
private const val MOST_HEADER_BYTES = 4L shl 20 // of PEFT's configuration, and of the header of its tensors
private const val MOST_OTHER_BYTES = 64L shl 20 // of files that are passed over: a tokenizer and a readme ride along
private val WANTED = setOf("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")

/**
 * Unpacks PEFT's two files from a ZIP file, wherever in it they lie, into [directory]; of pickled weights only the name, for the refusal. No entry's
 * name becomes a path, and none is read further than an adapter of [bytes] bytes can reach. [check]: may throw to stop.
 *
 * Throws ADAPTER for what is no such ZIP file, STORAGE_FULL, STORAGE_FAILED.
 */
fun unpackAdapter(stream: InputStream, directory: File, bytes: Long, check: () -> Unit = {}) {
    storing(directory) { if (!directory.isDirectory && !directory.mkdirs()) throw IOException("no such directory") }
    checkFreeSpace(directory, bytes)
    val limits = mapOf("adapter_config.json" to MOST_HEADER_BYTES, "adapter_model.safetensors" to bytes + MOST_HEADER_BYTES)
    val zip = ZipInputStream(stream)
    val found = HashSet<String>()
    var passed = 0L
    var entries = 0
    while (true) {
        check()
        val entry = next(zip) ?: break
        if (++entries > MOST_ENTRIES) throw refused("expected at most $MOST_ENTRIES files in it, found more")
        val name = entry.name.substringAfterLast('/')
        val limit = limits[name]
        if (name in WANTED && !found.add(name)) throw refused("expected one $name in it, found more")
        if (limit == null) {
            if (name in WANTED) File(directory, name).createNewFile()
            passed += drain(zip, MOST_OTHER_BYTES - passed, check) ?: throw refused("expected an adapter's files, found much else beside them")
        } else {
            copy(zip, File(directory, name), limit, check)
        }
    }
    if (found.isEmpty()) throw refused("expected ${WANTED.take(2).joinToString(" and ")} in it, found neither")
}

private fun copy(zip: ZipInputStream, file: File, limit: Long, check: () -> Unit) = storing(file) {
    file.outputStream().use { output ->
        val whole = drain(zip, limit, check) { block, count -> output.write(block, 0, count) }
        if (whole == null) throw refused("${file.name}: expected at most $limit bytes, found more; it is of a larger model")
    }
}

/** Reads an entry to its end; its bytes, or null as soon as they are more than [limit]. */
private fun drain(zip: ZipInputStream, limit: Long, check: () -> Unit, take: (ByteArray, Int) -> Unit = { _, _ -> }): Long? {
    val block = ByteArray(1 shl 16)
    var done = 0L
    while (true) {
        check()
        val read = reading { zip.read(block) }
        if (read < 0) return done
        done += read
        if (done > limit) return null
        take(block, read)
    }
}

private fun next(zip: ZipInputStream): ZipEntry? = reading { zip.nextEntry }

private fun <T> reading(read: () -> T): T =
    try {
        read()
    } catch (error: IOException) {
        throw refused("cannot be read: ${error.message}", error)
    } catch (error: IllegalArgumentException) {
        throw refused("an entry's name is not text", error)
    }

private fun refused(what: String, cause: Exception? = null) = LcsbException(Fault.ADAPTER, "the ZIP file: $what", listOf("ZIP"), cause)
