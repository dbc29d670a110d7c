package lcsbmobile.app

import android.text.Editable
import android.text.TextWatcher
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.EditText
import android.widget.TextView
import java.text.NumberFormat
import java.text.ParsePosition

// Parts of the Train screen, each in a layout of its own.

/** What a run that is over has learned, and where that is not clearly better, the question whether to use it. */
class ResultCard(private val activity: MainActivity, override val view: View) : Screen {
    private val app = App.of(activity)
    private val card = view.findViewById<View>(R.id.result)
    private val text = view.findViewById<TextView>(R.id.result_text)
    private val use = view.findViewById<Button>(R.id.result_use)
    private val keep = view.findViewById<Button>(R.id.result_keep)

    init {
        use.setOnClickListener { app.store.state.let { state -> state.adapters.find { it.id == state.undecided } }?.let(app.adapters::use) }
        keep.setOnClickListener { app.adapters.keepOther() }
        heading(view.findViewById(R.id.result_title))
    }

    override fun render(state: AppState) {
        val newest = state.adapters.firstOrNull()?.takeIf { it.run != null }
        val over = state.run.phase == Phase.FINISHED || state.run.phase == Phase.CANCELLED
        card.shown(over && newest != null)
        if (newest == null) return
        val asked = state.undecided == newest.id
        text.say(words(state, newest, asked))
        for (button in listOf(use, keep)) button.shown(asked)
        keep.setText(if (state.adapterInUse == null) R.string.result_keep_none else R.string.result_keep)
    }

    private fun words(state: AppState, record: AdapterRecord, asked: Boolean): String {
        val verdict = record.verdict
        val judged = verdict?.let { sentence(activity.resources, it) } ?: activity.getString(R.string.verdict_none)
        val then = when {
            asked -> if (verdict == null) R.string.result_ask_unknown else R.string.result_ask
            state.inUse == record.id -> R.string.result_used
            else -> null
        }
        return listOfNotNull(judged, then?.let(activity::getString)).joinToString(" ")
    }
}

/** That the next run goes on from an adapter. */
class FurtherCard(private val activity: MainActivity, override val view: View) : Screen {
    private val card = view.findViewById<View>(R.id.further)
    private val text = view.findViewById<TextView>(R.id.further_text)

    init {
        view.findViewById<View>(R.id.further_stop).setOnClickListener { App.of(activity).adapters.trainFurther(null) }
    }

    override fun render(state: AppState) {
        val record = state.adapters.find { it.id == state.further }
        card.shown(record != null && !state.run.active && !state.run.resumable)
        record?.let { text.say(activity.getString(R.string.further_text, it.name)) }
    }
}

/** What the model makes of the beginning of a held-out example, before and now. */
class SamplesCard(private val activity: MainActivity, override val view: View) : Screen {
    private val card = view.findViewById<View>(R.id.samples)
    private val list = view.findViewById<ViewGroup>(R.id.samples_list)
    private var shown = emptyList<WrittenSample>()

    init {
        heading(view.findViewById(R.id.samples_title))
    }

    override fun render(state: AppState) {
        val samples = state.run.samples
        card.shown(samples.isNotEmpty())
        val told = listOfNotNull(samples.lastOrNull(), samples.firstOrNull()).distinct()
        if (told == shown) return
        shown = told
        list.removeAllViews()
        for (sample in told) {
            val row = activity.layoutInflater.inflate(R.layout.sample, list, false)
            val steps = plural(activity.resources, R.plurals.steps_label, sample.step)
            val words = if (sample.step == 0) activity.getString(R.string.sample_start) else activity.getString(R.string.sample_step, steps)
            row.findViewById<TextView>(R.id.sample_step).text = words
            val gap = if (sample.prompt.isEmpty() || sample.text.firstOrNull()?.isWhitespace() != false) "" else "\n".takeIf { state.talks }.orEmpty()
            row.findViewById<TextView>(R.id.sample_text).text = continued(activity, sample.prompt + gap, sample.text, sample.cut, part = true)
            list.addView(row)
        }
    }
}

/** The learning rate, for who wants to choose it. */
class AdvancedOptions(private val activity: MainActivity, override val view: View) : Screen {
    private val app = App.of(activity)
    private val resources = activity.resources
    private val section =
        Section(view.findViewById(R.id.advanced_header), view.findViewById(R.id.advanced_body), R.string.advanced, NAME, openAtFirst = false)
    private val field = view.findViewById<EditText>(R.id.learning_rate)
    private val fault = view.findViewById<TextView>(R.id.learning_rate_fault)
    private val why = view.findViewById<TextView>(R.id.learning_rate_why)

    init {
        app.settings.learningRate?.let { field.setText(formatRate(resources, it)) }
        field.addTextChangedListener(object : TextWatcher {
            override fun afterTextChanged(text: Editable) = take("$text".trim())

            override fun beforeTextChanged(text: CharSequence?, start: Int, count: Int, after: Int) = Unit

            override fun onTextChanged(text: CharSequence?, start: Int, before: Int, count: Int) = Unit
        })
    }

    /** What is no such number leaves what was, which is used until there is one. */
    private fun take(text: String) {
        val rate = parse(text)
        val good = text.isEmpty() || (rate != null && rate > 0 && rate <= 1)
        fault.shown(!good)
        fault.say(if (good) "" else activity.getString(R.string.learning_rate_bad))
        if (good) app.settings.learningRate = rate
    }

    /** As the language writes numbers, or as programs do. */
    private fun parse(text: String): Double? {
        val place = ParsePosition(0)
        val number = NumberFormat.getNumberInstance(locale(resources)).apply { isGroupingUsed = false }.parse(text, place)
        return if (number != null && place.index == text.length) number.toDouble() else text.toDoubleOrNull()
    }

    override fun render(state: AppState) {
        field.isEnabled = !state.run.active
        val bundle = state.bundle ?: return
        val own = Engine.learningRate(bundle.schedule)
        val rate = formatRate(resources, own)
        val used = formatRate(resources, app.settings.learningRate ?: own)
        section.render(activity.getString(R.string.labelled, activity.getString(R.string.learning_rate), used))
        field.hint = activity.getString(R.string.learning_rate_hint, rate)
        val waits = bundle.schedule.size
        val some = bundle.schedule.any { step -> step.any { it != LayerRole.TRAINED } }
        why.say(if (some) activity.getString(R.string.learning_rate_why, rate, "$waits") else activity.getString(R.string.learning_rate_why_all, rate))
    }

    companion object {
        const val NAME = "advanced"
    }
}
