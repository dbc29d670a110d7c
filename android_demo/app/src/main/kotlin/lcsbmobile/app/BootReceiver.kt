package lcsbmobile.app

import android.content.BroadcastReceiver
import android.content.Context
import android.content.Intent

/** After a reboot or an update: sees to it that a run that waits will go on. It trains nothing itself. */
class BootReceiver : BroadcastReceiver() {
    override fun onReceive(context: Context, intent: Intent) {
        if (intent.action in EXPECTED) App.of(context).training.schedule()
    }

    private companion object {
        val EXPECTED = setOf(Intent.ACTION_BOOT_COMPLETED, Intent.ACTION_MY_PACKAGE_REPLACED)
    }
}
