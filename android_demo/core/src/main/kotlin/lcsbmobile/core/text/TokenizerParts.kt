package lcsbmobile.core.text

import lcsbmobile.core.io.quoted

/** A small object of `tokenizer.json`, with its [name] for errors. Values are as `JsonReader.tree` gives them. */
internal class Part(private val name: String, tree: Any?) {
    private val values = tree as? Map<*, *> ?: throw DamagedTokenizer("$name: expected an object")
    val type: String get() = text("type") ?: throw DamagedTokenizer("$name: has no type")

    fun value(key: String): Any? = values[key]

    fun text(key: String): String? = values[key]?.let { it as? String ?: throw DamagedTokenizer("$name: $key is not a string") }

    fun flag(key: String, absent: Boolean = false): Boolean =
        values[key]?.let { it as? Boolean ?: throw DamagedTokenizer("$name: $key is not true or false") } ?: absent

    fun count(key: String): Int =
        (values[key] as? Double)?.toInt()?.takeIf { it >= 0 } ?: throw DamagedTokenizer("$name: $key is not a number from 0 on")

    fun list(key: String): List<*> = values[key] as? List<*> ?: throw DamagedTokenizer("$name: $key is not a list")

    /** Raises [UnsupportedTokenizer] for other keys than these. */
    fun only(vararg keys: String) {
        for (key in values.keys) if (key !in keys) throw UnsupportedTokenizer("$name with ${shown(key)}")
    }

    /** The text that a Replace or a Split looks for; null for a regular expression. */
    fun pattern(): String? = Part("$name: pattern", values["pattern"]).text("String")
}

/** Parts of a Sequence, at most one level deep, as the families have them; a part alone is one of one; null is none. */
private fun flat(name: String, tree: Any?, member: String): List<Part> {
    if (tree == null) return emptyList()
    val part = Part(name, tree)
    if (part.type != "Sequence") return listOf(part)
    return part.list(member).map { Part(name, it) }
}

internal fun normalizers(tree: Any?): List<Normalizer> = flat("normalizer", tree, "normalizers").map { part ->
    when (val type = part.type) {
        "NFC" -> NfcNormalizer
        "Replace" -> {
            val pattern = part.pattern()
            if (pattern.isNullOrEmpty()) throw UnsupportedTokenizer("the normalizer Replace of a regular expression")
            ReplaceNormalizer(pattern, part.text("content") ?: "")
        }
        "Prepend" -> PrependNormalizer(part.text("prepend") ?: "")
        else -> throw UnsupportedTokenizer("the normalizer ${shown(type)}")
    }
}

/** The pre-tokenizers in order; null is ByteLevel's writing of bytes, which [Bpe] does. */
internal fun splits(tree: Any?): List<PreTokenizer?> = flat("pre_tokenizer", tree, "pretokenizers").flatMap { part ->
    when (val type = part.type) {
        "Digits" -> listOf(DigitsSplitter(part.flag("individual_digits")))
        "Split" -> listOf(splitter(part))
        "ByteLevel" -> {
            val prefixed = part.flag("add_prefix_space", absent = true)
            if (prefixed) throw UnsupportedTokenizer("the pre-tokenizer ByteLevel with add_prefix_space")
            listOfNotNull(if (part.flag("use_regex", absent = true)) PatternSplitter.GPT2 else null) + null
        }
        else -> throw UnsupportedTokenizer("the pre-tokenizer ${shown(type)}")
    }
}

private fun splitter(part: Part): PreTokenizer {
    val behavior = part.text("behavior")
    val text = part.pattern()
    if (part.flag("invert")) throw UnsupportedTokenizer("the pre-tokenizer Split with invert")
    if (!text.isNullOrEmpty() && behavior == "MergedWithPrevious") return MarkSplitter(text)
    val expression = Part("pre_tokenizer: pattern", part.value("pattern")).text("Regex")
    if (expression == null || behavior != "Isolated") throw UnsupportedTokenizer("the pre-tokenizer Split of the kind ${shown(behavior)}")
    return PatternSplitter.of(expression) ?: throw UnsupportedTokenizer("the pre-tokenizer Split of ${shown(expression)}")
}

/** The number of the first token that stands in a TemplateProcessing's `single`; null where no token is added. */
internal fun firstSpecial(tree: Any?): Int? = flat("post_processor", tree, "processors").mapNotNull { part ->
    when (val type = part.type) {
        "ByteLevel" -> null
        "TemplateProcessing" -> templateToken(part)
        else -> throw UnsupportedTokenizer("the post-processor ${shown(type)}")
    }
}.firstOrNull()

private fun templateToken(part: Part): Int? {
    val piece = part.list("single").firstNotNullOfOrNull { Part("single", it).value("SpecialToken") } ?: return null
    val name = Part("single: SpecialToken", piece).text("id")
    val ids = Part("special_tokens: $name", Part("special_tokens", part.value("special_tokens")).value(name ?: "")).list("ids")
    val id = ids.firstOrNull() as? Double ?: throw DamagedTokenizer("special_tokens: ${shown(name)} has no number")
    return id.toInt()
}

/** Whether runs of tokens such as `<0x41>` are put together as bytes. */
internal fun decodesBytes(tree: Any?): Boolean = flat("decoder", tree, "decoders").any { it.type == "ByteFallback" }

internal fun decoder(tree: Any?): TokenDecoder {
    val decoders = flat("decoder", tree, "decoders").map { part ->
        when (val type = part.type) {
            "ByteLevel" -> ByteLevelDecoder
            "ByteFallback" -> ByteFallbackDecoder
            "Fuse" -> FuseDecoder
            "Strip" -> StripDecoder(part.text("content") ?: "", part.count("start"), part.count("stop"))
            "Replace" -> {
                val pattern = part.pattern()
                if (pattern.isNullOrEmpty()) throw UnsupportedTokenizer("the decoder Replace of a regular expression")
                ReplaceDecoder(pattern, part.text("content") ?: "")
            }
            else -> throw UnsupportedTokenizer("the decoder ${shown(type)}")
        }
    }
    if (decoders.isEmpty()) return SpaceDecoder
    return TokenDecoder { tokens -> decoders.fold(tokens) { each, decoder -> decoder.decode(each) } }
}

/** What a file says, short, for an error. */
internal fun shown(value: Any?): String = quoted(value.toString(), 40)
