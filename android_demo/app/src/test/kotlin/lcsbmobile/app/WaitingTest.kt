package lcsbmobile.app

import android.app.ActivityManager
import android.app.job.JobInfo
import android.os.BatteryManager
import android.os.PowerManager
import android.widget.TextView
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Shadows.shadowOf
import org.robolectric.shadows.ShadowPowerManager
import org.robolectric.shadows.ShadowSystemClock
import java.time.Duration

/** A phone that is hot, low on battery or short of memory: what waits, for how long, and what goes on with it. */
class WaitingTest : BackgroundRuns() {
    @Test fun `a run that other apps leave too little memory waits, and goes on by itself`() {
        ask(steps = 100)
        val first = service().startCommand(0, 1)
        waitFor("a step") { state.run.step >= 1 }
        app.training.pause()
        waitFor("the pause") { shadowOf(first.get()).isStoppedBySelf && !app.training.thread!!.isAlive }
        val memory = ActivityManager.MemoryInfo().apply {
            totalMem = 4_000_000_000
            availMem = 100_000_000
            threshold = 200_000_000
        }
        shadowOf(app.getSystemService(ActivityManager::class.java)).setMemoryInfo(memory)
        app.training.request(state.bundle!!, null)
        service().startCommand(0, 2)
        waitFor("the wait") { state.run.phase == Phase.WAITING || state.run.phase == Phase.FAILED }
        assertEquals(Reason.MEMORY, state.run.decision.reason)
        plentyOfMemory(app)
        ShadowSystemClock.advanceBy(Duration.ofMinutes(2))
        val step = state.run.step
        waitFor("more steps") { state.run.step > step }
    }

    @Test fun `a hot phone is left to cool, a warm one goes slower, and the run goes on by itself`() {
        ask(steps = 100)
        power.setCurrentThermalStatus(PowerManager.THERMAL_STATUS_MODERATE)
        val activity = open().get()
        activity.show(Destination.TRAIN)
        service().startCommand(0, 1)
        waitFor("a slow step") { state.run.step >= 1 && state.run.decision.reason == Reason.WARM }
        val detail = activity.view<TextView>(R.id.run_detail)
        assertTrue(detail.text.endsWith("Slower, because the phone is warm."))
        power.setCurrentThermalStatus(PowerManager.THERMAL_STATUS_SEVERE)
        waitFor("the wait") { state.run.phase == Phase.WAITING }
        assertEquals("The phone is hot. Training continues on its own once it has cooled down.", detail.text.toString())
        val step = state.run.step
        power.setCurrentThermalStatus(PowerManager.THERMAL_STATUS_NONE)
        waitFor("more steps") { state.run.phase == Phase.TRAINING && state.run.step > step }
    }

    @Test fun `a low battery ends the turn and lets the phone sleep, and a job goes on when it charges`() {
        ask(steps = 100)
        battery(10)
        val service = service().startCommand(0, 1)
        waitFor("the end of the turn") { state.run.phase == Phase.SUSPENDED && shadowOf(service.get()).isStoppedBySelf }
        assertEquals(Reason.BATTERY, state.run.decision.reason)
        assertEquals(10, state.vitals.battery)
        assertFalse(ShadowPowerManager.getLatestWakeLock().isHeld)
        assertTrue(shadowOf(service.get()).isForegroundStopped)
        assertEquals(setOf(TrainJob.IDLE, TrainJob.CHARGES, TrainJob.ENOUGH), jobs.keys)
        assertTrue(jobs.getValue(TrainJob.CHARGES).run { isRequireCharging && !isRequireDeviceIdle && isPersisted })
        assertTrue(jobs.getValue(TrainJob.ENOUGH).run { isRequireBatteryNotLow && !isRequireCharging && minLatencyMillis > 0 })
        nextProcess()
        waitFor("what is said of it") { state.run.phase == Phase.SUSPENDED }
        assertNull(state.problem)
        val activity = open().get()
        activity.show(Destination.TRAIN)
        assertTrue(activity.view<TextView>(R.id.run_detail).text.startsWith("The battery is low."))
        battery(16)
        val early = startJob(TrainJob.ENOUGH) // for the system 16 % may be enough
        waitFor("another wait") { shadowOf(early).isJobFinished && !app.training.running }
        assertEquals(Phase.SUSPENDED, state.run.phase)
        battery(16, plugged = BatteryManager.BATTERY_PLUGGED_USB)
        startJob(TrainJob.CHARGES)
        waitFor("steps") { state.run.step >= 1 }
        app.training.pause()
        waitFor("the pause") { state.run.phase == Phase.PAUSED && !app.training.thread!!.isAlive }
        assertEquals(emptyMap<Int, JobInfo>(), jobs)
    }

    @Test fun `what waits for its battery can be paused, and then does not go on`() {
        ask(steps = 100)
        battery(10)
        service().startCommand(0, 1)
        waitFor("the end of the turn") { state.run.phase == Phase.SUSPENDED && jobs.size == 3 && !app.training.running }
        val activity = open().get()
        activity.show(Destination.TRAIN)
        activity.view<android.view.View>(R.id.pause).performClick()
        waitFor("the pause") { state.run.phase == Phase.PAUSED && jobs.isEmpty() }
    }

    @Test fun `a phone that stays hot is waited for a short while, then by a job`() {
        ask(steps = 100)
        power.setCurrentThermalStatus(PowerManager.THERMAL_STATUS_SEVERE)
        val service = service().startCommand(0, 1)
        waitFor("the wait") { state.run.phase == Phase.WAITING }
        assertTrue(ShadowPowerManager.getLatestWakeLock().isHeld)
        ShadowSystemClock.advanceBy(Duration.ofMinutes(4))
        waitFor("the end of the turn") { state.run.phase == Phase.SUSPENDED && shadowOf(service.get()).isStoppedBySelf }
        assertFalse(ShadowPowerManager.getLatestWakeLock().isHeld)
        assertTrue(jobs.getValue(TrainJob.LATER).run { minLatencyMillis > 0 && !isRequireCharging && isPersisted })
        power.setCurrentThermalStatus(PowerManager.THERMAL_STATUS_NONE)
        startJob(TrainJob.LATER)
        waitFor("steps") { state.run.step >= 1 }
    }

    @Test fun `the wake lock lasts as long as training does, and no longer`() {
        ask(steps = 400)
        val service = service().startCommand(0, 1)
        for (later in 1..3) {
            val step = state.run.step
            waitFor("steps") { state.run.step >= step + 2 }
            ShadowSystemClock.advanceBy(Duration.ofMinutes(15))
            waitFor("more steps") { state.run.step >= step + 4 }
            assertTrue("$later", ShadowPowerManager.getLatestWakeLock().isHeld)
        }
        service.destroy()
        waitFor("the system's end of it") { state.run.phase == Phase.INTERRUPTED }
        assertFalse(ShadowPowerManager.getLatestWakeLock().isHeld)
    }

    @Test fun `when the system wants memory back the run is saved and waits`() {
        ask(steps = 100)
        service().startCommand(0, 1)
        waitFor("a step") { state.run.step >= 1 }
        @Suppress("DEPRECATION")
        app.onTrimMemory(android.content.ComponentCallbacks2.TRIM_MEMORY_RUNNING_CRITICAL)
        waitFor("the wait") { state.run.phase == Phase.WAITING }
        assertEquals(Reason.MEMORY, state.run.decision.reason)
    }
}
