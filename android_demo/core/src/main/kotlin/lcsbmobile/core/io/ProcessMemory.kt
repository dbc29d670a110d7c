package lcsbmobile.core.io

import java.io.File
import java.io.IOException

/**
 * Anonymous bytes of this process now: what a phone counts against an app, since it cannot be dropped and read again as the pages of a mapped
 * file can. `smaps_rollup` is exact; `status` may lag by some pages a thread. Null where the system says neither.
 */
public fun processAnonymousBytes(): Long? = field("/proc/self/smaps_rollup", "Anonymous:") ?: field("/proc/self/status", "RssAnon:")

/** A field of a /proc file, there in kB, in bytes. */
private fun field(path: String, name: String): Long? = try {
    File(path).useLines { lines -> lines.firstOrNull { it.startsWith(name) } }?.filter { it in '0'..'9' }?.toLongOrNull()?.times(1024)
} catch (_: IOException) {
    null
}
