package lcsbmobile.core.training

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.io.READ_BEYOND
import lcsbmobile.core.io.copyFrom
import lcsbmobile.core.io.part
import lcsbmobile.core.io.storing
import java.io.File
import java.io.IOException
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.FloatBuffer
import java.nio.channels.FileChannel
import java.nio.file.Files
import java.nio.file.StandardOpenOption.CREATE_NEW
import java.nio.file.StandardOpenOption.DELETE_ON_CLOSE
import java.nio.file.StandardOpenOption.READ
import java.nio.file.StandardOpenOption.WRITE
import java.util.UUID

/** Parameters and AdamW's moments, float32 [N] each. */
public class AdapterState(public val adapter: FloatBuffer, public val firstMoment: FloatBuffer, public val secondMoment: FloatBuffer) {
    public val size: Int get() = adapter.capacity()

    internal fun copyFrom(other: AdapterState) {
        adapter.copyFrom(other.adapter)
        firstMoment.copyFrom(other.firstMoment)
        secondMoment.copyFrom(other.secondMoment)
    }
}

internal const val STATE_PREFIX = ".state."

/**
 * A state of zeros, [size] elements a buffer, in a mapped file in [directory]: the system may write its pages out, so it takes no anonymous
 * memory. The file has no name and goes with the process.
 *
 * Its space is taken at once, by writing it: storing to a mapped file on a full disk would end the process. Throws STORAGE_FULL or
 * STORAGE_FAILED.
 */
internal fun mappedState(directory: File, size: Int): AdapterState {
    val bytes = size.toLong() * Float.SIZE_BYTES
    if (bytes > Int.MAX_VALUE - READ_BEYOND) throw LcsbException(Fault.OPTION, "an adapter of $bytes bytes: expected at most ${Int.MAX_VALUE - READ_BEYOND}")
    val file = File(directory, "$STATE_PREFIX${UUID.randomUUID().toString().take(8)}")
    return storing(directory) {
        Files.createDirectories(directory.toPath())
        FileChannel.open(file.toPath(), CREATE_NEW, READ, WRITE, DELETE_ON_CLOSE).use { channel ->
            reserve(channel, 3 * bytes + READ_BEYOND)
            val (adapter, first, second) = List(3) {
                channel.map(FileChannel.MapMode.READ_WRITE, it * bytes, bytes + READ_BEYOND).part(0, bytes.toInt()).asFloatBuffer()
            }
            AdapterState(adapter, first, second)
        }
    }
}

private fun reserve(channel: FileChannel, size: Long) {
    val zeros = ByteBuffer.allocate(1 shl 20)
    val bounds: Buffer = zeros
    var left = size
    while (left > 0) {
        bounds.clear()
        bounds.limit(minOf(left, bounds.capacity().toLong()).toInt())
        left -= channel.write(zeros)
    }
    if (channel.size() != size) throw IOException("$size bytes asked for, ${channel.size()} written")
}
