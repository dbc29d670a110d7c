package lcsbmobile.app

import android.content.res.Resources
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.ImageButton
import android.widget.ProgressBar
import android.widget.RadioButton
import android.widget.TextView

class ModelScreen(private val activity: MainActivity, override val view: View) : Screen {
    private val app = App.of(activity)
    private val resources = activity.resources
    private val list = view.findViewById<ViewGroup>(R.id.bundles)
    private val transfer = TransferCard(view)
    private val add = listOf(R.id.add_folder, R.id.add_zip, R.id.add_demo).map { view.findViewById<Button>(it) }

    init {
        add[0].setOnClickListener { activity.pickFolder() }
        add[1].setOnClickListener { activity.pickZip() }
        add[2].setOnClickListener { app.bundles.addDemo() }
        heading(view.findViewById(R.id.add_title))
        view.findViewById<Button>(R.id.transfer_cancel).setOnClickListener { app.bundles.cancel() }
    }

    override fun render(state: AppState) {
        while (list.childCount > state.bundles.size) list.removeViewAt(list.childCount - 1)
        while (list.childCount < state.bundles.size) activity.layoutInflater.inflate(R.layout.bundle, list)
        state.bundles.forEachIndexed { i, bundle -> show(list.getChildAt(i), bundle, state) }
        transfer.render(state.transfer)
        add.forEach { it.isEnabled = state.transfer == null }
        add[2].shown(state.bundles.none { it.name == Bundles.DEMO })
        renderFound(state)
    }

    private fun show(card: View, bundle: BundleInfo, state: AppState) {
        val chosen = bundle.name == state.chosen
        card.isActivated = chosen
        card.isEnabled = !state.run.active
        card.setOnClickListener { app.bundles.choose(bundle.name) }
        card.findViewById<RadioButton>(R.id.bundle_chosen).isChecked = chosen
        card.findViewById<TextView>(R.id.bundle_name).say(breakable(bundle.name))
        card.findViewById<TextView>(R.id.bundle_source).say(breakable(bundle.source))
        val steps = app.settings.steps
        val time = bundle.secondsAStep?.let { formatRoughly(resources, it * steps) } ?: activity.getString(R.string.unknown)
        val figures = listOf(
            Triple(R.id.bundle_size, activity.getString(R.string.size), formatBytes(resources, bundle.bytes)),
            Triple(R.id.bundle_layers, activity.getString(R.string.layers), formatCount(resources, bundle.layers.toLong())),
            Triple(R.id.bundle_memory, activity.getString(R.string.memory_needed), about(bundle.predictedMemory)),
            Triple(R.id.bundle_time, activity.getString(R.string.training_time, plural(resources, R.plurals.steps_label, steps)), time),
        )
        for ((id, label, value) in figures) card.findViewById<View>(id).figure(value, label)
        val check = activity.getString(if (bundle.checked) R.string.bundle_checked else R.string.bundle_unchecked)
        card.findViewById<TextView>(R.id.bundle_check).say(check)
        card.contentDescription = listOf(activity.getString(R.string.bundle_name, bundle.name), bundle.source, check).joinToString(". ")
        card.isSelected = chosen
        card.findViewById<ImageButton>(R.id.bundle_remove).apply {
            contentDescription = activity.getString(R.string.remove_bundle, bundle.name)
            isEnabled = !(chosen && state.run.active)
            setOnClickListener {
                val title = activity.getString(R.string.remove_title, bundle.name)
                confirm(activity, title, activity.getString(R.string.remove_text), R.string.remove) { app.bundles.remove(bundle.name) }
            }
        }
    }

    private fun about(bytes: Long?) =
        if (bytes == null) activity.getString(R.string.unknown) else activity.getString(R.string.about, formatBytes(resources, bytes))

    private fun renderFound(state: AppState) {
        val found = view.findViewById<ViewGroup>(R.id.found)
        if ((0 until found.childCount).map { found.getChildAt(it).tag } != state.found) {
            found.removeAllViews()
            for (name in state.found) {
                val button = activity.layoutInflater.inflate(R.layout.found, found, false) as Button
                button.text = activity.getString(R.string.add_found, name)
                button.tag = name
                button.setOnClickListener { app.bundles.addFound(name) }
                found.addView(button)
            }
        }
        for (i in 0 until found.childCount) found.getChildAt(i).isEnabled = state.transfer == null
    }
}

/** Copying and verifying, with figures. */
private class TransferCard(view: View) {
    private val resources = view.resources
    private val card = view.findViewById<View>(R.id.transfer)
    private val title = view.findViewById<TextView>(R.id.transfer_title)
    private val text = view.findViewById<TextView>(R.id.transfer_text)
    private val bar = view.findViewById<ProgressBar>(R.id.transfer_bar)

    fun render(progress: Progress?) {
        card.shown(progress != null)
        if (progress == null) return
        title.say(title(resources, progress))
        text.say(bytes(resources, progress))
        bar.show(progress)
    }
}

fun title(resources: Resources, progress: Progress): String = when (progress.kind) {
    Progress.Kind.COPYING -> resources.getString(R.string.copying, progress.name)
    Progress.Kind.VERIFYING -> resources.getString(R.string.verifying, progress.name)
    Progress.Kind.TESTING -> resources.getString(R.string.measuring)
    Progress.Kind.READING -> resources.getString(R.string.reading, progress.name)
}

fun bytes(resources: Resources, progress: Progress): String = when {
    progress.total > 0 ->
        resources.getString(R.string.progress_bytes, formatBytes(resources, progress.done), formatBytes(resources, progress.total))
    progress.done > 0 -> formatBytes(resources, progress.done)
    else -> ""
}

fun ProgressBar.show(progress: Progress) {
    isIndeterminate = progress.total <= 0
    if (progress.total > 0) this.progress = (progress.done * 1000 / progress.total).toInt()
}
