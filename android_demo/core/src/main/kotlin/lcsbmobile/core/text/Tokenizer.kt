package lcsbmobile.core.text

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.io.JsonException
import lcsbmobile.core.io.JsonReader
import lcsbmobile.core.io.Utf8
import lcsbmobile.core.io.oneLine
import java.io.File
import java.io.FileInputStream
import java.io.IOException

/** Token i stands for the characters `[starts[i], ends[i])` of a text, counted in UTF-16 units. All have one length. */
internal class Encoded(val ids: IntArray, val starts: IntArray, val ends: IntArray)

/**
 * Text to token ids and back, from `tokenizer.json` alone; the twin of lcsb_mobile/text/tokenizer.py, equal to the library tokenizers. Held to
 * one model's vocabulary: ids are from 0 to [vocabSize] - 1. What a chat template does is [ChatFormat]'s. May be used by several threads.
 */
public class Tokenizer private constructor(private val file: TokenizerFile, private val config: TokenizerConfig, public val vocabSize: Int) {
    private val rawTokens = TokenFinder(file.added.filter { !it.normalized }.map { it.content to it.id })
    private val normalizedTokens = TokenFinder(file.added.filter { it.normalized }.map { normalize(it.content).text to it.id })
    private val special = file.added.filter { it.special }.mapTo(HashSet()) { it.id }
    private val names: Array<String?> = names(file)

    public val bosId: Int? = specialId("bos_token", config.bosToken)
    public val eosId: Int? = specialId("eos_token", config.eosToken)
    public val padId: Int = config.padToken?.let(::id)?.takeIf { it < vocabSize } ?: eosId ?: 0
    private val addsBos = bosId != null && (config.addBosToken ?: (file.firstSpecial == bosId))

    /** Those that decoding leaves out. */
    public val specialIds: Set<Int> get() = special

    /** What a text or an assistant's turn ends with. Exporting a bundle finds them, as it takes the chat template's renderer. */
    public val endIds: Set<Int> = config.eosTokenIds + setOfNotNull(eosId)

    /** The ids of [text] and nothing else. Raises [LcsbException] when one lies outside the model's vocabulary. */
    public fun encode(text: String): IntArray = encoding(text, false).ids()

    /**
     * As [encode], and for each token the characters that it stands for. Tokens follow each other without gaps; those that together make up
     * one character share its range.
     */
    internal fun encodeWithOffsets(text: String): Encoded {
        val encoding = encoding(text, true)
        val (starts, ends) = encoding.starts() to encoding.ends()
        for (index in starts.indices) starts[index] = minOf(starts[index], if (index == 0) 0 else ends[index - 1])
        return Encoded(encoding.ids(), starts, ends)
    }

    /** The beginning of a document: the token of beginning, if this tokenizer adds one, and the text. */
    public fun encodePrompt(text: String): IntArray = (if (addsBos) intArrayOf(bosId!!) else IntArray(0)) + encode(text)

    /** The ids of a text that follows another: without the blank that SentencePiece puts before a text's first word. */
    internal fun encodeContinuation(text: String): IntArray {
        val newline = encode("\n")
        val ids = encode("\n" + text)
        val follows = ids.size >= newline.size && newline.indices.all { ids[it] == newline[it] }
        return if (follows) ids.copyOfRange(newline.size, ids.size) else encode(text)
    }

    /** A whole document: [encodePrompt], then the token of end if there is one. */
    internal fun encodeDocument(text: String): IntArray = encodePrompt(text) + eos()

    /** The token of end as an array of one, or of none. */
    internal fun eos(): IntArray = eosId?.let { intArrayOf(it) } ?: IntArray(0)

    /** The text of [ids], without special tokens unless they are asked for. Numbers without a token are passed over. */
    public fun decode(ids: IntArray, specialTokens: Boolean = false): String =
        file.decoder.decode(ids.filter { specialTokens || it !in special }.mapNotNull { names.getOrNull(it) }).joinToString("")

    /**
     * How many of [ids], from the first, no token after them can give another text: all but a run of byte fallback at the end, with special
     * tokens in it, which is so many U+FFFD once a byte comes that breaks it.
     */
    internal fun settled(ids: IntArray): Int = ids.indexOfLast { it !in special && !isByte(it) } + 1

    private fun isByte(id: Int) = file.decodesBytes && names.getOrNull(id).let { it != null && ByteFallbackDecoder.byte(it) >= 0 }

    /** The number of a token as the vocabulary writes it. */
    private fun id(token: String): Int? = file.added.firstOrNull { it.content == token }?.id ?: file.vocabulary[token]

    private fun specialId(name: String, token: String?): Int? {
        if (token == null) return null
        val id = id(token) ?: throw DamagedTokenizer("$name ${shown(token)} is not a token of $TOKENIZER_FILE")
        if (id >= vocabSize) throw DamagedTokenizer("$name: ${outside(id)}")
        return id
    }

    private fun outside(id: Int) = "token $id (${shown(names[id])}) is outside the model's vocabulary of $vocabSize"

    private fun normalize(text: String, start: Int = 0, end: Int = text.length): NormalizedText {
        val input = NormalizedText(text.substring(start, end), start)
        return file.normalizer?.normalize(input) ?: input
    }

    private fun encoding(text: String, withOffsets: Boolean): Encoding {
        val encoding = Encoding(withOffsets)
        rawTokens.split(text) { start, end, id ->
            if (id >= 0) encoding.add(id, start, end) else encodePart(normalize(text, start, end), encoding)
        }
        encoding.firstFrom(vocabSize)?.let { throw LcsbException(Fault.TOKENIZER_DAMAGED, outside(it)) }
        return encoding
    }

    private fun encodePart(part: NormalizedText, encoding: Encoding) {
        normalizedTokens.split(part.text) { start, end, id ->
            if (id >= 0) {
                encoding.add(id, part.start(start), part.end(end))
            } else {
                file.preTokenizer.split(part.text, start, end) { from, to ->
                    encoding.addWord(part, from, file.bpe.word(part.text, from, to))
                }
            }
        }
    }

    public companion object {
        internal const val TOKENIZER_FILE = "tokenizer.json"
        internal const val CONFIG_FILE = "tokenizer_config.json"
        private const val KNOWN = "known are the tokenizers of Qwen2 and 3, Llama 3, SmolLM2 and Gemma 3"
        private const val MIB = 1L shl 20
        private val FILE_BYTES = mapOf(TOKENIZER_FILE to 64 * MIB, CONFIG_FILE to 16 * MIB) // that are read

        /** Reads TOKENIZER_FILE and CONFIG_FILE in [directory]. Raises [LcsbException] with TOKENIZER_DAMAGED or TOKENIZER_UNSUPPORTED. */
        internal fun open(directory: File, vocabSize: Int): Tokenizer {
            val config = read(File(directory, CONFIG_FILE), TokenizerConfig::read)
            val file = File(directory, TOKENIZER_FILE)
            val content = read(file) { TokenizerFileReader(it).read() }
            return named(File(directory, CONFIG_FILE)) { Tokenizer(content, config, vocabSize) }
        }

        /** Each token as it is written, by its number. */
        private fun names(file: TokenizerFile): Array<String?> {
            val last = maxOf(file.vocabulary.values.maxOrNull() ?: -1, file.added.maxOfOrNull { it.id } ?: -1)
            val names = arrayOfNulls<String>(last + 1)
            for ((token, id) in file.vocabulary) names[id] = token
            for (token in file.added) names[token.id] = token.content
            return names
        }

        private fun <T> read(file: File, parse: (JsonReader) -> T): T = named(file) {
            val most = FILE_BYTES.getValue(file.name)
            if (!file.exists()) throw DamagedTokenizer("no such file; a tokenizer needs $TOKENIZER_FILE and $CONFIG_FILE")
            if (!file.isFile) throw DamagedTokenizer("not a regular file")
            if (file.length() > most) throw DamagedTokenizer("${file.length()} bytes, more than the $most that are read")
            FileInputStream(file).use { parse(JsonReader(it)) }
        }

        private fun <T> named(file: File, action: () -> T): T {
            fun refused(fault: Fault, reason: String, cause: Exception) =
                LcsbException(fault, "$file: ${oneLine(reason)}", listOf(file.name, oneLine(reason)), cause)
            try {
                return action()
            } catch (error: UnsupportedTokenizer) {
                throw refused(Fault.TOKENIZER_UNSUPPORTED, "${error.what}: not supported; $KNOWN", error)
            } catch (error: DamagedTokenizer) {
                throw refused(Fault.TOKENIZER_DAMAGED, error.what, error)
            } catch (error: JsonException) {
                throw refused(Fault.TOKENIZER_DAMAGED, "not a readable tokenizer: ${error.message}", error)
            } catch (error: IOException) {
                throw refused(Fault.TOKENIZER_DAMAGED, "cannot be read: ${error.message}", error)
            }
        }
    }
}

/** The settings of `tokenizer_config.json` that are used; a token is a string or {"content": string}. */
internal class TokenizerConfig(
    val bosToken: String?,
    val eosToken: String?,
    val padToken: String?,
    val addBosToken: Boolean?,
    val eosTokenIds: Set<Int>,
) {
    companion object {
        private val TOKENS = setOf("bos_token", "eos_token", "pad_token")

        fun read(json: JsonReader): TokenizerConfig {
            val tokens = HashMap<String, String?>()
            var addsBos: Boolean? = null
            var ends = emptySet<Int>()
            json.obj { key ->
                when (key) {
                    in TOKENS -> tokens[key] = token(key, json.tree())
                    "add_bos_token" -> addsBos = json.tree() as? Boolean
                    "eos_token_id" -> ends = ids(json.tree())
                    else -> json.skip()
                }
            }
            json.end()
            return TokenizerConfig(tokens["bos_token"], tokens["eos_token"], tokens["pad_token"], addsBos, ends)
        }

        private fun token(name: String, tree: Any?): String? {
            val value = if (tree is Map<*, *>) tree["content"] else tree
            if (value != null && value !is String) {
                throw DamagedTokenizer("""$name: expected a string or {"content": string}, found ${shown(tree)}""")
            }
            return value?.takeIf { it.isNotEmpty() }
        }

        private fun ids(tree: Any?): Set<Int> {
            val values = tree as? List<*> ?: listOfNotNull(tree)
            return values.mapTo(HashSet()) { value ->
                val whole = (value as? Double)?.takeIf { it == Math.floor(it) && it in 0.0..Int.MAX_VALUE.toDouble() }
                whole?.toInt() ?: throw DamagedTokenizer("eos_token_id: expected a number or a list of numbers, found ${shown(tree)}")
            }
        }
    }
}

/** Tokens as they come, with the characters that they stand for if those are asked for. */
private class Encoding(private val withOffsets: Boolean) {
    private var ids = IntArray(256)
    private var starts = IntArray(if (withOffsets) 256 else 0)
    private var ends = IntArray(if (withOffsets) 256 else 0)
    private var count = 0

    fun ids(): IntArray = ids.copyOf(count)

    fun starts(): IntArray = starts.copyOf(count)

    fun ends(): IntArray = ends.copyOf(count)

    /** The first token outside a vocabulary of [size], or null. */
    fun firstFrom(size: Int): Int? {
        for (index in 0 until count) if (ids[index] >= size) return ids[index]
        return null
    }

    fun add(id: Int, start: Int, end: Int) {
        if (count == ids.size) {
            ids = ids.copyOf(2 * count)
            if (withOffsets) {
                starts = starts.copyOf(2 * count)
                ends = ends.copyOf(2 * count)
            }
        }
        if (withOffsets) {
            starts[count] = start
            ends[count] = end
        }
        ids[count++] = id
    }

    /** The tokens of a word that begins at [from]: their bytes are counted along its characters. */
    fun addWord(part: NormalizedText, from: Int, word: Symbols) {
        if (!withOffsets) {
            for (index in 0 until word.count) add(word.ids[index], 0, 0)
            return
        }
        var at = from // the character at hand, and the bytes of the word before it and through it
        var before = 0
        var through = bytesAt(part.text, at)
        var done = 0
        fun advance() {
            at += Character.charCount(part.text.codePointAt(at))
            before = through
            through += bytesAt(part.text, at)
        }
        for (index in 0 until word.count) {
            while (done >= through && at < part.text.length) advance()
            val start = at
            done += word.sizes[index]
            while (done > through && at < part.text.length) advance()
            add(word.ids[index], part.start(start), part.end(at + Character.charCount(part.text.codePointAt(at))))
        }
    }

    private fun bytesAt(text: String, at: Int): Int = if (at < text.length) Utf8.size(text.codePointAt(at)) else 0
}
