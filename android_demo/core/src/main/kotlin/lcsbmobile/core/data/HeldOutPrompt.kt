package lcsbmobile.core.data

import lcsbmobile.core.bundle.IGNORED_LABEL
import lcsbmobile.core.text.ChatFormat
import lcsbmobile.core.text.Tokenizer

private const val MOST_BEGUN = 12 // tokens of a text that the model is given
private const val BEGUN_SHARE = 3 // and of a short one a third

/**
 * What of the first of [heldOut] the model is given: of a text its beginning, else all that stands before what it is to write. Its tokens, and how
 * they are shown: a conversation's last question, or the text.
 */
internal fun heldOutPrompt(heldOut: Dataset, tokenizer: Tokenizer, chat: ChatFormat?): Pair<IntArray, String> {
    val example = heldOut.example(0)
    val given = example.labels.indexOfFirst { it != IGNORED_LABEL.toInt() } + 1
    val isText = example.inputIds.take(given).all { it in tokenizer.specialIds } || given == 1 // every token counts
    if (isText) {
        val count = (example.inputIds.size / BEGUN_SHARE).coerceAtMost(MOST_BEGUN).coerceAtLeast(given)
        return example.inputIds.copyOf(count).let { it to tokenizer.decode(it) }
    }
    val ids = example.inputIds.copyOf(given)
    val question = chat?.lastQuestion(tokenizer.decode(ids, specialTokens = true))
    return ids to (question ?: tokenizer.decode(ids))
}
