package lcsbmobile.core.data

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.IGNORED_LABEL
import lcsbmobile.core.text.ChatFormat
import lcsbmobile.core.text.Tokenizer
import java.io.File

/** Neighbouring tokens that all count for the loss, or none of them; as text. */
public class PreviewPiece(public val text: String, public val counted: Boolean)

/**
 * What a data file comes to. [sequences], their [fill] (0 to 1) and [steps] are those of seed 0's first epoch, nothing held out.
 *
 * [seqLenToCut1Percent], [seqLenToCutNone]: the least that cut at most 1 % of the lines, and none. [preview]: the first examples.
 */
public class TokenReport(
    public val sha256: String,
    public val data: DataReport,
    public val sequences: Long,
    public val fill: Double,
    public val steps: Long,
    public val seqLenToCut1Percent: Int,
    public val seqLenToCutNone: Int,
    public val preview: List<List<PreviewPiece>>,
)

/**
 * Reads the file as a run would. [accumulation]: sequences a step; [examples]: how many to show; [progress] as [readDataset].
 *
 * Raises as [readDataset] does, and with OPTION.
 */
public fun reportTokens(
    file: File,
    tokenizer: Tokenizer,
    chat: ChatFormat?,
    seqLen: Int,
    accumulation: Int,
    examples: Int,
    spool: File,
    progress: (done: Long, total: Long) -> Unit = { _, _ -> },
): TokenReport {
    val leastValues = listOf(Triple("seq-len", seqLen, 1), Triple("accumulation", accumulation, 1), Triple("preview", examples, 0))
    for ((name, value, least) in leastValues) {
        if (value < least) throw LcsbException(Fault.OPTION, "$name: expected at least $least, found $value")
    }
    val dataset = readDataset(file, tokenizer, chat, seqLen, spool, progress)
    val data = dataset.report
    val sequences = countSequences(dataset, seqLen, seed = 0)
    return TokenReport(
        sha256 = dataset.sha256,
        data = data,
        sequences = sequences,
        fill = data.tokens.toDouble() / (sequences * seqLen),
        steps = (sequences + accumulation - 1) / accumulation,
        seqLenToCut1Percent = data.lengthP99,
        seqLenToCutNone = data.longest,
        preview = (0 until minOf(examples.toLong(), dataset.size)).map { preview(dataset, it, tokenizer) },
    )
}

/**
 * What the loss sees of an example, in pieces. Decoded from its beginning each time: some tokenizers write a first token otherwise than a
 * later one.
 */
internal fun preview(dataset: Dataset, index: Long, tokenizer: Tokenizer): List<PreviewPiece> {
    val example = dataset.example(index)
    val counted = BooleanArray(example.inputIds.size) { it > 0 && example.labels[it - 1] != IGNORED_LABEL.toInt() }
    val edges = (1 until counted.size).filter { counted[it] != counted[it - 1] } + counted.size
    var start = 0
    var before = ""
    return edges.map { edge ->
        val text = tokenizer.decode(example.inputIds.copyOf(edge), specialTokens = true)
        PreviewPiece(text.drop(before.length), counted[start]).also {
            start = edge
            before = text
        }
    }
}
