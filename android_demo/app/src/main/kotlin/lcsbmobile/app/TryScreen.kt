package lcsbmobile.app

import android.text.Spannable
import android.text.SpannableStringBuilder
import android.text.Spanned
import android.text.style.ForegroundColorSpan
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.EditText
import android.widget.TextView

/** A conversation, or a text that is continued, with an adapter or without; or the same prompt with both, side by side. */
class TryScreen(private val activity: MainActivity, override val view: View) : Screen {
    private val app = App.of(activity)
    private val talk = view.findViewById<Button>(R.id.mode_talk)
    private val compare = view.findViewById<Button>(R.id.mode_compare)
    private val prompt = view.findViewById<EditText>(R.id.prompt)
    private val write = view.findViewById<Button>(R.id.write)
    private val stop = view.findViewById<Button>(R.id.write_stop)
    private val new = view.findViewById<Button>(R.id.new_conversation)
    private val state = view.findViewById<TextView>(R.id.try_state)
    private val answers = view.findViewById<View>(R.id.answers)
    private val before = view.findViewById<TextView>(R.id.before)
    private val after = view.findViewById<TextView>(R.id.after)
    private val options = TryOptions(activity, view)
    private val conversation = ConversationView(activity, view)
    private val examples = ExamplePrompts(activity, view, prompt)

    init {
        talk.setOnClickListener { app.trial.change { it.copy(sideBySide = false) } }
        compare.setOnClickListener { app.trial.change { it.copy(sideBySide = true) } }
        write.setOnClickListener { write() }
        stop.setOnClickListener { app.trial.stop() }
        new.setOnClickListener { app.trial.clear() }
        for (id in listOf(R.id.before_title, R.id.after_title)) heading(view.findViewById(id))
    }

    private fun write() {
        val text = "${prompt.text}"
        if (text.isBlank()) return
        if (app.store.state.conversation.sideBySide) return app.trial.compare(text)
        app.trial.say(text)
        prompt.text.clear()
    }

    override fun render(state: AppState) {
        val (comparison, talked) = state.comparison to state.conversation
        val writing = comparison.writing || talked.writing
        talk.setText(if (state.talks) R.string.mode_chat else R.string.mode_text)
        for ((button, chosen) in listOf(talk to !talked.sideBySide, compare to talked.sideBySide)) mark(button, chosen)
        this.state.say(sentence(state))
        prompt.hint = activity.getString(if (state.talks) R.string.chat_hint else R.string.prompt_hint)
        write.setText(if (state.talks) R.string.send else R.string.write)
        write.isEnabled = state.bundle != null && !state.run.active && !writing
        stop.shown(writing)
        new.shown(!talked.sideBySide && talked.said.isNotEmpty() && !writing)
        options.render(state)
        conversation.render(talked)
        answers.shown(talked.sideBySide)
        val asked = comparison.prompt
        before.say(if (asked == null) "" else continued(activity, asked, comparison.before, comparison.beforeCut, !state.talks))
        val learned = state.tried != null || state.pausedRun
        after.say(if (asked == null || !learned) "" else continued(activity, asked, comparison.after, comparison.afterCut, !state.talks))
        examples.render(state)
    }

    private fun mark(button: Button, chosen: Boolean) {
        button.isSelected = chosen
        button.setBackgroundResource(if (chosen) R.drawable.button_tonal else R.drawable.button_outlined)
        button.setTextColor(activity.getColorStateList(if (chosen) R.color.on_tonal else R.color.on_outlined))
    }

    private fun sentence(state: AppState): String = when {
        state.bundle == null -> activity.getString(R.string.needs_model)
        state.run.active -> activity.getString(R.string.try_training)
        state.comparison.writing || state.conversation.writing -> activity.getString(R.string.try_writing)
        state.conversation.forgotten > 0 && !state.conversation.sideBySide ->
            plural(activity.resources, R.plurals.forgotten, state.conversation.forgotten)
        state.tried == null && state.pausedRun -> activity.getString(R.string.try_paused)
        state.tried == null -> activity.getString(R.string.try_untrained)
        state.conversation.sideBySide -> activity.getString(if (state.talks) R.string.compare_chat_ready else R.string.try_ready)
        else -> activity.getString(R.string.chat_ready)
    }
}

/** [asked] in grey, where it is [part] of the text, and then what was [written]. What was cut ends in dots. */
fun continued(activity: MainActivity, asked: String, written: String, cut: Boolean, part: Boolean): CharSequence {
    val text = SpannableStringBuilder()
    if (part) {
        text.append(asked)
        text.setSpan(ForegroundColorSpan(activity.getColor(R.color.on_surface_variant)), 0, text.length, Spanned.SPAN_EXCLUSIVE_EXCLUSIVE)
        text.setSpan(android.text.style.StyleSpan(android.graphics.Typeface.ITALIC), 0, text.length, Spannable.SPAN_EXCLUSIVE_EXCLUSIVE)
    }
    return text.append(written).append(if (cut) "…" else "")
}

/** Beginnings to try: of the example that the adapter has not seen, and some that suit every model. They are gone once there is something to read. */
private class ExamplePrompts(private val activity: MainActivity, view: View, private val prompt: EditText) {
    private val card = view.findViewById<View>(R.id.examples_card)
    private val list = view.findViewById<ViewGroup>(R.id.example_prompts)
    private var shown: List<String>? = null

    fun render(state: AppState) {
        val general = activity.resources.getStringArray(if (state.talks) R.array.examples_chat else R.array.examples_text).toList()
        val texts = (listOfNotNull(state.tried?.example?.takeIf { it.isNotBlank() }) + general).distinct()
        val asked = if (state.conversation.sideBySide) state.comparison.prompt != null else state.conversation.said.isNotEmpty()
        card.shown(!asked && state.bundle != null)
        if (texts == shown) return
        shown = texts
        list.removeAllViews()
        for (text in texts) {
            val button = activity.layoutInflater.inflate(R.layout.example, list, false) as Button
            button.text = text.trim()
            button.setOnClickListener {
                prompt.setText(text)
                prompt.setSelection(prompt.text.length)
            }
            list.addView(button)
        }
    }
}
