package lcsbmobile.core.text

import lcsbmobile.core.io.JsonReader

/** What a `tokenizer.json` says, of the kinds that are known. [firstSpecial]: the first token that its post-processor adds to a text. */
internal class TokenizerFile(
    val added: List<AddedToken>,
    val normalizer: Normalizer?,
    val preTokenizer: PreTokenizer,
    val firstSpecial: Int?,
    val decoder: TokenDecoder,
    val decodesBytes: Boolean,
    val vocabulary: Map<String, Int>,
    val bpe: Bpe,
)

/** A `tokenizer.json` of a kind that core has no code for; [what] names it. */
internal class UnsupportedTokenizer(val what: String) : Exception(what)

/** A `tokenizer.json` that contradicts itself. */
internal class DamagedTokenizer(val what: String) : Exception(what)

/**
 * Reads a `tokenizer.json` (the library tokenizers', version 1.0) of byte-pair encoding. Parts of a kind that Qwen2 and 3, Llama 3, SmolLM2
 * or Gemma 3 do not use are refused, as is an option of a known part that would change what it does.
 *
 * Raises `JsonException`, [UnsupportedTokenizer], [DamagedTokenizer].
 */
internal class TokenizerFileReader(private val json: JsonReader) {
    private val parts = HashMap<String, Any?>() // of the file, but the model
    private val added = ArrayList<AddedToken>()
    private val settings = HashMap<String, Any?>() // of the model, but vocabulary and merges
    private val vocabulary = HashMap<String, Int>()
    private var merges: Merges? = null

    fun read(): TokenizerFile {
        json.obj { key ->
            when (key) {
                "added_tokens" -> json.array { added.add(addedToken(Part("added_tokens", json.tree()))) }
                "model" -> readModel()
                "normalizer", "pre_tokenizer", "post_processor", "decoder" -> parts[key] = json.tree()
                "version", "truncation", "padding" -> json.skip() // the trainer's own settings
                else -> throw UnsupportedTokenizer("the part ${shown(key)}")
            }
        }
        json.end()
        return build()
    }

    private fun build(): TokenizerFile {
        val splits = splits(parts["pre_tokenizer"])
        val byteLevel = splits.any { it == null }
        if (byteLevel && splits.last() != null) throw UnsupportedTokenizer("a pre-tokenizer behind ByteLevel")
        val model = Part("model", settings)
        if (byteLevel && model.flag("byte_fallback")) throw UnsupportedTokenizer("byte_fallback with ByteLevel")
        checkIds()
        val options = BpeOptions(unknown(model), model.flag("fuse_unk"), model.flag("byte_fallback"), model.flag("ignore_merges"))
        val bpe = Bpe(vocabulary, merges ?: throw DamagedTokenizer("the model has no merges"), options, byteLevel)
        val normalizers = normalizers(parts["normalizer"])
        val normalizer = if (normalizers.isEmpty()) null else Normalizer { normalizers.fold(it) { text, each -> each.normalize(text) } }
        val decoder = decoder(parts["decoder"])
        val special = firstSpecial(parts["post_processor"])
        return TokenizerFile(added, normalizer, sequence(splits.filterNotNull()), special, decoder, decodesBytes(parts["decoder"]), vocabulary, bpe)
    }

    private fun readModel() = json.obj { key ->
        when (key) {
            "vocab" -> if (json.peek() == '{') readVocabulary() else throw UnsupportedTokenizer("a model that is not BPE")
            "merges" -> readMerges()
            else -> settings[key] = json.tree()
        }
    }

    private fun readVocabulary() {
        settings["type"]?.let { if (it != "BPE") throw UnsupportedTokenizer("a model of the type ${shown(it)}") }
        json.obj { token ->
            val id = json.int()
            if (id !in 0 until MOST_TOKENS) json.fail("token ${shown(token)} has the number $id, outside 0 to ${MOST_TOKENS - 1},")
            vocabulary[token] = id
            if (vocabulary.size > MOST_TOKENS) json.fail("more than $MOST_TOKENS tokens")
        }
    }

    private fun readMerges() {
        if (vocabulary.isEmpty()) throw UnsupportedTokenizer("merges that stand before the vocabulary")
        val merges = Merges()
        json.array {
            val pair = if (json.peek() == '"') json.string().split(' ') else twoStrings()
            if (pair.size != 2) json.fail("a merge that does not have two parts")
            if (merges.size == MOST_MERGES) json.fail("more than $MOST_MERGES merges")
            merges.add(id(pair[0]), id(pair[1]), id(pair[0] + pair[1]))
        }
        this.merges = merges
    }

    private fun twoStrings(): List<String> {
        val pair = ArrayList<String>(2)
        json.array { if (pair.size < 2) pair.add(json.string()) else json.fail("a merge that does not have two parts") }
        return pair
    }

    private fun id(token: String): Int = vocabulary[token] ?: json.fail("a merge with ${shown(token)}, which is not in the vocabulary,")

    private fun unknown(model: Part): Int? {
        val type = model.text("type") ?: "BPE"
        if (type != "BPE") throw UnsupportedTokenizer("a model of the type ${shown(type)}")
        if ((model.value("dropout") as? Double ?: 0.0) != 0.0) throw UnsupportedTokenizer("dropout")
        for (name in listOf("continuing_subword_prefix", "end_of_word_suffix")) {
            if (!model.text(name).isNullOrEmpty()) throw UnsupportedTokenizer(name)
        }
        model.only(*MODEL_KEYS)
        val token = model.text("unk_token") ?: return null
        return vocabulary[token] ?: throw DamagedTokenizer("unk_token ${shown(token)} is not in the vocabulary")
    }

    private fun addedToken(part: Part): AddedToken {
        part.only("id", "content", "single_word", "lstrip", "rstrip", "normalized", "special")
        for (option in listOf("single_word", "lstrip", "rstrip")) {
            if (part.flag(option)) throw UnsupportedTokenizer("added token ${shown(part.text("content"))} with $option")
        }
        val id = part.value("id") as? Double ?: throw DamagedTokenizer("an added token without a number")
        if (id != Math.floor(id) || id < 0 || id >= MOST_TOKENS) throw DamagedTokenizer("an added token of the number $id")
        val content = part.text("content") ?: throw DamagedTokenizer("added token ${id.toInt()} without content")
        val special = part.flag("special")
        return AddedToken(id.toInt(), content, special, part.flag("normalized", !special))
    }

    /** One number a token, and one token a number: else decoding would not be encoding's inverse. */
    private fun checkIds() {
        val names = HashMap<Int, String>()
        for ((token, id) in vocabulary) {
            names.put(id, token)?.let { throw DamagedTokenizer("${shown(it)} and ${shown(token)} have the number $id") }
        }
        for (token in added) {
            val known = vocabulary[token.content]
            val name = names.put(token.id, token.content)
            if (known != null && known != token.id || name != null && name != token.content) {
                throw DamagedTokenizer("added token ${shown(token.content)} has the number ${token.id}, the vocabulary another")
            }
        }
    }

    private companion object {
        val MODEL_KEYS = arrayOf(
            "type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges",
        )
        const val MOST_TOKENS = 1 shl 19 // Gemma 3 has 262,144
        const val MOST_MERGES = 1 shl 20 // and 514,906 merges
    }
}
