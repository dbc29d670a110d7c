package lcsbmobile.core.io

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer

internal const val FLOAT_BYTES = 4
internal const val READ_BEYOND = 16 // bytes after an input that XNNPACK may read (its XNN_EXTRA_BYTES): they have to be there

// Positions and limits are set through Buffer: the narrower return types of its subclasses are newer than API 26.

/** [count] elements from [start], sharing the memory, whatever position and limit were. */
internal fun FloatBuffer.part(start: Int, count: Int): FloatBuffer {
    val view = duplicate()
    place(view, start, count)
    return view.slice()
}

/** Likewise, in native byte order. */
internal fun ByteBuffer.part(start: Int, count: Int): ByteBuffer {
    val view = duplicate()
    place(view, start, count)
    return view.slice().order(ByteOrder.nativeOrder())
}

private fun place(view: Buffer, start: Int, count: Int) {
    view.clear()
    view.position(start)
    view.limit(start + count)
}

/**
 * Bytes that direct buffers may take in all. Android counts them against the app's heap, the JVM against a limit of the same size: a part is
 * left to what else is on the heap, a vocabulary for one. It is the same in every process of the app, so that a run which goes on keeps what it kept.
 */
internal fun mostDirectBytes(): Long = Runtime.getRuntime().maxMemory() / 4 * 3

/**
 * Zeroed memory that does not move, which the runtime reads and writes in place. Android takes it from the app's heap, whose limit
 * `android:largeHeap` raises. Throws MEMORY_TOO_SMALL.
 */
internal fun directBytes(count: Int): ByteBuffer = try {
    ByteBuffer.allocateDirect(minOf(count.toLong() + READ_BEYOND, Int.MAX_VALUE.toLong()).toInt()).part(0, count)
} catch (error: OutOfMemoryError) {
    val message = "$count bytes cannot be reserved (${oneLine(error.message ?: "")}); close other apps, or keep fewer layers"
    throw LcsbException(Fault.MEMORY_TOO_SMALL, message, listOf(count.toString()), error)
}

public fun directFloats(count: Int): FloatBuffer = directBytes(Math.multiplyExact(count, FLOAT_BYTES)).asFloatBuffer()

/** Copies all of [source] over all of this; both keep their positions. */
internal fun FloatBuffer.copyFrom(source: FloatBuffer) {
    part(0, capacity()).put(source.part(0, source.capacity()))
}

/** All elements, on the heap. */
internal fun FloatBuffer.toArray(): FloatArray = FloatArray(capacity()).also { part(0, capacity()).get(it) }
