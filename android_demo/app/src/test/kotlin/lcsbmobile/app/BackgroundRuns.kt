package lcsbmobile.app

import android.app.NotificationManager
import android.app.job.JobInfo
import android.app.job.JobParameters
import android.app.job.JobScheduler
import android.content.Intent
import android.os.BatteryManager
import android.os.PowerManager
import org.junit.Assert.assertTrue
import org.mockito.Mockito.mock
import org.mockito.Mockito.`when`
import org.robolectric.Robolectric
import org.robolectric.Shadows.shadowOf

/** Runs without a screen: what the system does to them is played here. */
abstract class BackgroundRuns : AppTest() {
    protected val scheduler get() = app.getSystemService(JobScheduler::class.java)
    protected val jobs: Map<Int, JobInfo> get() = scheduler.allPendingJobs.associateBy { it.id }
    protected val job: JobInfo? get() = jobs[TrainJob.IDLE]
    protected val power get() = shadowOf(app.getSystemService(PowerManager::class.java))
    protected val notices get() = shadowOf(app.getSystemService(NotificationManager::class.java))

    /** Asks for a run of [steps] steps on the sample messages, as the Start button does. */
    protected fun ask(steps: Int) {
        app.data.importSample()
        waitFor("the sample") { state.data?.summary != null && state.reading == null }
        app.settings.steps = steps
        app.training.request(state.bundle!!, state.data!!)
    }

    protected fun parameters(id: Int) = mock(JobParameters::class.java).also { `when`(it.jobId).thenReturn(id) }

    /** What the system does when it is time for a job. */
    protected fun startJob(id: Int) =
        Robolectric.buildService(TrainJob::class.java).create().get().also { assertTrue(it.onStartJob(parameters(id))) }

    protected fun service() = Robolectric.buildService(TrainService::class.java).create()

    protected fun battery(percent: Int, plugged: Int = 0) {
        val sticky = Intent(Intent.ACTION_BATTERY_CHANGED)
        sticky.putExtra(BatteryManager.EXTRA_LEVEL, percent).putExtra(BatteryManager.EXTRA_SCALE, 100)
        sticky.putExtra(BatteryManager.EXTRA_PLUGGED, plugged).putExtra(BatteryManager.EXTRA_TEMPERATURE, 300)
        @Suppress("DEPRECATION")
        app.sendStickyBroadcast(sticky)
        idle()
    }
}
