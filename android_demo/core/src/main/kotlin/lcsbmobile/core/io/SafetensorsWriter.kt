package lcsbmobile.core.io

import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import java.nio.channels.FileChannel
import java.security.MessageDigest

// Writing safetensors tensor by tensor. The header has the bytes that Python's json.dumps gives, so that both write the same file.
// A file may state a SHA-256 of the whole of it, header included, in its metadata; the digest's own 64 characters count as zeros.

internal const val DIGEST_KEY = "sha256"
internal val UNKNOWN_DIGEST = "0".repeat(64)
private const val DIGEST_FIELD = "\"$DIGEST_KEY\":\""

/** What is written to: a file, or something that looks at what passes. It takes all of [bytes] before it returns. */
internal fun interface Sink {
    fun write(bytes: ByteBuffer)
}

/** A tensor to write. [dtype]: safetensors' name of it. [put]: puts [count] elements from the first on into a little-endian buffer. */
internal class WrittenTensor(
    val dtype: String,
    private val itemBytes: Int,
    val shape: List<Long>,
    private val put: (into: ByteBuffer, first: Int, count: Int) -> Unit,
) {
    private val elements = shape.fold(1L) { product, length -> product * length }
    val bytes: Long get() = elements * itemBytes

    fun write(sink: Sink, buffer: ByteBuffer) {
        val bounds: Buffer = buffer
        var first = 0L
        while (first < elements) {
            val count = minOf(elements - first, (buffer.capacity() / itemBytes).toLong()).toInt()
            bounds.clear()
            put(buffer, first.toInt(), count)
            bounds.flip()
            sink.write(buffer)
            first += count
        }
    }

    companion object {
        fun of(shape: List<Long>, values: FloatBuffer) =
            WrittenTensor("F32", Float.SIZE_BYTES, shape) { into, first, count ->
                into.asFloatBuffer().put(values.part(first, count))
                val bounds: Buffer = into
                bounds.position(count * Float.SIZE_BYTES)
            }

        fun of(shape: List<Long>, values: LongArray) =
            WrittenTensor("I64", Long.SIZE_BYTES, shape) { into, first, count -> repeat(count) { into.putLong(values[first + it]) } }

        fun of(shape: List<Long>, values: DoubleArray) =
            WrittenTensor("F64", Double.SIZE_BYTES, shape) { into, first, count -> repeat(count) { into.putDouble(values[first + it]) } }
    }
}

/** Writes [tensors] in their order; the first that [sink] gets is the whole header. */
internal fun writeSafetensors(sink: Sink, tensors: Map<String, WrittenTensor>, metadata: Map<String, String>) {
    val header = header(tensors, metadata).toByteArray(Charsets.US_ASCII)
    val start = ByteBuffer.allocate(8 + header.size).order(ByteOrder.LITTLE_ENDIAN)
    start.putLong(header.size.toLong()).put(header)
    val bounds: Buffer = start
    bounds.flip()
    sink.write(start)
    val buffer = ByteBuffer.allocate(1 shl 16).order(ByteOrder.LITTLE_ENDIAN)
    for (tensor in tensors.values) tensor.write(sink, buffer)
}

/** [writeSafetensors] into [channel]; then the digest goes where [metadata] has UNKNOWN_DIGEST. */
internal fun writeDigested(channel: FileChannel, tensors: Map<String, WrittenTensor>, metadata: Map<String, String>) {
    val digest = MessageDigest.getInstance("SHA-256")
    var digestAt = -1L
    val sink = Sink { bytes ->
        if (digestAt < 0) digestAt = latin1(bytes.array()).indexOf(DIGEST_FIELD + UNKNOWN_DIGEST) + DIGEST_FIELD.length.toLong()
        digest.update(bytes.duplicate())
        while (bytes.hasRemaining()) channel.write(bytes)
    }
    writeSafetensors(sink, tensors, metadata)
    val found = ByteBuffer.wrap(hex(digest.digest()).toByteArray(Charsets.US_ASCII))
    while (found.hasRemaining()) digestAt += channel.write(found, digestAt)
}

/** Of a file whose start, to the end of the [header], was read from [channel]; [stated] counts as zeros where it stands first. */
internal fun fileDigest(channel: FileChannel, header: ByteArray, stated: String): String {
    val digest = MessageDigest.getInstance("SHA-256")
    val at = latin1(header).indexOf(stated)
    if (stated.length == 64 && at >= 0) UNKNOWN_DIGEST.toByteArray(Charsets.US_ASCII).copyInto(header, at)
    digest.update(header)
    val block = ByteBuffer.allocate(1 shl 18)
    val bounds: Buffer = block
    while (channel.read(block) >= 0) {
        bounds.flip()
        digest.update(block)
        bounds.clear()
    }
    return hex(digest.digest())
}

/** A character a byte, so that what is found in it is where it is in the file. */
private fun latin1(bytes: ByteArray) = String(bytes, Charsets.ISO_8859_1)

private fun header(tensors: Map<String, WrittenTensor>, metadata: Map<String, String>): String {
    val fields = mutableListOf("\"__metadata__\":{${metadata.entries.joinToString(",") { "${asciiJson(it.key)}:${asciiJson(it.value)}" }}}")
    var offset = 0L
    for ((name, tensor) in tensors) {
        val shape = tensor.shape.joinToString(",")
        fields += "${asciiJson(name)}:{\"dtype\":\"${tensor.dtype}\",\"shape\":[$shape],\"data_offsets\":[$offset,${offset + tensor.bytes}]}"
        offset += tensor.bytes
    }
    val text = fields.joinToString(",", "{", "}")
    return text.padEnd((text.length + 7) / 8 * 8)
}
