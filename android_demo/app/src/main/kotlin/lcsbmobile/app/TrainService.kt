package lcsbmobile.app

import android.app.Service
import android.content.Context
import android.content.Intent
import android.content.pm.ServiceInfo
import android.os.Build
import android.os.IBinder
import android.os.PowerManager
import android.os.SystemClock

/** Keeps the process alive while it trains, and shows so. What trains is [Training]. */
class TrainService : Service() {
    /** What one start keeps the service for. [id]: of the newest command about it, with which the system lets the service be stopped. */
    private class Hold(@Volatile var id: Int)

    @Volatile private var hold: Hold? = null
    private lateinit var notice: TrainNotice
    private val app get() = App.of(this)
    private val renewing = { _: AppState -> renew() }

    @Volatile private var renewed = 0L
    private lateinit var wakefulness: PowerManager.WakeLock // a foreground service alone does not keep the processor on

    override fun onBind(intent: Intent?): IBinder? = null

    override fun onCreate() {
        super.onCreate()
        notice = TrainNotice(this)
        wakefulness = getSystemService(PowerManager::class.java).newWakeLock(PowerManager.PARTIAL_WAKE_LOCK, "lcsbmobile:training")
        wakefulness.setReferenceCounted(false)
    }

    /** Without an intent when the system restarts the service after it had ended the process: then the run goes on. */
    override fun onStartCommand(intent: Intent?, flags: Int, startId: Int): Int {
        val training = app.training
        when (intent?.action) {
            PAUSE -> training.pause()
            CANCEL -> training.cancel()
            else -> return train(training, startId)
        }
        hold?.id = startId
        if (hold == null || !training.running) stopSelf(startId)
        return START_NOT_STICKY
    }

    private fun train(training: Training, startId: Int): Int {
        val mine = Hold(startId)
        if (!take(mine)) {
            refuse(training, mine)
            return START_NOT_STICKY
        }
        training.start { trained -> if (trained) finish(mine) else refuse(training, mine) }
        return START_STICKY
    }

    private fun refuse(training: Training, mine: Hold) {
        training.refused()
        finish(mine, STOP_FOREGROUND_REMOVE)
    }

    @Synchronized
    private fun take(mine: Hold): Boolean {
        hold = mine
        if (!goToForeground()) return false
        stayAwake()
        app.store.forget(renewing)
        app.store.observe(renewing)
        notice.begin()
        return true
    }

    private fun stayAwake() {
        wakefulness.acquire(LEASE_MILLIS)
        renewed = SystemClock.elapsedRealtime()
    }

    /** A run that tells of itself is under way: what it holds lasts some more. */
    @Synchronized
    private fun renew() {
        if (hold != null && SystemClock.elapsedRealtime() - renewed >= LEASE_MILLIS / 2) stayAwake()
    }

    /** From API 31 the system may refuse, when it restarted the service in the background. The job then goes on with the run. */
    private fun goToForeground(): Boolean =
        try {
            if (Build.VERSION.SDK_INT >= 34) {
                startForeground(TrainNotice.ID, notice.build(), ServiceInfo.FOREGROUND_SERVICE_TYPE_SPECIAL_USE)
            } else {
                startForeground(TrainNotice.ID, notice.build())
            }
            true
        } catch (error: IllegalStateException) {
            false
        }

    /** On the training's thread. Where the service was started anew meanwhile, only [mine] is over. */
    @Synchronized
    private fun finish(mine: Hold, notice: Int = STOP_FOREGROUND_DETACH) {
        if (hold === mine) {
            hold = null
            app.store.forget(renewing)
            this.notice.end()
            wakefulness.release()
            stopForeground(notice)
        }
        stopSelf(mine.id)
    }

    /** What the job trains goes on. */
    override fun onDestroy() {
        if (hold != null) app.training.leave()
        hold = null
        app.store.forget(renewing)
        wakefulness.release()
        super.onDestroy()
    }

    companion object {
        private const val LEASE_MILLIS = 20 * 60_000L // longer than anything takes that tells nothing of itself; forgotten, it ends by itself
        const val PAUSE = "lcsbmobile.app.PAUSE"
        const val CANCEL = "lcsbmobile.app.CANCEL"

        fun start(context: Context) {
            context.startForegroundService(Intent(context, TrainService::class.java))
        }
    }
}
