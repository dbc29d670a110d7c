package lcsbmobile.app

import android.content.res.Resources
import android.graphics.Typeface
import android.text.SpannableStringBuilder
import android.text.Spanned
import android.text.style.BackgroundColorSpan
import android.text.style.ForegroundColorSpan
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.EditText
import android.widget.ImageButton
import android.widget.ProgressBar
import android.widget.TextView

class DataScreen(private val activity: MainActivity, override val view: View) : Screen {
    private val app = App.of(activity)
    private val resources = activity.resources
    private val name = view.findViewById<TextView>(R.id.data_name)
    private val state = view.findViewById<TextView>(R.id.data_state)
    private val bar = view.findViewById<ProgressBar>(R.id.data_bar)
    private val figures = view.findViewById<View>(R.id.data_figures)
    private val advice = view.findViewById<TextView>(R.id.data_advice)
    private val import = view.findViewById<Button>(R.id.import_data)
    private val sample = view.findViewById<Button>(R.id.sample_data)
    private val cancel = view.findViewById<Button>(R.id.data_cancel)
    private val preview = Preview(activity, view)
    private val typed = Typed(activity, view)

    init {
        import.setOnClickListener { replacing { activity.pickData() } }
        sample.setOnClickListener { replacing { app.data.importSample() } }
        cancel.setOnClickListener { app.data.cancel() }
        for (id in listOf(R.id.data_name, R.id.preview_title, R.id.type_title)) heading(view.findViewById(id))
    }

    /** What the person wrote here exists nowhere else. */
    private fun replacing(action: () -> Unit) {
        val messages = app.store.state.data?.typed?.size ?: return action()
        val text = plural(resources, R.plurals.replace_text, messages)
        confirm(activity, activity.getString(R.string.replace_title), text, R.string.replace, confirmed = action)
    }

    override fun render(state: AppState) {
        val data = state.data
        val reading = state.reading
        val summary = data?.summary
        name.say(data?.title(resources) ?: activity.getString(R.string.no_data))
        this.state.say(sentence(state))
        bar.shown(reading != null)
        reading?.let(bar::show)
        cancel.shown(reading != null)
        import.isEnabled = reading == null
        sample.isEnabled = reading == null
        figures.shown(summary != null)
        advice.shown(summary != null)
        summary?.let { show(it, state.bundle?.seqLen ?: 0) }
        preview.render(summary)
        typed.render(data?.typed, reading == null)
    }

    private fun sentence(state: AppState): String {
        val reading = state.reading
        return when {
            reading != null -> listOf(title(resources, reading), bytes(resources, reading)).filter { it.isNotEmpty() }.joinToString(" · ")
            state.data == null -> activity.getString(R.string.no_data_text)
            state.bundle == null -> activity.getString(R.string.data_needs_model)
            state.data.summary == null -> ""
            !state.data.suffices -> activity.getString(R.string.data_needs_two)
            else -> activity.getString(R.string.data_ready)
        }
    }

    private fun show(summary: DataSummary, seqLen: Int) {
        val values = listOf(
            Triple(R.id.data_examples, summary.examples, R.string.examples),
            Triple(R.id.data_tokens, summary.tokens, R.string.tokens),
            Triple(R.id.data_counted, summary.counted, R.string.counted),
            Triple(R.id.data_cut, summary.cut, R.string.cut),
        )
        for ((id, value, label) in values) view.findViewById<View>(id).figure(formatCount(resources, value), activity.getString(label))
        val cut = summary.cut.toInt()
        val sequences = summary.sequences.toInt()
        val length = formatCount(resources, seqLen.toLong())
        val cutWords = if (cut == 0) activity.getString(R.string.data_fits, length) else plural(resources, R.plurals.data_cut, cut, length)
        advice.say(cutWords + " " + plural(resources, R.plurals.data_epoch, sequences))
    }
}

/** In the screen's language, which may have changed since the person's own messages were read. */
fun DataInfo.title(resources: Resources): String = if (typed == null) name else resources.getString(R.string.typed_name)

/** The examples as the loss sees them. */
private class Preview(private val activity: MainActivity, view: View) {
    private val card = view.findViewById<View>(R.id.preview)
    private val legend = view.findViewById<TextView>(R.id.preview_legend)
    private val text = view.findViewById<TextView>(R.id.preview_text)
    private val previous = view.findViewById<ImageButton>(R.id.preview_previous)
    private val next = view.findViewById<ImageButton>(R.id.preview_next)
    private val ground = activity.getColor(R.color.primary_container)
    private val ink = activity.getColor(R.color.on_primary_container)
    private val grey = activity.getColor(R.color.on_surface_variant)
    private var index = 0
    private var summary: DataSummary? = null

    init {
        previous.setOnClickListener { turn(-1) }
        next.setOnClickListener { turn(1) }
    }

    private fun turn(by: Int) {
        index += by
        summary?.let(::show)
    }

    fun render(summary: DataSummary?) {
        card.shown(summary != null && summary.previews.isNotEmpty())
        if (summary === this.summary) return
        this.summary = summary
        index = 0
        summary?.takeIf { it.previews.isNotEmpty() }?.let(::show)
    }

    private fun show(summary: DataSummary) {
        val pieces = summary.previews[index]
        text.text = SpannableStringBuilder().apply {
            for (piece in pieces) {
                val from = length
                append(piece.text)
                val letters = ForegroundColorSpan(if (piece.counted) ink else grey)
                val spans = listOfNotNull(letters, BackgroundColorSpan(ground).takeIf { piece.counted })
                spans.forEach { setSpan(it, from, length, Spanned.SPAN_EXCLUSIVE_EXCLUSIVE) }
            }
        }
        text.typeface = Typeface.MONOSPACE
        val count = count(summary)
        legend.say(count + ". " + activity.getString(R.string.preview_legend))
        val learned = pieces.filter { it.counted }.joinToString(" ") { it.text }
        text.contentDescription = count + ". " + activity.getString(R.string.preview_words, learned)
        previous.isEnabled = index > 0
        next.isEnabled = index < summary.previews.size - 1
    }

    /** Of long data only the first examples are kept to be looked at. */
    private fun count(summary: DataSummary): String {
        val (here, shown) = listOf(index + 1, summary.previews.size).map { formatCount(activity.resources, it.toLong()) }
        if (summary.previews.size >= summary.examples) return activity.getString(R.string.preview_count, here, shown)
        return activity.getString(R.string.preview_count_first, here, shown, formatCount(activity.resources, summary.examples))
    }
}

/** The person's own messages, the newest first. */
private class Typed(private val activity: MainActivity, view: View) {
    private val app = App.of(activity)
    private val field = view.findViewById<EditText>(R.id.message)
    private val add = view.findViewById<Button>(R.id.add_message)
    private val list = view.findViewById<ViewGroup>(R.id.messages)
    private val more = view.findViewById<TextView>(R.id.messages_more)
    private var shown: List<String>? = null
    private var added: Pair<Int, String>? = null // where the message in the field is to be found

    init {
        add.setOnClickListener {
            val message = "${field.text}".trim()
            if (message.isNotEmpty()) {
                added = app.store.state.data?.typed.orEmpty().size to message
                app.data.type(message)
            }
        }
    }

    /** What could not be stored stays in the field. */
    private fun clearWhenStored(messages: List<String>) {
        val (index, message) = added ?: return
        if (messages.getOrNull(index) != message) return
        added = null
        if ("${field.text}".trim() == message) field.text.clear()
    }

    fun render(messages: List<String>?, enabled: Boolean) {
        add.isEnabled = enabled
        for (i in 0 until list.childCount) list.getChildAt(i).findViewById<View>(R.id.message_remove).isEnabled = enabled
        clearWhenStored(messages.orEmpty())
        if (messages == shown) return
        shown = messages
        list.removeAllViews()
        val all = messages.orEmpty()
        for (index in all.indices.reversed().take(MOST_SHOWN)) {
            val row = activity.layoutInflater.inflate(R.layout.message, list, false)
            row.findViewById<TextView>(R.id.message_text).text = all[index]
            row.findViewById<ImageButton>(R.id.message_remove).apply {
                contentDescription = activity.getString(R.string.remove_message, all[index])
                setOnClickListener { app.data.removeTyped(index) }
                isEnabled = enabled
            }
            list.addView(row)
        }
        val hidden = all.size - MOST_SHOWN
        more.shown(hidden > 0)
        if (hidden > 0) more.text = plural(activity.resources, R.plurals.messages_more, hidden)
    }

    private companion object {
        const val MOST_SHOWN = 30
    }
}
