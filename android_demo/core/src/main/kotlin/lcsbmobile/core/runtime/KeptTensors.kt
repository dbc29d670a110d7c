package lcsbmobile.core.runtime

/** Whether a kept tensor has the values that it was made of: none of float16 is infinite, NaN or the largest there is, 65504. */
internal fun holds(x: HostTensor): Boolean {
    if (x.dtype != "float16") return true
    val halves = x.bytes.asShortBuffer()
    val piece = ShortArray(1 shl 12)
    while (halves.hasRemaining()) {
        val count = minOf(piece.size, halves.remaining())
        halves.get(piece, 0, count)
        for (index in 0 until count) if (piece[index].toInt() and MAGNITUDE >= MOST_KEPT) return false
    }
    return true
}

private const val MAGNITUDE = 0x7FFF
private const val MOST_KEPT = 0x7BFF // what is beyond is infinite, or this where a runtime saturates
