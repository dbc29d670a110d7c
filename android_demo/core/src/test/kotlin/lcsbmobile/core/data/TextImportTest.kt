package lcsbmobile.core.data

import lcsbmobile.core.Fault
import lcsbmobile.core.text.assertRefused
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.util.concurrent.CancellationException

class TextImportTest {
    @get:Rule
    val folder = TemporaryFolder()

    private val output by lazy { File(folder.root, "out/data.jsonl") }

    private fun import(content: ByteArray): List<String> {
        val count = textToJsonl(folder.newFile().also { it.writeBytes(content) }, output)
        val lines = ArrayList<String>()
        eachLine(output) { _, raw, size, _, _ -> lines.add((decodeLine(raw, size).line as TextLine).text) }
        assertEquals(count.toInt(), lines.size)
        return lines
    }

    private fun import(text: String) = import(text.toByteArray())

    @Test
    fun linesAreDocumentsWithoutParagraphs() =
        assertEquals(listOf("a", " b\t\"\\", "é\u0001"), import("\uFEFFa\r\n b\t\"\\\né\u0001\n\n"))

    @Test
    fun blankLinesAtBothEndsPartNothing() = assertEquals(listOf("a", "b"), import("\n\na\nb\n\n"))

    @Test
    fun paragraphsAreDocumentsWhereBlankLinesPartThem() = assertEquals(listOf("a\nb", "c"), import("\n\na\r\nb\r\n \r\n\nc"))

    @Test
    fun whatIsTooLongIsParted() {
        val line = "é🙂".repeat(100_000) // 600,000 bytes
        val parts = import("$line\nnext")
        assertEquals(listOf(line, "next"), listOf(parts.dropLast(1).joinToString(""), parts.last()))
        assertTrue(parts.all { it.toByteArray().size <= 1 shl 17 })
        val paragraph = List(20) { "\u0001".repeat(30_000) }
        assertEquals(paragraph, import(paragraph.joinToString("\n") + "\n\nx").dropLast(1).flatMap { it.split('\n') })
    }

    @Test
    fun eachLineCanStopIt() {
        val input = folder.newFile().also { it.writeText("a\nb\n\nc\n") }
        var calls = 0
        textToJsonl(input, output) { calls++ }
        assertEquals(8, calls)
        output.delete()
        for (stop in 1..8) {
            calls = 0
            assertThrows(CancellationException::class.java) { textToJsonl(input, output) { if (++calls == stop) throw CancellationException() } }
            assertEquals(null, output.parentFile.list()?.firstOrNull())
        }
    }

    @Test
    fun filesThatAreRefused() {
        assertRefused(Fault.DATA_EMPTY, "the file is empty; expected text") { import(" \n\n") }
        val latin1 = "a\né\n".toByteArray(Charsets.ISO_8859_1)
        assertRefused(Fault.DATA_ENCODING, ":2: not UTF-8: invalid continuation byte at byte 0") { import(latin1) }
        assertRefused(Fault.DATA_ENCODING, ":1: not UTF-8 but, by its zero bytes, UTF-16") { import("ab\n".toByteArray(Charsets.UTF_16)) }
        assertRefused(Fault.DATA_UNREADABLE, "no such file") { textToJsonl(File(folder.root, "none"), output) }
        assertFalse(output.exists())
        assertEquals(null, output.parentFile.list()?.firstOrNull())
    }

    @Test
    fun recordsInAnotherFormatAreNoText() {
        for ((what, text) in listOf("a JSON array" to "\n[\n{\"text\": \"a\"}]", "CSV" to "id;text\n1;a\n")) {
            assertRefused(Fault.DATA_LINE, ": $what; expected one JSON object a line: python3 -c ") { import(text) }
        }
        assertEquals(listOf("[Verse 1]", "la, text"), import("[Verse 1]\nla, text"))
        assertEquals(listOf("text", "a"), import("text\na"))
    }
}
