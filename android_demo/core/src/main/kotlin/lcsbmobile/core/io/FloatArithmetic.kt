package lcsbmobile.core.io

import java.nio.FloatBuffer

private const val PIECE = 4096 // elements: an array is faster than a buffer's elements one by one

/** [values] times [factor], in place. */
internal fun scale(values: FloatBuffer, factor: Float) =
    inPieces(values) { piece, count, start ->
        for (i in 0 until count) piece[i] *= factor
        values.part(start, count).put(piece, 0, count)
    }

/** [values] plus [added], in place. */
internal fun add(values: FloatBuffer, added: FloatBuffer) {
    val sums = FloatArray(PIECE)
    inPieces(added) { piece, count, start ->
        val target = values.part(start, count)
        target.duplicate().get(sums, 0, count)
        for (i in 0 until count) sums[i] += piece[i]
        target.put(sums, 0, count)
    }
}

/** Copies of [values] in order, as ([piece], its elements, the number of the first). */
internal inline fun inPieces(values: FloatBuffer, use: (piece: FloatArray, count: Int, start: Int) -> Unit) {
    val piece = FloatArray(PIECE)
    val size = values.capacity()
    for (start in 0 until size step PIECE) {
        val count = minOf(PIECE, size - start)
        values.part(start, count).get(piece, 0, count)
        use(piece, count, start)
    }
}
