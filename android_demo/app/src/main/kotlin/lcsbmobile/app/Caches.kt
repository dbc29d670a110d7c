package lcsbmobile.app

import kotlinx.serialization.Serializable
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import lcsbmobile.core.LcsbException
import lcsbmobile.core.io.replaceAtomically
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer

// What was found out once, at length. Each can be lost at any time: then it is found out again.

/** Stamps of bundles that were verified whole, by where they lie. */
class VerifiedBundles(private val directory: File) {
    private fun file(bundle: File) = File(directory, bundle.canonicalPath.replace("_", "__").replace(File.separatorChar, '_'))

    fun of(bundle: File): String? = readOrNull(file(bundle))

    fun put(bundle: File, stamp: String) = writeIfPossible(file(bundle), stamp)

    fun forget(bundle: File) {
        file(bundle).delete()
    }
}

/** What data comes to under a bundle: beside the data, `FILE.report`, that of the last bundle. */
object DataReports {
    private const val SUFFIX = ".report"

    /** [bundle]: the digest of its manifest. [size], [changed]: of the data. */
    @Serializable
    private class Report(val bundle: String, val size: Long, val changed: Long, val summary: DataSummary)

    fun of(data: File, bundle: String, find: () -> DataSummary): DataSummary {
        val file = File(data.path + SUFFIX)
        val (size, changed) = data.length() to data.lastModified()
        val known = readOrNull(file)?.let(::decode)
        if (known != null && known.bundle == bundle && known.size == size && known.changed == changed) return known.summary
        val found = find()
        writeIfPossible(file, Json.encodeToString(Report.serializer(), Report(bundle, size, changed, found)))
        return found
    }

    /** The data file that [name] belongs to. */
    fun dataOf(name: String): String = name.removeSuffix(SUFFIX)

    private fun decode(text: String): Report? = try {
        Json.decodeFromString(Report.serializer(), text)
    } catch (error: SerializationException) {
        null
    }
}

private fun readOrNull(file: File): String? = try {
    file.takeIf { it.isFile }?.readText()
} catch (error: IOException) {
    null
}

private fun writeIfPossible(file: File, text: String) = try {
    replaceAtomically(file) { it.write(ByteBuffer.wrap(text.toByteArray())) }
} catch (error: LcsbException) {
    file.delete() // storage may be full
    Unit
}
