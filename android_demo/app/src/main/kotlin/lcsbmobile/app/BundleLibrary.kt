package lcsbmobile.app

import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import lcsbmobile.core.io.replaceAtomically
import lcsbmobile.core.io.storing
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer

/**
 * The bundles in a directory of the app's: `NAME/` is the bundle as it was verified, `NAME.json` what the app knows of it. What is still
 * being copied is in `.incoming`.
 */
class BundleLibrary(private val directory: File, private val engine: Engine) {
    private val incoming = File(directory, ".incoming")

    fun directory(name: String) = File(directory, name)

    fun list(): List<BundleInfo> =
        directory.listFiles().orEmpty().filter { it.isFile && it.name.endsWith(".json") }.mapNotNull(::read).sortedBy { it.name }

    /** Removes what a process left that ended in the middle of [add] or [remove]; a bundle is as large as storage gets. */
    fun tidy() {
        val left = directory.listFiles().orEmpty().filter { it.isDirectory && !info(it.name).isFile }
        left.forEach { it.deleteRecursively() }
    }

    private fun info(name: String) = File(directory, "$name.json")

    /** An info that cannot be read is as good as none: its bundle is copied again. */
    private fun read(file: File): BundleInfo? =
        try {
            Json.decodeFromString(BundleInfo.serializer(), file.readText()).takeIf { directory(it.name).isDirectory }
        } catch (error: SerializationException) {
            null
        } catch (error: IOException) {
            null
        }

    /** Copies, verifies, and only then gives it its name. [progress] may throw to stop; nothing is left then. */
    fun add(source: BundleSource, progress: (Progress) -> Unit): BundleInfo {
        try {
            incoming.deleteRecursively()
            storing(incoming) { if (!incoming.mkdirs()) throw IOException("no such directory") }
            source.copyTo(incoming) { done, total -> progress(Progress(Progress.Kind.COPYING, source.name, done, total)) }
            val info = engine.inspect(incoming, freeName(source.name)) { progress(it.copy(name = source.name)) }
            storing(directory) { if (!incoming.renameTo(directory(info.name))) throw IOException("cannot be renamed") }
            try {
                save(info)
            } catch (error: Throwable) {
                remove(info.name)
                throw error
            }
            return info
        } finally {
            incoming.deleteRecursively()
        }
    }

    fun save(info: BundleInfo) {
        val json = Json.encodeToString(BundleInfo.serializer(), info).toByteArray()
        replaceAtomically(info(info.name)) { it.write(ByteBuffer.wrap(json)) }
    }

    fun remove(name: String) {
        info(name).delete()
        directory(name).deleteRecursively()
    }

    private fun freeName(wanted: String): String {
        val plain = wanted.map { if (it.isLetterOrDigit() || it in "-_ ") it else '-' }.joinToString("").trim(' ', '-').take(60)
        val name = plain.ifEmpty { "bundle" }
        return (sequenceOf(name) + generateSequence(2) { it + 1 }.map { "$name-$it" }).first { !directory(it).exists() }
    }
}
