package lcsbmobile.core.bundle

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.io.FLOAT_BYTES
import lcsbmobile.core.io.ioReason
import lcsbmobile.core.io.quoted
import lcsbmobile.core.io.sha256
import lcsbmobile.core.io.some
import lcsbmobile.core.text.ChatFormat
import java.io.File
import java.io.IOException
import java.nio.file.Files
import java.nio.file.LinkOption
import java.util.Locale
import java.util.concurrent.TimeUnit

// The files of a bundle against its manifest: each is inside the directory, of a size that its reader takes, and unchanged.

internal const val MANIFEST_BYTES = 4 shl 20 // 60 kB are usual; the schedule is what grows
private const val MOST_FILES = 1000
private const val MOST_CHARACTERS = 200
private const val ENTRY_BYTES = 256L // of an adapter file's header for each tensor
private const val SLACK_BYTES = 4096L

// A part of a path that every file system takes as it stands, and means the same by: no blank, backslash or colon, no dot at either end.
private val PART = Regex("[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?")

private val ALWAYS = setOf(WEIGHTS_FILE, ADAPTER_FILE, GOLDEN_FILE, "tokenizer.json", "tokenizer_config.json")
private val LARGEST = mapOf(
    GOLDEN_FILE to TRACE_BYTES.toLong(),
    "tokenizer.json" to (64L shl 20),
    "tokenizer_config.json" to (16L shl 20),
    "chat_template.jinja" to (1L shl 20),
    ChatFormat.FILE to ChatFormat.FILE_BYTES.toLong(),
)
private val UNASKED = listOf("chat_template.jinja", ChatFormat.FILE) // what some reader takes up wherever it lies, listed or not

/**
 * Throws BUNDLE_UNREADABLE for files that are missing, outside, not listed or too large, else BUNDLE_DAMAGED for those that were changed, the
 * manifest among them, whose bytes are [raw]. Nothing is read before all are known to be in their place. [contents]: whether the files are read,
 * or their sizes suffice. [progress]: bytes read of all; it may throw.
 */
internal fun checkFiles(directory: File, manifest: Manifest, raw: ByteArray, contents: Boolean, progress: (done: Long, total: Long) -> Unit) {
    val faults = nameFaults(manifest).ifEmpty { sizeFaults(manifest) + placeFaults(directory, manifest) }
    if (faults.isNotEmpty()) throw unreadable("$directory: ${some(faults)}")
    val changes = changesOfManifest(manifest, raw) + if (contents) changes(directory, manifest, progress) else changedSizes(directory, manifest)
    if (changes.isEmpty()) return
    val message = "$directory: changed since it was exported: ${some(changes)}; copy or export it again"
    throw LcsbException(Fault.BUNDLE_DAMAGED, message, changes.map { it.substringBefore(':') })
}

/** Whether a bundle's file is in its directory, every link followed. */
internal fun isInside(directory: File, name: String): Boolean = try {
    File(directory, name).canonicalFile.toPath().startsWith(directory.canonicalFile.toPath())
} catch (_: IOException) {
    // a link to itself
    false
}

private fun nameFaults(manifest: Manifest): List<String> {
    val names = manifest.files.keys
    val faults = names.filter { name -> name.length > MOST_CHARACTERS || !name.split("/").all(PART::matches) }
        .map { "the manifest lists ${quoted(it)}, which is outside the bundle or not a name on every system" }.toMutableList()
    for ((folded, count) in (names + MANIFEST_FILE).groupingBy { it.lowercase(Locale.ROOT) }.eachCount()) {
        if (count > 1) faults += "the manifest lists ${quoted(folded)} $count times for a system that does not tell upper case from lower"
    }
    if (MANIFEST_FILE in names) faults += "the manifest lists itself"
    val missing = (ALWAYS + manifest.graphs.values.map { it.file } - names).sorted()
    if (missing.isNotEmpty()) faults += "the manifest lists no ${missing.joinToString()}; export the bundle again"
    if (names.size > MOST_FILES) faults += "the manifest lists ${names.size} files, more than $MOST_FILES"
    return faults
}

/** Of what is read whole, and of what an allocation goes by: then nothing larger than the files themselves is allocated. */
private fun sizeFaults(manifest: Manifest): List<String> {
    val layout = manifest.adapter
    val state = FLOAT_BYTES.toLong() * layout.size
    val header = (0 until layout.numLayers).sumOf { layout.matrices(it).size } * ENTRY_BYTES + SLACK_BYTES
    val bounds = LARGEST.mapValues { 0L..it.value } + manifest.graphs.values.associate { it.file to 0L..PROGRAM_BYTES } +
        (ADAPTER_FILE to state..state + header)
    return bounds.mapNotNull { (name, bound) ->
        val size = manifest.files[name]?.size
        if (size == null || size in bound) null else "$name: expected ${bound.first} to ${bound.last} bytes, found $size"
    }
}

private fun placeFaults(directory: File, manifest: Manifest): List<String> {
    val faults = manifest.files.keys.mapNotNull { name ->
        when {
            !isInside(directory, name) -> "$name is a link that leads outside the bundle"
            !File(directory, name).isFile -> "$name is missing; copy the bundle again, whole"
            else -> null
        }
    }
    val unasked = UNASKED.filter { it !in manifest.files && exists(File(directory, it)) }
    return faults + unasked.map { "$it is not listed in the manifest; remove it" }
}

/** A link that leads nowhere too. */
private fun exists(file: File) = Files.exists(file.toPath(), LinkOption.NOFOLLOW_LINKS)

/** Of a manifest's bytes in which the digest that it states, where it stands last, is zeros. */
private fun manifestDigest(raw: ByteArray, stated: String): String {
    val content = raw.copyOf()
    val at = String(raw, Charsets.ISO_8859_1).lastIndexOf(stated)
    if (at >= 0) content.fill('0'.code.toByte(), at, at + stated.length)
    return sha256(content)
}

private fun changesOfManifest(manifest: Manifest, raw: ByteArray): List<String> {
    val stated = manifest.digest ?: return emptyList()
    val found = manifestDigest(raw, stated)
    return if (found == stated) emptyList() else listOf("$MANIFEST_FILE: expected SHA-256 ${stated.take(12)}…, found ${found.take(12)}…")
}

/** Of a manifest by its [digest] and the files as they are: names, sizes, and the times of their last changes. The directory may be another. */
internal fun stamp(directory: File, manifest: Manifest, digest: String): String {
    val files = manifest.files.keys.sorted().map { name -> File(directory, name).let { "$name ${it.length()} ${changed(it)}" } }
    return sha256((listOf(digest) + files).joinToString("\n").toByteArray())
}

/** As fine as the file system tells it. */
private fun changed(file: File): Long? = try {
    Files.getLastModifiedTime(file.toPath()).to(TimeUnit.NANOSECONDS)
} catch (_: IOException) {
    null
}

private fun changedSizes(directory: File, manifest: Manifest): List<String> =
    manifest.files.mapNotNull { (name, entry) -> sizeChange(name, entry.size, File(directory, name).length()) }

private fun sizeChange(name: String, expected: Long, found: Long): String? =
    if (found == expected) null else "$name: expected $expected bytes, found $found"

private fun changes(directory: File, manifest: Manifest, progress: (Long, Long) -> Unit): List<String> {
    val total = manifest.files.values.sumOf { it.size }
    var done = 0L
    return manifest.files.mapNotNull { (name, entry) ->
        val file = File(directory, name)
        try {
            sizeChange(name, entry.size, file.length())?.let { return@mapNotNull it }
            val digest = sha256(file) { count ->
                done += count
                progress(done, total)
            }
            if (digest == entry.sha256) null else "$name: expected SHA-256 ${entry.sha256.take(12)}…, found ${digest.take(12)}…"
        } catch (error: IOException) {
            throw unreadable("$directory: $name cannot be read: ${ioReason(error)}", error)
        }
    }
}
