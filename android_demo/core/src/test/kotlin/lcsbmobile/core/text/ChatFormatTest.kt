package lcsbmobile.core.text

import kotlinx.serialization.Serializable
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.jsonObject
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.data.LineFault
import lcsbmobile.core.data.readLine
import lcsbmobile.core.io.recordJson
import lcsbmobile.core.refused
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.text.SimpleDateFormat
import java.util.Date
import java.util.Locale

/** Chat formats against the templates that they were derived from, on what scripts/golden/write_chat_golden.py wrote. */
class ChatFormatTest {
    @get:Rule
    val folder = TemporaryFolder()

    @Serializable
    private class Turn(val role: String, val content: String)

    @Serializable
    private class Rendered(val messages: List<Turn>, val prompt: Boolean, val text: String?)

    @Serializable
    private class Labels(val messages: List<Turn>, val tokens: Int, val counted: List<List<Int>>?, val uncountedTurns: Int)

    @Serializable
    private class Format(val chat: JsonElement, val rendered: List<Rendered>, val labels: List<Labels>)

    @Serializable
    private class Golden(val tokenizer: JsonObject, val formats: Map<String, Format>)

    private val golden = recordJson.decodeFromString<Golden>(File(testData, "chat_formats.json").readText())

    private fun messages(turns: List<Turn>) = turns.map { Message(it.role, it.content) }

    private fun open(chat: String): ChatFormat = ChatFormat.open(folder.newFile().also { it.writeText(chat) })

    @Test
    fun theLastQuestionIsFoundInWhatTheModelReads() {
        var found = 0
        for ((name, format) in golden.formats) {
            val chat = open(format.chat.toString())
            for (case in format.rendered.filter { it.prompt && it.text != null && it.messages.lastOrNull()?.role == "user" }) {
                val question = case.messages.last().content
                val shown = chat.lastQuestion(chat.render(messages(case.messages), true))!!.trim()
                assertTrue("$name: $shown", shown.endsWith(question.trim())) // some write the system's text into the user's turn
                found++
            }
        }
        assertTrue(found > golden.formats.size)
    }

    @Test
    fun conversationsAreWrittenAsTheTemplateDoes() {
        val today = SimpleDateFormat("dd MMM yyyy", Locale.US).format(Date())
        for ((name, format) in golden.formats) {
            val chat = open(format.chat.toString())
            var refused = 0
            for (case in format.rendered) {
                val found = try {
                    chat.render(messages(case.messages), case.prompt)
                } catch (error: LcsbException) {
                    assertEquals(Fault.CHAT_UNSUPPORTED, error.fault)
                    refused++
                    continue
                }
                assertEquals(name, case.text?.replace("\uE000", today), found)
            }
            // What a template takes and its format refuses: Gemma's, a system's message in an assistant's place.
            assertTrue(name, refused == case(format) || name == "gemma3")
        }
    }

    @Test
    fun aRunsDay() {
        val format = golden.formats.getValue("llama3.2")
        val case = format.rendered.first { "\uE000" in it.text.orEmpty() }
        val found = open(format.chat.toString()).at("2026-02-28T23:05:09").render(messages(case.messages), case.prompt)
        assertEquals(case.text?.replace("\uE000", "28 Feb 2026"), found)
    }

    private fun case(format: Format) = format.rendered.count { it.text == null }

    @Test
    fun labelsAreThoseOfTheTemplate() {
        val tokenizer = folder.open(golden.tokenizer.toString().toByteArray(), """{"bos_token": "<s>"}""")
        for ((name, format) in golden.formats) {
            val chat = open(format.chat.toString())
            for (case in format.labels) {
                val found = try {
                    readLine(json(case.messages), json(case.messages).size, tokenizer, chat)
                } catch (_: LineFault) {
                    assertTrue(name, case.counted == null || case.messages.drop(1).any { it.role == "system" })
                    continue
                }
                val counted = found.example.labels.indices.filter { found.example.labels[it] != -100 }
                assertEquals(name, case.counted?.flatMap { (start, count) -> start until start + count }, counted)
                assertEquals(name, case.tokens, found.example.inputIds.size)
                assertEquals(name, case.uncountedTurns, found.uncountedTurns)
                for (place in counted) assertEquals(found.example.inputIds[place + 1], found.example.labels[place])
            }
        }
    }

    private fun json(messages: List<Turn>) = recordJson.encodeToString(mapOf("messages" to messages)).toByteArray()

    @Test
    fun eachFamilyHasLabelsThatCount() = golden.formats.filterKeys { it != "llama3.2" }.forEach { (name, format) ->
        assertTrue(name, format.labels.count { it.counted?.isNotEmpty() == true } > 20)
    }

    @Test
    fun whatItDoesNotTake() {
        val chat = open(golden.formats.getValue("gemma3").chat.toString())
        fun refused(part: String, vararg roles: String) =
            assertRefused(Fault.CHAT_UNSUPPORTED, part) { chat.render(roles.map { Message(it, "x") }) }
        refused("user and assistant must take turns", "user", "user")
        refused("the role 'tool'; expected system, user, assistant", "user", "tool")
        refused("a conversation without messages")
        val error = assertThrows(ChatRefusal::class.java) { chat.conversation(listOf(Message("user", "x"))) }
        assertEquals("messages: expected at least one with the role 'assistant', found none", error.reason)
        val long = List(1001) { Message(if (it % 2 == 0) "user" else "assistant", "x") }
        assertTrue("at most 1000, found 1001" in assertThrows(ChatRefusal::class.java) { chat.conversation(long) }.reason)
    }

    @Test
    fun aMessageOfATool() {
        val chat = open(golden.formats.getValue("qwen3").chat.toString())
        val messages = listOf(Message("user", "<tool_response>1</tool_response>"))
        assertRefused(Fault.CHAT_UNSUPPORTED, "takes for a tool's") { chat.render(messages) }
    }

    @Test
    fun filesThatAreRefused() {
        val chat = golden.formats.getValue("llama3.2").chat.toString()
        val version = "\"format_version\":1"
        assertTrue(version in chat)
        assertRefused(Fault.CHAT_UNSUPPORTED, "version 2, this app reads 1") { open(chat.replace(version, "\"format_version\":2")) }
        assertRefused(Fault.CHAT_UNSUPPORTED, "a date with '%A'") { open(chat.replace("%b", "%A")) }
        assertRefused(Fault.BUNDLE_DAMAGED, "Encountered an unknown key 'formula'") { open(chat.replace("format_version", "formula")) }
        assertRefused(Fault.BUNDLE_DAMAGED, "not a chat format") { open(chat.dropLast(1)) }
        assertRefused(Fault.BUNDLE_DAMAGED, "not a chat format") { open("[".repeat(60_000)) }
        assertRefused(Fault.BUNDLE_DAMAGED, "more than the 65536") { open(" ".repeat(65_537)) }
        assertRefused(Fault.BUNDLE_DAMAGED, "no such file") { ChatFormat.open(File(folder.root, "none")) }
        assertTrue(golden.formats.getValue("llama3").chat.jsonObject.getValue("date_format").toString() == "null")
    }
}
