package lcsbmobile.app

import android.app.job.JobInfo
import android.app.job.JobParameters
import android.app.job.JobScheduler
import android.app.job.JobService
import android.content.ComponentName
import android.content.Context

/**
 * Goes on with a run that waits, while the phone charges and is idle. The system ends it when either is over, or after some minutes: it is
 * saved and scheduled again. A run that the service trains is none of its business.
 */
class TrainJob : JobService() {
    @Volatile private var mine: JobParameters? = null // of the turn that this job began

    override fun onStartJob(params: JobParameters): Boolean {
        val training = App.of(this).training
        if (training.running) return false
        mine = params
        return training.start { if (mine === params) jobFinished(params, training.waitsForJob) }.also { if (!it) mine = null }
    }

    override fun onStopJob(params: JobParameters): Boolean {
        val began = mine != null
        mine = null
        if (began) App.of(this).training.pause()
        return began
    }

    companion object {
        private const val ID = 1

        /** The system starts the job when the phone charges and is idle, after a reboot too. Takes it off where it is not [wanted]. */
        fun schedule(context: Context, wanted: Boolean) {
            val scheduler = context.getSystemService(JobScheduler::class.java)
            if (!wanted) return scheduler.cancel(ID)
            if (scheduler.getPendingJob(ID) != null) return
            val job = JobInfo.Builder(ID, ComponentName(context, TrainJob::class.java))
            scheduler.schedule(job.setRequiresCharging(true).setRequiresDeviceIdle(true).setPersisted(true).build())
        }
    }
}
