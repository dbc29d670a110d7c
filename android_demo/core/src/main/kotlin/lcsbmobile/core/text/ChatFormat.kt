package lcsbmobile.core.text

import kotlinx.serialization.Serializable
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.io.ioReason
import lcsbmobile.core.io.jsonFault
import lcsbmobile.core.io.quoted
import lcsbmobile.core.io.readBounded
import lcsbmobile.core.io.recordJson
import lcsbmobile.core.io.strictUtf8
import java.io.File
import java.io.IOException
import java.util.Calendar
import java.util.GregorianCalendar
import java.util.Locale

/** One message of a conversation; [role]: system, user or assistant. */
internal class Message(val role: String, val content: String)

/** How a role's message is written. [trimmed]: its content without blanks at both ends. */
@Serializable
internal data class ChatTurn(val before: String, val after: String, val trimmed: Boolean)

/**
 * A thought stands in an assistant's content between the marks that [open] and [close] hold. It is written, between them, in turns after
 * the last question: in the conversation's last turn even where it is empty, in others where there is one. Elsewhere it is left out.
 *
 * [withoutQuestion]: a conversation without a user's turn is all after the last question. [strips]: where a thought is written, the answer
 * loses the ends of lines before it even if it came without a thought.
 */
@Serializable
internal data class ChatThoughts(val open: String, val close: String, val withoutQuestion: Boolean, val strips: Boolean)

/** `chat.json`: field by field lcsb_mobile/text/chat_format.py's ChatFormat, which says what each means. */
@Serializable
internal data class ChatFields(
    val formatVersion: Int,
    val empty: String?,
    val opening: String,
    val system: ChatTurn?,
    val systemInNext: Boolean,
    val laterSystem: ChatTurn?,
    val user: ChatTurn,
    val assistant: ChatTurn,
    val generationPrompt: String,
    val alternates: Boolean,
    val thoughts: ChatThoughts?,
    val dateFormat: String?,
)

/** A conversation's text, the ranges of it that count for the loss, and how many of the assistant's turns could not be found in it. */
internal class RenderedChat(val text: String, val counted: List<IntRange>, val uncountedTurns: Int)

/** Messages that a chat format does not take. */
internal class ChatRefusal(val reason: String) : Exception(reason)

/** A model's chat template as data: exporting a bundle proves that it writes the same. The twin of export/chat_format.py's `render`. */
public class ChatFormat internal constructor(private val fields: ChatFields, private val now: Calendar? = null) {
    /** Of the day on which it is asked for, or of a run's. */
    private val today get() = fields.dateFormat?.let { date(it, now ?: GregorianCalendar(Locale.US)) }

    /** As on the day of [time], a [localTime], whatever day it is. */
    internal fun at(time: String): ChatFormat = ChatFormat(fields, calendar(time))

    /**
     * The conversation as the model reads it; it writes its own special tokens, the one of beginning too. Raises [LcsbException] with
     * CHAT_UNSUPPORTED for messages that the model's template does not take, or whose roles it knows nothing of.
     */
    internal fun render(messages: List<Message>, addGenerationPrompt: Boolean = false): String = try {
        text(messages, addGenerationPrompt)
    } catch (error: ChatRefusal) {
        throw LcsbException(Fault.CHAT_UNSUPPORTED, error.reason, listOf(error.reason), error)
    }

    /**
     * The conversation through the assistant's last turn, and which of its turns count (docs/data.md). Raises [ChatRefusal], also where
     * that turn cannot be found.
     */
    internal fun conversation(messages: List<Message>): RenderedChat {
        val assistant = messages.indices.filter { messages[it].role == ASSISTANT }
        if (assistant.isEmpty()) throw ChatRefusal("messages: expected at least one with the role '$ASSISTANT', found none")
        if (messages.size > MOST_MESSAGES) {
            val found = "found ${messages.size}; give the conversation in parts, a line each"
            throw ChatRefusal("messages: expected at most $MOST_MESSAGES, $found")
        }
        val turns = messages.subList(0, assistant.last() + 1)
        val text = text(turns, false)
        val counted = assistant.dropLast(1).mapNotNull { earlierTurn(turns.subList(0, it + 1), text) } + listOf(lastTurn(turns, text))
        return RenderedChat(text, counted, assistant.size - counted.size)
    }

    /** Where the last turn stands in [text], the conversation: what the model is to write after the generation prompt. */
    private fun lastTurn(turns: List<Message>, text: String): IntRange {
        val before = text(turns.dropLast(1), true)
        if (text.startsWith(before)) return before.length until text.length
        val place = "messages[${turns.size - 1}], so that turn cannot be found"
        throw ChatRefusal("the chat template rewrites earlier text at $place; give it as prompt and completion")
    }

    /**
     * Where the last of [turns] stands in [text], which goes on after it. Null when it is not there as the model writes it: some templates
     * shorten a turn once others follow it, and to count the short form would teach the model to write that.
     */
    private fun earlierTurn(turns: List<Message>, text: String): IntRange? = try {
        val through = text(turns, false)
        if (text.startsWith(through)) lastTurn(turns, through) else null
    } catch (_: ChatRefusal) {
        // some refuse a conversation that ends there
        null
    }

    private fun text(messages: List<Message>, addGenerationPrompt: Boolean): String {
        val text = StringBuilder()
        if (messages.isEmpty()) text.append(fields.empty ?: throw refused("a conversation without messages")) else write(messages, text)
        if (addGenerationPrompt) text.append(fields.generationPrompt)
        return text.toString()
    }

    private fun write(messages: List<Message>, text: StringBuilder) {
        messages.firstOrNull { it.role !in ROLES }?.let {
            throw refused("the role ${quoted(it.role, 40)}; expected ${ROLES.joinToString()}")
        }
        if (fields.thoughts != null && messages.any(::isTools)) throw refused("a user's message that its template takes for a tool's")
        var inNext = "" // the system's text that stands in the next turn
        val first = if (messages[0].role == SYSTEM) 1 else 0
        if (first == 0) {
            text.append(dated(fields.opening))
        } else {
            val turn = fields.system ?: throw refused("a system's message")
            text.append(dated(turn.before))
            val content = content(turn, messages[0].content) + turn.after
            if (fields.systemInNext) inNext = content else text.append(content)
        }
        val question = messages.indexOfLast { it.role == USER }
        for (index in first until messages.size) {
            writeTurn(messages, index, index - first, question, if (index == first) inNext else "", text)
        }
    }

    /** Qwen3's template takes such a turn of the user not for a question, so that thoughts before it stay. */
    private fun isTools(message: Message) = message.role == USER && message.content.startsWith(TOOL) && message.content.endsWith(TOOL_END)

    private fun writeTurn(messages: List<Message>, index: Int, place: Int, question: Int, inNext: String, text: StringBuilder) {
        val message = messages[index]
        val expected = if (place % 2 == 0) USER else ASSISTANT
        if (fields.alternates && message.role != expected) throw refused("user and assistant must take turns")
        val turn = when (message.role) {
            SYSTEM -> fields.laterSystem ?: throw refused("a system's message that is not the first")
            USER -> fields.user
            else -> fields.assistant
        }
        text.append(turn.before).append(inNext)
        val thoughts = fields.thoughts
        if (thoughts == null || message.role != ASSISTANT) {
            text.append(content(turn, message.content))
        } else {
            val after = if (question < 0) thoughts.withoutQuestion else index > question
            writeThought(thoughts, message.content, after, index == messages.lastIndex, text)
        }
        text.append(turn.after)
    }

    private fun writeThought(thoughts: ChatThoughts, content: String, after: Boolean, last: Boolean, text: StringBuilder) {
        val (open, close) = thoughts.open.trim('\n') to thoughts.close.trim('\n')
        var thought = ""
        var answer = content
        if (close in content) {
            thought = content.substringBefore(close).substringAfterLast(open).trim('\n')
            answer = content.substringAfterLast(close).trimStart('\n')
        }
        if (after && (last || thought.isNotEmpty())) {
            text.append(thoughts.open).append(thought).append(thoughts.close)
            if (thoughts.strips) answer = answer.trimStart('\n')
        }
        text.append(answer)
    }

    /** The user's last message in [rendered], a conversation up to where the model is to write; null where it cannot be found. */
    internal fun lastQuestion(rendered: String): String? {
        val (before, after) = fields.user.before to fields.user.after
        val start = if (before.isEmpty()) -1 else rendered.lastIndexOf(before)
        if (start < 0) return null
        val question = rendered.substring(start + before.length)
        val end = if (after.isEmpty()) question.length else question.indexOf(after)
        return question.take(if (end < 0) question.length else end).removeSuffix(fields.generationPrompt)
    }

    private fun content(turn: ChatTurn, content: String) = if (turn.trimmed) content.strip() else content

    private fun dated(text: String) = today?.let { text.replace(DATE_MARK, it) } ?: text

    private fun refused(what: String) = ChatRefusal("the chat template refused the messages: $what")

    public companion object {
        internal const val FILE = "chat.json"
        internal const val FILE_BYTES = 1 shl 16
        private const val FORMAT_VERSION = 1
        private const val MOST_MESSAGES = 1000 // of a line: each of the assistant's turns is found by rendering the conversation up to it
        private const val DATE_MARK = "\uE000"
        private const val TOOL = "<tool_response>"
        private const val TOOL_END = "</tool_response>"
        private const val SYSTEM = "system"
        private const val USER = "user"
        private const val ASSISTANT = "assistant"
        private val ROLES = listOf(SYSTEM, USER, ASSISTANT)

        /** Reads `chat.json`. Raises [LcsbException] with BUNDLE_DAMAGED, or CHAT_UNSUPPORTED for what a newer export wrote. */
        internal fun open(file: File): ChatFormat {
            val fields = try {
                recordJson.decodeFromString<ChatFields>(strictUtf8(readBounded(file, FILE_BYTES)))
            } catch (error: IOException) {
                throw damaged(file, "cannot be read: ${ioReason(error)}; copy the bundle again, whole", error)
            } catch (error: IllegalArgumentException) {
                throw damaged(file, "not a chat format: ${jsonFault(error)}; export the bundle again", error)
            }
            val unknown = fields.dateFormat?.let { format -> DIRECTIVE.findAll(format).map { it.value }.firstOrNull { it !in DIRECTIVES } }
            if (fields.formatVersion == FORMAT_VERSION && unknown == null) return ChatFormat(fields)
            val version = "version ${fields.formatVersion}, this app reads $FORMAT_VERSION"
            val what = if (unknown == null) version else "a date with ${quoted(unknown, 8)}"
            throw LcsbException(Fault.CHAT_UNSUPPORTED, "$file: $what; use an app as new as the export", listOf(file.name))
        }

        private fun damaged(file: File, reason: String, cause: Exception) =
            LcsbException(Fault.BUNDLE_DAMAGED, "$file: $reason", listOf(file.name), cause)

        private val DIRECTIVE = Regex("%.?")
        private val DIRECTIVES = mapOf<String, (Calendar) -> String>(
            "%d" to { "%02d".format(Locale.ROOT, it.get(Calendar.DAY_OF_MONTH)) },
            "%m" to { "%02d".format(Locale.ROOT, it.get(Calendar.MONTH) + 1) },
            "%Y" to { it.get(Calendar.YEAR).toString() },
            "%b" to { it.getDisplayName(Calendar.MONTH, Calendar.SHORT, Locale.US)!! },
            "%B" to { it.getDisplayName(Calendar.MONTH, Calendar.LONG, Locale.US)!! },
        )

        /** A day as C's strftime writes it in English. */
        private fun date(format: String, day: Calendar) = DIRECTIVE.replace(format) { DIRECTIVES.getValue(it.value)(day) }
    }
}
