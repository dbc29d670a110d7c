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
import org.mockito.Mockito.`when`
import org.robolectric.Robolectric
import org.robolectric.Shadows.shadowOf
import org.robolectric.shadows.ShadowPowerManager
import org.robolectric.shadows.ShadowSystemClock
import java.time.Duration

/** Training without a screen: service, job, reboot, and a phone that is not well. */
class BackgroundTest : AppTest() {
    private val scheduler get() = app.getSystemService(JobScheduler::class.java)
    private val jobs: Map<Int, JobInfo> get() = scheduler.allPendingJobs.associateBy { it.id }
    private val job: JobInfo? get() = jobs[TrainJob.IDLE]
    private val power get() = shadowOf(app.getSystemService(PowerManager::class.java))
    private val notices get() = shadowOf(app.getSystemService(NotificationManager::class.java))

    /** Asks for a run of [steps] steps on the sample messages, as the Start button does. */
    private fun ask(steps: Int) {
        app.data.importSample()
        waitFor("the sample") { state.data?.summary != null && state.reading == null }
        app.settings.steps = steps
        app.training.request(state.bundle!!, state.data!!)
    }

    private fun parameters(id: Int) = mock(JobParameters::class.java).also { `when`(it.jobId).thenReturn(id) }

    /** What the system does when it is time for a job. */
    private fun startJob(id: Int) =
        Robolectric.buildService(TrainJob::class.java).create().get().also { assertTrue(it.onStartJob(parameters(id))) }

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
        assertEquals("nothing is left to do", emptyMap<Int, JobInfo>(), jobs)
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

    private fun boot() {
        BootReceiver().onReceive(app, Intent(Intent.ACTION_BOOT_COMPLETED))
        app.training.worker.join()
    }

    @Test fun `a run that the system interrupted is scheduled for charging and idle, survives a reboot, and the switch takes it off`() {
        ask(steps = 40)
        service().startCommand(0, 1)
        waitFor("a step") { state.run.step >= 1 }
        app.training.leave()
        waitFor("its end") { state.run.phase == Phase.INTERRUPTED && job != null }
        assertTrue(job!!.isRequireCharging && job!!.isRequireDeviceIdle && job!!.isPersisted)
        scheduler.cancelAll() // as after a reboot of a phone that lost it
        boot()
        assertNotNull(job)
        app.settings.trainWhenIdle = false
        app.training.schedule()
        app.training.worker.join()
        assertNull(job)
        boot()
        assertNull(job)
    }

    @Test fun `what the person paused stays paused, whoever comes`() {
        ask(steps = 40)
        service().startCommand(0, 1)
        waitFor("a step") { state.run.step >= 1 }
        app.training.pause()
        waitFor("the pause") { state.run.phase == Phase.PAUSED && !app.training.running }
        val activity = open().get()
        activity.show(Destination.TRAIN)
        assertTrue(activity.view<TextView>(R.id.run_detail).text.endsWith(" of 40. It stays paused until you resume it."))
        boot()
        assertEquals(emptyMap<Int, JobInfo>(), jobs)
        val step = state.run.step
        val restarted = service()
        restarted.get().onStartCommand(null, 0, 2)
        waitFor("its end") { shadowOf(restarted.get()).isStoppedBySelf }
        val job = startJob(TrainJob.IDLE)
        waitFor("the job's end") { shadowOf(job).isJobFinished }
        assertFalse(shadowOf(job).isRescheduleNeeded)
        assertEquals(Phase.PAUSED to step, state.run.phase to state.run.step)
    }

    @Test fun `a process that ended after the pause, or after the person resumed, is followed by one that does what they said`() {
        ask(steps = 40)
        service().startCommand(0, 1)
        waitFor("a step") { state.run.step >= 1 }
        app.training.pause()
        waitFor("the pause") { state.run.phase == Phase.PAUSED && !app.training.thread!!.isAlive }
        val step = state.run.step
        for ((resumed, phase) in listOf(false to Phase.PAUSED, true to Phase.INTERRUPTED)) {
            if (resumed) app.training.request(state.bundle!!, null)
            nextProcess()
            waitFor("what is said of it") { state.run.phase == phase }
            assertEquals(step, state.run.step)
            assertEquals(resumed, job != null)
        }
    }

    @Test fun `the job trains, is stopped by the system, and goes on, until the person pauses`() {
        ask(steps = 100)
        val service = startJob(TrainJob.IDLE)
        waitFor("two steps") { state.run.step >= 2 }
        assertTrue(service.onStopJob(parameters(TrainJob.IDLE)))
        waitFor("the interruption") { state.run.phase == Phase.INTERRUPTED }
        val step = state.run.step
        val again = startJob(TrainJob.IDLE)
        waitFor("a step more") { state.run.step > step }
        app.training.pause()
        waitFor("the pause") { state.run.phase == Phase.PAUSED && shadowOf(again).isJobFinished }
        assertFalse(shadowOf(again).isRescheduleNeeded)
    }

    @Test fun `the job leaves a run alone that the service trains, and the service one that the job trains`() {
        ask(steps = 100)
        val service = service().startCommand(0, 1)
        waitFor("a step") { state.run.step >= 1 }
        val job = Robolectric.buildService(TrainJob::class.java).create().get()
        assertFalse(job.onStartJob(mock(JobParameters::class.java)))
        assertFalse(job.onStopJob(mock(JobParameters::class.java)))
        waitFor("training as before") { state.run.phase == Phase.TRAINING && app.training.running }
        app.training.leave()
        waitFor("its end") { shadowOf(service.get()).isStoppedBySelf && !app.training.thread!!.isAlive }
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
        val job = startJob(TrainJob.IDLE)
        waitFor("its end") { shadowOf(job).isJobFinished }
        assertFalse(shadowOf(job).isRescheduleNeeded)
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
