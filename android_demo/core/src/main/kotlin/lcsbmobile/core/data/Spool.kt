package lcsbmobile.core.data

import lcsbmobile.core.io.storing
import java.io.File
import java.io.IOException
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.IntBuffer
import java.nio.LongBuffer
import java.nio.channels.FileChannel
import java.nio.file.StandardOpenOption.CREATE_NEW
import java.nio.file.StandardOpenOption.READ
import java.nio.file.StandardOpenOption.WRITE
import java.util.UUID

/**
 * Numbers that grow in a temporary file and are then mapped, so that their length costs no heap. The file has no name once it is open, and
 * goes with its last mapping. It is written through the file, not the mapping: writing to a mapped file on a full disk would end the
 * process.
 *
 * Raises `LcsbException` with STORAGE_FULL or STORAGE_FAILED.
 */
internal class Spool(private val directory: File) : AutoCloseable {
    private val buffer = ByteBuffer.allocate(1 shl 16).order(ByteOrder.nativeOrder())
    private val channel = storing(directory) {
        val file = File(directory, ".spool.${UUID.randomUUID()}")
        FileChannel.open(file.toPath(), CREATE_NEW, READ, WRITE).also {
            if (!file.delete()) throw IOException("a temporary file cannot be removed")
        }
    }

    fun append(value: Int) {
        if (buffer.remaining() < Int.SIZE_BYTES) flush()
        buffer.putInt(value)
    }

    fun append(value: Long) {
        if (buffer.remaining() < Long.SIZE_BYTES) flush()
        buffer.putLong(value)
    }

    /** All that was appended, as int32. Nothing can be appended after it. */
    fun ints(): MappedInts = MappedInts(map(FileChannel.MapMode.READ_ONLY).map { it.asIntBuffer() })

    /** All that was appended, as int64, which may be changed. Nothing can be appended after it. */
    fun longs(): MappedLongs = MappedLongs(map(FileChannel.MapMode.READ_WRITE).map { it.asLongBuffer() })

    override fun close() = channel.close()

    private fun flush() = storing(directory) {
        (buffer as Buffer).flip()
        while (buffer.hasRemaining()) channel.write(buffer)
        (buffer as Buffer).clear()
    }

    /** In parts of [PART_BYTES], as a mapping has at most 2 GB. */
    private fun map(mode: FileChannel.MapMode): List<ByteBuffer> {
        flush()
        return storing(directory) {
            channel.use {
                val size = it.size()
                (0 until size step PART_BYTES).map { start ->
                    it.map(mode, start, minOf(PART_BYTES, size - start)).order(ByteOrder.nativeOrder())
                }
            }
        }
    }

    companion object {
        const val PART_BYTES = 1L shl 30
    }
}

/** int32 [size], read from a mapped file. */
internal class MappedInts(private val parts: List<IntBuffer>) {
    val size: Long = parts.sumOf { it.capacity().toLong() }

    operator fun get(index: Long): Int = parts[(index shr SHIFT).toInt()].get((index and MASK).toInt())

    private companion object {
        const val SHIFT = 28 // PART_BYTES of four bytes each
        const val MASK = (1L shl SHIFT) - 1
    }
}

/** int64 [size] in a mapped file. */
internal class MappedLongs(private val parts: List<LongBuffer>) {
    val size: Long = parts.sumOf { it.capacity().toLong() }

    operator fun get(index: Long): Long = parts[(index shr SHIFT).toInt()].get((index and MASK).toInt())

    operator fun set(index: Long, value: Long) {
        parts[(index shr SHIFT).toInt()].put((index and MASK).toInt(), value)
    }

    /** Sorts `[start, end)` in place as unsigned numbers: quicksort, the longer side left for the loop, so that the stack stays short. */
    fun sort(start: Long = 0, end: Long = size) {
        var (low, high) = start to end - 1
        while (low < high) {
            val middle = partition(low, high)
            if (middle - low < high - middle) {
                sort(low, middle + 1)
                low = middle + 1
            } else {
                sort(middle + 1, high + 1)
                high = middle
            }
        }
    }

    /** Hoare's: afterwards none in `[low, result]` is greater than any in `[result + 1, high]`; both have one at least. */
    private fun partition(low: Long, high: Long): Long {
        val pivot = this[low + (high - low) / 2] xor SIGN
        var (left, right) = low - 1 to high + 1
        while (true) {
            do left++ while (this[left] xor SIGN < pivot)
            do right-- while (this[right] xor SIGN > pivot)
            if (left >= right) return right
            val moved = this[left]
            this[left] = this[right]
            this[right] = moved
        }
    }

    private companion object {
        const val SHIFT = 27
        const val MASK = (1L shl SHIFT) - 1
        const val SIGN = Long.MIN_VALUE
    }
}
