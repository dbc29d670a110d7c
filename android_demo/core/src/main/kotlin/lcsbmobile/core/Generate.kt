package lcsbmobile.core

import kotlinx.serialization.Serializable
import lcsbmobile.core.io.quoted
import lcsbmobile.core.runtime.Decoder
import lcsbmobile.core.runtime.StepRunner
import lcsbmobile.core.text.ChatFormat
import lcsbmobile.core.text.Message
import lcsbmobile.core.text.Tokenizer
import java.nio.FloatBuffer
import java.util.Random
import kotlin.math.exp

// Text from the base or the adapted model, a token at a time.

private const val REPLACEMENT = '\uFFFD' // what a decoder makes of bytes that are no character

/**
 * [temperature] 0 takes the likeliest token. [topP]: sample from the smallest set of that probability (nucleus sampling, arXiv 1904.09751).
 * [stop]: texts; the one that is complete first ends the text, and nothing of it is given out.
 */
@Serializable
public data class SamplingConfig(
    val temperature: Double = 0.8,
    val topP: Double = 0.95,
    val seed: Long = 0,
    val maxTokens: Int = 64,
    val stop: List<String> = emptyList(),
) {
    /** Throws OPTION. */
    public fun check() {
        fun refused(name: String, what: String) = LcsbException(Fault.OPTION, "$name: expected $what", listOf(name))
        if (maxTokens < 1) throw refused("max-tokens", "at least 1, found $maxTokens")
        if (!(temperature >= 0)) throw refused("temperature", "0 or more, found $temperature")
        if (!(topP > 0 && topP <= 1)) throw refused("top-p", "more than 0 and at most 1, found $topP")
        if (seed < 0) throw refused("seed", "0 or more, found $seed")
        if (stop.any { it.isEmpty() }) throw refused("stop", "a text, found an empty one")
    }
}

/** A question of the user and what the assistant answered. */
@Serializable
public data class Exchange(val question: String, val answer: String)

/**
 * The prompt is a user's message, given to the model in the words of the chat format; [system]: an instruction before it. [earlier]: what was said
 * before it, the oldest first.
 */
public class Chat(public val format: ChatFormat, public val system: String? = null, public val earlier: List<Exchange> = emptyList()) {
    /** Without the first [forgotten] of [earlier]. Throws CHAT_UNSUPPORTED when the format does not take the messages. */
    internal fun promptIds(tokenizer: Tokenizer, message: String, forgotten: Int = 0): IntArray {
        val said = earlier.drop(forgotten).flatMap { listOf(Message("user", it.question), Message("assistant", it.answer)) }
        val messages = listOfNotNull(system?.let { Message("system", it) }) + said + Message("user", message)
        return tokenizer.encode(format.render(messages, addGenerationPrompt = true))
    }

    /** The prompt's tokens, and how many of [earlier] were left out, the oldest first, for [room] tokens of the sequence to stay free. */
    internal fun fitting(tokenizer: Tokenizer, message: String, seqLen: Int, room: Int): Pair<IntArray, Int> {
        for (forgotten in earlier.indices) {
            val ids = promptIds(tokenizer, message, forgotten)
            if (ids.size + room <= seqLen) return ids to forgotten
        }
        return promptIds(tokenizer, message, earlier.size) to earlier.size
    }
}

public enum class TextEnd { END_TOKEN, STOP_TEXT, MAX_TOKENS, SEQUENCE_FULL }

/**
 * The text after [prompt], or with [chat] the answer to it, in pieces as it is written.
 *
 * It ends at a token that ends a text or a turn (`Tokenizer.endIds`), before a stop text, after `maxTokens`, or when the sequence is full. Of a
 * conversation that leaves less than `maxTokens`, or a quarter of the sequence, the oldest exchanges are left out ([Continuation.forgotten]).
 * Every call reads the whole conversation anew: as long as an evaluation of so many tokens takes.
 * Throws OPTION when the prompt leaves no room, or for a stop text that has a special token within it.
 */
public fun generate(
    runner: StepRunner,
    bundle: Bundle,
    adapter: FloatBuffer,
    prompt: String,
    config: SamplingConfig,
    chat: Chat? = null,
): Continuation {
    val seqLen = bundle.manifest.seqLen
    val room = minOf(config.maxTokens, seqLen / 4)
    val (ids, forgotten) = chat?.fitting(bundle.tokenizer, prompt, seqLen, room) ?: (bundle.tokenizer.encodePrompt(prompt) to 0)
    return generate(runner, bundle, adapter, ids, config, forgotten)
}

/** The text after the tokens [ids]. */
internal fun generate(
    runner: StepRunner,
    bundle: Bundle,
    adapter: FloatBuffer,
    ids: IntArray,
    config: SamplingConfig,
    forgotten: Int = 0,
): Continuation {
    config.check()
    val seqLen = bundle.manifest.seqLen
    if (ids.size !in 1 until seqLen) {
        throw LcsbException(Fault.OPTION, "prompt: expected 1 to ${seqLen - 1} tokens, found ${ids.size}; give another prompt", listOf("prompt"))
    }
    return Continuation(runner.decoder(adapter), bundle.tokenizer, ids, seqLen, config, forgotten)
}

/**
 * The pieces of a text as it is written; may be iterated once. Together they are what the tokenizer makes of all tokens at once, with U+FFFD
 * for what is no text. A piece ends where no further token changes the text so far, and where it cannot be the beginning of a stop text.
 *
 * [tokens]: written so far, without the one that ended the text. [prefillSeconds]: to the first token. [decoded], [decodeSeconds]: of the tokens
 * after it, an ending one included; what the reader of the pieces does meanwhile is not counted. [ended]: why, once it has. [forgotten]: how many of
 * a conversation's oldest exchanges did not fit.
 */
public class Continuation internal constructor(
    private val decoder: Decoder,
    private val tokenizer: Tokenizer,
    private val prompt: IntArray,
    seqLen: Int,
    private val config: SamplingConfig,
    public val forgotten: Int = 0,
) : Sequence<String>, AutoCloseable {
    private val before = beginnings(tokenizer, prompt)
    private val most = minOf(config.maxTokens, seqLen - prompt.size)
    private val full = if (most == config.maxTokens) TextEnd.MAX_TOKENS else TextEnd.SEQUENCE_FULL
    private val endings = endings(tokenizer, config.stop)
    private val pieces = sequence { write(StopTexts(endings.second)) }.constrainOnce()

    public var tokens: Int = 0
        private set
    public var decoded: Int = 0
        private set
    public var prefillSeconds: Double = 0.0
        private set
    public var decodeSeconds: Double = 0.0
        private set
    public var ended: TextEnd? = null
        private set

    override fun iterator(): Iterator<String> = pieces.iterator()

    /** Of a text that is not read to its end; otherwise it happens by itself. */
    override fun close(): Unit = decoder.close()

    private suspend fun SequenceScope<String>.write(stop: StopTexts) = decoder.use {
        val random = Random(config.seed)
        val written = ArrayList<Int>()
        while (ended == null) {
            val token = next(written, random)
            if (token in endings.first) {
                ended = TextEnd.END_TOKEN
                break
            }
            written += token
            tokens = written.size
            val piece = stop.grow(settled(written))
            if (piece.isNotEmpty()) yield(piece)
            if (stop.met) {
                ended = TextEnd.STOP_TEXT
            } else if (tokens == most) {
                ended = full
            }
        }
        if (!stop.met) {
            val rest = stop.end(text(written))
            if (stop.met) ended = TextEnd.STOP_TEXT
            if (rest.isNotEmpty()) yield(rest)
        }
    }

    private fun next(written: List<Int>, random: Random): Int {
        val started = System.nanoTime()
        val token = sample(if (written.isEmpty()) decoder.prefill(prompt) else decoder.next(written.last()), config, random)
        val seconds = (System.nanoTime() - started) / 1e9
        if (written.isEmpty()) {
            prefillSeconds = seconds
        } else {
            decodeSeconds += seconds
            decoded++
        }
        return token
    }

    /** What of the tokens' text stays as it is whatever follows: bytes that are no character yet are U+FFFD at its end. */
    private fun settled(written: List<Int>): String {
        val count = tokenizer.settled(prompt + written) - prompt.size
        return text(written.take(maxOf(count, 0))).trimEnd(REPLACEMENT)
    }

    /** What the tokens add to the prompt's text: alone, some decoders would drop a blank before the first word. */
    private fun text(written: List<Int>): String {
        val whole = tokenizer.decode(prompt + written)
        val begun = before.firstOrNull { whole.startsWith(it) }
        return if (begun == null) tokenizer.decode(written.toIntArray()) else whole.substring(begun.length)
    }
}

/**
 * What a text that begins with the tokens may begin with: their text, or with U+FFFD for each byte of the run of byte fallback at their end, if
 * the bytes that follow break it.
 */
private fun beginnings(tokenizer: Tokenizer, ids: IntArray): List<String> {
    val settled = tokenizer.settled(ids)
    val run = ids.drop(settled).count { it !in tokenizer.specialIds }
    return listOf(tokenizer.decode(ids), tokenizer.decode(ids.copyOf(settled)) + REPLACEMENT.toString().repeat(run))
}

/** What may be given out of a text that grows at its end. [met]: a stop text is in it; nothing comes after that. */
internal class StopTexts(private val stop: List<String>) {
    var met = false
        private set
    private var given = 0 // characters

    /** The next piece, perhaps empty; [text] is all that was written so far, and stays as it is. */
    fun grow(text: String): String = give(text, begun(text))

    /** The last piece: of the whole text, of which no more is to come. */
    fun end(text: String): String = give(text, 0)

    private fun give(text: String, held: Int): String {
        // The one that is complete first, so that it does not matter where one token ends and the next begins.
        val first = stop.map { text.indexOf(it) to it }.filter { it.first >= 0 }.minWithOrNull(compareBy({ it.first + it.second.length }, { it.first }))
        met = first != null
        val end = first?.first ?: (text.length - held)
        if (end <= given) return ""
        return text.substring(given, end).also { given = end }
    }

    /** Characters at the end of [text] that may be the beginning of a stop text. */
    private fun begun(text: String): Int {
        val most = minOf(text.length, (stop.maxOfOrNull { it.length } ?: 1) - 1)
        return (most downTo 1).firstOrNull { size -> stop.any { it.startsWith(text.substring(text.length - size)) } } ?: 0
    }
}

/**
 * The tokens and the texts that end a text. A special token has no text: given as a stop text it is one of the former. Throws OPTION for a stop
 * text that has such a token within it, as it could not be met.
 */
private fun endings(tokenizer: Tokenizer, stop: List<String>): Pair<Set<Int>, List<String>> {
    val ends = tokenizer.endIds.toMutableSet()
    val texts = ArrayList<String>()
    for (text in stop) {
        val ids = tokenizer.encode(text)
        val special = ids.filter { it in tokenizer.specialIds }
        if (special.isNotEmpty() && ids.size > 1) {
            val found = quoted(text)
            throw LcsbException(Fault.OPTION, "stop: expected a text or one special token, found $found, which has a special token within it")
        }
        if (special.isEmpty()) texts += text else ends += special
    }
    return ends to texts
}

/**
 * A token id from logits [V]: one draw of [random], none at temperature 0. The generator is Java's, so a sampled text is another than Python's
 * of the same seed. Throws RUNTIME_FAILED for NaN and infinite logits.
 */
internal fun sample(logits: FloatArray, config: SamplingConfig, random: Random): Int {
    if (!logits.all { it.isFinite() }) {
        throw LcsbException(Fault.RUNTIME_FAILED, "the model's logits are not finite numbers; try without the adapter, and the self-test")
    }
    val likeliest = logits.indices.maxBy { logits[it] } // the first of equals
    if (config.temperature == 0.0) return likeliest
    val top = logits[likeliest].toDouble()
    val weights = DoubleArray(logits.size) { exp((logits[it] - top) / config.temperature) }
    val ascending = weights.sortedArray()
    val wanted = config.topP * weights.sum()
    var first = ascending.size // of the smallest set that has the wanted weight
    var mass = 0.0
    do mass += ascending[--first] while (mass < wanted && first > 0)
    val least = ascending[first]
    var equals = ascending.size - first - weights.count { it > least } // as many of the least as are in the set, the first of them
    var left = random.nextDouble() * mass
    var token = likeliest
    for (index in weights.indices) {
        if (weights[index] < least || (weights[index] == least && equals-- <= 0)) continue
        token = index
        left -= weights[index]
        if (left < 0) break
    }
    return token
}
