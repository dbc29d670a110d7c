package lcsbmobile.app

/** `PowerManager`'s thermal statuses, as far as they are told apart here. UNKNOWN: before API 29, or from a phone that does not say. */
enum class Thermal { UNKNOWN, NONE, LIGHT, MODERATE, SEVERE, CRITICAL }

/**
 * What the phone says of itself. [battery]: percent, -1 unknown. [temperature]: of the battery, °C, NaN unknown. [memoryLow]: the system is
 * about to end processes. [memory], [peakMemory]: the process's anonymous bytes, swapped ones too, which are what a run is predicted and
 * allowed to take; 0 unknown. [pss], [peakPss]: its proportional share of all memory, mapped weights too, bytes.
 */
data class Vitals(
    val battery: Int = -1,
    val charging: Boolean = false,
    val temperature: Float = Float.NaN,
    val thermal: Thermal = Thermal.UNKNOWN,
    val memoryLow: Boolean = false,
    val memory: Long = 0,
    val peakMemory: Long = 0,
    val pss: Long = 0,
    val peakPss: Long = 0,
)

/** Why training goes slower or waits. */
enum class Reason { WARM, HOT, BATTERY, MEMORY }

/** [waits]: save, give all memory back and wait; otherwise, with a [reason], rest between layers. */
data class Decision(val waits: Boolean = false, val reason: Reason? = null) {
    val slower: Boolean get() = reason != null && !waits
}

/**
 * When training slows down or waits. What made it wait must be well over before it goes on, or it would stop and start with every degree.
 *
 * Hot: thermal status SEVERE, or a battery of 45 °C, whichever comes first: the status is of the phone's skin, and some say NONE for ever.
 * Warm: MODERATE, or 41 °C. Battery: under 15 % and not charging.
 */
object TrainingPolicy {
    const val BATTERY_AGAIN = 20 // percent

    fun decide(vitals: Vitals, before: Decision): Decision = when {
        isHot(vitals, waited = before == Decision(true, Reason.HOT)) -> Decision(true, Reason.HOT)
        isEmpty(vitals, waited = before == Decision(true, Reason.BATTERY)) -> Decision(true, Reason.BATTERY)
        vitals.memoryLow -> Decision(true, Reason.MEMORY)
        isWarm(vitals) -> Decision(false, Reason.WARM)
        else -> Decision()
    }

    private fun isHot(vitals: Vitals, waited: Boolean): Boolean =
        vitals.temperature >= (if (waited) 40f else 45f) || vitals.thermal >= (if (waited) Thermal.MODERATE else Thermal.SEVERE)

    private fun isWarm(vitals: Vitals): Boolean = vitals.temperature >= 41f || vitals.thermal >= Thermal.MODERATE

    private fun isEmpty(vitals: Vitals, waited: Boolean): Boolean =
        !vitals.charging && vitals.battery in 0 until if (waited) BATTERY_AGAIN else 15
}
