package lcsbmobile.core.text

import java.util.Calendar
import java.util.GregorianCalendar
import java.util.Locale
import java.util.TimeZone

// A wall clock's time to the second, without a zone, as a checkpoint keeps it: 2026-02-28T23:05:09.

private val FORM = Regex("([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})")

/** Now, where the system says that it is. */
internal fun localTime(): String = GregorianCalendar(Locale.US).let { now ->
    val date = listOf(now.get(Calendar.YEAR), now.get(Calendar.MONTH) + 1, now.get(Calendar.DAY_OF_MONTH))
    val time = listOf(now.get(Calendar.HOUR_OF_DAY), now.get(Calendar.MINUTE), now.get(Calendar.SECOND))
    "%04d-%02d-%02dT%02d:%02d:%02d".format(Locale.ROOT, *(date + time).toTypedArray())
}

/** The date and time that [text] names, in a zone without gaps; null where it names none. */
internal fun calendar(text: String): Calendar? {
    val parts = FORM.matchEntire(text)?.groupValues?.drop(1)?.map { it.toInt() } ?: return null
    val found = GregorianCalendar(TimeZone.getTimeZone("UTC"), Locale.US)
    found.clear()
    found.isLenient = false
    found.set(parts[0], parts[1] - 1, parts[2], parts[3], parts[4], parts[5])
    return try {
        found.also { it.timeInMillis }
    } catch (_: IllegalArgumentException) {
        null
    }
}
