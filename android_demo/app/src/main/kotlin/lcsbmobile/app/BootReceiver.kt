package lcsbmobile.app

import android.content.BroadcastReceiver
import android.content.Context
import android.content.Intent

/** After a reboot or an update: sees to it that a run that waits will go on. It trains nothing itself. */
class BootReceiver : BroadcastReceiver() {
    override fun onReceive(context: Context, intent: Intent) {
        if (intent.action !in EXPECTED) return
        val pending: PendingResult? = goAsync() // none where no system sent it
        App.of(context).training.schedule { pending?.finish() }
    }

    private companion object {
        val EXPECTED = setOf(Intent.ACTION_BOOT_COMPLETED, Intent.ACTION_MY_PACKAGE_REPLACED)
    }
}
