package lcsbmobile.app

import android.view.View
import android.widget.Button
import android.widget.ProgressBar
import android.widget.TextView

val Phase.title: Int get() = when (this) {
    Phase.NONE -> R.string.phase_none
    Phase.OPENING -> R.string.phase_opening
    Phase.TESTING -> R.string.phase_testing
    Phase.EVALUATING -> R.string.phase_evaluating
    Phase.TRAINING -> R.string.phase_training
    Phase.COMPARING -> R.string.phase_comparing
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
    private val tryResult = view.findViewById<Button>(R.id.try_result)
    private val start = view.findViewById<Button>(R.id.start)
    private val again = view.findViewById<Button>(R.id.start_again)
    private val pause = view.findViewById<Button>(R.id.pause)
    private val cancel = view.findViewById<Button>(R.id.cancel_run)
    private val chart = view.findViewById<LossChart>(R.id.chart)
    private val layers = view.findViewById<LayerStrip>(R.id.layers)
    private val options = TrainOptions(activity, view)
    private val details =
        Section(view.findViewById(R.id.details_header), view.findViewById(R.id.details_body), R.string.details, "details", openAtFirst = false)
    private val cards = listOf(ResultCard(activity, view), FurtherCard(activity, view), SamplesCard(activity, view), AdvancedOptions(activity, view))

    init {
        start.setOnClickListener { begin(activity) }
        again.setOnClickListener { begin(activity) }
        tryResult.setOnClickListener { activity.show(Destination.TRY) }
        pause.setOnClickListener { app.training.pause() }
        cancel.setOnClickListener { finishEarly(activity) }
        val headings = listOf(R.id.run_phase, R.id.chart_title, R.id.phone_title)
        headings.forEach { heading(view.findViewById(it)) }
    }

    override fun render(state: AppState) {
        val run = state.run
        val ready = state.bundle != null && (run.resumable || state.data?.suffices == true)
        phase.say(activity.getString(if (run.phase == Phase.NONE && !ready) R.string.phase_not_ready else run.phase.title))
        detail.say(sentence(state))
        bar.shown(run.active || run.resumable)
        bar.isIndeterminate = run.phase in BUSY
        if (run.steps > 0) bar.progress = run.step * 1000 / run.steps
        renderButtons(run, ready)
        chart.show(run.training, run.evaluation, run.steps)
        val roles = run.roles.ifEmpty { state.bundle?.schedule?.firstOrNull().orEmpty() }
        layers.show(roles, if (run.phase == Phase.TRAINING) run.layer else -1)
        details.render(activity.getString(R.string.layers_title))
        renderPhone(state)
        options.render(state)
        cards.forEach { it.render(state) }
    }

    /** When it is over, what is to be done next is to try it. */
    private fun renderButtons(run: RunState, ready: Boolean) {
        val over = run.phase == Phase.FINISHED || run.phase == Phase.CANCELLED
        tryResult.shown(over && run.step > 0)
        start.shown(!over && !run.active)
        start.isEnabled = ready
        start.setText(if (run.resumable) R.string.resume else R.string.start)
        again.shown(over)
        again.isEnabled = ready
        pause.shown(run.active || run.goesOn)
        pause.isEnabled = run.phase != Phase.PAUSING
        cancel.shown(run.active || run.resumable)
        cancel.isEnabled = run.phase != Phase.PAUSING
    }

    private fun sentence(state: AppState): String {
        val run = state.run
        val at = activity.getString(R.string.step_of, formatCount(resources, run.step.toLong()), formatCount(resources, run.steps.toLong()))
        return when (run.phase) {
            Phase.NONE -> idle(state)
            Phase.OPENING, Phase.EVALUATING, Phase.PAUSING -> at
            Phase.TESTING -> activity.getString(R.string.testing_text)
            Phase.COMPARING -> activity.getString(R.string.comparing_text)
            Phase.TRAINING -> training(run, at) + if (run.decision.reason != null) ". " + activity.getString(R.string.slow_warm) else ""
            Phase.PAUSED -> activity.getString(R.string.paused_text, at)
            Phase.FAILED -> if (run.resumable) at else idle(state)
            Phase.WAITING, Phase.SUSPENDED -> waiting(run.decision.reason)
            Phase.INTERRUPTED -> activity.getString(R.string.interrupted_text, at)
            Phase.FINISHED, Phase.CANCELLED -> over(run, at)
        }
    }

    /** What came of it, if it was measured before and after. */
    private fun over(run: RunState, at: String): String {
        val losses = run.evaluation.map { it.loss }
        if (losses.size < 2) return if (run.phase == Phase.FINISHED) at + ". " + activity.getString(R.string.finished_text) else at
        return "$at. ${lossFigure(resources, losses.first(), losses.last())}. ${lossChangeInWords(resources, losses.first(), losses.last())}"
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
        val BUSY = setOf(Phase.OPENING, Phase.TESTING, Phase.EVALUATING, Phase.COMPARING, Phase.PAUSING)
    }
}
