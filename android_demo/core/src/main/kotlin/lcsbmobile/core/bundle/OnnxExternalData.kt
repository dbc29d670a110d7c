package lcsbmobile.core.bundle

import lcsbmobile.core.io.ioReason
import lcsbmobile.core.io.quoted
import lcsbmobile.core.io.readBounded
import lcsbmobile.core.io.some
import lcsbmobile.core.io.strictUtf8
import java.io.File
import java.io.IOException

// Which bytes outside itself an ONNX file names as its tensors' data. Every program is walked through before a session is made of it: a
// protobuf reader of the fields that lead to a tensor, which refuses what no exporter writes (a single field that stands twice, which
// parsers merge; groups; a message past its end). Field numbers are those of onnx.proto3, the wire format protobuf's.

internal const val PROGRAM_BYTES = 16 shl 20 // that are read; 130 kB are usual: a program holds no weights
private const val MOST_FIELDS = 200_000 // in a file; 6,000 are usual
private const val MOST_DEPTH = 100 // of messages within messages, protobuf's own limit
private const val VARINT = 0
private const val BYTES = 2
private val FIXED = mapOf(1 to 8L, 5 to 4L) // wire types with their bytes
private val NUMBER = Regex("[0-9]{1,18}")
private val KEYS = listOf("location", "offset", "length", "checksum")

private class Holds(val inner: String, val once: Boolean = false)

/** Message -> the fields that lead to a tensor, and the message that each holds. */
private val MESSAGES = mapOf(
    "model" to mapOf(7L to Holds("graph", true), 20L to Holds("training"), 25L to Holds("function")),
    "training" to mapOf(1L to Holds("graph", true), 2L to Holds("graph", true)),
    "function" to mapOf(7L to Holds("node"), 11L to Holds("attribute")),
    "graph" to mapOf(1L to Holds("node"), 5L to Holds("tensor"), 15L to Holds("sparse")),
    "node" to mapOf(5L to Holds("attribute")),
    "attribute" to mapOf(
        5L to Holds("tensor", true), 6L to Holds("graph", true), 10L to Holds("tensor"), 11L to Holds("graph"),
        22L to Holds("sparse", true), 23L to Holds("sparse"),
    ),
    "sparse" to mapOf(1L to Holds("tensor", true), 2L to Holds("tensor", true)),
    "tensor" to mapOf(8L to Holds("name", true), 13L to Holds("entry"), 14L to Holds("number", true)),
    "entry" to mapOf(1L to Holds("key", true), 2L to Holds("value", true)),
)

/** A tensor that is marked as external, or says where its data is: [entries], each key once. */
internal class ExternalTensor(val name: String, val entries: Map<String, String>)

/** Throws BUNDLE_UNREADABLE for a file that cannot be read, is too large, or is no ONNX file as exporters write them. */
internal fun externalTensors(file: File): List<ExternalTensor> = try {
    OnnxWalk(readBounded(file, PROGRAM_BYTES)).all()
} catch (error: MalformedProgram) {
    throw unreadable("$file: not an ONNX file as exporters write them: ${error.message}; export the bundle again", error)
} catch (error: IOException) {
    throw unreadable("$file: cannot be read: ${ioReason(error)}", error)
}

/**
 * Throws BUNDLE_UNREADABLE unless all external data lies within the first [dataSize] bytes of [dataFile], beside the program, and belongs to
 * tensors of these [names].
 */
internal fun checkExternalData(file: File, dataFile: String, dataSize: Long, names: List<String>) {
    val faults = externalTensors(file).mapNotNull { tensor ->
        val location = tensor.entries["location"]
        val offset = tensor.entries["offset"] ?: "0"
        val length = tensor.entries["length"] ?: "0"
        val name = quoted(tensor.name)
        when {
            location != dataFile || !KEYS.containsAll(tensor.entries.keys) ->
                "$name has its data in ${quoted(location ?: "")}, expected ${quoted(dataFile)} and no keys but ${KEYS.joinToString()}"
            tensor.name !in names -> "$name has its data outside the program, expected ${names.joinToString().ifEmpty { "no tensor" }} to have"
            !NUMBER.matches(offset) || !NUMBER.matches(length) || offset.toLong() + length.toLong() > dataSize ->
                "$name: expected its data within $dataSize bytes, found ${quoted(length)} bytes from ${quoted(offset)}"
            else -> null
        }
    }
    if (faults.isNotEmpty()) throw unreadable("$file: ${some(faults)}; export the bundle again")
}

private class MalformedProgram(message: String) : Exception(message)

/** A field: what it holds, and where that starts and ends; of a number its value as [first]. */
private class Field(val number: Long, val wire: Int, val first: Long, val last: Long)

/** One pass through a file. Its methods take where a message starts and ends, and throw MalformedProgram. */
private class OnnxWalk(private val data: ByteArray) {
    private val found = mutableListOf<ExternalTensor>()
    private var fields = 0
    private var at = 0L

    fun all(): List<ExternalTensor> {
        message("model", 0, data.size.toLong(), 0)
        return found
    }

    private fun message(kind: String, start: Long, end: Long, depth: Int) {
        if (depth > MOST_DEPTH) throw MalformedProgram("more than $MOST_DEPTH messages within each other")
        known(kind, start, end) { inner, field ->
            if (inner == "tensor") tensor(field.first, field.last) else message(inner, field.first, field.last, depth + 1)
        }
    }

    private fun tensor(start: Long, end: Long) {
        var name = ""
        var external = false
        val entries = mutableListOf<Pair<String, String>>()
        known("tensor", start, end) { inner, field ->
            when (inner) {
                "name" -> name = text(field)
                "number" -> external = field.first != 0L
                else -> entries += entry(field)
            }
        }
        if (entries.map { it.first }.toSet().size < entries.size) throw MalformedProgram("the tensor ${quoted(name)} has a key twice")
        if (external || entries.isNotEmpty()) found += ExternalTensor(name, entries.toMap())
    }

    private fun entry(place: Field): Pair<String, String> {
        val parts = mutableMapOf<String, String>()
        known("entry", place.first, place.last) { inner, field -> parts[inner] = text(field) }
        return (parts["key"] ?: "") to (parts["value"] ?: "")
    }

    /** The fields of MESSAGES, one after the other. */
    private fun known(kind: String, start: Long, end: Long, take: (String, Field) -> Unit) {
        val seen = HashSet<Long>()
        var next = start
        while (next < end) {
            val field = field(next, end)
            next = at
            val holds = MESSAGES.getValue(kind)[field.number] ?: continue
            if (holds.once && !seen.add(field.number)) throw MalformedProgram("field ${field.number} of $kind stands twice")
            val wire = if (holds.inner == "number") VARINT else BYTES
            if (field.wire != wire) throw MalformedProgram("field ${field.number} of $kind is of wire type ${field.wire}")
            take(holds.inner, field)
        }
    }

    /** The field that starts there; leaves [at] where the next one does. */
    private fun field(start: Long, end: Long): Field {
        if (++fields > MOST_FIELDS) throw MalformedProgram("more than $MOST_FIELDS fields")
        at = start
        val tag = varint(end)
        val number = tag ushr 3
        val wire = (tag and 7).toInt()
        if (number !in 1 until (1L shl 29)) throw MalformedProgram("field number $number")
        if (wire == VARINT) return varint(end).let { Field(number, wire, it, it) }
        val size = if (wire == BYTES) varint(end) else FIXED[wire] ?: throw MalformedProgram("wire type $wire")
        if (size !in 0..end - at) throw MalformedProgram("a field of $size bytes where ${end - at} are left")
        val first = at
        at += size
        return Field(number, wire, first, at)
    }

    /** The number at [at], which it moves past. */
    private fun varint(end: Long): Long {
        var value = 0L
        for (shift in 0 until 64 step 7) {
            if (at >= end) break
            val byte = data[at.toInt()].toLong()
            at++
            if (shift == 63 && byte and 0x7e != 0L) break
            value = value or ((byte and 0x7f) shl shift)
            if (byte >= 0) return value
        }
        throw MalformedProgram("a number that does not end")
    }

    private fun text(field: Field): String = try {
        strictUtf8(data, field.first.toInt(), field.last.toInt())
    } catch (error: IOException) {
        throw MalformedProgram(ioReason(error))
    }
}
