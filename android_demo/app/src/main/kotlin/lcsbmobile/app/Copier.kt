package lcsbmobile.app

import kotlinx.serialization.Serializable
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.io.checkFreeSpace
import lcsbmobile.core.io.storing
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.security.MessageDigest

/**
 * Copies streams into files below [directory], nowhere else, as long as there is room. A file that is there, of the size and the digest that the
 * bundle's manifest states, is not copied again: [directory] may have files that an earlier process copied.
 */
class Copier(private val directory: File, private val total: Long, private val progress: (Long, Long) -> Unit) {
    private val block = ByteArray(1 shl 18)
    private var done = 0L

    private val before = directory.walk().filter { it.isFile }.toSet()
    private val stated by lazy { statedFiles(directory) } // the manifest's own files, once it is there

    init {
        checkFreeSpace(directory, total - before.sumOf { it.length() })
    }

    fun copy(path: String, open: () -> InputStream?) {
        val target = File(directory, path)
        val inside = reading(path) { target.canonicalPath.startsWith(directory.canonicalPath + File.separator) }
        if (!inside) throw unreadable(path)
        if (target in before && target.name != MANIFEST && isWhole(target)) return
        (reading(path, open) ?: throw unreadable(path)).use { stream -> storing(target) { copy(path, stream, target) } }
    }

    private fun copy(path: String, stream: InputStream, target: File) {
        target.parentFile!!.mkdirs()
        target.outputStream().use { output ->
            while (true) {
                val read = reading(path) { stream.read(block) }
                if (read < 0) break
                output.write(block, 0, read)
                done += read
                progress(done, total)
            }
        }
    }

    /** Counts it as copied, or not at all. */
    private fun isWhole(file: File): Boolean {
        val (size, sha256) = stated[file] ?: return false
        val begun = done
        val whole = file.length() == size && sha256(file) { count ->
            done += count
            progress(done, total)
        } == sha256
        if (!whole) done = begun
        return whole
    }

    /** A stream that fails is the source's fault, not the storage's. */
    private fun <T> reading(path: String, read: () -> T): T =
        try {
            read()
        } catch (error: IOException) {
            throw unreadable(path, error)
        }
}

fun unreadable(path: String, cause: Throwable? = null) =
    LcsbException(Fault.BUNDLE_UNREADABLE, "$path: cannot be read${cause?.message?.let { ": $it" }.orEmpty()}", listOf(path), cause)

@Serializable
private class StatedFile(val size: Long, val sha256: String)

@Serializable
private class StatedFiles(val files: Map<String, StatedFile>)

private val lenient = Json { ignoreUnknownKeys = true }
private const val MOST_MANIFEST_BYTES = 4L shl 20 // as the core has it

/**
 * Size and SHA-256 of the files of a bundle that lies in [directory] or in the one directory in it, as its manifest has them; nothing where it
 * cannot be read. It is not checked: what is made of it is verified whole.
 */
private fun statedFiles(directory: File): Map<File, Pair<Long, String>> {
    val places = listOf(directory) + directory.listFiles().orEmpty().filter { it.isDirectory }
    val manifest = places.map { File(it, MANIFEST) }.firstOrNull { it.isFile && it.length() <= MOST_MANIFEST_BYTES } ?: return emptyMap()
    return try {
        val stated = lenient.decodeFromString(StatedFiles.serializer(), manifest.readText())
        stated.files.entries.associate { (name, entry) -> File(manifest.parentFile, name) to (entry.size to entry.sha256) }
    } catch (error: SerializationException) {
        emptyMap()
    } catch (error: IOException) {
        emptyMap()
    }
}

/** In hex. [progress]: bytes read since the last call; it may throw to stop. */
fun sha256(file: File, progress: (Int) -> Unit = {}): String {
    val digest = MessageDigest.getInstance("SHA-256")
    val block = ByteArray(1 shl 18)
    file.inputStream().use { stream ->
        generateSequence { stream.read(block).takeIf { it >= 0 } }.forEach { count ->
            digest.update(block, 0, count)
            progress(count)
        }
    }
    return digest.digest().joinToString("") { "%02x".format(it) }
}
