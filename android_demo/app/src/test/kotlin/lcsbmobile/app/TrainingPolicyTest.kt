package lcsbmobile.app

import org.junit.Assert.assertEquals
import org.junit.Test

class TrainingPolicyTest {
    private val well = Vitals(battery = 80, thermal = Thermal.NONE, temperature = 30f)
    private val free = Decision()
    private val hot = Decision(true, Reason.HOT)
    private val empty = Decision(true, Reason.BATTERY)

    private fun decide(vitals: Vitals, before: Decision = free) = TrainingPolicy.decide(vitals, before)

    @Test fun `a phone that is well trains at full speed`() = assertEquals(0, Pace().between(decide(well)))

    @Test fun `MODERATE slows down, SEVERE and worse wait`() {
        assertEquals(free, decide(well.copy(thermal = Thermal.LIGHT)))
        assertEquals(Decision(false, Reason.WARM), decide(well.copy(thermal = Thermal.MODERATE)))
        assertEquals(60, Pace().between(decide(well.copy(thermal = Thermal.MODERATE))))
        assertEquals(hot, decide(well.copy(thermal = Thermal.SEVERE)))
        assertEquals(hot, decide(well.copy(thermal = Thermal.CRITICAL)))
        assertEquals(0, Pace().between(hot))
    }

    @Test fun `after SEVERE it waits until below MODERATE`() {
        assertEquals(hot, decide(well.copy(thermal = Thermal.MODERATE), hot))
        assertEquals(free, decide(well.copy(thermal = Thermal.LIGHT), hot))
    }

    @Test fun `the battery's temperature and the thermal status both count, the stricter one`() {
        val old = well.copy(thermal = Thermal.UNKNOWN)
        assertEquals(free, decide(old.copy(temperature = 40.9f)))
        assertEquals(Decision(false, Reason.WARM), decide(old.copy(temperature = 41f)))
        assertEquals(hot, decide(old.copy(temperature = 45f)))
        assertEquals(hot, decide(old.copy(temperature = 40f), hot))
        assertEquals(free, decide(old.copy(temperature = 39.9f), hot))
        assertEquals(free, decide(old.copy(temperature = Float.NaN)))
        assertEquals(hot, decide(well.copy(temperature = 46f)))
        assertEquals(Decision(false, Reason.WARM), decide(well.copy(temperature = 42f)))
        assertEquals(hot, decide(well.copy(temperature = 40f), hot))
        assertEquals(hot, decide(well.copy(temperature = 30f, thermal = Thermal.SEVERE)))
    }

    @Test fun `a low battery waits, unless it charges, until it has some more`() {
        assertEquals(free, decide(well.copy(battery = 15)))
        assertEquals(empty, decide(well.copy(battery = 14)))
        assertEquals(free, decide(well.copy(battery = 3, charging = true)))
        assertEquals(empty, decide(well.copy(battery = 19), empty))
        assertEquals(free, decide(well.copy(battery = 20), empty))
        assertEquals(free, decide(well.copy(battery = 16, charging = true), empty))
        assertEquals(free, decide(well.copy(battery = -1)))
    }

    @Test fun `other apps' need of memory waits, and heat is named before it`() {
        assertEquals(Decision(true, Reason.MEMORY), decide(well.copy(memoryLow = true)))
        assertEquals(hot, decide(well.copy(memoryLow = true, thermal = Thermal.SEVERE)))
    }
}
