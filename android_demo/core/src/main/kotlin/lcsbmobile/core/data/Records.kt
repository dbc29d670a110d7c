package lcsbmobile.core.data

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.IGNORED_LABEL
import lcsbmobile.core.text.ChatFormat
import lcsbmobile.core.text.ChatRefusal
import lcsbmobile.core.text.Message
import lcsbmobile.core.text.Tokenizer

// One line of a data file to one example: tokens, and which of them count for the loss. Specification: docs/data.md.
//
// A label stands at the position that predicts it: `labels[t]` is the token after t. What a label counts for depends on the form of the
// line: all of a `text`, the completion of a `prompt`, the assistant's turns of a conversation.

internal enum class Form { TEXT, COMPLETION, MESSAGES }

/**
 * Two arrays of one length. `labels[t]` is the token after position t where it is counted, else -100. The last label is ignored, unless the
 * example was truncated: then the token after the last position is known.
 */
internal class Example(val inputIds: IntArray, val labels: IntArray) {
    val countedLabels: Int get() = labels.count { it != IGNORED_LABEL.toInt() }

    /** Its first [length] tokens. */
    fun cut(length: Int): Example = if (inputIds.size <= length) this else Example(inputIds.copyOf(length), labels.copyOf(length))
}

/**
 * One line's example, not truncated. [uncountedTurns]: those of the assistant that its chat format does not let be found.
 * [doubledEnds]: as [hasDoubledEnds]. [furtherKeys]: those of the line that were passed over.
 */
internal data class LineExample(
    val example: Example,
    val form: Form,
    val uncountedTurns: Int = 0,
    val doubledEnds: Boolean = false,
    val furtherKeys: List<String> = emptyList(),
)

/** Tokenises one line. Raises [LineFault], or [LcsbException] of the tokenizer or the chat format, without a file's name. */
internal fun readLine(raw: ByteArray, size: Int, tokenizer: Tokenizer, chat: ChatFormat?): LineExample {
    val decoded = decodeLine(raw, size)
    val read = read(decoded.line, tokenizer, chat)
    val doubled = hasDoubledEnds(read.example.inputIds, tokenizer.bosId, tokenizer.eosId)
    return read.copy(doubledEnds = doubled, furtherKeys = decoded.furtherKeys)
}

/** Whether an example begins with two tokens of beginning, or two of end stand together in it: its text held one, and got another. */
internal fun hasDoubledEnds(ids: IntArray, bosId: Int?, eosId: Int?): Boolean {
    val begins = bosId != null && ids.size > 1 && ids[0] == bosId && ids[1] == bosId
    return begins || (eosId != null && (1 until ids.size).any { ids[it - 1] == eosId && ids[it] == eosId })
}

private fun read(line: Line, tokenizer: Tokenizer, chat: ChatFormat?): LineExample = when (line) {
    is TextLine -> LineExample(example(tokenizer.encodeDocument(line.text)) { true }, Form.TEXT)
    is CompletionLine -> {
        // Apart, not as one text: a prompt's tokens must be those that generating from the prompt will give the model.
        val prompt = tokenizer.encodePrompt(line.prompt)
        val completion = tokenizer.encodeContinuation(line.completion) + tokenizer.eos()
        LineExample(example(prompt + completion) { it >= prompt.size }, Form.COMPLETION)
    }
    is ChatLine -> chatExample(line.messages, tokenizer, chat ?: throw withoutChat())
}

private fun withoutChat() = LcsbException(
    Fault.CHAT_UNSUPPORTED,
    "the bundle has no chat format (${ChatFormat.FILE}), so messages cannot be used; give them as prompt and completion",
)

/** [counted]: whether predicting token t counts. */
private fun example(ids: IntArray, counted: (Int) -> Boolean): Example {
    val labels = IntArray(ids.size) { if (it + 1 < ids.size && counted(it + 1)) ids[it + 1] else IGNORED_LABEL.toInt() }
    return Example(ids, labels)
}

/**
 * The conversation through the assistant's last turn, rendered and tokenised once. A token counts when any of its characters is in a turn
 * that counts.
 */
private fun chatExample(messages: List<Message>, tokenizer: Tokenizer, chat: ChatFormat): LineExample {
    val rendered = try {
        chat.conversation(messages)
    } catch (error: ChatRefusal) {
        throw LineFault(error.reason)
    }
    val tokens = tokenizer.encodeWithOffsets(rendered.text)
    val before = IntArray(rendered.text.length + 1) // how many characters that count stand before each
    for (range in rendered.counted) for (place in range) before[place + 1] = 1
    for (place in rendered.text.indices) before[place + 1] += before[place]
    val example = example(tokens.ids) { before[tokens.ends[it]] > before[tokens.starts[it]] }
    return LineExample(example, Form.MESSAGES, rendered.uncountedTurns)
}
