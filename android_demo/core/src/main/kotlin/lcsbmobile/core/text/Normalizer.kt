package lcsbmobile.core.text

import java.text.Normalizer.Form

/**
 * Text as the model's tokenizer reads it, and where it came from: character i is [origin] + i of the original where [starts] and [ends] are
 * null, else what the original has in `[starts[i], ends[i])`. All counted in UTF-16 units.
 */
internal class NormalizedText(
    val text: String,
    private val origin: Int,
    private val starts: IntArray? = null,
    private val ends: IntArray? = null,
) {
    fun start(at: Int): Int = starts?.get(at) ?: (origin + at)

    /** Where the original of what stands before [at] ends. */
    fun end(at: Int): Int = ends?.get(at - 1) ?: (origin + at)
}

internal fun interface Normalizer {
    fun normalize(input: NormalizedText): NormalizedText
}

/** Gathers a normalised text piece by piece. */
private class Rewriting(private val input: NormalizedText) {
    private val text = StringBuilder(input.text.length)
    private var starts = IntArray(input.text.length + 16)
    private var ends = IntArray(input.text.length + 16)

    /** [piece] in the place of `[start, end)` of the input; character by character where it is the same. */
    fun add(piece: String, start: Int, end: Int) {
        if (text.length + piece.length > starts.size) {
            starts = starts.copyOf(2 * starts.size + piece.length)
            ends = ends.copyOf(starts.size)
        }
        val same = piece.length == end - start && input.text.startsWith(piece, start)
        for (offset in piece.indices) {
            starts[text.length + offset] = input.start(if (same) start + offset else start)
            ends[text.length + offset] = input.end(if (same) start + offset + 1 else end)
        }
        text.append(piece)
    }

    fun result() = NormalizedText(text.toString(), 0, starts, ends)
}

/**
 * Unicode's form C, of the marks that the library knows: a newer mark, which the runtime's tables may know, stays where it is. The
 * characters of a base with its marks share their original's range where they are changed.
 */
internal object NfcNormalizer : Normalizer {
    override fun normalize(input: NormalizedText): NormalizedText {
        val text = input.text
        if (java.text.Normalizer.isNormalized(text, Form.NFC)) return input
        val result = Rewriting(input)
        var start = 0
        while (start < text.length) {
            val first = text.codePointAt(start)
            var end = start + Character.charCount(first)
            if (!isNewerMark(first)) {
                while (end < text.length && UnicodeClasses.joins(text.codePointAt(end))) end += Character.charCount(text.codePointAt(end))
            }
            result.add(java.text.Normalizer.normalize(text.substring(start, end), Form.NFC), start, end)
            start = end
        }
        return result.result()
    }

    /** A mark that the runtime would put in its place among others, and the library does not. */
    private fun isNewerMark(point: Int): Boolean {
        if (point < 0x300 || UnicodeClasses.joins(point)) return false
        val behindTheLast = StringBuilder("x\u0345").appendCodePoint(point) // U+0345 has the highest combining class
        return !java.text.Normalizer.isNormalized(behindTheLast, Form.NFC)
    }
}

/** Puts [content] in the place of every [pattern], which is not empty. */
internal class ReplaceNormalizer(private val pattern: String, private val content: String) : Normalizer {
    override fun normalize(input: NormalizedText): NormalizedText {
        val text = input.text
        var found = text.indexOf(pattern)
        if (found < 0) return input
        val result = Rewriting(input)
        var at = 0
        while (found >= 0) {
            if (at < found) result.add(text.substring(at, found), at, found)
            at = found + pattern.length
            result.add(content, found, at)
            found = text.indexOf(pattern, at)
        }
        if (at < text.length) result.add(text.substring(at), at, text.length)
        return result.result()
    }
}

/** Puts [prefix] before a text that is not empty; it comes from the text's first character, as that does. */
internal class PrependNormalizer(private val prefix: String) : Normalizer {
    override fun normalize(input: NormalizedText): NormalizedText {
        val text = input.text
        if (text.isEmpty() || prefix.isEmpty()) return input
        val first = Character.charCount(text.codePointAt(0))
        val result = Rewriting(input)
        result.add(prefix + text.substring(0, first), 0, first)
        if (first < text.length) result.add(text.substring(first), first, text.length)
        return result.result()
    }
}
