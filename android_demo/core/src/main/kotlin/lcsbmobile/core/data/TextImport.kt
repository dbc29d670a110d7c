package lcsbmobile.core.data

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.io.replaceAtomically
import java.io.File
import java.io.OutputStream

private const val MOST_BYTES = 1 shl 17 // of a document's text: with escapes it is below LINE_LIMIT
private const val HEX = "0123456789abcdef"

/**
 * Writes a plain text of UTF-8 as data of one document a line, and returns how many documents. A document is a paragraph where blank lines
 * part them, else a line; one of more than [MOST_BYTES] is parted at the end of a line, or within one. Nothing is held but one document.
 *
 * [output] is replaced. [check] is called for each line of either reading; it may throw to stop. Raises [LcsbException] with DATA_ENCODING and DATA_LINE for a line as [readDataset] does, DATA_EMPTY,
 * DATA_UNREADABLE, STORAGE_FULL and STORAGE_FAILED.
 */
public fun textToJsonl(input: File, output: File, check: () -> Unit = {}): Long {
    val byParagraph = hasParagraphs(input, check)
    var documents = 0L
    replaceAtomically(output) { channel ->
        val writer = DocumentWriter(java.nio.channels.Channels.newOutputStream(channel).buffered(1 shl 16))
        eachTextLine(input, check) { raw, start, end ->
            when {
                isBlank(raw, start, end) -> writer.finish()
                byParagraph -> writer.add(raw, start, end)
                else -> {
                    writer.add(raw, start, end)
                    writer.finish()
                }
            }
        }
        writer.finish()
        writer.output.flush()
        documents = writer.documents
        if (documents == 0L) throw LcsbException(Fault.DATA_EMPTY, "$input: the file is empty; expected text", listOf(input.name))
    }
    return documents
}

/** Whether there is a blank line between two that are not. */
private fun hasParagraphs(input: File, check: () -> Unit): Boolean {
    var state = 0 // 1: text, 2: and a blank line after it, 3: and text again
    eachTextLine(input, check) { raw, start, end ->
        val blank = isBlank(raw, start, end)
        if (state == 0 && !blank) refuseRecords(raw.copyOfRange(start, end), input)
        if (state == 1 && blank) {
            state = 2
        } else if (state != 3 && !blank) {
            state = if (state == 2) 3 else 1
        }
    }
    return state == 3
}

/** A text does not begin as records in another format than JSON lines do: to learn their marks would be no use. */
private fun refuseRecords(first: ByteArray, input: File) {
    val isWord = first.none { it == ','.code.toByte() || it == ';'.code.toByte() || it == '\t'.code.toByte() || it == '['.code.toByte() }
    val reason = if (isWord) null else otherFormat(first, first.size, input.name)
    if (reason != null) throw LcsbException(Fault.DATA_LINE, "$input: $reason", listOf(input.name))
}

/** [line] gets each line without its end and without a mark of the byte order. */
private fun eachTextLine(
    input: File,
    check: () -> Unit,
    line: (raw: ByteArray, start: Int, end: Int) -> Unit,
) = eachLine(input) { number, raw, size, _, _ ->
    check()
    val start = try {
        checkedStart(raw, size)
    } catch (error: LineFault) {
        throw lineError(Fault.DATA_ENCODING, input, number, error.reason, error)
    }
    var end = size
    while (end > start && (raw[end - 1] == '\n'.code.toByte() || raw[end - 1] == '\r'.code.toByte())) end--
    line(raw, start, end)
}

private fun isBlank(raw: ByteArray, start: Int, end: Int): Boolean =
    (start until end).all { raw[it] == ' '.code.toByte() || raw[it] == '\t'.code.toByte() }

/** Gathers a document's lines and writes it as JSON. */
private class DocumentWriter(val output: OutputStream) {
    var documents = 0L
        private set
    private var open = false
    private var size = 0

    /** A line of the document at hand; what is too much begins another. */
    fun add(raw: ByteArray, start: Int, end: Int) {
        if (open && size + end - start > MOST_BYTES) finish()
        if (open) write("\\n") else begin()
        var at = start
        while (at < end) {
            var length = 1
            while (at + length < end && raw[at + length].toInt() and 0xC0 == 0x80) length++ // to the next character
            if (size > 0 && size + length > MOST_BYTES) {
                finish()
                begin()
            }
            for (place in at until at + length) writeByte(raw[place].toInt() and 0xFF)
            size += length
            at += length
        }
    }

    fun finish() {
        if (!open) return
        write("\"}\n")
        open = false
        documents++
    }

    private fun begin() {
        write("{\"text\": \"")
        open = true
        size = 0
    }

    private fun writeByte(byte: Int) = when {
        byte == '"'.code || byte == '\\'.code -> write("\\" + byte.toChar())
        byte == '\t'.code -> write("\\t")
        byte < 0x20 -> write("\\u00" + HEX[byte shr 4] + HEX[byte and 15])
        else -> output.write(byte)
    }

    private fun write(text: String) = output.write(text.toByteArray())
}
