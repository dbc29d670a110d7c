package lcsbmobile.core.data

import lcsbmobile.core.io.JsonException
import lcsbmobile.core.io.JsonReader
import lcsbmobile.core.io.Utf8
import lcsbmobile.core.io.oneLine
import lcsbmobile.core.io.quoted
import lcsbmobile.core.text.Message
import lcsbmobile.core.text.strip

/** What is wrong with one line, without a file's name; [encoding]: its bytes are no text of UTF-8. */
internal class LineFault(val reason: String, val encoding: Boolean = false) : Exception(reason)

/** What one line of a data file says. ShareGPT's and Alpaca's forms are conversations by other names (docs/data.md). */
internal sealed interface Line

/** Every token is counted, the end token too; the first has nothing before it that could predict it. */
internal class TextLine(val text: String) : Line

/** The completion and the end token are counted. */
internal class CompletionLine(val prompt: String, val completion: String) : Line

/** The assistant's turns are counted, with the tokens that end them. What follows the last of them is dropped. */
internal class ChatLine(val messages: List<Message>) : Line

/** [furtherKeys]: those that were passed over, in their order, each once; of a turn as `messages[].name`. */
internal class DecodedLine(val line: Line, val furtherKeys: List<String>)

internal const val FORMS = """{"text"}, {"prompt", "completion"}, {"messages"}, {"conversations"} or {"instruction", "output"}"""
private const val TURN_FORMS = """{"role", "content"} or {"from", "value"}"""
private const val SHOWN_CHARACTERS = 200 // of what a stranger's file says, in an error
private const val KEY_CHARACTERS = 40 // of a key that is passed over, in the report
internal const val UTF16 = "not UTF-8 but, by its zero bytes, UTF-16; save the file as UTF-8"
private val TEXT = listOf("text")
private val COMPLETION = listOf("prompt", "completion")
private val ALPACA = listOf("instruction", "output")

/** What each form must have, and what it may have beside that. */
internal val FORM_KEYS = listOf(TEXT, COMPLETION, listOf("messages"), listOf("conversations"), ALPACA)
private val OPTIONAL =
    mapOf("messages" to listOf("system"), "conversations" to listOf("system"), "instruction" to listOf("input", "system", "history"))
private val KNOWN_KEYS = (FORM_KEYS.flatten() + OPTIONAL.values.flatten()).toSet()
private val TURN_KEYS = listOf(listOf("role", "content"), listOf("from", "value"))

/** `from` of ShareGPT. Tools' calls and results are refused: each template has a way of its own. */
private val SHAREGPT_ROLES =
    mapOf("system" to "system", "human" to "user", "user" to "user", "gpt" to "assistant", "assistant" to "assistant")

/** Whether the first [size] bytes of [raw] are a line without text. */
internal fun isBlankLine(raw: ByteArray, size: Int): Boolean {
    val start = if (hasMark(raw, size)) 3 else 0
    val first = (start until size).firstOrNull { raw[it] !in JSON_BLANKS }?.let { raw[it] }
    return first != '{'.code.toByte() && String(raw, start, size - start, Charsets.UTF_8).strip().isEmpty()
}

/** The record of the first [size] bytes of [raw], a line's end included. Raises [LineFault] with what was expected and found. */
internal fun decodeLine(raw: ByteArray, size: Int): DecodedLine {
    val start = checkedStart(raw, size)
    if (isBlankLine(raw, size)) throw LineFault("a blank line; expected $FORMS")
    val fields = LinkedHashMap<String, Any?>()
    try {
        val json = JsonReader(raw, start = start, stop = size)
        json.obj { key -> fields[key] = if (key in KNOWN_KEYS) json.tree() else json.skip() }
        json.end()
    } catch (error: JsonException) {
        throw LineFault("not JSON: ${error.message}")
    }
    return RecordReader(fields).read()
}

private val JSON_BLANKS = byteArrayOf(0x20, 0x09, 0x0A, 0x0D)

private fun hasMark(raw: ByteArray, size: Int) =
    size >= 3 && raw[0] == 0xEF.toByte() && raw[1] == 0xBB.toByte() && raw[2] == 0xBF.toByte()

/** Where the text of a line begins: editors on Windows put a byte order mark before the first. Raises [LineFault] for what is not UTF-8. */
internal fun checkedStart(raw: ByteArray, size: Int): Int {
    val start = if (hasMark(raw, size)) 3 else 0
    val pair = if (size >= 2) (raw[0].toInt() and 0xFF shl 8) or (raw[1].toInt() and 0xFF) else 0xFFFF
    if (pair == 0xFFFE || pair == 0xFEFF && size > 2 || pair and 0xFF == 0 || pair shr 8 == 0) throw LineFault(UTF16, encoding = true)
    val fault = Utf8.firstFault(raw, start, size)
    if (fault < 0) return start
    val reason = "${Utf8.reason(raw, fault, size)} at byte ${fault - start}"
    throw LineFault("not UTF-8: $reason; save the file as UTF-8", encoding = true)
}

/** Makes a line's record of its [fields], and gathers the keys that are passed over. Each part raises [LineFault]. */
private class RecordReader(private val fields: Map<String, Any?>) {
    private val further = ArrayList<String>()

    fun read(): DecodedLine {
        val form = form()
        val known = form + OPTIONAL[form[0]].orEmpty()
        fields.keys.filterTo(further) { it !in known }
        val line = when (form) {
            TEXT -> TextLine(nonempty("text"))
            COMPLETION -> CompletionLine(nonempty("prompt"), nonempty("completion"))
            else -> ChatLine(withSystem(if (form == ALPACA) alpaca() else turns(form[0])))
        }
        if (line is ChatLine && line.messages.all { it.content.isEmpty() }) {
            throw LineFault("${form[0]}: expected text, found an empty string")
        }
        return DecodedLine(line, further.map(::shownKey).distinct())
    }

    private fun form(): List<String> {
        val forms = FORM_KEYS.filter { keys -> keys.all { it in fields } }
        forms.singleOrNull()?.let { return it }
        if (forms.isEmpty()) throw LineFault("expected the keys of $FORMS, found ${names(fields.keys)}")
        throw LineFault("more than one form: expected the keys of one of $FORMS, found ${names(forms.flatten())}")
    }

    /** The conversation of `messages` or `conversations`. */
    private fun turns(name: String): List<Message> {
        val turns = fields[name] as? List<*> ?: throw LineFault("$name: expected an array, found ${kind(fields[name])}")
        if (turns.isEmpty()) throw LineFault("$name: expected at least one turn, found an empty array")
        return turns.mapIndexed { index, turn -> turn("$name[$index]", turn, name) }
    }

    private fun turn(place: String, turn: Any?, name: String): Message {
        if (turn !is Map<*, *>) throw LineFault("$place: expected an object, found ${kind(turn)}")
        val form = TURN_KEYS.singleOrNull { keys -> keys.all { it in turn } }
        if (form == null) throw LineFault("$place: expected the keys of $TURN_FORMS, found ${names(turn.keys)}")
        val (role, content) = form.map { string("$place.$it", turn[it]) }
        if (role.isEmpty()) throw LineFault("$place.${form[0]}: expected text, found an empty string")
        val ours = if (form[0] == "role") role else SHAREGPT_ROLES[role]
        if (ours == null) throw LineFault("$place.from: expected system, human or gpt, found ${names(listOf(role))}")
        turn.keys.filter { it !in form }.mapTo(further) { "$name[].$it" }
        return Message(ours, content)
    }

    /** The pairs of `history`, then instruction and input, a line each, as the user's turn, and the output as the assistant's. */
    private fun alpaca(): List<Message> {
        val history = fields["history"]
        if (history != null && history !is List<*>) throw LineFault("history: expected an array, found ${kind(history)}")
        val turns = history.orEmpty().flatMapIndexed { index, pair ->
            if (pair !is List<*> || pair.size != 2) throw LineFault("history[$index]: expected an array of two strings")
            val (question, answer) = pair.mapIndexed { place, text -> string("history[$index][$place]", text) }
            listOf(Message("user", question), Message("assistant", answer))
        }
        val (instruction, output) = ALPACA.map { string(it, fields[it]) }
        val question = listOf(instruction, optional("input")).filter { it.isNotEmpty() }.joinToString("\n")
        return turns + Message("user", question) + Message("assistant", output)
    }

    /** With the text of `system` before it, unless the conversation begins with such a turn: then that one counts. */
    private fun withSystem(turns: List<Message>): List<Message> {
        val system = optional("system")
        if (system.isEmpty()) return turns
        if (turns[0].role != "system") return listOf(Message("system", system)) + turns
        further.add("system")
        return turns
    }

    private fun nonempty(name: String): String =
        string(name, fields[name]).ifEmpty { throw LineFault("$name: expected text, found an empty string") }

    /** Libraries write null for what a record does not have. */
    private fun optional(name: String): String = fields[name]?.let { string(name, it) }.orEmpty()
}

private fun string(name: String, value: Any?): String =
    value as? String ?: throw LineFault("$name: expected a string, found ${kind(value)}")

/** A value's kind in words, with its article, as [JsonReader.kind]. */
private fun kind(value: Any?): String = when (value) {
    null -> "null"
    is Boolean -> "true or false"
    is Map<*, *> -> "an object"
    is List<*> -> "an array"
    is String -> "a string"
    else -> "a number"
}

private fun names(keys: Collection<*>): String {
    val quoted = keys.map { it.toString() }.sorted().joinToString(", ") { quoted(it, SHOWN_CHARACTERS) }
    return oneLine(quoted.ifEmpty { "none" }, SHOWN_CHARACTERS)
}

private fun shownKey(key: String): String =
    if (key.codePointCount(0, key.length) <= KEY_CHARACTERS) key else key.substring(0, key.offsetByCodePoints(0, KEY_CHARACTERS)) + "…"
