package lcsbmobile.app

import android.view.View
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.SeekBar
import android.widget.Spinner
import android.widget.TextView

/** What can be chosen before a run. */
class TrainOptions(private val activity: MainActivity, view: View) {
    private val app = App.of(activity)
    private val resources = activity.resources
    private val card = view.findViewById<View>(R.id.options)
    private val section =
        Section(view.findViewById(R.id.options_header), view.findViewById(R.id.options_body), R.string.options, NAME, openAtFirst = true)
    private val stepsLabel = view.findViewById<TextView>(R.id.steps_label)
    private val steps = view.findViewById<SeekBar>(R.id.steps)
    private var notches = STEPS
    private val budget = view.findViewById<Spinner>(R.id.budget)
    private val choices = ArrayAdapter<String>(activity, R.layout.choice)

    init {
        steps.setOnSeekBarChangeListener(object : SeekBar.OnSeekBarChangeListener {
            override fun onProgressChanged(bar: SeekBar, progress: Int, byPerson: Boolean) {
                if (byPerson) choose(notches[progress])
            }

            override fun onStartTrackingTouch(bar: SeekBar) = Unit

            override fun onStopTrackingTouch(bar: SeekBar) = Unit
        })
        choices.setDropDownViewResource(R.layout.choice)
        choices.addAll(listOf(free()) + BUDGETS.drop(1).map { formatBytes(resources, it!!) })
        budget.adapter = choices
        budget.setSelection(BUDGETS.indexOf(app.settings.budget).coerceAtLeast(0))
        budget.onItemSelectedListener = object : AdapterView.OnItemSelectedListener {
            override fun onItemSelected(parent: AdapterView<*>?, item: View?, position: Int, id: Long) {
                app.settings.budget = BUDGETS[position]
                render(app.store.state)
            }

            override fun onNothingSelected(parent: AdapterView<*>?) = Unit
        }
    }

    /** However it was chosen: by a finger, a keyboard or TalkBack. */
    private fun choose(steps: Int) {
        app.settings.steps = steps
        app.store.update { if (it.run.phase == Phase.NONE) it.copy(run = it.run.copy(steps = steps)) else it }
        render(app.store.state)
    }

    private fun free() = activity.getString(R.string.budget_auto, formatBytes(resources, app.bundles.freeMemory()))

    /** Other apps take and leave memory. */
    private fun showFree() {
        val (shown, now) = choices.getItem(0) to free()
        if (shown == now) return
        choices.setNotifyOnChange(false) // twice
        choices.remove(shown)
        choices.insert(now, 0)
        choices.notifyDataSetChanged()
    }

    fun render(state: AppState) {
        val run = state.run
        val open = !run.active && !run.resumable
        card.shown(!run.active)
        if (run.active) return
        showFree()
        val shown = if (open) app.settings.steps else run.steps
        val text = stepsInTime(resources, shown, state.bundle?.secondsAStep?.takeIf { open })
        stepsLabel.say(text)
        showSteps(shown)
        steps.isEnabled = open
        steps.contentDescription = text
        section.render(text + " · " + choices.getItem(maxOf(budget.selectedItemPosition, 0)))
    }

    /** The slider stands where the label says, which may be between its own notches: a paused run's steps, or those of a backup. */
    private fun showSteps(shown: Int) {
        if (shown !in notches) notches = (STEPS + shown).sorted()
        steps.max = notches.size - 1
        steps.progress = notches.indexOf(shown)
    }

    companion object {
        const val NAME = "options"
        private val STEPS = listOf(8, 20, 40, 60, 100, 150, 200, 300, 500, 1000, 2000)
        private val BUDGETS = listOf(null, 128_000_000L, 256_000_000L, 512_000_000L, 1_000_000_000L, 2_000_000_000L)
    }
}
