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

/** One line of a data file, of one of three forms. */
internal sealed interface Line

/** Every token is counted, the end token too; the first has nothing before it that could predict it. */
internal class TextLine(val text: String) : Line

/** The completion and the end token are counted. */
internal class CompletionLine(val prompt: String, val completion: String) : Line

/** The assistant's turns are counted, with the tokens that end them. What follows the last of them is dropped. */
internal class ChatLine(val messages: List<Message>) : Line

internal const val FORMS = """{"text"}, {"prompt", "completion"} or {"messages"}"""
private const val SHOWN_CHARACTERS = 200 // of what a stranger's file says, in an error
private const val UTF16 = "not UTF-8 but, by its zero bytes, UTF-16; save the file as UTF-8"
private val FORM_KEYS = listOf(setOf("text"), setOf("prompt", "completion"), setOf("messages"))

/** The record of the first [size] bytes of [raw], a line's end included. Raises [LineFault] with what was expected and found. */
internal fun decodeLine(raw: ByteArray, size: Int): Line {
    val start = checkedStart(raw, size)
    val first = (start until size).firstOrNull { raw[it] !in JSON_BLANKS }?.let { raw[it] }
    if (first != '{'.code.toByte() && String(raw, start, size - start, Charsets.UTF_8).strip().isEmpty()) {
        throw LineFault("a blank line; expected $FORMS")
    }
    val fields = LinkedHashMap<String, Any>()
    try {
        val json = JsonReader(raw, start = start, stop = size)
        json.obj { key -> fields[key] = field(key, json) }
        json.end()
    } catch (error: JsonException) {
        throw LineFault("not JSON: ${error.message}")
    }
    return record(fields)
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

/** A field's value: text, messages, or of anything else the [Kind]. */
private fun field(key: String, json: JsonReader): Any = when {
    key == "messages" && json.peek() == '[' -> MessagesReader(json).read()
    json.peek() == '"' -> json.string()
    else -> Kind(json.kind()).also { json.skip() }
}

private class Kind(val name: String)

private fun record(fields: Map<String, Any>): Line {
    val form = FORM_KEYS.filter { keys -> keys.any { it in fields } }.singleOrNull()
    if (form == null) {
        val found = oneLine(fields.keys.sorted().joinToString(", ") { quoted(it, SHOWN_CHARACTERS) }.ifEmpty { "none" }, SHOWN_CHARACTERS)
        throw LineFault("expected the keys of $FORMS, found $found")
    }
    fields.keys.firstOrNull { it !in form }?.let {
        throw LineFault("${quoted(it, SHOWN_CHARACTERS)}: an unknown key beside ${form.joinToString(" and ")}")
    }
    form.firstOrNull { it !in fields }?.let { throw LineFault("$it: missing") }
    return when (form) {
        FORM_KEYS[0] -> TextLine(text("text", fields))
        FORM_KEYS[1] -> CompletionLine(text("prompt", fields), text("completion", fields))
        else -> ChatLine(messages(fields.getValue("messages")))
    }
}

private fun text(name: String, fields: Map<String, Any>): String = when (val value = fields.getValue(name)) {
    is String -> value.ifEmpty { throw LineFault("$name: expected text, found an empty string") }
    is Kind -> throw LineFault("$name: expected a string, found ${value.name}")
    else -> throw LineFault("$name: expected a string, found an array")
}

private fun messages(value: Any): List<Message> {
    if (value is LineFault) throw value
    if (value !is List<*>) throw LineFault("messages: expected an array, found ${if (value is Kind) value.name else "a string"}")
    val messages = value.filterIsInstance<Message>()
    if (messages.any { it.role.isEmpty() }) throw LineFault("messages[].role: expected text, found an empty string")
    if (messages.all { it.content.isEmpty() }) throw LineFault("messages: expected text, found an empty string")
    return messages
}

/**
 * Reads an array of {"role", "content"}; the first fault takes the place of the list, as a later key of the same name may still replace
 * both.
 */
private class MessagesReader(private val json: JsonReader) {
    private val messages = ArrayList<Message>()
    private var fault: LineFault? = null

    fun read(): Any {
        var index = 0
        json.array { message(index++)?.let(messages::add) }
        return fault ?: messages
    }

    private fun message(index: Int): Message? {
        if (json.peek() != '{') return refuse("messages[$index]: expected an object, found ${json.kind()}").also { json.skip() }
        val fields = HashMap<String, String>(4)
        json.obj { key ->
            when {
                key != "role" && key != "content" -> {
                    refuse("messages[$index]: ${quoted(key, SHOWN_CHARACTERS)}: an unknown key")
                    json.skip()
                }
                json.peek() != '"' -> {
                    refuse("messages[$index].$key: expected a string, found ${json.kind()}")
                    json.skip()
                }
                else -> fields[key] = json.string()
            }
        }
        val role = fields["role"] ?: return refuse("messages[$index].role: missing")
        return Message(role, fields["content"] ?: return refuse("messages[$index].content: missing"))
    }

    private fun refuse(reason: String): Message? {
        if (fault == null) fault = LineFault(reason)
        return null
    }
}
