package lcsbmobile.core.text

import lcsbmobile.core.Fault
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File

/** What a tokenizer's files say beside ids of texts, and files that are refused. */
class TokenizerTest {
    @get:Rule
    val folder = TemporaryFolder()

    private val model = """"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}, "merges": ["a b"]}"""

    private fun open(content: String, config: String = "{}", vocabSize: Int = 100) = folder.open(content.toByteArray(), config, vocabSize)

    private fun unsupported(what: String, content: String) =
        assertRefused(Fault.TOKENIZER_UNSUPPORTED, "tokenizer.json: $what: not supported") { open(content) }

    private fun damaged(what: String, content: String, config: String = "{}", vocabSize: Int = 100) =
        assertRefused(Fault.TOKENIZER_DAMAGED, what) { open(content, config, vocabSize) }

    @Test
    fun whereDocumentsBeginAndEnd() {
        val settings = """"bos_token": {"content": "<|begin_of_text|>"}, "eos_token": "<|eot_id|>", "eos_token_id": [7, 3001]"""
        val config = """{"chat_template": [{}], $settings}"""
        val tokenizer = folder.tokenizer("llama3", config)
        val (bos, eos) = tokenizer.encode("<|begin_of_text|>").single() to tokenizer.encode("<|eot_id|>").single()
        assertEquals(listOf(bos, eos, eos), listOf(tokenizer.bosId, tokenizer.eosId, tokenizer.padId))
        assertEquals(setOf(7, 3001, eos), tokenizer.endIds)
        assertArrayEquals(intArrayOf(bos) + tokenizer.encode("Hi"), tokenizer.encodePrompt("Hi"))
        assertArrayEquals(intArrayOf(bos) + tokenizer.encode("Hi") + eos, tokenizer.encodeDocument("Hi"))
        val without = folder.tokenizer("llama3", """{$settings, "add_bos_token": false}""")
        assertArrayEquals(tokenizer.encode("Hi"), without.encodePrompt("Hi"))
        assertEquals("Hi", tokenizer.decode(tokenizer.encodeDocument("Hi")))
        assertEquals("<|begin_of_text|>Hi<|eot_id|>", tokenizer.decode(tokenizer.encodeDocument("Hi"), specialTokens = true))
    }

    @Test
    fun withoutTokensOfBeginningAndEnd() {
        val tokenizer = folder.tokenizer("qwen2")
        assertEquals(listOf(null, null, 0), listOf(tokenizer.bosId, tokenizer.eosId, tokenizer.padId))
        assertArrayEquals(tokenizer.encode("Hi"), tokenizer.encodeDocument("Hi"))
        assertArrayEquals(tokenizer.encode(" Hi"), tokenizer.encodeContinuation(" Hi"))
        assertEquals(0, tokenizer.encode("").size)
        val named = folder.tokenizer("qwen2", """{"bos_token": "<|im_start|>"}""") // which its post-processor does not add
        assertArrayEquals(named.encode("Hi"), named.encodePrompt("Hi"))
    }

    @Test
    fun theBundlesTokenizers() {
        for (name in listOf("tiny", "llama", "qwen2", "gemma3")) {
            val tokenizer = Tokenizer.open(File(testBundles, name), 512)
            assertEquals(name, "memory", tokenizer.decode(tokenizer.encodeDocument("memory")))
            assertEquals(setOf(tokenizer.eosId), tokenizer.endIds - 258)
        }
    }

    @Test
    fun halvesOfPairsAreReplaced() {
        val tokenizer = folder.tokenizer("qwen2")
        assertEquals("a\uFFFDb\uFFFD", tokenizer.decode(tokenizer.encode("a\uD83Db\uDE00")))
    }

    @Test
    fun mergesInBothSpellings() {
        assertArrayEquals(intArrayOf(2, 3), open("{$model}").encode("abc"))
        assertArrayEquals(intArrayOf(2, 3), open("{${model.replace("[\"a b\"]", "[[\"a\", \"b\"]]")}}").encode("abc"))
    }

    @Test
    fun aWordOfTheVocabularyThatNoMergesMake() {
        val whole = model.replace("\"c\": 3", "\"c\": 3, \"abc\": 4")
        assertArrayEquals(intArrayOf(2, 3), open("{$whole}").encode("abc"))
        assertArrayEquals(intArrayOf(4), open("{${whole.dropLast(1)}, \"ignore_merges\": true}}").encode("abc"))
    }

    @Test
    fun kindsThatAreRefused() {
        unsupported("a model of the type 'Unigram'", """{"model": {"type": "Unigram", "vocab": []}}""".replace("[]", "{}"))
        unsupported("a model that is not BPE", """{"model": {"vocab": [["a", 0.5]]}}""")
        unsupported("a model of the type 'WordLevel'", "{${model.replace("BPE", "WordLevel")}}")
        unsupported("dropout", "{${model.dropLast(1)}, \"dropout\": 0.1}}")
        unsupported("end_of_word_suffix", "{${model.dropLast(1)}, \"end_of_word_suffix\": \"</w>\"}}")
        unsupported("model with 'extra'", "{${model.dropLast(1)}, \"extra\": 1}}")
        unsupported("merges that stand before the vocabulary", """{"model": {"merges": [], "vocab": {"a": 0}}}""")
        unsupported("the part 'more'", """{"more": 1}""")
        fun part(what: String, part: String) = unsupported(what, "{$model, $part}")
        part("the normalizer 'Lowercase'", """"normalizer": {"type": "Lowercase"}""")
        fun replace(pattern: String) = """{"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": $pattern, "content": "b"}]}"""
        part("the normalizer Replace of a regular expression", """"normalizer": ${replace("""{"Regex": "a"}""")}""")
        part("the pre-tokenizer 'Metaspace'", """"pre_tokenizer": {"type": "Metaspace"}""")
        part("the pre-tokenizer ByteLevel with add_prefix_space", """"pre_tokenizer": {"type": "ByteLevel"}""")
        fun split(pattern: String, more: String) = """"pre_tokenizer": {"type": "Split", "pattern": {$pattern}, $more}"""
        part("the pre-tokenizer Split of '(?i)x'", split(""""Regex": "(?i)x"""", """"behavior": "Isolated", "invert": false"""))
        part("the pre-tokenizer Split of the kind 'Removed'", split(""""String": " """", """"behavior": "Removed", "invert": false"""))
        part("the pre-tokenizer Split with invert", split(""""String": " """", """"behavior": "MergedWithPrevious", "invert": true"""))
        val bytes = """{"type": "ByteLevel", "add_prefix_space": false}"""
        part("a pre-tokenizer behind ByteLevel", """"pre_tokenizer": {"type": "Sequence", "pretokenizers": [$bytes, {"type": "Digits"}]}""")
        part("the post-processor 'BertProcessing'", """"post_processor": {"type": "BertProcessing"}""")
        part("the decoder 'WordPiece'", """"decoder": {"type": "WordPiece"}""")
        part("added token 'x' with lstrip", """"added_tokens": [{"id": 9, "content": "x", "lstrip": true}]""")
    }

    @Test
    fun filesThatAreRefused() {
        damaged("tokenizer.json: not a readable tokenizer: ends too early at byte 0", "")
        damaged("expected the end at byte", "{$model} x")
        damaged("a merge with 'x', which is not in the vocabulary,", "{${model.replace("\"a b\"", "\"a x\"")}}")
        damaged("a merge that does not have two parts", "{${model.replace("\"a b\"", "\"a b c\"")}}")
        damaged("a merge that does not have two parts", "{${model.replace("\"a b\"", "[\"a\"]")}}")
        damaged("'a' and 'c' have the number 0", "{${model.replace(": 3", ": 0")}}")
        damaged("token 'c' has the number 524288, outside 0 to 524287,", "{${model.replace(": 3", ": 524288")}}")
        damaged("expected a whole number below 2^31, found 0.5", "{${model.replace(": 3", ": 0.5")}}")
        damaged("the model has no merges", """{"model": {"vocab": {"a": 0}}}""")
        damaged("unk_token '?' is not in the vocabulary", "{${model.dropLast(1)}, \"unk_token\": \"?\"}}")
        damaged("added token 'x' has the number 1, the vocabulary another", """{$model, "added_tokens": [{"id": 1, "content": "x"}]}""")
        damaged("added token 'a' has the number 7, the vocabulary another", """{$model, "added_tokens": [{"id": 7, "content": "a"}]}""")
        damaged("an added token of the number 1.0E9", """{$model, "added_tokens": [{"id": 1e9, "content": "x"}]}""")
        damaged("a value of too many parts", """{$model, "normalizer": ${"[".repeat(100_000)}""")
        damaged("a value of too many parts", """{$model, "normalizer": [${"1,".repeat(100_000)}""")
        damaged("a value nested too deep", """{$model, "padding": ${"[".repeat(100_000)}""")
        damaged("a string of more than 1048576 bytes", "{\"" + "a".repeat(1_100_000))
        damaged("normalizer: has no type", """{$model, "normalizer": {}}""")
        damaged("normalizer: expected an object", """{$model, "normalizer": [1]}""")
        damaged("eos_token '</s>' is not a token of tokenizer.json", "{$model}", """{"eos_token": "</s>"}""")
        damaged("bos_token: expected a string or {\"content\": string}, found '3.0'", "{$model}", """{"bos_token": 3}""")
        damaged("eos_token_id: expected a number or a list of numbers", "{$model}", """{"eos_token_id": ["x"]}""")
        damaged("bos_token: token 3 ('c') is outside the model's vocabulary of 3", "{$model}", """{"bos_token": "c"}""", 3)
        val small = open("{$model}", vocabSize = 3)
        assertRefused(Fault.TOKENIZER_DAMAGED, "token 3 ('c') is outside the model's vocabulary of 3") { small.encode("abc") }
        assertRefused(Fault.TOKENIZER_DAMAGED, "no such file") { Tokenizer.open(folder.newFolder(), 3) }
    }
}
