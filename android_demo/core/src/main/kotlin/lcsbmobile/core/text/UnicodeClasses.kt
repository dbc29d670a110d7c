package lcsbmobile.core.text

/** What a character is to a pre-tokenizer and to normalisation. The same on every phone: see [UnicodeTables]. */
internal object UnicodeClasses {
    const val OTHER: Byte = 0
    const val LETTER: Byte = 1
    const val NUMBER: Byte = 2
    const val BLANK: Byte = 3

    private const val PLANE = 0x10000
    private const val FIRST_JOINING = 0x300
    private val moreNumeric = ranges(UnicodeTables.MORE_NUMERIC)
    private val joining = ranges(UnicodeTables.JOINING)
    private val letters = ranges(UnicodeTables.LETTERS)
    private val numbers = ranges(UnicodeTables.NUMBERS)
    private val blanks = intArrayOf( // White_Space: \s of a regular expression
        9, 14, 0x20, 0x21, 0x85, 0x86, 0xA0, 0xA1, 0x1680, 0x1681, 0x2000, 0x200B, 0x2028, 0x202A, 0x202F, 0x2030, 0x205F, 0x2060,
        0x3000, 0x3001,
    )
    private val plane = ByteArray(PLANE) // of the characters that a Char holds

    init {
        for ((bounds, kind) in listOf(letters to LETTER, numbers to NUMBER, blanks to BLANK)) {
            for (range in bounds.indices step 2) {
                for (point in bounds[range] until minOf(bounds[range + 1], PLANE)) plane[point] = kind
            }
        }
    }

    fun of(codePoint: Int): Byte = when {
        codePoint < PLANE -> plane[codePoint]
        holds(letters, codePoint) -> LETTER
        holds(numbers, codePoint) -> NUMBER
        else -> OTHER
    }

    /** A number to the Digits pre-tokenizer, which knows a newer Unicode. */
    fun isNumeric(codePoint: Int): Boolean = of(codePoint) == NUMBER || holds(moreNumeric, codePoint)

    /** Whether normalisation may change it together with what stands before it. */
    fun joins(codePoint: Int): Boolean = codePoint >= FIRST_JOINING && holds(joining, codePoint)

    /** Starts and ends (behind the last) of ranges, one after the other. */
    private fun ranges(table: String): IntArray {
        var end = 0
        return table.trim().split(' ').map { step ->
            end += step.toInt(36)
            end
        }.toIntArray()
    }

    /**
     * A start is found at an even place; a point between two bounds has an odd number of them below it, which gives minus an even number.
     */
    private fun holds(bounds: IntArray, point: Int): Boolean = bounds.binarySearch(point) % 2 == 0
}
