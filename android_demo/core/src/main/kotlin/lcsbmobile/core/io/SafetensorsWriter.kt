package lcsbmobile.core.io

import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer

// Writing safetensors tensor by tensor. The header has the bytes that Python's json.dumps gives, so that both write the same file.

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
