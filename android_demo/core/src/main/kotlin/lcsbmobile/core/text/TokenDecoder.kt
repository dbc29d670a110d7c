package lcsbmobile.core.text

import lcsbmobile.core.io.Utf8
import java.io.ByteArrayOutputStream

/** From tokens as the vocabulary writes them towards text: what is left is put together. */
internal fun interface TokenDecoder {
    fun decode(tokens: List<String>): List<String>
}

/** The characters with which byte-level vocabularies write bytes: printable ones stand for themselves, the others follow from U+0100. */
internal object ByteCharacters {
    private val printable = (0x21..0x7E) + (0xA1..0xAC) + (0xAE..0xFF)
    private val characters = CharArray(256).also { table ->
        var next = 0x100
        for (byte in 0..255) table[byte] = (if (byte in printable) byte else next++).toChar()
    }
    private val bytes = IntArray(0x200) { -1 }.also { table ->
        characters.forEachIndexed { byte, character -> table[character.code] = byte }
    }

    fun character(byte: Int): Char = characters[byte]

    /** The byte that a character stands for, or -1. */
    fun byte(character: Char): Int = if (character.code < bytes.size) bytes[character.code] else -1
}

internal object ByteLevelDecoder : TokenDecoder {
    override fun decode(tokens: List<String>): List<String> {
        val bytes = ByteArrayOutputStream()
        for (token in tokens) {
            if (token.all { ByteCharacters.byte(it) >= 0 }) {
                token.forEach { bytes.write(ByteCharacters.byte(it)) }
            } else {
                bytes.write(token.toByteArray()) // an added token, as it stands
            }
        }
        return listOf(Utf8.decodeLossy(bytes.toByteArray()))
    }
}

/** Runs of `<0x41>` to the text of those bytes, or to as many U+FFFD when they are none. */
internal object ByteFallbackDecoder : TokenDecoder {
    override fun decode(tokens: List<String>): List<String> {
        val result = ArrayList<String>(tokens.size)
        val bytes = ByteArrayOutputStream()
        fun flush() {
            if (bytes.size() == 0) return
            val run = bytes.toByteArray()
            if (Utf8.firstFault(run, 0, run.size) < 0) result.add(String(run)) else repeat(run.size) { result.add("\uFFFD") }
            bytes.reset()
        }
        for (token in tokens) {
            val byte = byte(token)
            if (byte >= 0) {
                bytes.write(byte)
            } else {
                flush()
                result.add(token)
            }
        }
        flush()
        return result
    }

    /** The byte that a token stands for by its name, or -1. */
    fun byte(token: String): Int {
        if (token.length != 6 || !token.startsWith("<0x") || token[5] != '>') return -1
        val (high, low) = Character.digit(token[3], 16) to Character.digit(token[4], 16)
        return if (high < 0 || low < 0) -1 else high * 16 + low
    }
}

internal class ReplaceDecoder(private val pattern: String, private val content: String) : TokenDecoder {
    override fun decode(tokens: List<String>): List<String> = tokens.map { it.replace(pattern, content) }
}

/** Takes up to [start] times [content] from each token's beginning, and up to [stop] times from its end. */
internal class StripDecoder(private val content: String, private val start: Int, private val stop: Int) : TokenDecoder {
    override fun decode(tokens: List<String>): List<String> = tokens.map(::stripped)

    private fun stripped(token: String): String {
        if (content.isEmpty()) return token
        var text = token
        repeat(start) { text = text.removePrefix(content) }
        repeat(stop) { text = text.removeSuffix(content) }
        return text
    }
}

internal object FuseDecoder : TokenDecoder {
    override fun decode(tokens: List<String>): List<String> = listOf(tokens.joinToString(""))
}

/** What the library does without a decoder. */
internal object SpaceDecoder : TokenDecoder {
    override fun decode(tokens: List<String>): List<String> = listOf(tokens.joinToString(" "))
}
