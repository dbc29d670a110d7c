package lcsbmobile.app

import android.view.View
import android.widget.Button
import android.widget.EditText
import android.widget.TextView

class TryScreen(private val activity: MainActivity, override val view: View) : Screen {
    private val app = App.of(activity)
    private val prompt = view.findViewById<EditText>(R.id.prompt)
    private val write = view.findViewById<Button>(R.id.write)
    private val stop = view.findViewById<Button>(R.id.write_stop)
    private val state = view.findViewById<TextView>(R.id.try_state)
    private val before = view.findViewById<TextView>(R.id.before)
    private val after = view.findViewById<TextView>(R.id.after)

    init {
        write.setOnClickListener { if (prompt.text.isNotBlank()) app.trial.write("${prompt.text}") }
        stop.setOnClickListener { app.trial.stop() }
        for (id in listOf(R.id.before_title, R.id.after_title)) heading(view.findViewById(id))
    }

    override fun render(state: AppState) {
        val comparison = state.comparison
        this.state.say(activity.getString(sentence(state)))
        write.isEnabled = state.bundle != null && !state.run.active && !comparison.writing
        stop.shown(comparison.writing)
        val asked = comparison.prompt
        before.say(if (asked == null) "" else asked + comparison.before)
        after.say(if (asked == null || state.run.step == 0) "" else asked + comparison.after)
    }

    private fun sentence(state: AppState): Int = when {
        state.bundle == null -> R.string.try_needs_model
        state.run.active -> R.string.try_training
        state.comparison.writing -> R.string.try_writing
        state.run.step == 0 -> R.string.try_untrained
        state.run.resumable -> R.string.try_paused
        else -> R.string.try_ready
    }
}
