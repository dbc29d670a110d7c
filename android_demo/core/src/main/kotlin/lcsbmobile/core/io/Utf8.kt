package lcsbmobile.core.io

/** UTF-8 as Python and Rust read it, which differs from a Java runtime to another where bytes are no text. */
internal object Utf8 {
    /**
     * The sequence that begins at [at]: its length where it is valid; else the negative length of its longest part that could begin one, at
     * least 1, which is what a decoder replaces by one U+FFFD.
     */
    fun sequence(bytes: ByteArray, at: Int, end: Int): Int {
        val first = bytes[at].toInt() and 0xFF
        if (first < 0x80) return 1
        val length = when (first) {
            in 0xC2..0xDF -> 2
            in 0xE0..0xEF -> 3
            in 0xF0..0xF4 -> 4
            else -> return -1
        }
        for (offset in 1 until length) {
            if (at + offset >= end || !continues(first, offset, bytes[at + offset].toInt() and 0xFF)) return -offset
        }
        return length
    }

    private fun continues(first: Int, offset: Int, byte: Int): Boolean {
        if (offset > 1) return byte in 0x80..0xBF
        return when (first) {
            0xE0 -> byte in 0xA0..0xBF
            0xED -> byte in 0x80..0x9F // no surrogates
            0xF0 -> byte in 0x90..0xBF
            0xF4 -> byte in 0x80..0x8F
            else -> byte in 0x80..0xBF
        }
    }

    /** Where the first byte stands that is no UTF-8, or -1. */
    fun firstFault(bytes: ByteArray, start: Int, end: Int): Int {
        var at = start
        while (at < end) {
            val length = if (bytes[at] >= 0) 1 else sequence(bytes, at, end)
            if (length < 0) return at
            at += length
        }
        return -1
    }

    /** Why [firstFault] stopped at [at], in Python's words. */
    fun reason(bytes: ByteArray, at: Int, end: Int): String {
        val bad = -sequence(bytes, at, end)
        return when {
            (bytes[at].toInt() and 0xFF) !in 0xC2..0xF4 -> "invalid start byte"
            at + bad >= end -> "unexpected end of data"
            else -> "invalid continuation byte"
        }
    }

    /** The text of [bytes], with U+FFFD for what is none. */
    fun decodeLossy(bytes: ByteArray, end: Int = bytes.size): String {
        val text = StringBuilder(end)
        var at = 0
        while (at < end) {
            val length = sequence(bytes, at, end)
            when {
                length == 1 -> text.append(bytes[at].toInt().toChar())
                length < 0 -> text.append('\uFFFD')
                else -> text.appendCodePoint(codePoint(bytes, at, length))
            }
            at += if (length < 0) -length else length
        }
        return text.toString()
    }

    private fun codePoint(bytes: ByteArray, at: Int, length: Int): Int {
        var point = bytes[at].toInt() and (0xFF shr (length + 1))
        for (offset in 1 until length) point = point shl 6 or (bytes[at + offset].toInt() and 0x3F)
        return point
    }

    /** How many bytes a code point takes; half a surrogate pair as many as U+FFFD, which stands for it. */
    fun size(codePoint: Int): Int = when {
        codePoint < 0x80 -> 1
        codePoint < 0x800 -> 2
        codePoint < 0x10000 -> 3
        else -> 4
    }

    /** Writes a code point at [at] and returns where the next goes; U+FFFD for half a surrogate pair. */
    fun write(codePoint: Int, bytes: ByteArray, at: Int): Int {
        val point = if (codePoint in 0xD800..0xDFFF) 0xFFFD else codePoint
        val length = size(point)
        if (length == 1) {
            bytes[at] = point.toByte()
            return at + 1
        }
        for (offset in length - 1 downTo 1) bytes[at + offset] = (0x80 or (point shr 6 * (length - 1 - offset) and 0x3F)).toByte()
        bytes[at] = ((0xF00 shr length and 0xFF) or (point shr 6 * (length - 1))).toByte()
        return at + length
    }
}
