package lcsbmobile.app

import android.app.ActivityManager
import android.app.Notification
import android.app.NotificationManager
import android.app.job.JobInfo
import android.app.job.JobParameters
import android.app.job.JobScheduler
import android.content.Intent
import android.os.BatteryManager
import android.os.PowerManager
import android.widget.TextView
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNotNull
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.mockito.Mockito.mock
import org.robolectric.Robolectric
import org.robolectric.Shadows.shadowOf
import org.robolectric.shadows.ShadowPowerManager
import org.robolectric.shadows.ShadowSystemClock
import java.time.Duration

/** Training without a screen: service, job, reboot, and a phone that is not well. */
class BackgroundTest : AppTest() {
    private val scheduler get() = app.getSystemService(JobScheduler::class.java)
    private val job: JobInfo? get() = scheduler.allPendingJobs.singleOrNull()
    private val power get() = shadowOf(app.getSystemService(PowerManager::class.java))
    private val notices get() = shadowOf(app.getSystemService(NotificationManager::class.java))

    /** Asks for a run of [steps] steps on the sample messages, as the Start button does. */
    private fun ask(steps: Int) {
        app.data.importSample()
        waitFor("the sample") { state.data?.summary != null && state.reading == null }
        app.settings.steps = steps
        app.training.request(state.bundle!!, state.data!!)
    }

    private fun service() = Robolectric.buildService(TrainService::class.java).create()

    private fun battery(percent: Int, plugged: Int = 0) {
        val sticky = Intent(Intent.ACTION_BATTERY_CHANGED)
        sticky.putExtra(BatteryManager.EXTRA_LEVEL, percent).putExtra(BatteryManager.EXTRA_SCALE, 100)
        sticky.putExtra(BatteryManager.EXTRA_PLUGGED, plugged).putExtra(BatteryManager.EXTRA_TEMPERATURE, 300)
        @Suppress("DEPRECATION")
        app.sendStickyBroadcast(sticky)
        idle()
    }

    @Test fun `the service trains in the foreground, with pause and stop in its notification, and ends with the run`() {
        ask(steps = 8)
        val controller = service().startCommand(0, 1)
        val service = shadowOf(controller.get())
        assertEquals(TrainNotice.ID, service.lastForegroundNotificationId)
        val notice = service.lastForegroundNotification
        assertEquals(listOf("Pause", "Finish early"), notice.actions.map { it.title.toString() })
        assertEquals("Training tiny", notice.extras.getString(Notification.EXTRA_TITLE))
        val wakefulness = ShadowPowerManager.getLatestWakeLock()
        assertTrue("awake with the screen off", wakefulness.isHeld)
        waitFor("the end") { state.run.phase == Phase.FINISHED && service.isStoppedBySelf }
        assertFalse(wakefulness.isHeld)
        assertEquals(8, state.run.training.size)
        assertEquals("Finished", notices.getNotification(TrainNotice.ID).extras.getString(Notification.EXTRA_TEXT))
        assertNull("nothing is left to do", job)
    }

    @Test fun `pause in the notification saves, and resume goes on`() {
        ask(steps = 40)
        val controller = service().startCommand(0, 1)
        waitFor("three steps") { state.run.step >= 3 }
        controller.get().onStartCommand(Intent(TrainService.PAUSE), 0, 2)
        waitFor("the pause") { state.run.phase == Phase.PAUSED && shadowOf(controller.get()).isStoppedBySelf }
        assertEquals("what the newest command allows", 2, shadowOf(controller.get()).stopSelfId)
        val step = state.run.step
        assertTrue(step in 3 until 40)
        assertEquals("Paused at step $step of 40", notices.getNotification(TrainNotice.ID).extras.getString(Notification.EXTRA_TEXT))
        app.training.request(state.bundle!!, null)
        service().startCommand(0, 3)
        waitFor("a step more") { state.run.step > step }
    }

    @Test fun `stop in the notification keeps what was learned`() {
        ask(steps = 40)
        val controller = service().startCommand(0, 1)
        waitFor("three steps") { state.run.step >= 3 }
        controller.get().onStartCommand(Intent(TrainService.CANCEL), 0, 2)
        waitFor("the end") { state.run.phase == Phase.CANCELLED && !app.training.thread!!.isAlive }
        assertTrue(state.report!!.result.losses.size >= 3)
        assertNull(job)
    }

    @Test fun `the system restarts the service without an intent, and the run goes on`() {
        ask(steps = 8)
        service().get().onStartCommand(null, 0, 1)
        waitFor("the end") { state.run.phase == Phase.FINISHED }
    }

    @Test fun `a run that waits is scheduled for charging and idle, survives a reboot, and the switch takes it off`() {
        ask(steps = 40)
        service().startCommand(0, 1)
        waitFor("a step") { state.run.step >= 1 }
        app.training.pause()
        waitFor("the pause") { state.run.phase == Phase.PAUSED && job != null }
        assertTrue(job!!.isRequireCharging && job!!.isRequireDeviceIdle && job!!.isPersisted)
        scheduler.cancelAll() // as after a reboot of a phone that lost it
        BootReceiver().onReceive(app, Intent(Intent.ACTION_BOOT_COMPLETED))
        assertNotNull(job)
        app.settings.trainWhenIdle = false
        app.training.schedule()
        assertNull(job)
        BootReceiver().onReceive(app, Intent(Intent.ACTION_BOOT_COMPLETED))
        assertNull(job)
    }

    @Test fun `the job trains, is stopped by the system, and is to be scheduled again`() {
        ask(steps = 100)
        val service = Robolectric.buildService(TrainJob::class.java).create().get()
        assertTrue(service.onStartJob(mock(JobParameters::class.java)))
        waitFor("two steps") { state.run.step >= 2 }
        assertTrue(service.onStopJob(mock(JobParameters::class.java)))
        waitFor("the pause") { state.run.phase == Phase.PAUSED }
        val step = state.run.step
        val again = Robolectric.buildService(TrainJob::class.java).create().get()
        assertTrue(again.onStartJob(mock(JobParameters::class.java)))
        waitFor("a step more") { state.run.step > step }
        app.training.pause()
        waitFor("the pause") { state.run.phase == Phase.PAUSED && shadowOf(again).isJobFinished }
        assertTrue("the run waits", shadowOf(again).isRescheduleNeeded)
    }

    @Test fun `the job leaves a run alone that the service trains, and the service one that the job trains`() {
        ask(steps = 100)
        val service = service().startCommand(0, 1)
        waitFor("a step") { state.run.step >= 1 }
        val job = Robolectric.buildService(TrainJob::class.java).create().get()
        assertFalse(job.onStartJob(mock(JobParameters::class.java)))
        assertFalse(job.onStopJob(mock(JobParameters::class.java)))
        waitFor("training as before") { state.run.phase == Phase.TRAINING && app.training.running }
        service.get().onStartCommand(Intent(TrainService.PAUSE), 0, 2)
        waitFor("the pause") { shadowOf(service.get()).isStoppedBySelf && !app.training.thread!!.isAlive }
        assertTrue(job.onStartJob(mock(JobParameters::class.java)))
        service.destroy()
        val step = state.run.step
        waitFor("more steps") { state.run.step >= step + 2 }
    }

    @Test fun `a start before the old turn has ended keeps its own notification and wake lock`() {
        ask(steps = 100)
        val service = service().startCommand(0, 1)
        waitFor("a step") { state.run.step >= 1 }
        app.training.pause()
        waitFor("its end") { !app.training.running }
        app.training.request(state.bundle!!, null)
        service.startCommand(0, 2)
        val step = state.run.step
        waitFor("more steps") { state.run.step >= step + 2 }
        assertTrue(ShadowPowerManager.getLatestWakeLock().isHeld)
        assertFalse(shadowOf(service.get()).isForegroundStopped)
    }

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

    @Test fun `without a run the job has nothing to do`() {
        assertFalse(Robolectric.buildService(TrainJob::class.java).create().get().onStartJob(mock(JobParameters::class.java)))
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

    @Test fun `a low battery makes it wait, and charging makes it go on`() {
        ask(steps = 100)
        battery(10)
        service().startCommand(0, 1)
        waitFor("the wait") { state.run.phase == Phase.WAITING }
        assertEquals(Reason.BATTERY, state.run.decision.reason)
        assertEquals(10, state.vitals.battery)
        battery(10, plugged = BatteryManager.BATTERY_PLUGGED_USB)
        waitFor("steps") { state.run.step >= 1 }
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
