package lcsbmobile.core.io

import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonNamingStrategy

/** Our own files: snake_case names, an unknown or mistyped field is an error. Decoding a data class with it recurses no deeper than the class does. */
@OptIn(ExperimentalSerializationApi::class)
internal val recordJson = Json { namingStrategy = JsonNamingStrategy.SnakeCase }

/** What kotlinx.serialization found wrong, without the excerpt of the input that it adds. */
internal fun jsonFault(error: IllegalArgumentException): String = oneLine((error.message ?: "").substringBefore("\nJSON input:"))

/** A key that an object of [text], which is JSON, has twice: one reader would take the first, another the last. */
internal fun repeatedKey(text: String): String? {
    val open = ArrayList<HashSet<String>?>() // the keys of each object that is open; null for an array
    var at = 0
    while (at < text.length) {
        when (text[at]) {
            '{' -> open.add(HashSet())
            '[' -> open.add(null)
            '}', ']' -> open.removeAt(open.lastIndex)
            '"' -> {
                val start = at
                do at += if (text[at] == '\\') 2 else 1 while (text[at] != '"')
                if (nextAfter(text, at) == ':') {
                    val key = Json.decodeFromString<String>(text.substring(start, at + 1))
                    if (open.lastOrNull()?.add(key) == false) return key
                }
            }
        }
        at++
    }
    return null
}

/** The first character after [at] that is no blank. */
private fun nextAfter(text: String, at: Int): Char? {
    var next = at + 1
    while (next < text.length && text[next] in " \t\n\r") next++
    return text.getOrNull(next)
}
