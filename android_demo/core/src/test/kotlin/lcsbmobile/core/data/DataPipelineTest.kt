package lcsbmobile.core.data

import kotlinx.serialization.Serializable
import lcsbmobile.core.Fault
import lcsbmobile.core.bundle.Batch
import lcsbmobile.core.bundle.IGNORED_LABEL
import lcsbmobile.core.io.recordJson
import lcsbmobile.core.text.assertRefused
import lcsbmobile.core.text.testData
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File

/** docs/data.md's lines and files' beginnings, and all from *Order* on, against tests/golden/data_pipeline.json. */
class DataPipelineTest {
    @get:Rule
    val folder = TemporaryFolder()

    @Serializable
    private class Vectors(
        val records: List<OneRecord>,
        val fileStarts: List<FileStart>,
        val doubledEnds: List<Ends>,
        val splitmix64: List<Generator>,
        val orders: List<Order>,
        val heldOut: List<HeldOut>,
        val packing: List<Packing>,
        val epochs: List<Stream>,
        val sequences: List<Sequences>,
    )

    @Serializable
    private class OneRecord(
        val line: String,
        val reason: String? = null,
        val text: String? = null,
        val prompt: String? = null,
        val completion: String? = null,
        val turns: List<List<String>>? = null,
        val furtherKeys: List<String>? = null,
    )

    @Serializable
    private class FileStart(val file: String, val start: String, val answer: String?)

    @Serializable
    private class Ends(val ids: List<Int>, val bos: Int?, val eos: Int?, val doubled: Boolean)

    @Serializable
    private class Generator(val seed: Long, val outputs: List<String>)

    @Serializable
    private class Order(val seed: Long, val epoch: Long, val count: Long, val order: List<Long>)

    @Serializable
    private class HeldOut(val seed: Long, val count: Int, val share: Double, val heldOut: List<Int>)

    @Serializable
    private class Packing(val seqLen: Int, val openSequences: Int, val sizes: List<Int>, val sequences: List<List<Long>>)

    @Serializable
    private class Stream(val seqLen: Int, val seed: Long, val sizes: List<Int>, val start: Long, val sequences: List<List<Int>>)

    @Serializable
    private class OneExample(val inputIds: List<Int>, val labels: List<Int>)

    @Serializable
    private class OneBatch(val inputIds: List<Long>, val labels: List<Long>, val positionIds: List<Long>, val segmentIds: List<Long>)

    @Serializable
    private class Sequences(val seqLen: Int, val padId: Int, val tokensSha256: String, val examples: List<OneExample>, val batches: List<OneBatch>)

    private val vectors = recordJson.decodeFromString<Vectors>(File(testData, "data_pipeline.json").readText())

    /** As scripts/golden/write_data_vectors.py: example e of n tokens is 100 e + t; the first third is not counted. */
    private fun dataset(lengths: List<Int>, seqLen: Int): Dataset = DatasetWriter(seqLen, folder.root).use { writer ->
        lengths.forEachIndexed { number, length ->
            val ids = IntArray(length) { 100 * number + it }
            val labels = IntArray(length) { if (it >= length / 3 && it < length - 1) ids[it] + 1 else -100 }
            writer.add(LineExample(Example(ids, labels), Form.TEXT))
        }
        writer.dataset(File("vectors"), "")
    }

    private fun members(batch: Batch): List<Int> {
        val firsts = batch.inputIds.indices.filter { batch.positionIds[it] == 0L }.map { (batch.inputIds[it] / 100).toInt() }
        val last = batch.segmentIds.last()
        val padded = batch.labels.indices.all { batch.segmentIds[it] != last || batch.labels[it] == IGNORED_LABEL }
        return if (padded) firsts.dropLast(1) else firsts
    }

    @Test
    fun records() {
        for (case in vectors.records) {
            val raw = case.line.toByteArray()
            if (case.reason != null) {
                assertEquals(case.reason, assertThrows(case.line, LineFault::class.java) { decodeLine(raw, raw.size) }.reason)
                continue
            }
            val found = decodeLine(raw, raw.size)
            val said = when (val line = found.line) {
                is TextLine -> line.text
                is CompletionLine -> line.prompt to line.completion
                is ChatLine -> line.messages.map { listOf(it.role, it.content) }
            }
            assertEquals(case.line, case.text ?: case.turns ?: (case.prompt to case.completion), said)
            assertEquals(case.line, case.furtherKeys, found.furtherKeys)
        }
    }

    @Test
    fun fileStarts() {
        for (case in vectors.fileStarts) {
            val raw = case.start.chunked(2).map { it.toInt(16).toByte() }.toByteArray()
            assertEquals(case.answer, otherFormat(raw, raw.size, case.file))
        }
    }

    @Test
    fun whichEndsAreDoubled() {
        for (case in vectors.doubledEnds) assertEquals(case.doubled, hasDoubledEnds(case.ids.toIntArray(), case.bos, case.eos))
    }

    @Test
    fun generators() {
        for (case in vectors.splitmix64) {
            assertEquals(case.outputs, case.outputs.indices.map { "%016x".format(splitmix64(case.seed, it.toLong())) })
        }
    }

    @Test
    fun orders() {
        for (case in vectors.orders) {
            val order = shuffled(case.count, case.seed, case.epoch, folder.root)
            assertEquals(case.order, (0 until order.size).map { order[it] })
        }
    }

    @Test
    fun heldOutParts() {
        for (case in vectors.heldOut) {
            val (training, evaluation) = holdOut(dataset(List(case.count) { 4 }, 4), case.share, case.seed)
            fun numbers(part: Dataset) = (0 until part.size).map { part.example(it).inputIds[0] / 100 }
            assertEquals(case.heldOut, numbers(evaluation))
            assertEquals((0 until case.count).filter { it !in case.heldOut }, numbers(training))
        }
        val one = dataset(listOf(4), 4)
        assertRefused(Fault.DATA_EMPTY, "has one example; expected at least two") { holdOut(one, 0.5, 0) }
        assertRefused(Fault.OPTION, "hold-out: expected more than 0 and less than 1, found 1.0") { holdOut(one, 1.0, 0) }
        assertRefused(Fault.OPTION, "found NaN") { holdOut(one, Double.NaN, 0) }
    }

    @Test
    fun packing() {
        for (case in vectors.packing) {
            val numbers = case.sizes.indices.asSequence().map { it.toLong() }
            assertEquals(case.sequences, assign(numbers, { case.sizes[it.toInt()] }, case.seqLen, case.openSequences).toList())
        }
        val long = dataset(listOf(9), 9)
        val error = assertThrows(IllegalArgumentException::class.java) { pack(long, 8, 0).toList() }
        assertEquals("expected an example of at most 8 tokens, found 9", error.message)
    }

    @Test
    fun streamsWithACursor() {
        for (case in vectors.epochs) {
            val batches = epochs(dataset(case.sizes, case.seqLen), case.seqLen, 0, case.seed, case.start)
            assertEquals(case.sequences, batches.take(case.sequences.size).map(::members).toList())
        }
    }

    @Test
    fun wholeSequences() {
        for (case in vectors.sequences) {
            val data = DatasetWriter(case.seqLen, folder.root).use { writer ->
                for (each in case.examples) {
                    writer.add(LineExample(Example(each.inputIds.toIntArray(), each.labels.toIntArray()), Form.TEXT))
                }
                writer.dataset(File("vectors"), "")
            }
            assertEquals(case.tokensSha256, data.tokensSha256)
            // What was cut when the vectors were written has the token after the cut for its last label.
            assertEquals(case.examples.map { it.inputIds }, (0 until data.size).map { data.example(it).inputIds.toList() })
            assertEquals(case.examples.map { it.labels }, (0 until data.size).map { data.example(it).labels.toList() })
            val batches = pack(data, case.seqLen, case.padId).toList()
            assertEquals(case.batches.size, batches.size)
            for ((wanted, found) in case.batches.zip(batches)) {
                assertEquals(wanted.inputIds, found.inputIds.toList())
                assertEquals(wanted.labels, found.labels.toList())
                assertEquals(wanted.positionIds, found.positionIds.toList())
                assertEquals(wanted.segmentIds, found.segmentIds.toList())
            }
        }
    }

    @Test
    fun countedSequencesAreThoseOfAnEpoch() {
        val data = dataset(List(60) { 2 + it * it % 19 }, 20)
        val count = countSequences(data, 20, seed = 4)
        val seen = epochs(data, 20, 0, seed = 4).take(count.toInt()).flatMap(::members).toList()
        assertEquals((0 until 60).toList(), seen.sorted())
    }

    @Test
    fun sortingIsUnsignedAndInPlace() {
        fun sorted(numbers: List<Long>) = Spool(folder.root).use { spool ->
            numbers.forEach(spool::append)
            spool.longs().also { it.sort() }
        }.let { result -> (0 until result.size).map { result[it] } }
        val cases = listOf<(Int) -> Long>({ splitmix64(3, it.toLong()) }, { it % 7L }, { it.toLong() }, { -it.toLong() }, { 1L })
        for (numbers in cases.map { List(5000, it) } + listOf(emptyList(), listOf(2L, 1L))) {
            assertEquals(numbers.sortedBy { it.toULong() }, sorted(numbers))
        }
    }
}
