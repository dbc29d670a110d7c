package lcsbmobile.core.io

import java.io.InputStream

/** What a [JsonReader] found wrong, without a file's name; [at] counts bytes from 0. */
internal class JsonException(val reason: String, val at: Long) : Exception("$reason at byte $at")

/**
 * JSON read value by value, in memory bounded by the longest string: a `tokenizer.json` has 60 MB, and a stranger's may be made to need far
 * more once it is a tree. Whoever reads knows what should come: `obj`, `array`, `string` …; [skip] and [tree] take what may be anything.
 *
 * Raises [JsonException] for what is no JSON, for another kind of value than asked for, and beyond the bounds.
 */
internal class JsonReader(
    private val bytes: ByteArray,
    private val input: InputStream? = null,
    start: Int = 0,
    stop: Int = bytes.size,
) {
    private var at = start
    private var end = if (input == null) stop else 0
    private var before = 0L // bytes that came and went
    private var text = ByteArray(64)

    constructor(input: InputStream) : this(ByteArray(1 shl 16), input)

    /** Reads an object; [member] must take the value of the key that it is given. */
    inline fun obj(member: (String) -> Unit) {
        expect('{', "an object")
        if (take('}')) return
        do {
            if (peek() != '"') fail("expected a key")
            val key = string()
            expect(':', "a colon")
            member(key)
        } while (take(','))
        expect('}', "a comma or the end of the object")
    }

    /** Reads an array; [element] must take a value. */
    inline fun array(element: () -> Unit) {
        expect('[', "an array")
        if (take(']')) return
        do element() while (take(','))
        expect(']', "a comma or the end of the array")
    }

    fun string(): String {
        expect('"', "a string")
        val length = readText()
        val fault = Utf8.firstFault(text, 0, length)
        if (fault >= 0) fail("a string that is not UTF-8")
        return String(text, 0, length, Charsets.UTF_8)
    }

    fun int(): Int {
        val kind = kind()
        val number = if (kind == "a number") number() else fail("expected a number, found $kind")
        return number.toIntOrNull() ?: fail("expected a whole number below 2^31, found $number")
    }

    /** The next value's kind in words, with its article. */
    fun kind(): String = when (peek()) {
        '{' -> "an object"
        '[' -> "an array"
        '"' -> "a string"
        't', 'f' -> "true or false"
        'n' -> "null"
        '-', in '0'..'9' -> "a number"
        else -> fail("expected a value")
    }

    /**
     * A small value of any kind: Map, List, String, Double, Boolean or null. [nodes]: how many values it may have in all.
     */
    fun tree(nodes: Int = MOST_NODES): Any? = Tree(nodes).read(0)

    private inner class Tree(private var left: Int) {
        fun read(depth: Int): Any? {
            if (--left < 0 || depth > MOST_DEPTH) fail("a value of too many parts")
            return when (kind()) {
                "an object" -> LinkedHashMap<String, Any?>().also { map -> obj { key -> map[key] = read(depth + 1) } }
                "an array" -> ArrayList<Any?>().also { list -> array { list.add(read(depth + 1)) } }
                "a string" -> string()
                "a number" -> number().toDouble()
                else -> word()
            }
        }
    }

    /** Passes over a value of any kind. */
    fun skip(depth: Int = 0) {
        if (depth > MOST_DEPTH) fail("a value nested too deep")
        when (kind()) {
            "an object" -> obj { skip(depth + 1) }
            "an array" -> array { skip(depth + 1) }
            "a string" -> string()
            "a number" -> number()
            else -> word()
        }
    }

    /** Nothing but blanks may follow. */
    fun end() {
        if (blank() >= 0) fail("expected the end")
    }

    fun peek(): Char {
        val next = blank()
        if (next < 0) fail("ends too early")
        return next.toChar()
    }

    fun take(mark: Char): Boolean {
        if (blank() != mark.code) return false
        at++
        return true
    }

    fun expect(mark: Char, what: String) {
        if (take(mark)) return
        if (blank() < 0) fail("ends too early")
        fail("expected $what")
    }

    fun fail(reason: String): Nothing = throw JsonException(reason, before + at)

    private fun blank(): Int {
        while (true) {
            val next = next()
            if (next != 0x20 && next != 0x0A && next != 0x0D && next != 0x09) return next
            at++
        }
    }

    /** The byte at hand, from 0 to 255, or -1 at the end; it is not taken. */
    private fun next(): Int {
        if (at == end) {
            if (input == null) return -1
            before += end
            at = 0
            end = input.read(bytes).coerceAtLeast(0)
            if (end == 0) return -1
        }
        return bytes[at].toInt() and 0xFF
    }

    private fun word(): Boolean? = when (peek()) {
        't' -> true.also { literal("true") }
        'f' -> false.also { literal("false") }
        else -> null.also { literal("null") }
    }

    private fun literal(word: String) {
        for (letter in word) {
            if (next() != letter.code) fail("expected $word")
            at++
        }
    }

    private fun number(): String {
        val number = StringBuilder()
        while (number.length < MOST_DIGITS) {
            val next = next()
            if (next < 0 || next.toChar() !in "+-.0123456789eE") break
            number.append(next.toChar())
            at++
        }
        if (!NUMBER.matches(number)) fail("expected a number")
        return number.toString()
    }

    /** A string's bytes into [text], without the quotes; returns how many. */
    private fun readText(): Int {
        var length = 0
        while (true) {
            val next = next()
            if (next < 0) fail("ends within a string")
            if (next < 0x20) fail("a control character within a string")
            at++
            if (next == '"'.code) return length
            if (length + 4 > text.size) text = text.copyOf(text.size * 2)
            if (length > MOST_TEXT) fail("a string of more than $MOST_TEXT bytes")
            if (next == '\\'.code) length = Utf8.write(escape(), text, length) else text[length++] = next.toByte()
        }
    }

    private fun escape(): Int {
        val next = next()
        at++
        return when (next.toChar()) {
            '"', '\\', '/' -> next
            'b' -> 0x08
            'f' -> 0x0C
            'n' -> 0x0A
            'r' -> 0x0D
            't' -> 0x09
            'u' -> hexadecimal().let { if (it in 0xD800..0xDFFF) pair(it) else it }
            else -> fail("an escape that JSON does not have")
        }
    }

    private fun pair(high: Int): Int {
        if (high >= 0xDC00 || next() != '\\'.code) fail("half a surrogate pair")
        at++
        if (next() != 'u'.code) fail("half a surrogate pair")
        at++
        val low = hexadecimal()
        if (low !in 0xDC00..0xDFFF) fail("half a surrogate pair")
        return 0x10000 + (high - 0xD800 shl 10) + (low - 0xDC00)
    }

    private fun hexadecimal(): Int {
        var value = 0
        repeat(4) {
            val digit = Character.digit(next().toChar(), 16)
            if (digit < 0) fail("an escape that JSON does not have")
            value = value shl 4 or digit
            at++
        }
        return value
    }

    private companion object {
        const val MOST_TEXT = 1 shl 20
        const val MOST_DEPTH = 32
        const val MOST_NODES = 20_000
        const val MOST_DIGITS = 400
        val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")
    }
}
