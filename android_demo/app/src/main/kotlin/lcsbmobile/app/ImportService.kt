package lcsbmobile.app

import android.app.Notification
import android.app.NotificationChannel
import android.app.NotificationManager
import android.app.PendingIntent
import android.app.Service
import android.content.Context
import android.content.Intent
import android.content.pm.ServiceInfo
import android.graphics.drawable.Icon
import android.os.Build
import android.os.Handler
import android.os.IBinder
import android.os.Looper
import android.os.SystemClock

/** Keeps the process alive while a bundle is added, and shows so. What adds it is [Bundles], with or without this service. */
class ImportService : Service() {
    private val app get() = App.of(this)
    private val observer = ::look
    private val main = Handler(Looper.getMainLooper())
    private var shown = 0L

    override fun onBind(intent: Intent?): IBinder? = null

    /** Without an intent when the system restarts it after it had ended the process, which goes on with what it finds begun. */
    override fun onStartCommand(intent: Intent?, flags: Int, startId: Int): Int {
        if (intent?.action == CANCEL) app.bundles.cancel()
        if (!goToForeground()) {
            stopSelf()
            return START_NOT_STICKY
        }
        main.removeCallbacksAndMessages(null)
        main.postDelayed(::leave, LONGEST_MILLIS)
        app.store.forget(observer)
        app.store.observe(observer)
        return START_STICKY
    }

    /** From API 31 the system may refuse, when it restarted the service in the background. */
    private fun goToForeground(): Boolean =
        try {
            if (Build.VERSION.SDK_INT >= 34) {
                startForeground(ID, build(app.store.state.transfer), ServiceInfo.FOREGROUND_SERVICE_TYPE_DATA_SYNC)
            } else {
                startForeground(ID, build(app.store.state.transfer))
            }
            true
        } catch (error: IllegalStateException) {
            false
        }

    /** Once a second is enough, and the system drops more. */
    private fun look(state: AppState) {
        if (!app.bundles.adding) return leave()
        val now = SystemClock.elapsedRealtime()
        if (now - shown < 1000) return
        shown = now
        getSystemService(NotificationManager::class.java).notify(ID, build(state.transfer))
    }

    private fun leave() {
        main.removeCallbacksAndMessages(null)
        app.store.forget(observer)
        stopForeground(STOP_FOREGROUND_REMOVE)
        stopSelf()
    }

    override fun onDestroy() {
        main.removeCallbacksAndMessages(null)
        app.store.forget(observer)
        super.onDestroy()
    }

    private fun build(progress: Progress?): Notification {
        val channel = NotificationChannel(CHANNEL, getString(R.string.channel_adding), NotificationManager.IMPORTANCE_LOW)
        getSystemService(NotificationManager::class.java).createNotificationChannel(channel)
        val open = PendingIntent.getActivity(this, 0, Intent(this, MainActivity::class.java), PendingIntent.FLAG_IMMUTABLE)
        val cancel = PendingIntent.getService(this, 0, Intent(this, ImportService::class.java).setAction(CANCEL), PendingIntent.FLAG_IMMUTABLE)
        val builder = Notification.Builder(this, CHANNEL)
            .setSmallIcon(R.drawable.ic_model)
            .setColor(getColor(R.color.primary))
            .setContentTitle(progress?.let { title(resources, it) } ?: getString(R.string.channel_adding))
            .setContentText(progress?.let { bytes(resources, it) })
            .setContentIntent(open)
            .setOnlyAlertOnce(true)
            .setOngoing(true)
            .addAction(Notification.Action.Builder(Icon.createWithResource(this, R.drawable.ic_stop), getString(R.string.cancel), cancel).build())
        if (progress == null || progress.total <= 0) return builder.setProgress(0, 0, true).build()
        return builder.setProgress(1000, (progress.done * 1000 / progress.total).toInt(), false).build()
    }

    companion object {
        const val ID = 2
        const val CANCEL = "lcsbmobile.app.CANCEL_ADDING"
        private const val CHANNEL = "adding"
        private const val LONGEST_MILLIS = 5 * 3_600_000L // from API 35 on the system ends the app where a transfer's service stays for six hours

        /** From API 31 the system refuses while the app is in the background: what is added is added as long as the process lasts. */
        fun start(context: Context) {
            try {
                context.startForegroundService(Intent(context, ImportService::class.java))
            } catch (error: IllegalStateException) {
                return
            }
        }
    }
}
