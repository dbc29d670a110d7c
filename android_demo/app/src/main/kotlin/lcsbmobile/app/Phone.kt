package lcsbmobile.app

import android.app.ActivityManager
import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.os.BatteryManager
import android.os.Build
import android.os.Debug
import android.os.PowerManager
import lcsbmobile.core.io.processAnonymousBytes

/** Reads the phone's vitals. */
class Phone(private val context: Context) {
    private var peakMemory = 0L
    private var peakPss = 0L

    /** The peaks are those of what comes now. */
    @Synchronized
    fun forgetPeak() {
        peakMemory = 0
        peakPss = 0
    }

    /** Takes some milliseconds: the kernel counts the process's pages. */
    @Synchronized
    fun read(): Vitals {
        val battery = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED))
        val level = battery?.getIntExtra(BatteryManager.EXTRA_LEVEL, -1) ?: -1
        val scale = battery?.getIntExtra(BatteryManager.EXTRA_SCALE, 100) ?: 100
        val tenths = battery?.getIntExtra(BatteryManager.EXTRA_TEMPERATURE, Int.MIN_VALUE) ?: Int.MIN_VALUE
        val pss = Debug.getPss() * 1024
        peakPss = maxOf(peakPss, pss)
        val anonymous = processAnonymousBytes() ?: 0
        peakMemory = maxOf(peakMemory, anonymous)
        return Vitals(
            battery = if (level < 0 || scale <= 0) -1 else level * 100 / scale,
            charging = (battery?.getIntExtra(BatteryManager.EXTRA_PLUGGED, 0) ?: 0) != 0,
            temperature = if (tenths == Int.MIN_VALUE) Float.NaN else tenths / 10f,
            thermal = thermal(),
            memoryLow = memory().lowMemory,
            memory = anonymous,
            peakMemory = peakMemory,
            pss = pss,
            peakPss = peakPss,
        )
    }

    /** Bytes that a run may plan with: what the system could give before it ends other apps, and no more than half of all. */
    fun freeMemory(): Long = memory().let { minOf(it.availMem - it.threshold, it.totalMem / 2).coerceAtLeast(0) }

    private fun memory() = ActivityManager.MemoryInfo().also { context.getSystemService(ActivityManager::class.java).getMemoryInfo(it) }

    @Guarded
    private fun thermal(): Thermal {
        if (Build.VERSION.SDK_INT < 29) return Thermal.UNKNOWN
        return when (context.getSystemService(PowerManager::class.java).currentThermalStatus) {
            PowerManager.THERMAL_STATUS_NONE -> Thermal.NONE
            PowerManager.THERMAL_STATUS_LIGHT -> Thermal.LIGHT
            PowerManager.THERMAL_STATUS_MODERATE -> Thermal.MODERATE
            PowerManager.THERMAL_STATUS_SEVERE -> Thermal.SEVERE
            else -> Thermal.CRITICAL
        }
    }
}
