package lcsbmobile.app

import android.app.job.JobInfo
import android.app.job.JobParameters
import android.app.job.JobScheduler
import android.app.job.JobService
import android.content.ComponentName
import android.content.Context

/**
 * Goes on with a run that waits: while the phone charges and is idle, or when what suspended the run is over. The system ends it when its
 * conditions are, or after some minutes: the run is saved and scheduled again. A run that the service trains is none of its business.
 */
class TrainJob : JobService() {
    @Volatile private var mine: JobParameters? = null // of the turn that this job began

    override fun onStartJob(params: JobParameters): Boolean {
        val training = App.of(this).training
        if (training.running) return false
        mine = params
        training.start { trained ->
            // what was suspended again has its own jobs
            if (mine === params) jobFinished(params, trained && params.jobId == IDLE && training.waitsForIdle)
        }
        return true
    }

    override fun onStopJob(params: JobParameters): Boolean {
        val began = mine != null
        mine = null
        if (began) App.of(this).training.leave()
        return began
    }

    companion object {
        const val IDLE = 1
        const val CHARGES = 2
        const val ENOUGH = 3
        const val LATER = 4
        private const val LATER_MILLIS = 10 * 60_000L // a phone that is hot cools down meanwhile, one whose battery is low does not ask at once again

        /**
         * The system starts a job when its conditions are met, after a reboot too. [waiting]: a run is; else all jobs are taken off. [whenIdle]: it may
         * go on while the phone charges and is idle. [reason]: what suspended it; of one that nothing suspended the jobs stay as they are.
         */
        fun schedule(context: Context, waiting: Boolean, whenIdle: Boolean, reason: Reason?) {
            val scheduler = context.getSystemService(JobScheduler::class.java)
            if (!waiting) listOf(CHARGES, ENOUGH, LATER).forEach(scheduler::cancel)
            if (!waiting || !whenIdle) scheduler.cancel(IDLE)
            if (waiting && whenIdle && scheduler.getPendingJob(IDLE) == null) {
                scheduler.add(context, IDLE) { setRequiresCharging(true).setRequiresDeviceIdle(true) }
            }
            if (reason == Reason.BATTERY) {
                scheduler.add(context, CHARGES) { setRequiresCharging(true) }
                scheduler.add(context, ENOUGH) { setRequiresBatteryNotLow(true).setMinimumLatency(LATER_MILLIS) }
            } else if (reason != null) {
                scheduler.add(context, LATER) { setMinimumLatency(LATER_MILLIS) }
            }
        }

        private fun JobScheduler.add(context: Context, id: Int, conditions: JobInfo.Builder.() -> JobInfo.Builder) {
            schedule(JobInfo.Builder(id, ComponentName(context, TrainJob::class.java)).conditions().setPersisted(true).build())
        }
    }
}
