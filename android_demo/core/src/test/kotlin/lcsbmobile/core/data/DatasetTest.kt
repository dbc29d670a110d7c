package lcsbmobile.core.data

import lcsbmobile.core.Fault
import lcsbmobile.core.refused
import lcsbmobile.core.text.ChatFields
import lcsbmobile.core.text.ChatFormat
import lcsbmobile.core.text.ChatTurn
import lcsbmobile.core.text.Tokenizer
import lcsbmobile.core.text.assertRefused
import lcsbmobile.core.text.testBundles
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.security.MessageDigest

class DatasetTest {
    @get:Rule
    val folder = TemporaryFolder()

    private val tokenizer by lazy { Tokenizer.open(File(testBundles, "tiny"), 259) } // a token for each byte
    private val chat by lazy {
        val turn = { role: String -> ChatTurn("<|im_start|>$role\n", "<|im_end|>\n", false) }
        ChatFormat(
            ChatFields(
                1, "", "", turn("system"), false, turn("system"), turn("user"), turn("assistant"), "<|im_start|>assistant\n", false, null,
                null,
            ),
        )
    }

    private fun write(content: ByteArray): File = folder.newFile().also { it.writeBytes(content) }

    private fun write(vararg lines: String): File = write(lines.joinToString("") { it + "\n" }.toByteArray())

    private fun read(file: File, seqLen: Int = 64, chat: ChatFormat? = this.chat) = readDataset(file, tokenizer, chat, seqLen, folder.root)

    private fun refused(fault: Fault, part: String, content: ByteArray) {
        val error = assertRefused(fault, part) { read(write(content)) }
        assertTrue(error.message, ":${error.arguments[1]}: " in error.message!!)
    }

    @Test
    fun whatEachFormCounts() {
        val conversation = """{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}"""
        val data = read(write("""{"text": "ab"}""", """{"prompt": "a", "completion": "bc"}""", conversation))
        val (text, completion, messages) = (0L..2L).map { preview(data, it, tokenizer) }
        assertEquals(listOf("a" to false, "b<|endoftext|>" to true), text.map { it.text to it.counted })
        assertEquals(listOf("a" to false, "bc<|endoftext|>" to true), completion.map { it.text to it.counted })
        val turns = listOf("<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n" to false, "y<|im_end|>\n" to true)
        assertEquals(turns, messages.map { it.text to it.counted })
        assertEquals(3, data.report.lines)
        assertEquals(listOf(1L, 1L, 1L), listOf(data.report.texts, data.report.completions, data.report.conversations))
    }

    @Test
    fun aReport() {
        val twice = """{"text": "ab"}"""
        val file = write("""{"text": "abcdefgh"}""", twice, "$twice\r", """{"prompt": "abcdefgh", "completion": "i"}""")
        val report = reportTokens(file, tokenizer, null, seqLen = 6, accumulation = 1, examples = 1, spool = folder.root)
        // 9, 3, 3 and 10 tokens; the last line's completion is cut off.
        val data = DataReport(4, 3, 12, 10, 2, 7, 1, 3, 1, 0, 0, 0, 1, 0, emptyMap(), 3, 10, 10, 10)
        assertEquals(data, report.data)
        assertEquals(2, report.sequences)
        assertEquals(1.0, report.fill, 0.0)
        assertEquals(10, report.seqLenToCutNone)
        assertEquals("abcdef", report.preview.single().joinToString("") { it.text })
        assertEquals(MessageDigest.getInstance("SHA-256").digest(file.readBytes()).joinToString("") { "%02x".format(it) }, report.sha256)
    }

    @Test
    fun linesThatAreRefused() {
        val good = "{\"text\": \"ok\"}\n"
        fun line(fault: Fault, part: String, line: String) = refused(fault, part, (good + line).toByteArray())
        line(Fault.DATA_LINE, ":2: not JSON: ends within a string at byte 11", "{\"text\": \"a")
        line(Fault.DATA_LINE, ":2: not JSON: half a surrogate pair", """{"text": "\ud800"}""")
        line(Fault.DATA_LINE, ":2: not JSON: half a surrogate pair", """{"text": "\udc00\ud800"}""")
        line(Fault.DATA_LINE, ":2: not JSON: a control character", "{\"text\": \"a\tb\"}")
        line(Fault.DATA_LINE, ":2: not JSON: expected the end", """{"text": "a"} {"text": "b"}""")
        line(Fault.DATA_LINE, ":2: not JSON: expected an object", "[1]")
        line(Fault.DATA_LINE, ":2: not JSON: a value nested too deep", "{\"x\": " + "[".repeat(100_000))
        line(Fault.DATA_LINE, ":2: not JSON: expected a number", "{\"x\": 01}")
        line(Fault.DATA_LINE, ":2: expected the keys of $FORMS, found 'label'", """{"label": 1}""")
        line(Fault.DATA_LINE, "found none", "{}")
        line(Fault.DATA_LINE, "found 'messages', 'text'", """{"text": "a", "messages": []}""")
        line(Fault.DATA_LINE, "expected the keys of $FORMS, found 'prompt'", """{"prompt": "a"}""")
        line(Fault.DATA_LINE, "text: expected a string, found a number", """{"text": -1.5e3}""")
        line(Fault.DATA_LINE, "text: expected text, found an empty string", """{"text": ""}""")
        line(Fault.DATA_LINE, "messages: expected an array, found a string", """{"messages": "a"}""")
        line(Fault.DATA_LINE, "messages[1]: expected an object, found null", """{"messages": [{"role": "user", "content": "x"}, null]}""")
        val turnKeys = """{"role", "content"} or {"from", "value"}"""
        line(Fault.DATA_LINE, "messages[0]: expected the keys of $turnKeys, found 'role'", """{"messages": [{"role": "user"}]}""")
        val noRole = """{"messages": [{"role": true, "content": "x"}]}"""
        line(Fault.DATA_LINE, "messages[0].role: expected a string, found true or false", noRole)
        line(Fault.DATA_LINE, "messages: expected text, found an empty string", """{"messages": [{"role": "assistant", "content": ""}]}""")
        line(Fault.DATA_LINE, "at least one with the role 'assistant'", """{"messages": [{"role": "user", "content": "x"}]}""")
        val tool = """{"messages": [{"role": "tool", "content": "x"}, {"role": "assistant", "content": "x"}]}"""
        line(Fault.DATA_LINE, "the role 'tool'", tool)
        line(Fault.DATA_LINE, ":2: a line of more than 1048576 bytes", "{\"text\": \"" + "a".repeat(1 shl 20) + "\"}\n")
    }

    @Test
    fun whatIsTaken() {
        val text = """{"text": "no", "text": "\u0041\ud83d\ude42\n\/"}"""
        val data = read(write("\uFEFF$text", """ {"messages": 1, "messages": [{"role": "assistant", "content": "é"}]} """))
        assertEquals("A🙂\n/<|endoftext|>", preview(data, 0, tokenizer).joinToString("") { it.text })
        assertEquals(2, data.size)
        assertEquals(1, read(write("{\"text\": \"a\"}".toByteArray())).size) // without an end of line
    }

    @Test
    fun whatIsPassedOver() {
        val turns = """{"role": "user", "content": "x", "name": {}}, {"role": "assistant", "content": "y", "name": 1}"""
        val ab = """{"text": "ab", "id": 1}"""
        val data = read(write("", ab, " \t\r", ab, """{"messages": [$turns], "id": 2, "tools": []}""", "\u2003", "\uFEFF"), 200).report
        assertEquals(listOf(3L, 4L, 1L), listOf(data.lines, data.blankLines, data.duplicates))
        assertEquals(mapOf("id" to 3L, "tools" to 1L, "messages[].name" to 1L), data.furtherKeys)
        assertRefused(Fault.DATA_EMPTY, "the file is empty") { read(write("", " ")) }
        refused(Fault.DATA_LINE, ":3: not JSON", "$ab\n\nx".toByteArray())
        val many = (0 until 3).map { line -> (0 until 40).joinToString(", ", "{\"text\": \"ab\", ", "}") { "\"$line $it\": 1" } }
        val counts = read(write(*many.toTypedArray())).report.furtherKeys
        assertEquals(listOf(21L, 100L), listOf(counts.size.toLong(), counts["…"]))
    }

    @Test
    fun otherFormats() {
        val array = "\n[\n{\"text\": \"a\"}\n]".toByteArray()
        refused(Fault.DATA_LINE, ":2: a JSON array; expected one JSON object a line: python3 -c ", array)
        refused(Fault.DATA_LINE, ":1: a JSON array", "[{\"text\": \"${"a".repeat(1 shl 20)}\"}]".toByteArray())
        refused(Fault.DATA_LINE, ":1: JSON over several lines; ", "{\n  \"text\": \"a\"\n}".toByteArray())
        refused(Fault.DATA_LINE, ":1: CSV; ", "id,text\n1,a\n".toByteArray())
        refused(Fault.DATA_LINE, ":2: not JSON", "{\"text\": \"a\"}\n{\n".toByteArray())
    }

    @Test
    fun otherEncodings() {
        val line = "{\"text\": \"é\"}\n"
        val sixteen = ":1: not UTF-8 but, by its zero bytes, UTF-16; save the file as UTF-8"
        refused(Fault.DATA_ENCODING, sixteen, line.toByteArray(Charsets.UTF_16))
        refused(Fault.DATA_ENCODING, ":1: not UTF-8 but", line.toByteArray(Charsets.UTF_16LE))
        refused(Fault.DATA_ENCODING, ":1: not UTF-8 but", line.toByteArray(Charsets.UTF_16BE))
        val latin1 = "{\"text\": \"ok\"}\n".toByteArray() + line.toByteArray(Charsets.ISO_8859_1)
        refused(Fault.DATA_ENCODING, ":2: not UTF-8: invalid continuation byte at byte 10; save the file as UTF-8", latin1)
        refused(Fault.DATA_ENCODING, "invalid start byte at byte 1", byteArrayOf('"'.code.toByte(), 0x80.toByte(), 0x41))
        refused(Fault.DATA_ENCODING, "unexpected end of data at byte 1", byteArrayOf('"'.code.toByte(), 0xE2.toByte(), 0x82.toByte()))
    }

    @Test
    fun filesThatAreRefused() {
        assertRefused(Fault.DATA_EMPTY, "the file is empty; expected one JSON object a line") { read(write(ByteArray(0))) }
        val cut = write("""{"prompt": "ab", "completion": "c"}""")
        assertRefused(Fault.DATA_EMPTY, "none of the 1 lines has a counted label within 1 tokens") { read(cut, 1) }
        assertRefused(Fault.DATA_UNREADABLE, "no such file") { read(File(folder.root, "none")) }
        assertRefused(Fault.DATA_UNREADABLE, "not a regular file") { read(folder.root) }
        val messages = write("""{"messages": [{"role": "assistant", "content": "x"}]}""")
        assertRefused(Fault.CHAT_UNSUPPORTED, ":1: the bundle has no chat format (chat.json)") { read(messages, chat = null) }
        val small = Tokenizer.open(File(testBundles, "tiny"), 257)
        val special = write("""{"text": "<|im_end|>"}""")
        assertRefused(Fault.TOKENIZER_DAMAGED, ":1: token 258 ('<|im_end|>') is outside the model's vocabulary of 257") {
            readDataset(special, small, null, 8, folder.root)
        }
        assertRefused(Fault.STORAGE_FAILED, "cannot be written") { readDataset(special, tokenizer, null, 8, File(folder.root, "none")) }
    }

    @Test
    fun progressMayCancel() {
        val file = write(("{\"text\": \"" + "a".repeat(1000) + "\"}\n").repeat(1000).toByteArray())
        val seen = ArrayList<Pair<Long, Long>>()
        readDataset(file, tokenizer, null, 8, folder.root) { done, total -> seen.add(done to total) }
        assertEquals(3, seen.size)
        assertTrue(seen.all { it.second == file.length() && it.first <= it.second })
        val stop = IllegalStateException("stop")
        assertEquals(stop, runCatching { readDataset(file, tokenizer, null, 8, folder.root) { _, _ -> throw stop } }.exceptionOrNull())
        assertEquals(emptyList<String>(), folder.root.list()!!.filter { it.startsWith(".spool") })
    }

    /** In a process with a heap of 24 MB, where the lines or the tokens of the file would not fit. */
    @Test
    fun twentyMegabytesStreamThroughASmallHeap() {
        val file = folder.newFile()
        file.bufferedWriter().use { writer -> repeat(100_000) { writer.write("{\"text\": \"$it ${"a little text ".repeat(14)}\"}\n") } }
        assertTrue(file.length() > 20_000_000)
        val java = File(System.getProperty("java.home"), "bin/java").path
        val classes = System.getProperty("java.class.path")
        val program = listOf(java, "-Xmx24m", "-XX:+UseSerialGC", "-cp", classes, DatasetProcess::class.java.name)
        val arguments = listOf(File(testBundles, "tiny").path, file.path, folder.root.path)
        val process = ProcessBuilder(program + arguments).redirectErrorStream(true).start()
        val output = process.inputStream.bufferedReader().readText()
        assertEquals(output, 0, process.waitFor())
        val tokens = (0 until 100_000).sumOf { it.toString().length + 1 + 14 * 14 + 1 }
        assertTrue(output, output.startsWith("100000 examples, $tokens tokens, 50000 sequences"))
    }
}

/** `BUNDLE DATA SPOOL`: reads a file and its first epoch. */
internal object DatasetProcess {
    @JvmStatic
    fun main(arguments: Array<String>) {
        val tokenizer = Tokenizer.open(File(arguments[0]), 259)
        val started = System.nanoTime()
        val data = readDataset(File(arguments[1]), tokenizer, null, 600, File(arguments[2]))
        val read = System.nanoTime()
        val sequences = countSequences(data, 600, seed = 0)
        val seconds = listOf(read - started, System.nanoTime() - read).joinToString(" + ") { "%.1f".format(it / 1e9) }
        println("${data.report.examples} examples, ${data.report.tokens} tokens, $sequences sequences, $seconds s")
    }
}
