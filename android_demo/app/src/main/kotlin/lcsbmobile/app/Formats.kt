package lcsbmobile.app

import android.content.res.Resources
import java.math.BigDecimal
import java.math.MathContext
import java.text.DateFormat
import java.text.NumberFormat
import java.util.Date
import java.util.Locale

/**
 * Figures as the language of the texts writes them, which need not be the JVM's, nor the person's first where the app does not speak it.
 */
fun locale(resources: Resources): Locale {
    val texts = Locale.forLanguageTag(resources.getString(R.string.language))
    return resources.configuration.locales[0].takeIf { it.language == texts.language } ?: texts
}

fun formatCount(resources: Resources, count: Long): String = NumberFormat.getIntegerInstance(locale(resources)).format(count)

fun plural(resources: Resources, id: Int, count: Int, vararg more: String): String =
    resources.getQuantityString(id, count, formatCount(resources, count.toLong()), *more)

fun formatDecimal(resources: Resources, value: Double, digits: Int): String =
    if (value.isFinite()) String.format(locale(resources), "%.${digits}f", value) else "–"

fun formatPercent(resources: Resources, percent: Int): String = NumberFormat.getPercentInstance(locale(resources)).format(percent / 100.0)

/** 1 MB is 1,000,000 bytes, as the system's settings count. */
fun formatBytes(resources: Resources, bytes: Long): String = when {
    bytes < 1_000_000 -> resources.getString(R.string.kilobytes, formatCount(resources, (bytes + 999) / 1000))
    bytes < 10_000_000 -> resources.getString(R.string.megabytes, formatDecimal(resources, bytes / 1e6, 1))
    bytes < 1_000_000_000 -> resources.getString(R.string.megabytes, formatCount(resources, bytes / 1_000_000))
    else -> resources.getString(R.string.gigabytes, formatDecimal(resources, bytes / 1e9, 1))
}

fun formatSeconds(resources: Resources, seconds: Double): String =
    resources.getString(R.string.seconds, formatDecimal(resources, seconds, if (seconds < 1) 2 else 1))

/** "100 steps ≈ 4 min", or without a time where none is known. */
fun stepsInTime(resources: Resources, steps: Int, secondsAStep: Double?): String {
    val words = plural(resources, R.plurals.steps_label, steps)
    return if (secondsAStep == null) words else "$words ${formatRoughly(resources, secondsAStep * steps)}"
}

/** A time for a figure: "≈ 4 min". */
fun formatRoughly(resources: Resources, seconds: Double): String {
    val minutes = Math.round(seconds / 60)
    val time = when {
        minutes < 1 -> resources.getString(R.string.seconds, formatCount(resources, Math.ceil(seconds).toLong()))
        minutes < 90 -> resources.getString(R.string.minutes_short, formatCount(resources, minutes))
        else -> resources.getString(R.string.hours_short, formatCount(resources, Math.round(minutes / 60.0)))
    }
    return resources.getString(R.string.roughly, time)
}

/** What training did to the loss on examples that the model had not seen: "3.40 → 1.42". */
fun lossChange(resources: Resources, before: Double, after: Double): String =
    resources.getString(R.string.loss_change, formatDecimal(resources, before, 2), formatDecimal(resources, after, 2))

/** Likewise, with its name: "Loss: 3.40 → 1.42". */
fun lossFigure(resources: Resources, before: Double, after: Double): String =
    resources.getString(R.string.loss_figure, lossChange(resources, before, after))

/**
 * What that means. exp(-loss) is the probability that the model gives the right next token, in the geometric mean; a gain that the figure
 * does not show is none.
 */
fun lossChangeInWords(resources: Resources, before: Double, after: Double): String {
    val (was, now) = listOf(before, after).map { formatDecimal(resources, it, 2) }
    if (!(after < before) || was == now) return resources.getString(R.string.loss_no_better)
    return resources.getString(R.string.loss_better, formatChance(resources, Math.exp(-before)), formatChance(resources, Math.exp(-after)))
}

/** A probability in percent, in two digits at least where it is small. */
private fun formatChance(resources: Resources, chance: Double): String = NumberFormat.getPercentInstance(locale(resources)).run {
    maximumFractionDigits = if (chance < 0.1) 1 else 0
    format(chance)
}

/** A name that may go on in the next line after each of its marks, as a file's has no spaces. */
fun breakable(name: String): String = name.replace(MARK, "$0\u200B")

private val MARK = Regex("[-_/](?=[\\p{L}\\p{N}])|\\.(?=\\p{L})") // not within 134.5

/** A day of [millis] since 1970. */
fun formatDay(resources: Resources, millis: Long): String =
    DateFormat.getDateInstance(DateFormat.MEDIUM, locale(resources)).format(Date(millis))

/** Small as learning rates are, with no more digits than it has: 0.0008. */
fun formatRate(resources: Resources, rate: Double): String =
    NumberFormat.getNumberInstance(locale(resources)).apply { maximumFractionDigits = 8 }.format(BigDecimal(rate).round(MathContext(3)))

/** A time to wait, rounded to what a person plans with. */
fun formatDuration(resources: Resources, seconds: Double): String {
    val minutes = Math.round(seconds / 60).toInt()
    return when {
        minutes < 1 -> resources.getString(R.string.under_a_minute)
        minutes < 90 -> plural(resources, R.plurals.minutes, minutes)
        else -> plural(resources, R.plurals.hours, Math.round(minutes / 60.0).toInt())
    }
}
