package lcsbmobile.core.io

import kotlinx.serialization.Serializable
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.decodeFromJsonElement
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import java.io.File
import java.io.IOException
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import java.nio.channels.FileChannel
import java.nio.file.StandardOpenOption

private const val MOST_HEADER_BYTES = 4 shl 20 // 80 kB are usual: five hundred tensors
private const val METADATA = "__metadata__"
private const val CHUNK_BYTES = 1 shl 16
private val STORED_BYTES = mapOf("F32" to 4L, "F16" to 2L, "BF16" to 2L, "I64" to 8L, "I32" to 4L, "U8" to 1L, "I8" to 1L, "BOOL" to 1L)

internal val FLOATS = listOf("F32", "F16", "BF16") // a BF16 is the upper half of an F32

/** An IEEE half's value, exactly; Java has no call for it before 20. */
internal fun halfToFloat(half: Short): Float {
    val bits = half.toInt() and 0xFFFF
    val sign = bits and 0x8000 shl 16
    val (exponent, fraction) = (bits shr 10 and 0x1F) to (bits and 0x3FF)
    return when (exponent) {
        0 -> Math.scalb(fraction.toFloat(), -24).let { if (sign == 0) it else -it }
        0x1F -> java.lang.Float.intBitsToFloat(sign or 0x7F800000 or (fraction shl 13))
        else -> java.lang.Float.intBitsToFloat(sign or (exponent + 112 shl 23) or (fraction shl 13))
    }
}

/** An entry of the header. [dataOffsets]: where its bytes begin and end, from the end of the header. */
@Serializable
internal class StoredTensor(val dtype: String, val shape: List<Long>, val dataOffsets: List<Long>) {
    val nbytes: Long get() = dataOffsets[1] - dataOffsets[0]
}

/**
 * A safetensors file whose header was read: an 8-byte little-endian length, a JSON header of that length, the tensors. Every tensor lies within
 * the file and is as long as its shape and dtype say. Nothing else of the file is believed; what is read goes where the caller has room.
 */
internal class StoredTensors(
    val file: File,
    val tensors: Map<String, StoredTensor>,
    val metadata: Map<String, String>,
    val dataStart: Long,
    private val fault: Fault,
) {
    /** A tensor of one of [FLOATS] into all of [into], as float32, by way of a small buffer of the heap. */
    fun readFloats(name: String, into: FloatBuffer) {
        val tensor = tensors.getValue(name)
        val bytes = STORED_BYTES.getValue(tensor.dtype).toInt()
        require(tensor.dtype in FLOATS && into.capacity() * bytes.toLong() == tensor.nbytes) { "$name: other than ${into.capacity()} of $FLOATS" }
        val chunk = ByteBuffer.allocate(CHUNK_BYTES).order(ByteOrder.LITTLE_ENDIAN)
        var done = 0
        while (done < into.capacity()) {
            val count = minOf(CHUNK_BYTES / bytes, into.capacity() - done)
            readBytes(tensor, done * bytes.toLong(), chunk.part(0, count * bytes))
            val values = into.part(done, count)
            when (tensor.dtype) {
                "F32" -> values.put(chunk.asFloatBuffer().part(0, count))
                "F16" -> for (i in 0 until count) values.put(i, halfToFloat(chunk.getShort(2 * i)))
                else -> for (i in 0 until count) values.put(i, java.lang.Float.intBitsToFloat(chunk.getShort(2 * i).toInt() shl 16))
            }
            done += count
        }
    }

    private fun readBytes(tensor: StoredTensor, from: Long, into: ByteBuffer) {
        try {
            FileChannel.open(file.toPath(), StandardOpenOption.READ).use { channel ->
                readFully(channel, dataStart + tensor.dataOffsets[0] + from, into)
            }
        } catch (error: IOException) {
            throw LcsbException(fault, "$file: cannot be read: ${ioReason(error)}", listOf(file.name), error)
        }
    }
}

/** Reads and checks the header. Throws [fault] for what is no safetensors file, or a damaged one, or has a header of more than 4 MiB. */
internal fun openTensors(file: File, fault: Fault): StoredTensors {
    fun refused(what: String, cause: Throwable? = null) = LcsbException(fault, "$file: $what", listOf(file.name), cause)
    try {
        if (!file.isFile) throw refused("no such file")
        FileChannel.open(file.toPath(), StandardOpenOption.READ).use { channel ->
            val size = channel.size()
            val start = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN)
            val length = if (size < 8) -1 else start.also { readFully(channel, 0, it) }.getLong(0)
            if (length !in 2..minOf(size - 8, MOST_HEADER_BYTES.toLong())) {
                throw refused("not a safetensors file, or a truncated one: of $size bytes its header is said to have $length")
            }
            val header = ByteBuffer.allocate(length.toInt()).also { readFully(channel, 8, it) }
            return parse(file, strictUtf8(header.array()), size - 8 - length, fault)
        }
    } catch (error: IOException) {
        throw refused("cannot be read: ${ioReason(error)}", error)
    } catch (error: IllegalArgumentException) {
        // kotlinx.serialization's
        throw refused("not a safetensors file, or a damaged one: ${jsonFault(error)}", error)
    }
}

private fun parse(file: File, text: String, dataSize: Long, fault: Fault): StoredTensors {
    val fields = Json.decodeFromString<Map<String, JsonElement>>(text)
    repeatedKey(text)?.let { throw LcsbException(fault, "$file: damaged: the key ${quoted(it)} stands twice in an object", listOf(file.name)) }
    val metadata = fields[METADATA]?.let { Json.decodeFromJsonElement<Map<String, String>>(it) } ?: emptyMap()
    val tensors = (fields - METADATA).mapValues { recordJson.decodeFromJsonElement(StoredTensor.serializer(), it.value) }
    val faults = tensors.filterValues { !liesWithin(it, dataSize) }.keys.map { quoted(it, 80) }
    if (faults.isNotEmpty()) {
        val more = if (faults.size > 3) " and ${faults.size - 3} more" else ""
        val what = "damaged or truncated: not within the file as its header says: ${faults.take(3).joinToString()}$more"
        throw LcsbException(fault, "$file: $what", listOf(file.name))
    }
    return StoredTensors(file, tensors, metadata, 8 + text.toByteArray().size.toLong(), fault)
}

private fun liesWithin(tensor: StoredTensor, size: Long): Boolean {
    if (tensor.dataOffsets.size != 2 || tensor.shape.size > 8 || tensor.shape.any { it < 0 }) return false
    val (start, end) = tensor.dataOffsets
    if (start < 0 || start > end || end > size) return false
    var bytes = STORED_BYTES[tensor.dtype] ?: return true
    for (count in tensor.shape) bytes = if (count > 0 && bytes > size / count) return false else bytes * count
    return bytes == end - start
}

private fun readFully(channel: FileChannel, from: Long, into: ByteBuffer) {
    val place: Buffer = into
    while (place.hasRemaining()) {
        if (channel.read(into, from + place.position()) < 0) throw IOException("ended while it was read")
    }
}
