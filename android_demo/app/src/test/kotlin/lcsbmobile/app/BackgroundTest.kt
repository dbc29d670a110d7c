package lcsbmobile.app

import android.app.Notification
import android.app.job.JobInfo
import android.app.job.JobParameters
import android.content.Intent
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

/** Training without a screen: service, job, reboot. */
class BackgroundTest : BackgroundRuns() {
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
        while (app.training.running) Thread.onSpinWait() // at once: what it came to is being written down
        app.training.request(state.bundle!!, null)
        service.startCommand(0, 2)
        val step = state.run.step
        waitFor("more steps") { state.run.step >= step + 2 }
        assertTrue(ShadowPowerManager.getLatestWakeLock().isHeld)
        assertFalse(shadowOf(service.get()).isForegroundStopped)
    }

    @Test fun `without a run the job has nothing to do`() {
        val job = startJob(TrainJob.IDLE)
        waitFor("its end") { shadowOf(job).isJobFinished }
        assertFalse(shadowOf(job).isRescheduleNeeded)
    }
}
