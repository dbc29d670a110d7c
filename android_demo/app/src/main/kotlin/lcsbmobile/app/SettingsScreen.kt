package lcsbmobile.app

import android.app.AlertDialog
import android.view.View
import android.widget.Switch
import android.widget.TextView
import kotlin.reflect.KMutableProperty0

/** What holds for every model: what training may do unasked, the backup, what happens to private data, and whose work this is. */
class SettingsScreen(private val activity: MainActivity, override val view: View) : Screen {
    private val app = App.of(activity)

    init {
        bind(R.id.idle, app.settings::trainWhenIdle) { app.training.schedule() }
        bind(R.id.backup, app.settings::backup)
        val version = activity.packageManager.getPackageInfo(activity.packageName, 0).versionName
        view.findViewById<TextView>(R.id.version).text = activity.getString(R.string.version, version)
        view.findViewById<View>(R.id.licences).setOnClickListener { showLicences() }
        val headings = listOf(R.id.settings_training, R.id.settings_backup, R.id.settings_privacy, R.id.settings_about)
        headings.forEach { heading(view.findViewById(it)) }
    }

    private fun bind(id: Int, setting: KMutableProperty0<Boolean>, changed: () -> Unit = {}) = view.findViewById<Switch>(id).run {
        isChecked = setting.get()
        setOnCheckedChangeListener { _, on ->
            setting.set(on)
            changed()
        }
    }

    private fun showLicences() {
        val text = listOf(R.raw.notices, R.raw.apache).joinToString("\n\n") { id ->
            activity.resources.openRawResource(id).bufferedReader().use { it.readText() }
        }
        AlertDialog.Builder(activity).setTitle(R.string.licences).setMessage(text).setPositiveButton(R.string.dismiss, null).show()
    }

    override fun render(state: AppState) = Unit
}
