package lcsbmobile.app

import android.view.View
import android.widget.Button
import android.widget.ProgressBar
import android.widget.TextView

class ShareScreen(private val activity: MainActivity, override val view: View) : Screen {
    private val app = App.of(activity)
    private val resources = activity.resources
    private val text = view.findViewById<TextView>(R.id.adapter_text)
    private val import = view.findViewById<Button>(R.id.import_adapter)
    private val report = view.findViewById<Button>(R.id.share_report)
    private val card = view.findViewById<View>(R.id.report)
    private val learned = view.findViewById<TextView>(R.id.report_learned)
    private val adapters = AdapterList(activity, view)
    private val match = MatchCard(activity, view)

    init {
        import.setOnClickListener { activity.pickAdapter() }
        report.setOnClickListener { app.sharing.report(activity::send) }
        for (id in listOf(R.id.adapter_title, R.id.match_title, R.id.report_title)) heading(view.findViewById(id))
    }

    override fun render(state: AppState) {
        val found = state.report
        val bundle = state.bundle
        text.say(
            when {
                state.packing -> activity.getString(R.string.packing)
                state.importing -> activity.getString(R.string.adapter_importing)
                bundle == null || state.adapters.isEmpty() -> activity.getString(R.string.adapters_none)
                else -> activity.getString(R.string.adapters_text, formatBytes(resources, 4L * bundle.adapterSize))
            },
        )
        import.isEnabled = bundle != null && !state.importing && !state.run.active
        adapters.render(state)
        match.render(state)
        report.isEnabled = found != null && !state.packing
        card.shown(found != null)
        found?.let(::show)
    }

    private fun show(report: RunReport) {
        val unknown = "–"
        val result = report.result
        val losses = listOfNotNull(result.evalLossBefore, result.evalLossAfter).takeIf { it.size == 2 }
        val values = listOf(
            Triple(R.id.report_loss, R.string.report_loss, losses?.let { (before, after) -> lossChange(resources, before, after) } ?: unknown),
            Triple(R.id.report_steps, R.string.report_steps, formatCount(resources, result.losses.size.toLong())),
            Triple(R.id.report_seconds, R.string.report_seconds, formatDuration(resources, result.stepSeconds.sum())),
            Triple(R.id.report_memory, R.string.report_memory, formatBytes(resources, result.peakAnonymousBytes ?: report.peakPss)),
            Triple(R.id.report_rate, R.string.learning_rate, formatRate(resources, result.learningRate)),
            Triple(R.id.report_runtime, R.string.report_runtime, "${result.runtime ?: unknown} ${result.runtimeVersion.orEmpty()}".trim()),
        )
        for ((id, label, value) in values) view.findViewById<View>(id).figure(value, activity.getString(label))
        learned.shown(losses != null)
        losses?.let { (before, after) -> learned.say(lossChangeInWords(resources, before, after)) }
    }
}

/** A comparison of two adapters, under way or done. */
private class MatchCard(private val activity: MainActivity, view: View) {
    private val app = App.of(activity)
    private val card = view.findViewById<View>(R.id.match)
    private val names = view.findViewById<TextView>(R.id.match_names)
    private val text = view.findViewById<TextView>(R.id.match_text)
    private val bar = view.findViewById<ProgressBar>(R.id.match_bar)
    private val end = view.findViewById<Button>(R.id.match_end)

    init {
        end.setOnClickListener { if (app.store.state.comparing?.verdict == null) app.adapters.cancel() else app.adapters.dismissComparison() }
    }

    fun render(state: AppState) {
        val match = state.comparing.takeIf { !state.run.active }
        card.shown(match != null)
        if (match == null) return
        names.say("${match.record.name} – ${match.against?.name ?: activity.getString(R.string.without_adapter)}")
        text.say(match.verdict?.let { sentence(activity.resources, it) } ?: activity.getString(R.string.comparing))
        bar.shown(match.verdict == null)
        bar.isIndeterminate = match.of == 0
        if (match.of > 0) bar.progress = match.done * 1000 / match.of
        end.setText(if (match.verdict == null) R.string.comparing_stop else R.string.dismiss)
    }
}
