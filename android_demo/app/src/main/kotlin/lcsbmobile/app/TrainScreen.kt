package lcsbmobile.app

import android.view.View
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.Button
import android.widget.ProgressBar
import android.widget.SeekBar
import android.widget.Spinner
import android.widget.Switch
import android.widget.TextView

val Phase.title: Int get() = when (this) {
    Phase.NONE -> R.string.phase_none
    Phase.OPENING -> R.string.phase_opening
    Phase.TESTING -> R.string.phase_testing
    Phase.EVALUATING -> R.string.phase_evaluating
    Phase.TRAINING -> R.string.phase_training
    Phase.PAUSING -> R.string.phase_pausing
    Phase.PAUSED -> R.string.phase_paused
    Phase.WAITING, Phase.SUSPENDED -> R.string.phase_waiting
    Phase.INTERRUPTED -> R.string.phase_interrupted
    Phase.FINISHED -> R.string.phase_finished
    Phase.CANCELLED -> R.string.phase_cancelled
    Phase.FAILED -> R.string.phase_failed
}

val Thermal.label: Int get() = when (this) {
    Thermal.UNKNOWN -> R.string.unknown
    Thermal.NONE -> R.string.thermal_none
    Thermal.LIGHT -> R.string.thermal_light
    Thermal.MODERATE -> R.string.thermal_moderate
    Thermal.SEVERE -> R.string.thermal_severe
    Thermal.CRITICAL -> R.string.thermal_critical
}

class TrainScreen(private val activity: MainActivity, override val view: View) : Screen {
    private val app = App.of(activity)
    private val resources = activity.resources
    private val phase = view.findViewById<TextView>(R.id.run_phase)
    private val detail = view.findViewById<TextView>(R.id.run_detail)
    private val bar = view.findViewById<ProgressBar>(R.id.run_bar)
    private val start = view.findViewById<Button>(R.id.start)
    private val pause = view.findViewById<Button>(R.id.pause)
    private val cancel = view.findViewById<Button>(R.id.cancel_run)
    private val chart = view.findViewById<LossChart>(R.id.chart)
    private val layers = view.findViewById<LayerStrip>(R.id.layers)
    private val options = TrainOptions(activity, view)

    init {
        start.setOnClickListener { startOrResume() }
        pause.setOnClickListener { app.training.pause() }
        cancel.setOnClickListener {
            val (title, text) = activity.getString(R.string.stop_title) to activity.getString(R.string.stop_text)
            confirm(activity, title, text, R.string.stop, R.string.keep_run) { app.training.cancel() }
        }
        val headings = listOf(R.id.run_phase, R.id.chart_title, R.id.layers_title, R.id.phone_title, R.id.options_title)
        headings.forEach { heading(view.findViewById(it)) }
    }

    private fun startOrResume() {
        val state = app.store.state
        val (bundle, data) = (state.bundle ?: return) to state.data
        val begin = { app.training.request(bundle, data) { activity.runOnUiThread(::train) } }
        if (state.run.phase != Phase.FINISHED && state.run.phase != Phase.CANCELLED) return begin()
        val (title, text) = activity.getString(R.string.again_title) to activity.getString(R.string.again_text)
        confirm(activity, title, text, R.string.start_again, confirmed = begin)
    }

    /** From API 31 the system refuses when the app went into the background meanwhile. */
    private fun train() =
        try {
            activity.train()
        } catch (error: IllegalStateException) {
            app.training.refused()
        }

    override fun render(state: AppState) {
        val run = state.run
        val ready = state.bundle != null && (run.resumable || state.data?.suffices == true)
        phase.say(activity.getString(if (run.phase == Phase.NONE && !ready) R.string.phase_not_ready else run.phase.title))
        detail.say(sentence(state))
        bar.shown(run.active || run.resumable)
        bar.isIndeterminate = run.phase in BUSY
        if (run.steps > 0) bar.progress = run.step * 1000 / run.steps
        start.shown(!run.active)
        start.isEnabled = ready
        val again = run.phase == Phase.FINISHED || run.phase == Phase.CANCELLED
        start.setText(
            if (again) {
                R.string.start_again
            } else if (run.resumable) {
                R.string.resume
            } else {
                R.string.start
            },
        )
        pause.shown(run.active || run.goesOn)
        pause.isEnabled = run.phase != Phase.PAUSING
        cancel.shown(run.active || run.resumable)
        cancel.isEnabled = run.phase != Phase.PAUSING
        chart.show(run.training, run.evaluation, run.steps)
        val roles = run.roles.ifEmpty { state.bundle?.schedule?.firstOrNull().orEmpty() }
        layers.show(roles, if (run.phase == Phase.TRAINING) run.layer else -1)
        renderPhone(state)
        options.render(state)
    }

    private fun sentence(state: AppState): String {
        val run = state.run
        val at = activity.getString(R.string.step_of, formatCount(resources, run.step.toLong()), formatCount(resources, run.steps.toLong()))
        return when (run.phase) {
            Phase.NONE -> idle(state)
            Phase.OPENING, Phase.EVALUATING, Phase.PAUSING -> at
            Phase.TESTING -> activity.getString(R.string.testing_text)
            Phase.TRAINING -> training(run, at) + if (run.decision.reason != null) ". " + activity.getString(R.string.slow_warm) else ""
            Phase.PAUSED -> activity.getString(R.string.paused_text, at)
            Phase.CANCELLED -> at
            Phase.FAILED -> if (run.resumable) at else idle(state)
            Phase.WAITING, Phase.SUSPENDED -> waiting(run.decision.reason)
            Phase.INTERRUPTED -> activity.getString(R.string.interrupted_text, at)
            Phase.FINISHED -> at + ". " + activity.getString(R.string.finished_text)
        }
    }

    private fun idle(state: AppState): String = when {
        state.bundle == null -> activity.getString(R.string.needs_model)
        state.data == null -> activity.getString(R.string.needs_data)
        !state.data.suffices -> activity.getString(R.string.needs_examples)
        else -> plural(resources, R.plurals.ready_text, app.settings.steps, state.data.title(resources))
    }

    private fun training(run: RunState, at: String): String {
        val seconds = run.secondsAStep ?: return at
        return activity.getString(R.string.time_left, at, formatDuration(resources, seconds * (run.steps - run.step)))
    }

    private fun waiting(reason: Reason?): String = when (reason) {
        Reason.BATTERY -> activity.getString(R.string.wait_battery, formatPercent(resources, TrainingPolicy.BATTERY_AGAIN))
        Reason.MEMORY -> activity.getString(R.string.wait_memory)
        else -> activity.getString(R.string.wait_hot)
    }

    private fun renderPhone(state: AppState) {
        val vitals = state.vitals
        val unknown = "–"
        val seconds = state.run.secondsAStep?.let { formatSeconds(resources, it) } ?: unknown
        view.findViewById<View>(R.id.step_seconds).figure(seconds, activity.getString(R.string.seconds_a_step))
        val memory = if (vitals.memory > 0) formatBytes(resources, vitals.memory) else unknown
        val (most, pss) = formatBytes(resources, vitals.peakMemory) to formatBytes(resources, vitals.pss)
        val peak = activity.getString(if (vitals.peakMemory > 0) R.string.memory_peak else R.string.memory, most, pss)
        view.findViewById<View>(R.id.memory).figure(memory, peak)
        val battery = if (vitals.battery >= 0) formatPercent(resources, vitals.battery) else unknown
        val charging = activity.getString(if (vitals.charging) R.string.battery_charging else R.string.battery)
        view.findViewById<View>(R.id.battery).figure(battery, charging)
        val celsius = vitals.temperature.takeIf { it.isFinite() }?.let { formatDecimal(resources, it.toDouble(), 0) }
        val degrees = celsius?.let { activity.getString(R.string.celsius, it) }
        val thermal = activity.getString(vitals.thermal.label).takeIf { vitals.thermal != Thermal.UNKNOWN }
        val temperature = listOfNotNull(thermal, degrees).joinToString(" · ").ifEmpty { unknown }
        view.findViewById<View>(R.id.thermal).figure(temperature, activity.getString(R.string.temperature))
    }

    private companion object {
        val BUSY = setOf(Phase.OPENING, Phase.TESTING, Phase.EVALUATING, Phase.PAUSING)
    }
}

/** What can be chosen before a run. */
private class TrainOptions(private val activity: MainActivity, view: View) {
    private val app = App.of(activity)
    private val resources = activity.resources
    private val card = view.findViewById<View>(R.id.options)
    private val stepsLabel = view.findViewById<TextView>(R.id.steps_label)
    private val steps = view.findViewById<SeekBar>(R.id.steps)
    private val budget = view.findViewById<Spinner>(R.id.budget)
    private val choices = ArrayAdapter<String>(activity, R.layout.choice)
    private val idle = view.findViewById<Switch>(R.id.idle)

    init {
        steps.max = STEPS.size - 1
        steps.progress = STEPS.indexOfLast { it <= app.settings.steps }.coerceAtLeast(0)
        steps.setOnSeekBarChangeListener(object : SeekBar.OnSeekBarChangeListener {
            override fun onProgressChanged(bar: SeekBar, progress: Int, byPerson: Boolean) {
                if (byPerson) app.settings.steps = STEPS[progress]
                render(app.store.state)
            }

            override fun onStartTrackingTouch(bar: SeekBar) = Unit

            override fun onStopTrackingTouch(bar: SeekBar) = app.store.update {
                if (it.run.phase == Phase.NONE) it.copy(run = it.run.copy(steps = app.settings.steps)) else it
            }
        })
        choices.setDropDownViewResource(R.layout.choice)
        choices.addAll(listOf(free()) + BUDGETS.drop(1).map { formatBytes(resources, it!!) })
        budget.adapter = choices
        budget.setSelection(BUDGETS.indexOf(app.settings.budget).coerceAtLeast(0))
        budget.onItemSelectedListener = object : AdapterView.OnItemSelectedListener {
            override fun onItemSelected(parent: AdapterView<*>?, item: View?, position: Int, id: Long) {
                app.settings.budget = BUDGETS[position]
            }

            override fun onNothingSelected(parent: AdapterView<*>?) = Unit
        }
        idle.isChecked = app.settings.trainWhenIdle
        idle.setOnCheckedChangeListener { _, on ->
            app.settings.trainWhenIdle = on
            app.training.schedule()
        }
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
        if (!run.active) showFree()
        val shown = if (open) app.settings.steps else run.steps
        val text = plural(resources, R.plurals.steps_label, shown)
        val seconds = state.bundle?.secondsAStep?.takeIf { open }
        stepsLabel.say(if (seconds == null) text else text + " · " + formatDuration(resources, seconds * shown))
        steps.isEnabled = open
        steps.contentDescription = stepsLabel.text
    }

    private companion object {
        val STEPS = listOf(8, 20, 40, 60, 100, 150, 200, 300, 500, 1000, 2000)
        val BUDGETS = listOf(null, 128_000_000L, 256_000_000L, 512_000_000L, 1_000_000_000L, 2_000_000_000L)
    }
}
