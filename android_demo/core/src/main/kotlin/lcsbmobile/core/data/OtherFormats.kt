package lcsbmobile.core.data

import lcsbmobile.core.text.strip

// Files that are not JSON lines but could be: recognised by how they begin, and answered with the one command that turns them into it, as
// the desktop answers, word for word. Specification: docs/data.md.

private const val SHOWN_BYTES = 4096 // of a first line that is looked at
private const val MARK = "\uFEFF"
private val DELIMITERS = mapOf("," to "", ";" to ", delimiter=';'", "\t" to ", delimiter='\\t'")
private val CSV_KEYS = FORM_KEYS.filter { it[0] != "messages" && it[0] != "conversations" } // a cell holds no array
private val PLAIN_NAME = Regex("[A-Za-z0-9_@%+=:,./-]+")
private const val LINES = """, sep='\n')"""
private const val ARRAY = "print(*map(json.dumps, json.load(open(sys.argv[1], 'rb')))$LINES"

// A line that is a brace alone ends an object: within a string JSON has no line's end, and what is within an object is indented.
private const val PARTS = """open(sys.argv[1], encoding='utf-8-sig').read().split('\n}')[:-1]"""
private const val INDENTED = "print(*(json.dumps(json.loads(x + '}')) for x in $PARTS)$LINES"

/**
 * What a file named [file] is whose first line that is not blank is the first [size] bytes of [raw], or begins so, and the command that
 * makes it JSON lines; null for JSON lines, and for what is not known.
 */
internal fun otherFormat(raw: ByteArray, size: Int, file: String): String? {
    val (source, target) = listOf(file, target(file)).map(::shellQuoted)
    utf16(raw, size)?.let { return "$UTF16: iconv -f $it -t UTF-8 $source > $target" }
    val line = String(raw, 0, minOf(size, SHOWN_BYTES), Charsets.UTF_8).removePrefix(MARK).strip()
    val (what, program) = when {
        line.startsWith('[') && line.drop(1).strip().let { it.isEmpty() || it[0] == '{' } -> "a JSON array" to "json, sys; $ARRAY"
        line == "{" -> "JSON over several lines" to "json, sys; $INDENTED"
        else -> "CSV" to "csv, json, sys; ${table(delimiter(line) ?: return null)}"
    }
    return "$what; expected one JSON object a line: python3 -c \"import $program\" $source > $target"
}

private fun table(argument: String) =
    "print(*map(json.dumps, csv.DictReader(open(sys.argv[1], encoding='utf-8-sig', newline='')$argument))$LINES"

/** UTF-16, or UTF-16LE or UTF-16BE without a mark, where the first two bytes are of it: JSON and CSV begin with ASCII. */
private fun utf16(raw: ByteArray, size: Int): String? {
    if (size < 2) return null
    val (first, second) = raw[0].toInt() and 0xFF to (raw[1].toInt() and 0xFF)
    return when {
        first == 0xFF && second == 0xFE || first == 0xFE && second == 0xFF -> "UTF-16"
        (first == 0) == (second == 0) -> null
        else -> if (first == 0) "UTF-16BE" else "UTF-16LE"
    }
}

/** As an argument of the reader of a table: what parts the columns of one whose first line names those of a form. */
private fun delimiter(line: String): String? = DELIMITERS.entries.firstOrNull { (delimiter, _) ->
    val names = line.split(delimiter).map { it.strip().trim('"') }
    CSV_KEYS.any(names::containsAll)
}?.value

/** Beside the file, and never the file itself. */
private fun target(file: String): String {
    val name = file.substringAfterLast('/')
    val stem = if (name.lastIndexOf('.') > 0) name.substringBeforeLast('.') else name
    return file.removeSuffix(name) + stem + ".lines.jsonl"
}

private fun shellQuoted(text: String): String = if (PLAIN_NAME.matches(text)) text else "'" + text.replace("'", "'\"'\"'") + "'"
