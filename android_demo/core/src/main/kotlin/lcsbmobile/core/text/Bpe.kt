package lcsbmobile.core.text

import lcsbmobile.core.io.Utf8
import java.util.concurrent.ConcurrentHashMap

/** Which two tokens make which, by rank: an open hash table that grows, as a map of pairs would take five times the memory. */
internal class Merges {
    private var keys = LongArray(1 shl 10) { FREE }
    private var ranks = IntArray(keys.size)
    private var results = IntArray(keys.size / 2)
    var size = 0
        private set

    /** A pair that is there already gets the later rank, as in the library. */
    fun add(left: Int, right: Int, result: Int) {
        if (size == results.size) grow()
        put(key(left, right), size)
        results[size++] = result
    }

    /** The rank of a pair, or -1. */
    fun rank(left: Int, right: Int): Int {
        val slot = slot(key(left, right))
        return if (keys[slot] == FREE) -1 else ranks[slot]
    }

    fun result(rank: Int): Int = results[rank]

    private fun grow() {
        val (oldKeys, oldRanks) = keys to ranks
        keys = LongArray(2 * oldKeys.size) { FREE }
        ranks = IntArray(keys.size)
        results = results.copyOf(keys.size / 2)
        for (slot in oldKeys.indices) if (oldKeys[slot] != FREE) put(oldKeys[slot], oldRanks[slot])
    }

    private fun put(key: Long, rank: Int) {
        val slot = slot(key)
        keys[slot] = key
        ranks[slot] = rank
    }

    private fun slot(key: Long): Int {
        var slot = (key * MIX ushr 32).toInt() and keys.size - 1
        while (keys[slot] != FREE && keys[slot] != key) slot = slot + 1 and keys.size - 1
        return slot
    }

    private fun key(left: Int, right: Int): Long = left.toLong() shl 32 or right.toLong()

    private companion object {
        const val FREE = -1L
        const val MIX = -0x61c8864680b583ebL // odd, of the golden ratio: spreads neighbouring pairs
    }
}

/** How a vocabulary of BPE treats what it has no token for. */
internal class BpeOptions(val unknown: Int?, val fuseUnknown: Boolean, val byteFallback: Boolean, val ignoreMerges: Boolean)

/** A word's tokens in order: ids and how many bytes of the word each stands for. Grows as needed. */
internal class Symbols {
    var ids = IntArray(8)
        private set
    var sizes = IntArray(8)
        private set
    var count = 0

    fun add(id: Int, size: Int) {
        if (count == ids.size) {
            ids = ids.copyOf(2 * count)
            sizes = sizes.copyOf(2 * count)
        }
        ids[count] = id
        sizes[count++] = size
    }
}

/**
 * Byte-pair encoding of words (Sennrich, Haddow, Birch 2016): of all neighbours that make a token those of the lowest rank are joined
 * first, the leftmost of them first. A queue of them, so that a word of a million characters takes a second.
 *
 * [byteLevel]: the vocabulary writes bytes by [ByteCharacters]. [tokens]: token to id.
 */
internal class Bpe(
    private val tokens: Map<String, Int>,
    private val merges: Merges,
    private val options: BpeOptions,
    private val byteLevel: Boolean,
) {
    private val bytes = IntArray(256) { byte -> id(if (byteLevel) ByteCharacters.character(byte).toString() else "<0x%02X>".format(byte)) }
    private val pages = arrayOfNulls<IntArray>(0x1100) // of 256 code points each: a character's token, plus one
    private val known = ConcurrentHashMap<String, Symbols>() // of words met before; most texts are made of few

    init {
        for ((token, id) in tokens) {
            if (token.isEmpty()) continue
            val point = token.codePointAt(0)
            if (token.length != Character.charCount(point)) continue
            val page = pages[point shr 8] ?: IntArray(256).also { pages[point shr 8] = it }
            page[point and 0xFF] = id + 1
        }
    }

    /** The tokens of the word `text[start, end)`. They must not be changed. */
    fun word(text: String, start: Int, end: Int): Symbols {
        if (end - start > LONGEST_KNOWN) return encode(text, start, end)
        val word = text.substring(start, end)
        return known[word] ?: encode(text, start, end).also {
            if (known.size >= MOST_KNOWN) known.clear()
            known[word] = it
        }
    }

    private fun encode(text: String, start: Int, end: Int): Symbols {
        val symbols = Symbols()
        if (options.ignoreMerges && addWhole(text, start, end, symbols)) return symbols
        addCharacters(text, start, end, symbols)
        if (symbols.count > 1) Joining(symbols, merges).join()
        return symbols
    }

    private fun addWhole(text: String, start: Int, end: Int, symbols: Symbols): Boolean {
        val utf8 = utf8(text, start, end)
        val written = if (byteLevel) String(CharArray(utf8.size) { ByteCharacters.character(utf8[it].toInt() and 0xFF) }) else null
        val id = tokens[written ?: text.substring(start, end)] ?: return false
        symbols.add(id, utf8.size)
        return true
    }

    private fun addCharacters(text: String, start: Int, end: Int, symbols: Symbols) {
        val gathering = Gathering(symbols, options)
        val buffer = ByteArray(4)
        var at = start
        while (at < end) {
            val point = text.codePointAt(at)
            val id = if (byteLevel) -1 else pages[point shr 8]?.get(point and 0xFF)?.minus(1) ?: -1
            if (id >= 0) {
                gathering.add(id, Utf8.size(point))
            } else {
                val size = Utf8.write(point, buffer, 0)
                val ids = IntArray(size) { bytes[buffer[it].toInt() and 0xFF] }
                when {
                    byteLevel -> ids.forEach { gathering.add(it, 1) }
                    // Before what is not added yet, as in the library.
                    options.byteFallback && ids.all { it >= 0 } -> ids.forEach { symbols.add(it, 1) }
                    else -> gathering.add(-1, size)
                }
            }
            at += Character.charCount(point)
        }
        gathering.flush()
    }

    private fun utf8(text: String, start: Int, end: Int): ByteArray {
        val result = ByteArray(3 * (end - start))
        var size = 0
        var at = start
        while (at < end) {
            val point = text.codePointAt(at)
            size = Utf8.write(point, result, size)
            at += Character.charCount(point)
        }
        return result.copyOf(size)
    }

    private fun id(token: String): Int = tokens[token] ?: -1

    private companion object {
        const val LONGEST_KNOWN = 40 // characters
        const val MOST_KNOWN = 1 shl 14
    }
}

/** Adds symbols and, in the place of what has none, the unknown token: one for each, or for a run of them. Without one they are dropped. */
private class Gathering(private val symbols: Symbols, private val options: BpeOptions) {
    private var unknown = 0 // bytes that are not added yet

    fun add(id: Int, size: Int) {
        if (id >= 0 || !options.fuseUnknown) flush()
        if (id >= 0) symbols.add(id, size) else unknown += size
    }

    fun flush() {
        if (unknown > 0) options.unknown?.let { symbols.add(it, unknown) }
        unknown = 0
    }
}

/** Joins the symbols of one word in place. */
private class Joining(private val symbols: Symbols, private val merges: Merges) {
    private val count = symbols.count
    private val next = IntArray(count) { it + 1 }
    private val previous = IntArray(count) { it - 1 }
    private var queue = LongArray(count + 8) // a heap of rank * 2^32 + place
    private var queued = 0

    fun join() {
        for (place in 0 until count - 1) push(place)
        while (queued > 0) {
            val top = pop()
            merge((top ushr 32).toInt(), top.toInt())
        }
        var kept = 0
        for (place in 0 until count) {
            if (symbols.sizes[place] == 0) continue
            symbols.ids[kept] = symbols.ids[place]
            symbols.sizes[kept++] = symbols.sizes[place]
        }
        symbols.count = kept
    }

    private fun merge(rank: Int, place: Int) {
        val right = next[place]
        if (symbols.sizes[place] == 0 || right >= count) return
        val current = merges.rank(symbols.ids[place], symbols.ids[right])
        if (current < 0 || merges.result(current) != merges.result(rank)) return // one of the two was joined to another since
        symbols.ids[place] = merges.result(rank)
        symbols.sizes[place] += symbols.sizes[right]
        symbols.sizes[right] = 0
        next[place] = next[right]
        if (next[place] < count) previous[next[place]] = place
        if (previous[place] >= 0) push(previous[place])
        push(place)
    }

    /** The pair that begins at [place], if it makes a token. */
    private fun push(place: Int) {
        val right = next[place]
        if (right >= count) return
        val rank = merges.rank(symbols.ids[place], symbols.ids[right])
        if (rank < 0) return
        if (queued == queue.size) queue = queue.copyOf(2 * queued)
        val entry = rank.toLong() shl 32 or place.toLong()
        var at = queued++
        while (at > 0 && queue[(at - 1) / 2] > entry) {
            queue[at] = queue[(at - 1) / 2]
            at = (at - 1) / 2
        }
        queue[at] = entry
    }

    private fun pop(): Long {
        val top = queue[0]
        val last = queue[--queued]
        var at = 0
        while (2 * at + 1 < queued) {
            val child = if (2 * at + 2 < queued && queue[2 * at + 2] < queue[2 * at + 1]) 2 * at + 2 else 2 * at + 1
            if (queue[child] >= last) break
            queue[at] = queue[child]
            at = child
        }
        queue[at] = last
        return top
    }
}
