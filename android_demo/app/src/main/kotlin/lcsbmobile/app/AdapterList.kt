package lcsbmobile.app

import android.app.AlertDialog
import android.content.res.Resources
import android.text.InputFilter
import android.text.InputType
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.EditText
import android.widget.FrameLayout
import android.widget.PopupMenu
import android.widget.TextView
import lcsbmobile.core.Verdict

/** What a verdict says, as a sentence. */
fun sentence(resources: Resources, stored: StoredVerdict): String {
    val verdict = stored.verdict
    val id = when (verdict.outcome) {
        Verdict.Outcome.BETTER -> R.plurals.verdict_better
        Verdict.Outcome.NO_DIFFERENCE -> R.plurals.verdict_same
        Verdict.Outcome.WORSE -> R.plurals.verdict_worse
        Verdict.Outcome.TOO_FEW -> R.plurals.verdict_few
    }
    val against = stored.against?.let { resources.getString(R.string.quoted, it) } ?: resources.getString(R.string.the_plain_model)
    return plural(resources, id, verdict.examples, formatCount(resources, verdict.improved.toLong()), against)
}

/** When and of what it was made, and what came of it. */
fun AdapterRecord.details(resources: Resources): String {
    val losses = listOfNotNull(lossBefore, lossAfter)
    return listOfNotNull(
        formatDay(resources, made),
        if (run == null) resources.getString(R.string.adapter_imported) else data?.let { resources.getString(R.string.quoted, it) },
        further?.let { resources.getString(R.string.adapter_from, it) },
        steps?.let { plural(resources, R.plurals.steps_label, it) },
        losses.takeIf { it.size == 2 }?.let { (before, after) -> lossFigure(resources, before, after) },
    ).joinToString(" · ")
}

/** The adapters of the chosen model, each with what can be done with it. */
class AdapterList(private val activity: MainActivity, view: View) {
    private val app = App.of(activity)
    private val list = view.findViewById<ViewGroup>(R.id.adapter_list)
    private var shown: Pair<List<AdapterRecord>, Int?>? = null

    fun render(state: AppState) {
        val (adapters, used) = state.adapters to state.inUse
        if (shown != adapters to used) {
            shown = adapters to used
            list.removeAllViews()
            adapters.forEach { list.addView(row(it, it.id == used)) }
        }
        for (index in 0 until list.childCount) {
            list.getChildAt(index).findViewById<View>(R.id.share_adapter).isEnabled = !state.packing && !state.run.active
        }
    }

    private fun row(record: AdapterRecord, used: Boolean): View {
        val row = activity.layoutInflater.inflate(R.layout.adapter, list, false)
        row.findViewById<TextView>(R.id.adapter_name).apply {
            text = record.name
            heading(this)
        }
        row.findViewById<View>(R.id.adapter_used).shown(used)
        row.findViewById<TextView>(R.id.adapter_details).text = record.details(activity.resources)
        row.findViewById<TextView>(R.id.adapter_verdict).apply {
            shown(record.verdict != null)
            text = record.verdict?.let { sentence(activity.resources, it) }
        }
        row.button(R.id.adapter_use, R.string.adapter_use, record) { app.adapters.use(record) }.shown(!used)
        row.button(R.id.share_adapter, R.string.share, record) { app.sharing.adapter(record, activity::send) }
        row.button(R.id.adapter_more, R.string.adapter_more, record) { more(it, record) }
        return row
    }

    /** TalkBack says which adapter a button is about. */
    private fun View.button(id: Int, label: Int, record: AdapterRecord, action: (View) -> Unit): Button = findViewById<Button>(id).apply {
        contentDescription = activity.getString(R.string.labelled, activity.getString(label), record.name)
        setOnClickListener { action(this) }
    }

    private fun more(anchor: View, record: AdapterRecord) = PopupMenu(activity, anchor).run {
        val actions = listOf(
            R.string.adapter_further to { further(record) },
            R.string.adapter_compare to { compare(record) },
            R.string.adapter_rename to { rename(record) },
            R.string.adapter_delete to { delete(record) },
        )
        actions.forEachIndexed { index, (label, _) -> menu.add(0, index, index, label) }
        setOnMenuItemClickListener {
            actions[it.itemId].second()
            true
        }
        show()
    }

    fun further(record: AdapterRecord) {
        app.adapters.trainFurther(record)
        activity.show(Destination.TRAIN)
    }

    fun compare(record: AdapterRecord) {
        if (app.store.state.data?.suffices != true) {
            app.store.update { it.copy(problem = Problem.COMPARISON) }
            return
        }
        val others = listOf<AdapterRecord?>(null) + app.store.state.adapters.filter { it.id != record.id }
        val names = others.map { it?.name ?: activity.getString(R.string.without_adapter) }.toTypedArray()
        AlertDialog.Builder(activity).setTitle(R.string.compare_title).setNegativeButton(R.string.cancel, null)
            .setItems(names) { _, index -> app.adapters.compare(record, others[index]) }.show()
    }

    fun rename(record: AdapterRecord) {
        val field = EditText(activity).apply {
            setText(record.name)
            setSelection(text.length)
            inputType = InputType.TYPE_CLASS_TEXT or InputType.TYPE_TEXT_FLAG_CAP_SENTENCES
            filters = arrayOf(InputFilter.LengthFilter(Adapters.MOST_NAME))
            contentDescription = activity.getString(R.string.rename_title)
            id = R.id.rename_field
        }
        val margin = activity.resources.getDimensionPixelSize(R.dimen.page)
        val frame = FrameLayout(activity).apply {
            setPadding(margin, margin, margin, 0)
            addView(field)
        }
        AlertDialog.Builder(activity).setTitle(R.string.rename_title).setView(frame).setNegativeButton(R.string.cancel, null)
            .setPositiveButton(R.string.rename_save) { _, _ -> if (field.text.isNotBlank()) app.adapters.rename(record, "${field.text}") }.show()
    }

    fun delete(record: AdapterRecord) {
        val (title, text) = activity.getString(R.string.delete_title, record.name) to activity.getString(R.string.delete_text)
        confirm(activity, title, text, R.string.adapter_delete) { app.adapters.remove(record) }
    }
}
