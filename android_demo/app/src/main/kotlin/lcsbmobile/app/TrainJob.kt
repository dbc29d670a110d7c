package lcsbmobile.app

import android.app.job.JobParameters
import android.app.job.JobService

/** Goes on with a run that waits, while the phone charges and is idle. The system ends it when either is over, or after some minutes: it is saved and scheduled again. */
class TrainJob : JobService() {
    private var stopped = false

    override fun onStartJob(params: JobParameters): Boolean = App.of(this).training.start { if (!stopped) jobFinished(params, false) }

    override fun onStopJob(params: JobParameters): Boolean {
        stopped = true
        App.of(this).training.pause()
        return true
    }
}
