package lcsbmobile.core.io

/** Buffers that are made once and lent again and again: of each [size], whatever says it, as many as were wanted at once. */
internal class Pool<S, T>(private val make: (size: S) -> T) {
    private val made = HashMap<S, MutableList<T>>()

    /** One for each of [sizes]; those of the last call are free again. */
    fun lend(sizes: List<S>): List<T> {
        val lent = HashMap<S, Int>()
        return sizes.map { size ->
            val buffers = made.getOrPut(size) { mutableListOf() }
            val number = lent.merge(size, 1, Int::plus)!! - 1
            if (number == buffers.size) buffers += make(size)
            buffers[number]
        }
    }
}
