package lcsbmobile.core.data

import kotlinx.serialization.Serializable
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.IGNORED_LABEL
import lcsbmobile.core.io.hex
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import java.util.TreeMap

private const val HELD_OUT_EPOCH = -1L // the order that chooses the examples to evaluate on, beside those of the epochs from 0
private const val MOST_KEYS = 20 // that were passed over and are counted by name; the others are counted together
private const val OTHER_KEYS = "…"

/**
 * What a data file came to. [tokens] and [countedLabels] are those of the [examples] that are trained on.
 *
 * [truncated] examples lost [tokensCut] tokens to the sequence length; [withoutLabels] examples were dropped because nothing to learn was
 * left of them. So lines = examples + withoutLabels = texts + completions + conversations. [uncountedTurns]: of the assistant, which are
 * not learned from because the chat template rewrites them (docs/data.md). [doubledEnds]: lines that held a token of beginning or end, and
 * got another by their form or the chat format. [duplicates]: lines that equal an earlier one.
 * [blankLines] are none of the lines. [furtherKeys]: in how many lines each key was that no form has; of a turn as `messages[].name`, those
 * beyond the first MOST_KEYS together as OTHER_KEYS. Lengths are tokens of all lines before they are cut, percentiles by nearest rank.
 */
@Serializable
public data class DataReport(
    val lines: Long,
    val examples: Long,
    val tokens: Long,
    val countedLabels: Long,
    val truncated: Long,
    val tokensCut: Long,
    val withoutLabels: Long,
    val texts: Long,
    val completions: Long,
    val conversations: Long,
    val uncountedTurns: Long,
    val doubledEnds: Long,
    val duplicates: Long,
    val blankLines: Long,
    val furtherKeys: Map<String, Long>,
    val lengthP50: Int,
    val lengthP90: Int,
    val lengthP99: Int,
    val longest: Int,
)

/**
 * The examples of a data file, or of a part of it, in its order; [report], [sha256] and [tokensSha256], of what it was made into, are the whole
 * file's. They lie in mapped files without a name, which go with the dataset. [spool]: the directory of temporary files.
 *
 * [lengths]: tokens of each. An example of n tokens is n + 1 of the numbers [words], from [starts] on: number t is token t times two, plus
 * one where predicting it counts; the last is the token after the example, or 0 where none counts.
 */
internal class Dataset(
    val file: File,
    val report: DataReport,
    val sha256: String,
    val tokensSha256: String,
    internal val spool: File,
    private val lengths: MappedInts,
    private val starts: MappedLongs,
    private val words: MappedInts,
) {
    /** Examples. */
    val size: Long get() = lengths.size

    /** Tokens of an example. */
    fun length(index: Long): Int = lengths[index]

    fun example(index: Long): Example {
        val start = starts[index]
        val word = IntArray(length(index) + 1) { words[start + it] }
        val labels = IntArray(word.size - 1) { if (word[it + 1] and 1 == 1) word[it + 1] shr 1 else IGNORED_LABEL.toInt() }
        return Example(IntArray(word.size - 1) { word[it] shr 1 }, labels)
    }

    /** The examples whose numbers are [from] `[start, end)`, in that order. */
    internal fun part(from: MappedLongs, start: Long, end: Long): Dataset = Spool(spool).use { partLengths ->
        Spool(spool).use { partStarts ->
            for (place in start until end) {
                partLengths.append(lengths[from[place]])
                partStarts.append(starts[from[place]])
            }
            Dataset(file, report, sha256, tokensSha256, spool, partLengths.ints(), partStarts.longs(), words)
        }
    }
}

/** Takes examples one by one, then gives the dataset. [spool]: the directory of its temporary files. */
internal class DatasetWriter(private val seqLen: Int, private val spool: File) : AutoCloseable {
    private val lengths = Spool(spool)
    private val starts = Spool(spool)
    private val words = Spool(spool)
    private val lineHashes = Spool(spool)
    private val digest = MessageDigest.getInstance("SHA-256") // of each example its length and its words, int32, little-endian
    private val forms = HashMap<Form, Long>()
    private val allLengths = TreeMap<Int, Long>()
    private var end = 0L
    private val furtherKeys = LinkedHashMap<String, Long>()

    /** That are not blank. */
    var lines = 0L
        private set
    private var blankLines = 0L
    private var examples = 0L
    private var tokens = 0L
    private var countedLabels = 0L
    private var truncated = 0L
    private var tokensCut = 0L
    private var uncountedTurns = 0L
    private var doubledEnds = 0L

    fun passOverBlank() {
        blankLines++
    }

    /** [lineHash]: 64 bits, equal for equal lines. */
    fun add(line: LineExample, lineHash: Long = 0) {
        val length = line.example.inputIds.size
        lineHashes.append(lineHash)
        forms[line.form] = (forms[line.form] ?: 0) + 1
        allLengths[length] = (allLengths[length] ?: 0) + 1
        for (key in line.furtherKeys) {
            val name = if (key in furtherKeys || furtherKeys.size < MOST_KEYS) key else OTHER_KEYS
            furtherKeys[name] = (furtherKeys[name] ?: 0) + 1
        }
        lines++
        uncountedTurns += line.uncountedTurns
        if (line.doubledEnds) doubledEnds++
        if (length > seqLen) {
            truncated++
            tokensCut += length - seqLen
        }
        val example = line.example.cut(seqLen)
        val counted = example.countedLabels
        if (counted == 0) return
        examples++
        tokens += example.inputIds.size
        countedLabels += counted
        write(example)
    }

    private fun write(example: Example) {
        val hashed = ByteBuffer.allocate(Int.SIZE_BYTES * (example.inputIds.size + 2)).order(ByteOrder.LITTLE_ENDIAN)

        fun word(value: Int) {
            words.append(value)
            hashed.putInt(value)
        }
        hashed.putInt(example.inputIds.size)
        var counts = 0
        for ((index, id) in example.inputIds.withIndex()) {
            word(id shl 1 or counts)
            counts = if (example.labels[index] == IGNORED_LABEL.toInt()) 0 else 1
        }
        word(if (counts == 1) example.labels.last() shl 1 or 1 else 0)
        digest.update(hashed.array())
        lengths.append(example.inputIds.size)
        starts.append(end)
        end += example.inputIds.size + 1
    }

    /** Raises [LcsbException] with DATA_EMPTY when there is no example. */
    fun dataset(file: File, sha256: String): Dataset {
        if (lines == 0L) throw empty(file, "the file is empty; expected one JSON object a line: $FORMS")
        if (end == 0L) {
            val what = "none of the $lines lines has a counted label within $seqLen tokens; use longer texts or a larger sequence length"
            throw empty(file, "nothing to train on: $what")
        }
        return Dataset(file, report(), sha256, hex(digest.digest()), spool, lengths.ints(), starts.longs(), words.ints())
    }

    override fun close() = listOf(lengths, starts, words, lineHashes).forEach { it.close() }

    private fun empty(file: File, reason: String) = LcsbException(Fault.DATA_EMPTY, "$file: $reason", listOf(file.name))

    private fun report() = DataReport(
        lines, examples, tokens, countedLabels, truncated, tokensCut, lines - examples,
        forms[Form.TEXT] ?: 0, forms[Form.COMPLETION] ?: 0, forms[Form.MESSAGES] ?: 0, uncountedTurns, doubledEnds,
        duplicates(), blankLines, furtherKeys,
        percentile(50), percentile(90), percentile(99), percentile(100),
    )

    /** How many of the hashes equal another one that counts as the first. Sorts them where they are. */
    private fun duplicates(): Long {
        val hashes = lineHashes.longs()
        hashes.sort()
        var count = 0L
        for (place in 1 until hashes.size) if (hashes[place] == hashes[place - 1]) count++
        return count
    }

    /** The smallest length that at least [percent] of a hundred lines do not exceed. */
    private fun percentile(percent: Int): Int {
        val wanted = (percent * lines + 99) / 100
        var below = 0L
        return allLengths.entries.first { (_, count) ->
            below += count
            below >= wanted
        }.key
    }
}

/**
 * (to train on, to evaluate on): [share] of the examples is held out, chosen by [seed], at least one of each; both in file order.
 *
 * Raises [LcsbException] with OPTION unless 0 < share < 1, and with DATA_EMPTY when there are fewer than two examples.
 */
internal fun holdOut(dataset: Dataset, share: Double, seed: Long): Pair<Dataset, Dataset> {
    if (!(share > 0 && share < 1)) throw LcsbException(Fault.OPTION, "hold-out: expected more than 0 and less than 1, found $share")
    val count = dataset.size
    if (count < 2) {
        val reason = "has one example; expected at least two, or evaluation data of its own"
        throw LcsbException(Fault.DATA_EMPTY, "${dataset.file}: $reason", listOf(dataset.file.name))
    }
    val heldOut = Math.floor(share * count + 0.5).toLong().coerceIn(1, count - 1)
    val order = shuffled(count, seed, HELD_OUT_EPOCH, dataset.spool)
    order.sort(0, heldOut)
    order.sort(heldOut, count)
    return dataset.part(order, heldOut, count) to dataset.part(order, 0, heldOut)
}
