package lcsbmobile.app

import android.app.AlertDialog
import android.view.View
import android.widget.Button
import android.widget.Switch
import android.widget.TextView
import kotlin.reflect.KMutableProperty0

/** What holds for every model: what training may do unasked, the backup, what happens to private data, and whose work this is. */
class SettingsScreen(private val activity: MainActivity, override val view: View) : Screen {
    private val app = App.of(activity)
    private val resources = activity.resources
    private val kept = view.findViewById<TextView>(R.id.kept)
    private val delete = view.findViewById<Button>(R.id.delete_data)

    init {
        delete.setOnClickListener { if (!app.privateData.refused()) chooseParts() }
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

    /** What there is of each part, where there is any. */
    private fun parts(state: AppState): List<Pair<PrivateData.Part, String>> = state.kept.orEmpty().filterValues { it > 0 }.map { (part, bytes) ->
        part to activity.getString(R.string.labelled, activity.getString(part.label), formatBytes(resources, bytes))
    }

    /** Asks which parts are to go; nothing is chosen beforehand. */
    private fun chooseParts() {
        val parts = parts(app.store.state)
        val chosen = BooleanArray(parts.size)
        AlertDialog.Builder(activity).setTitle(R.string.delete_data_title).setNegativeButton(R.string.cancel, null)
            .setMultiChoiceItems(parts.map { it.second }.toTypedArray(), chosen) { _, index, on -> chosen[index] = on }
            .setPositiveButton(R.string.delete_chosen) { _, _ -> deleteOnceSure(parts.filterIndexed { index, _ -> chosen[index] }) }.show()
    }

    private fun deleteOnceSure(parts: List<Pair<PrivateData.Part, String>>) {
        if (parts.isEmpty()) return
        val (title, what) = activity.getString(R.string.delete_data_sure) to parts.joinToString("\n") { it.second }
        confirm(activity, title, activity.getString(R.string.delete_data_text, what), R.string.adapter_delete) {
            app.privateData.delete(parts.map { it.first }.toSet())
        }
    }

    override fun render(state: AppState) {
        val parts = parts(state)
        val words = if (parts.isEmpty()) activity.getString(R.string.delete_data_none) else parts.joinToString("\n") { it.second }
        kept.shown(state.kept != null)
        kept.say(words)
        delete.isEnabled = parts.isNotEmpty()
    }
}
