package lcsbmobile.app

import android.app.Notification
import android.app.NotificationChannel
import android.app.NotificationManager
import android.app.PendingIntent
import android.content.Context
import android.content.Intent
import android.graphics.drawable.Icon
import android.os.Build
import android.os.SystemClock

/** The service's notification: what the run is at, with pause and stop on it. What is left after the run can be swiped away. */
class TrainNotice(private val context: Context) {
    private val app = App.of(context)
    private val manager = context.getSystemService(NotificationManager::class.java)
    private val observer = ::show
    private var shown = 0L

    init {
        val channel = NotificationChannel(CHANNEL, context.getString(R.string.channel), NotificationManager.IMPORTANCE_LOW)
        manager.createNotificationChannel(channel)
    }

    /** Once or more often. */
    fun begin() {
        app.store.forget(observer)
        app.store.observe(observer)
    }

    /** What the run came to stays to be read. */
    fun end() {
        app.store.forget(observer)
        manager.notify(ID, build())
    }

    /** Once a second is enough, and the system drops more. */
    private fun show(state: AppState) {
        val now = SystemClock.elapsedRealtime()
        if (state.run.active && now - shown < 1000) return
        shown = now
        manager.notify(ID, build())
    }

    fun build(): Notification {
        val state = app.store.state
        val run = state.run
        val open = PendingIntent.getActivity(context, 0, Intent(context, MainActivity::class.java), PendingIntent.FLAG_IMMUTABLE)
        val builder = Notification.Builder(context, CHANNEL)
            .setSmallIcon(R.drawable.ic_model)
            .setColor(context.getColor(R.color.primary))
            .setContentTitle(context.getString(R.string.note_title, state.chosen.orEmpty()))
            .setContentText(text(run))
            .setContentIntent(open)
            .setOnlyAlertOnce(true)
            .setOngoing(run.active)
        if (!run.active) return builder.build()
        atOnce(builder)
        return builder.setProgress(run.steps, run.step, run.step == 0 || run.phase == Phase.COMPARING)
            .addAction(action(R.drawable.ic_pause, R.string.pause, TrainService.PAUSE))
            .addAction(action(R.drawable.ic_stop, R.string.stop, TrainService.CANCEL))
            .build()
    }

    /** Not after the ten seconds that the system else waits from API 31 on. */
    @Guarded
    private fun atOnce(builder: Notification.Builder) {
        if (Build.VERSION.SDK_INT >= 31) builder.setForegroundServiceBehavior(Notification.FOREGROUND_SERVICE_IMMEDIATE)
    }

    private fun text(run: RunState): String = when (run.phase) {
        Phase.PAUSED -> context.getString(R.string.note_paused, "${run.step}", "${run.steps}")
        Phase.FAILED -> context.getString(R.string.note_failed)
        Phase.TRAINING -> context.getString(R.string.step_of, "${run.step}", "${run.steps}")
        else -> context.getString(run.phase.title)
    }

    private fun action(icon: Int, title: Int, action: String): Notification.Action {
        val intent = Intent(context, TrainService::class.java).setAction(action)
        val pending = PendingIntent.getService(context, icon, intent, PendingIntent.FLAG_IMMUTABLE)
        return Notification.Action.Builder(Icon.createWithResource(context, icon), context.getString(title), pending).build()
    }

    companion object {
        const val ID = 1
        private const val CHANNEL = "training"
    }
}
