package lcsbmobile.core.text

import lcsbmobile.core.text.UnicodeClasses.BLANK
import lcsbmobile.core.text.UnicodeClasses.LETTER
import lcsbmobile.core.text.UnicodeClasses.NUMBER
import lcsbmobile.core.text.UnicodeClasses.OTHER

/** Splits `text[start, end)` into words, which are tokenised apart; what stands outside is not looked at. */
internal fun interface PreTokenizer {
    fun split(text: String, start: Int, end: Int, word: (start: Int, end: Int) -> Unit)
}

/** One after the other: each splits the words of the one before. */
internal fun sequence(parts: List<PreTokenizer>): PreTokenizer = when (parts.size) {
    0 -> PreTokenizer { _, start, end, word -> word(start, end) }
    1 -> parts[0]
    else -> {
        val rest = sequence(parts.drop(1))
        PreTokenizer { text, start, end, word -> parts[0].split(text, start, end) { from, to -> rest.split(text, from, to, word) } }
    }
}

/** Numbers apart from the rest: each digit a word, or each run of them. */
internal class DigitsSplitter(private val individual: Boolean) : PreTokenizer {
    override fun split(text: String, start: Int, end: Int, word: (Int, Int) -> Unit) {
        var begun = start
        var wasNumber = false
        var at = start
        while (at < end) {
            val point = text.codePointAt(at)
            val isNumber = UnicodeClasses.isNumeric(point)
            if (at > begun && (isNumber != wasNumber || isNumber && individual)) {
                word(begun, at)
                begun = at
            }
            wasNumber = isNumber
            at += Character.charCount(point)
        }
        if (begun < end) word(begun, end)
    }
}

/** A word ends behind each [mark]. */
internal class MarkSplitter(private val mark: String) : PreTokenizer {
    override fun split(text: String, start: Int, end: Int, word: (Int, Int) -> Unit) {
        var begun = start
        while (begun < end) {
            val found = text.indexOf(mark, begun)
            val next = if (found < 0 || found + mark.length > end) end else found + mark.length
            word(begun, next)
            begun = next
        }
    }
}

/**
 * The regular expressions of the families, by hand: an engine would know another Unicode on each phone, and may need a stack as deep as the
 * text is long. Every character belongs to a match, so there is nothing between the words.
 */
internal class PatternSplitter private constructor(private val modern: Boolean, private val mostDigits: Int) : PreTokenizer {
    override fun split(text: String, start: Int, end: Int, word: (Int, Int) -> Unit) {
        var at = start
        while (at < end) {
            val next = Scan(text, end).match(at)
            word(at, next)
            at = next
        }
    }

    private inner class Scan(private val text: String, private val end: Int) {
        /** The end of the match that begins at [at]: the first alternative that has one. */
        fun match(at: Int): Int {
            val contraction = contraction(at)
            if (contraction > 0) return contraction
            return if (modern) modern(at) else gpt2(at)
        }

        /** ` ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+` */
        private fun gpt2(at: Int): Int {
            val first = if (text[at] == ' ' && at + 1 < end) at + 1 else at
            val kind = kind(first)
            return if (kind != BLANK) run(first, kind) else blanks(at)
        }

        /** `[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,most}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+` */
        private fun modern(at: Int): Int {
            val kind = kind(at)
            val second = at + size(at)
            return when {
                kind == LETTER -> run(at, LETTER)
                kind == NUMBER -> run(at, NUMBER, mostDigits)
                !isNewline(at) && second < end && kind(second) == LETTER -> run(second, LETTER)
                kind == OTHER -> newlines(run(at, OTHER))
                text[at] == ' ' && second < end && kind(second) == OTHER -> newlines(run(second, OTHER))
                else -> lastNewline(at) ?: blanks(at)
            }
        }

        private fun run(from: Int, kind: Byte, most: Int = Int.MAX_VALUE): Int {
            var at = from
            var count = 0
            while (at < end && count < most && kind(at) == kind) {
                at += size(at)
                count++
            }
            return at
        }

        private fun newlines(from: Int): Int {
            var at = from
            while (at < end && isNewline(at)) at++
            return at
        }

        /** Behind the last end of line in the blanks from [at] on. */
        private fun lastNewline(at: Int): Int? = (run(at, BLANK) - 1 downTo at).firstOrNull(::isNewline)?.plus(1)

        /** All blanks but the last, which goes with what follows, unless it is alone or nothing does. */
        private fun blanks(at: Int): Int {
            val stop = run(at, BLANK)
            return if (stop == end || stop == at + 1) stop else stop - 1
        }

        /** `'s|'t|'re|'ve|'m|'ll|'d`, in any case where modern: the long s is one, too. The end, or 0. */
        private fun contraction(at: Int): Int {
            if (text[at] != '\'' || at + 1 >= end) return 0
            val first = fold(text[at + 1])
            if (first in "stmd") return at + 2
            if (at + 2 >= end) return 0
            val second = fold(text[at + 2])
            val isOne = first == 'l' && second == 'l' || second == 'e' && (first == 'r' || first == 'v')
            return if (isOne) at + 3 else 0
        }

        private fun fold(letter: Char): Char = when {
            !modern -> letter
            letter in 'A'..'Z' -> letter + 32
            letter == '\u017F' -> 's'
            else -> letter
        }

        private fun isNewline(at: Int) = text[at] == '\n' || text[at] == '\r'

        private fun kind(at: Int): Byte = UnicodeClasses.of(text.codePointAt(at))

        private fun size(at: Int): Int = Character.charCount(text.codePointAt(at))
    }

    companion object {
        private const val WORDS = "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
        private const val REST = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
        private const val CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"

        /** GPT-2's, which ByteLevel has built in; SmolLM2's. */
        val GPT2 = PatternSplitter(modern = false, mostDigits = Int.MAX_VALUE)
        private val QWEN2 = PatternSplitter(modern = true, mostDigits = 1)
        private val LLAMA3 = PatternSplitter(modern = true, mostDigits = 3)

        /** The splitter of a regular expression as it stands in a file; null for one that is not known. */
        fun of(pattern: String): PatternSplitter? = when (pattern) {
            "$CONTRACTIONS$WORDS\\p{N}$REST" -> QWEN2
            "$CONTRACTIONS$WORDS\\p{N}{1,3}$REST" -> LLAMA3
            "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+" -> GPT2
            else -> null
        }
    }
}
