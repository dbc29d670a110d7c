package lcsbmobile.core.text

import kotlinx.serialization.Serializable
import kotlinx.serialization.json.Json
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.text.Normalizer

/** Every tokenizer against the library tokenizers, on what scripts/golden/write_tokenizer_golden.py wrote. */
class TokenizerGoldenTest {
    @get:Rule
    val folder = TemporaryFolder()

    /** In `ids` and `offsets` null is what the style before has, in `decoded` the text. */
    @Serializable
    private class Line(
        val text: String? = null,
        val ids: List<List<Int>?> = emptyList(),
        val decoded: List<String?> = emptyList(),
        val offsets: List<List<Int>?> = emptyList(),
        val decode: List<Int> = emptyList(),
        val texts: List<String> = emptyList(),
    )

    private val lines =
        gunzip(File(tokenizerData, "golden.jsonl.gz")).decodeToString().trimEnd('\n').split('\n').map { Json.decodeFromString<Line>(it) }
    private val samples = lines.filter { it.text != null }

    private fun <T : Any> inherited(values: List<T?>, style: Int): T = (style downTo 0).firstNotNullOf { values[it] }

    private fun ids(line: Line, style: Int) = inherited(line.ids, style).toIntArray()

    @Test
    fun thereAreTenThousandTexts() = assertEquals(10_000, samples.size)

    @Test
    fun idsAreTheLibrarys() = eachStyle { style, tokenizer ->
        for (line in samples) assertArrayEquals("${STYLES[style]}: ${shown(line.text)}", ids(line, style), tokenizer.encode(line.text!!))
    }

    @Test
    fun decodedTextsAreTheLibrarys() = eachStyle { style, tokenizer ->
        for (line in samples) assertEquals(STYLES[style], line.decoded[style] ?: line.text, tokenizer.decode(ids(line, style)))
    }

    @Test
    fun idsOfAnyBytesAreDecodedAsTheLibraryDoes() = eachStyle { style, tokenizer ->
        for (line in lines.filter { it.text == null }) {
            assertEquals("${STYLES[style]} ${line.decode}", line.texts[style], tokenizer.decode(line.decode.toIntArray()))
        }
    }

    /**
     * Offsets of Python count code points. Where NFC changes a text, the library gives a character's place to its base alone and the marks'
     * to what follows; both cover the text without gaps.
     */
    @Test
    fun offsetsAreTheLibrarys() = eachStyle { style, tokenizer ->
        for (line in samples.filter { it.offsets.isNotEmpty() }) {
            val text = line.text!!
            val encoded = tokenizer.encodeWithOffsets(text)
            assertArrayEquals(ids(line, style), encoded.ids)
            if (STYLES[style] == "qwen2" && !Normalizer.isNormalized(text, Normalizer.Form.NFC)) continue
            val found = encoded.ids.indices.flatMap { listOf(encoded.starts[it], encoded.ends[it]) }
            val wanted = inherited(line.offsets, style).map { text.offsetByCodePoints(0, it) }
            assertEquals("${STYLES[style]}: ${shown(text)}", wanted, found)
        }
    }

    @Test
    fun tokensCoverANormalizedTextWithoutGaps() {
        val tokenizer = folder.tokenizer("qwen2")
        for (line in samples.filter { it.text!!.isNotEmpty() }) {
            val encoded = tokenizer.encodeWithOffsets(line.text!!)
            assertEquals(0, encoded.starts.first())
            assertEquals(line.text.length, encoded.ends.last())
            for (next in 1 until encoded.ids.size) assert(encoded.starts[next] <= encoded.ends[next - 1])
        }
    }

    private fun eachStyle(check: (Int, Tokenizer) -> Unit) = STYLES.forEachIndexed { style, name -> check(style, folder.tokenizer(name)) }

    private companion object {
        val STYLES = listOf("qwen2", "llama3", "smollm2", "unknown", "gemma", "llama2")
    }
}
