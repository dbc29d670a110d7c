package lcsbmobile.core.io

import java.io.File
import java.io.IOException

/**
 * Anonymous bytes of this process now, in memory or swapped: what a phone counts against an app, since it cannot be dropped and read again as the
 * pages of a mapped file can. What Android's kernel swaps it compresses within memory (zram), so it is used still. `smaps_rollup` is exact;
 * `status` may lag by some pages a thread. Null where the system says neither.
 */
public fun processAnonymousBytes(): Long? = anonymousBytes(lines("/proc/self/smaps_rollup"), lines("/proc/self/status"))

/** By the lines of the two files. Without swap the kernel may not name it. */
internal fun anonymousBytes(rollup: List<String>, status: List<String>): Long? {
    val resident = field(rollup, "Anonymous:") ?: field(status, "RssAnon:") ?: return null
    return resident + (field(status, "VmSwap:") ?: 0)
}

private fun lines(path: String): List<String> = try {
    File(path).readLines()
} catch (_: IOException) {
    emptyList()
}

/** A field of a /proc file, there in kB, in bytes. */
private fun field(lines: List<String>, name: String): Long? =
    lines.firstOrNull { it.startsWith(name) }?.filter { it in '0'..'9' }?.toLongOrNull()?.times(1024)
