package lcsbmobile.core.text

/** What Python's `str.strip` takes for blank. */
internal fun isPythonBlank(character: Char): Boolean = when (character.code) {
    in 0x09..0x0D, in 0x1C..0x20, 0x85, 0xA0, 0x1680, in 0x2000..0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000 -> true
    else -> false
}

/** Python's `str.strip`. */
internal fun String.strip(): String = trim(::isPythonBlank)
