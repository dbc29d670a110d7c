package lcsbmobile.core

import lcsbmobile.core.bundle.ANY
import lcsbmobile.core.bundle.TensorType
import java.nio.ByteBuffer
import java.nio.ByteOrder

// ONNX files of a few operators, written field by field of onnx.proto3: programs whose results can be worked out by hand.

internal fun field(number: Int, content: ByteArray): ByteArray = varint(number.toLong() shl 3 or 2) + varint(content.size.toLong()) + content

private fun field(number: Int, text: String) = field(number, text.toByteArray())

private fun field(number: Int, value: Long) = varint(number.toLong() shl 3) + varint(value)

internal fun varint(value: Long): ByteArray {
    val bytes = ArrayList<Byte>()
    var left = value
    do {
        bytes += ((left and 0x7f) or (if (left ushr 7 != 0L) 0x80 else 0)).toByte()
        left = left ushr 7
    } while (left != 0L)
    return bytes.toByteArray()
}

private val ELEMENT_TYPES = mapOf("float32" to 1L, "int64" to 7L, "float16" to 10L)

/** A program in the making: operators are called in order, and each returns the name of its result. */
internal class OnnxWriter(private val inputs: Map<String, TensorType>, private val outputs: Map<String, TensorType>) {
    private var body = ByteArray(0)
    private var count = 0

    fun floats(shape: List<Int>, vararg values: Float): String =
        constant(1, shape, ByteBuffer.allocate(4 * values.size).order(ByteOrder.LITTLE_ENDIAN).also { values.forEach(it::putFloat) }.array())

    fun integers(vararg values: Long): String =
        constant(7, listOf(values.size), ByteBuffer.allocate(8 * values.size).order(ByteOrder.LITTLE_ENDIAN).also { values.forEach(it::putLong) }.array())

    private fun constant(type: Long, shape: List<Int>, raw: ByteArray): String {
        val name = "c${count++}"
        body += field(5, shape.fold(ByteArray(0)) { all, size -> all + field(1, size.toLong()) } + field(2, type) + field(8, name) + field(9, raw))
        return name
    }

    /** [attributes]: whole numbers. */
    fun call(operator: String, vararg operands: String, result: String = "x${count++}", attributes: Map<String, Long> = emptyMap()): String {
        val described = attributes.entries.fold(ByteArray(0)) { all, (name, value) -> all + field(5, field(1, name) + field(3, value) + field(20, 2L)) }
        body += field(1, operands.fold(ByteArray(0)) { all, it -> all + field(1, it) } + field(2, result) + field(4, operator) + described)
        return result
    }

    /** The sum of all elements, a scalar. */
    fun sum(x: String): String = call("ReduceSum", x, attributes = mapOf("keepdims" to 0L))

    fun bytes(): ByteArray {
        val graph = body + field(2, "g") + inputs.entries.fold(ByteArray(0)) { all, it -> all + field(11, value(it.key, it.value)) } +
            outputs.entries.fold(ByteArray(0)) { all, it -> all + field(12, value(it.key, it.value)) }
        return field(1, 10L) + field(7, graph) + field(8, field(2, 21L))
    }

    private fun value(name: String, type: TensorType): ByteArray {
        val shape = type.shape.withIndex().fold(ByteArray(0)) { all, (at, size) -> all + field(1, if (size == ANY) field(2, "n$at") else field(1, size)) }
        return field(1, name) + field(2, field(1, field(1, ELEMENT_TYPES.getValue(type.dtype)) + field(2, shape)))
    }
}
