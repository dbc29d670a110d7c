package lcsbmobile.core.bundle

import lcsbmobile.core.io.READ_BEYOND
import lcsbmobile.core.io.directBytes
import lcsbmobile.core.io.ioReason
import lcsbmobile.core.io.part
import lcsbmobile.core.io.quoted
import java.io.EOFException
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.channels.FileChannel
import java.nio.file.StandardOpenOption

/**
 * `weights.bin`, mapped tensor by tensor, since Java maps at most 2 GiB at once: what is read costs no anonymous memory. Java has no madvise,
 * so pages are read when a program first touches them, with what the system reads ahead by itself.
 */
internal class MappedWeights(private val file: File, table: List<WeightTensor>) {
    private val tensors = table.associateBy { it.name }
    private val mapped = HashMap<String, ByteBuffer>()

    /** A tensor's bytes in place, of `layers.…` those of the layer that is [number] of its kind; little-endian, as every machine is that this runs on. */
    fun bytes(name: String, number: Int): ByteBuffer {
        val tensor = tensors.getValue(name)
        val whole = mapped.getOrPut(name) { map(tensor) }
        if (!tensor.perLayer) return whole
        val size = (tensor.nbytes / tensor.shape[0]).toInt()
        return whole.part(number * size, size)
    }

    /** Shape of what [bytes] gives. */
    fun shape(name: String): List<Long> = tensors.getValue(name).run { if (perLayer) shape.drop(1) else shape }

    fun dtype(name: String): String = tensors.getValue(name).dtype

    fun isPerLayer(name: String): Boolean = tensors.getValue(name).perLayer

    /** With READ_BEYOND bytes after it: the file's next, or those of its last page. Where there are none it is a copy, which is of a norm's weights. */
    private fun map(tensor: WeightTensor): ByteBuffer {
        if (tensor.nbytes > Int.MAX_VALUE - READ_BEYOND) {
            throw unreadable("$file: ${quoted(tensor.name)} has ${tensor.nbytes} bytes, more than can be mapped at once")
        }
        try {
            return FileChannel.open(file.toPath(), StandardOpenOption.READ).use { channel ->
                val end = tensor.offset + tensor.nbytes
                val beyond = minOf(channel.size() - end, READ_BEYOND.toLong())
                if (beyond < READ_BEYOND && PAGE - end % PAGE !in READ_BEYOND until PAGE) return@use copy(channel, tensor)
                channel.map(FileChannel.MapMode.READ_ONLY, tensor.offset, tensor.nbytes + beyond).part(0, tensor.nbytes.toInt())
            }
        } catch (error: IOException) {
            throw unreadable("$file: cannot be mapped: ${ioReason(error)}", error)
        }
    }

    private fun copy(channel: FileChannel, tensor: WeightTensor): ByteBuffer {
        val copy = directBytes(tensor.nbytes.toInt())
        while (copy.hasRemaining()) if (channel.read(copy, tensor.offset + copy.position()) < 0) throw EOFException("it ends at ${channel.size()}")
        return copy.asReadOnlyBuffer().part(0, copy.capacity())
    }
}
