package lcsbmobile.core

import lcsbmobile.core.runtime.Decoder
import lcsbmobile.core.text.Tokenizer
import lcsbmobile.core.text.open
import org.junit.Assert.assertEquals
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** The pieces of texts whose tokens are given: together they are what the tokenizer makes of all tokens at once. */
class ContinuationTest {
    @get:Rule
    val folder = TemporaryFolder()

    /** As SentencePiece's with byte fallback: 2, 3 and 4 are the bytes of a euro sign. */
    private val vocabulary = listOf("<end>", "a", "<0xE2>", "<0x82>", "<0xAC>", "<s>", "\uFFFD", "\u2581b")
    private val fallback by lazy {
        val vocab = vocabulary.withIndex().joinToString { (id, token) -> "\"$token\": $id" }
        val added = listOf(0, 5).joinToString { """{"id": $it, "content": "${vocabulary[it]}", "special": true}""" }
        val blank = """{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}"""
        val strip = """{"type": "Strip", "content": " ", "start": 1, "stop": 0}"""
        val decoder = """{"type": "Sequence", "decoders": [$blank, {"type": "ByteFallback"}, {"type": "Fuse"}, $strip]}"""
        val model = """{"type": "BPE", "vocab": {$vocab}, "merges": [], "byte_fallback": true}"""
        val file = """{"added_tokens": [$added], "model": $model, "decoder": $decoder}"""
        folder.open(file.toByteArray(), """{"eos_token": "<end>"}""", vocabulary.size)
    }

    /** Writes the given tokens, then the end. */
    private class Script(private val tokens: List<Int>, private val size: Int) : Decoder {
        private var count = 0

        override fun prefill(ids: IntArray) = next(0)

        override fun next(id: Int) = FloatArray(size).also { it[tokens.getOrElse(count++) { 0 }] = 9f }

        override fun close() = Unit
    }

    private fun pieces(tokenizer: Tokenizer, prompt: List<Int>, ids: List<Int>, vararg stop: String): Pair<List<String>, TextEnd?> {
        val script = Script(ids, tokenizer.vocabSize)
        val config = SamplingConfig(temperature = 0.0, stop = stop.toList())
        val continuation = Continuation(script, tokenizer, prompt.toIntArray(), 64, config)
        return continuation.toList() to continuation.ended
    }

    @Test
    fun `what is no text is replaced, and the rest is given out`() {
        fun written(vararg ids: Int) = pieces(fallback, listOf(1), ids.toList()).also { assertEquals(TextEnd.END_TOKEN, it.second) }.first
        assertEquals(listOf("\uFFFD\uFFFD\uFFFD\uFFFDa", "€"), written(2, 3, 4, 2, 1, 2, 3, 4)) // a stray byte after a good character
        assertEquals(listOf("€a", " b"), written(2, 3, 4, 1, 7))
        assertEquals(listOf("€a"), written(2, 5, 3, 4, 1)) // a special token within the run
        assertEquals(listOf("\uFFFD\uFFFD"), written(2, 3))
        assertEquals(listOf("\uFFFD"), written(6)) // a text that ends in a real one keeps it
        assertEquals(listOf("a", "\uFFFD"), written(1, 6))
        assertEquals(listOf("\uFFFDa"), pieces(fallback, listOf(1, 2, 3, 4), listOf(2, 1)).first) // it breaks the prompt's last character
        assertEquals(listOf("€a"), pieces(fallback, listOf(1, 2, 3, 4), listOf(2, 3, 4, 1)).first)
        assertEquals(emptyList<String>() to TextEnd.STOP_TEXT, pieces(fallback, listOf(1), listOf(2, 3, 4, 1), "€"))
        assertEquals(emptyList<String>() to TextEnd.STOP_TEXT, pieces(fallback, listOf(1), listOf(2, 3, 4), "€"))
    }

    @Test
    fun `byte-level tokens that end within a character`() {
        val letters = listOf("<end>", "a", "\u00E2", "\u0124", "\u00AC") // the bytes of a euro sign as byte-level vocabularies write them
        val vocab = letters.withIndex().joinToString { (id, token) -> "\"$token\": $id" }
        val file = """{"added_tokens": [{"id": 0, "content": "<end>", "special": true}], "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "vocab": {$vocab}, "merges": []}}"""
        val tokenizer = folder.open(file.toByteArray(), """{"eos_token": "<end>"}""", letters.size)
        assertEquals(listOf("€", "\uFFFDa"), pieces(tokenizer, listOf(1), listOf(2, 3, 4, 2, 1)).first)
        assertEquals(listOf("a", "\uFFFD"), pieces(tokenizer, listOf(1), listOf(1, 2, 3)).first)
    }
}
