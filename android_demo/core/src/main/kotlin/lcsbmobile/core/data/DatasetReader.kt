package lcsbmobile.core.data

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.io.ioReason
import lcsbmobile.core.text.ChatFormat
import lcsbmobile.core.text.Tokenizer
import java.io.File
import java.io.FileInputStream
import java.io.IOException
import java.io.InputStream
import java.nio.ByteBuffer
import java.security.MessageDigest

internal const val LINE_LIMIT = 1 shl 20 // bytes of the longest line
private const val PROGRESS_BYTES = 1 shl 18 // read between two reports of progress

/**
 * Reads one example a line that is not blank, each cut to [seqLen] tokens, into temporary files in [spool]: neither reading nor holding a
 * file takes memory in proportion to it. [chat]: null refuses `messages`. [progress] counts bytes (done, total); it may throw to cancel.
 *
 * Raises [LcsbException] "FILE:LINE: reason" for the first malformed line (the reason of a file of another format is the command that makes
 * JSON lines of it), with DATA_LINE, DATA_ENCODING, or what the tokenizer raised; its arguments are the file's name, the line and the
 * reason. DATA_EMPTY when nothing to train on is left; DATA_UNREADABLE; STORAGE_FULL.
 */
internal fun readDataset(
    file: File,
    tokenizer: Tokenizer,
    chat: ChatFormat?,
    seqLen: Int,
    spool: File,
    progress: (done: Long, total: Long) -> Unit = { _, _ -> },
): Dataset = DatasetWriter(seqLen, spool).use { writer ->
    val digest = MessageDigest.getInstance("SHA-256")
    val lineDigest = MessageDigest.getInstance("SHA-256")
    var reported = 0L
    fun other(raw: ByteArray, size: Int) = if (writer.lines == 0L) otherFormat(raw, size, file.name) else null
    eachLine(file, ::other) { number, raw, size, done, total ->
        digest.update(raw, 0, size)
        val line = try {
            if (isBlankLine(raw, size)) null else readLine(raw, size, tokenizer, chat)
        } catch (error: LineFault) {
            val fault = if (error.encoding) Fault.DATA_ENCODING else Fault.DATA_LINE
            throw lineError(fault, file, number, other(raw, size) ?: error.reason, error)
        } catch (error: LcsbException) {
            throw lineError(error.fault, file, number, error.message!!, error)
        }
        if (line == null) writer.passOverBlank() else writer.add(line, lineHash(raw, size, lineDigest))
        if (done - reported >= PROGRESS_BYTES) {
            progress(done, maxOf(done, total))
            reported = done
        }
    }
    writer.dataset(file, digest.digest().joinToString("") { "%02x".format(it) })
}

internal fun lineError(fault: Fault, file: File, number: Long, reason: String, cause: Exception? = null) =
    LcsbException(fault, "$file:$number: $reason", listOf(file.name, number.toString(), reason), cause)

/** Of the line without its end. */
private fun lineHash(raw: ByteArray, size: Int, digest: MessageDigest): Long {
    var end = size
    while (end > 0 && (raw[end - 1] == '\n'.code.toByte() || raw[end - 1] == '\r'.code.toByte())) end--
    digest.update(raw, 0, end)
    return ByteBuffer.wrap(digest.digest()).getLong()
}

/**
 * [line] gets each line with its number from 1 (its end included, the last may have none), how many bytes are done with it, and the file's
 * size. The array is used again for the next line. Raises [LcsbException] with DATA_LINE for a line that is too long (the reason is what
 * [other] says of its beginning, if anything), and DATA_UNREADABLE.
 */
internal fun eachLine(
    file: File,
    other: (raw: ByteArray, size: Int) -> String? = { _, _ -> null },
    line: (number: Long, raw: ByteArray, size: Int, done: Long, total: Long) -> Unit,
) {
    val reader = try {
        if (file.exists() && !file.isFile) throw IOException("not a regular file") // a pipe may never end
        LineReader(FileInputStream(file))
    } catch (error: IOException) {
        throw unreadable(file, error)
    }
    reader.use {
        var done = 0L
        var number = 0L
        while (true) {
            val size = try {
                reader.next()
            } catch (error: IOException) {
                throw unreadable(file, error)
            }
            if (size == 0) return
            number++
            done += size
            if (size > LINE_LIMIT) {
                val reason = "a line of more than $LINE_LIMIT bytes; give it in parts, one JSON object a line: $FORMS"
                throw lineError(Fault.DATA_LINE, file, number, other(reader.line, size) ?: reason)
            }
            line(number, reader.line, size, done, file.length())
        }
    }
}

private fun unreadable(file: File, error: IOException) =
    LcsbException(Fault.DATA_UNREADABLE, "$file: ${ioReason(error)}", listOf(file.name), error)

/** A stream's lines, no more of one than LINE_LIMIT + 1 bytes. */
private class LineReader(private val input: InputStream) : AutoCloseable {
    var line = ByteArray(1 shl 10)
        private set
    private val buffer = ByteArray(1 shl 16)
    private var at = 0
    private var end = 0

    /** Bytes of the next line, with its end; 0 behind the last. */
    fun next(): Int {
        var size = 0
        while (size <= LINE_LIMIT) {
            if (at == end) {
                at = 0
                end = input.read(buffer).coerceAtLeast(0)
                if (end == 0) return size
            }
            var stop = at
            val most = minOf(end, at + LINE_LIMIT + 1 - size)
            while (stop < most && buffer[stop] != NEWLINE) stop++
            val isWhole = stop < most
            if (isWhole) stop++
            if (size + stop - at > line.size) line = line.copyOf(maxOf(2 * line.size, size + stop - at))
            buffer.copyInto(line, size, at, stop)
            size += stop - at
            at = stop
            if (isWhole) return size
        }
        return size
    }

    override fun close() = input.close()

    private companion object {
        const val NEWLINE = '\n'.code.toByte()
    }
}
