package lcsbmobile.app

import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import lcsbmobile.core.io.replaceAtomically
import lcsbmobile.core.io.storing
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.util.concurrent.ConcurrentHashMap

/**
 * The bundles in a directory of the app's: `NAME/` is the bundle as it was verified, unless it is used where it lies, `NAME.json` what the app knows
 * of it. What is still being copied is in `.incoming`.
 */
class BundleLibrary(private val directory: File, private val engine: Engine) {
    private val incoming = File(directory, ".incoming")

    private val places = ConcurrentHashMap<String, File>() // of those that are elsewhere, as far as they were listed

    fun directory(name: String): File = places[name] ?: File(directory, name)

    fun list(): List<BundleInfo> {
        onDisk("the bundles")
        val infos = directory.listFiles().orEmpty().filter { it.isFile && it.name.endsWith(".json") }
        return infos.mapNotNull(::read).sortedBy { it.name }
    }

    /** Removes what a process left that ended in the middle of [add] or [remove]; a bundle is as large as storage gets. */
    fun tidy(exceptIncoming: Boolean = false) {
        val left = directory.listFiles().orEmpty().filter { it.isDirectory && !info(it.name).isFile }
        left.forEach { if (!exceptIncoming || it != incoming) it.deleteRecursively() }
    }

    private fun info(name: String) = File(directory, "$name.json")

    /** An info that cannot be read is as good as none: its bundle is copied again. So is one of a bundle that lies elsewhere and is another by now. */
    private fun read(file: File): BundleInfo? =
        try {
            Json.decodeFromString(BundleInfo.serializer(), file.readText()).takeIf { info ->
                val place = info.place?.let(::File) ?: return@takeIf File(directory, info.name).isDirectory
                (sha256(File(place, MANIFEST)) == info.manifest).also { same -> if (same) places[info.name] = place }
            }
        } catch (error: SerializationException) {
            null
        } catch (error: IOException) {
            null
        }

    /**
     * Copies if need be, verifies, and only then gives it its name. [again]: what is in `.incoming` is of the same source. [progress] may throw to stop;
     * nothing is left then.
     */
    fun add(source: BundleSource, again: Boolean = false, progress: (Progress) -> Unit): BundleInfo =
        source.place?.let { adopt(it, freeName(source.name), progress) } ?: copy(source, again, progress)

    private fun adopt(place: File, name: String, progress: (Progress) -> Unit): BundleInfo {
        val info = engine.inspect(place, name, progress).copy(place = place.path, manifest = sha256(File(place, MANIFEST)))
        storing(directory) { if (!directory.isDirectory && !directory.mkdirs()) throw IOException("no such directory") }
        save(info)
        places[name] = place
        return info
    }

    private fun copy(source: BundleSource, again: Boolean, progress: (Progress) -> Unit): BundleInfo {
        try {
            if (!again) incoming.deleteRecursively()
            storing(incoming) { if (!incoming.isDirectory && !incoming.mkdirs()) throw IOException("no such directory") }
            source.copyTo(incoming) { done, total -> progress(Progress(Progress.Kind.COPYING, source.name, done, total)) }
            val info = engine.inspect(incoming, freeName(source.name)) { progress(it.copy(name = source.name)) }
            storing(directory) { if (!incoming.renameTo(File(directory, info.name))) throw IOException("cannot be renamed") }
            engine.renamed(incoming, File(directory, info.name))
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

    /** What lies elsewhere stays there. */
    fun remove(name: String) {
        places.remove(name)
        info(name).delete()
        File(directory, name).deleteRecursively()
    }

    private fun freeName(wanted: String): String {
        val plain = wanted.map { if (it.isLetterOrDigit() || it in "-_ ") it else '-' }.joinToString("").trim(' ', '-').take(60)
        val name = plain.ifEmpty { "bundle" }
        return (sequenceOf(name) + generateSequence(2) { it + 1 }.map { "$name-$it" }).first { !places.containsKey(it) && !File(directory, it).exists() }
    }
}
