package lcsbmobile.core.io

import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException
import java.nio.charset.CodingErrorAction
import java.nio.file.AccessDeniedException
import java.nio.file.Files
import java.nio.file.NoSuchFileException
import java.nio.file.attribute.BasicFileAttributes
import java.security.MessageDigest

internal const val MOST_FAULTS = 8 // that an error names
private const val CHUNK = 1 shl 16
private val BLANKS = Regex("[ \\t\\n\\r\\u000b\\u000c]+")

/** A regular file's content. Throws IOException for what is none (a pipe or a device may never end), and for more than [limit] bytes. */
internal fun readBounded(file: File, limit: Int): ByteArray {
    val attributes = Files.readAttributes(file.toPath(), BasicFileAttributes::class.java)
    if (!attributes.isRegularFile) throw IOException("not a regular file")
    val size = attributes.size()
    if (size > limit) throw IOException("$size bytes, more than the $limit that are read")
    val content = ByteArray(size.toInt())
    var read = 0
    file.inputStream().use { stream ->
        while (read < content.size) {
            val count = stream.read(content, read, content.size - read)
            if (count < 0) throw IOException("ended while it was read")
            read += count
        }
    }
    return content
}

/** Text that is UTF-8 throughout. Throws IOException. */
internal fun strictUtf8(bytes: ByteArray, start: Int = 0, end: Int = bytes.size): String {
    val decoder = Charsets.UTF_8.newDecoder().onMalformedInput(CodingErrorAction.REPORT).onUnmappableCharacter(CodingErrorAction.REPORT)
    return try {
        decoder.decode(ByteBuffer.wrap(bytes, start, end - start)).toString()
    } catch (_: CharacterCodingException) {
        throw IOException("not UTF-8")
    }
}

/** Lower-case hex. [progress]: bytes since its last call; it may throw. */
internal fun sha256(file: File, progress: (Int) -> Unit = {}): String {
    val digest = MessageDigest.getInstance("SHA-256")
    val buffer = ByteArray(CHUNK)
    file.inputStream().use { stream ->
        while (true) {
            val count = stream.read(buffer)
            if (count < 0) break
            digest.update(buffer, 0, count)
            progress(count)
        }
    }
    return hex(digest.digest())
}

internal fun sha256(content: ByteArray): String = hex(MessageDigest.getInstance("SHA-256").digest(content))

internal fun hex(bytes: ByteArray) = bytes.joinToString("") { "%02x".format(it) }

/** What a file operation failed for, in words; Java's own text is often the path alone. */
internal fun ioReason(error: IOException): String = when (error) {
    is NoSuchFileException, is java.io.FileNotFoundException -> "no such file"
    is AccessDeniedException -> "permission denied"
    else -> oneLine(error.message ?: error.javaClass.simpleName)
}

/** With escapes in place of what could change a terminal: control characters, marks that turn the direction of writing. */
internal fun printable(text: String): String = buildString {
    var at = 0
    while (at < text.length) {
        val point = text.codePointAt(at)
        if (point == ' '.code || isPrintable(point)) appendCodePoint(point) else append(escape(point))
        at += Character.charCount(point)
    }
}

private fun isPrintable(point: Int) = when (Character.getType(point).toByte()) {
    Character.CONTROL, Character.FORMAT, Character.SURROGATE, Character.PRIVATE_USE, Character.UNASSIGNED,
    Character.LINE_SEPARATOR, Character.PARAGRAPH_SEPARATOR, Character.SPACE_SEPARATOR,
    -> false
    else -> true
}

private fun escape(point: Int) = if (point < 0x100) "\\x%02x".format(point) else "\\u%04x".format(point)

/** A text as one printable line, cut to [most] characters. */
internal fun oneLine(text: String, most: Int = 300): String {
    val line = printable(text.take(8 * most).trim().replace(BLANKS, " ").take(most + 1))
    return if (line.length <= most) line else line.take(most) + "…"
}

/** In quotes, with escapes. */
internal fun quoted(text: String, most: Int = 300): String = "'" + printable(text.take(most).replace("\\", "\\\\").replace("'", "\\'")) + "'"

/** The first MOST_FAULTS of what is wrong, each as [oneLine], and how many more there are. */
internal fun some(faults: List<String>): String {
    val more = if (faults.size > MOST_FAULTS) " (and ${faults.size - MOST_FAULTS} more)" else ""
    return faults.take(MOST_FAULTS).joinToString("; ") { oneLine(it) } + more
}
