package lcsbmobile.app

import android.view.View
import android.widget.Button
import android.widget.Switch
import android.widget.TextView

class ShareScreen(private val activity: MainActivity, override val view: View) : Screen {
    private val app = App.of(activity)
    private val resources = activity.resources
    private val text = view.findViewById<TextView>(R.id.adapter_text)
    private val adapter = view.findViewById<Button>(R.id.share_adapter)
    private val report = view.findViewById<Button>(R.id.share_report)
    private val card = view.findViewById<View>(R.id.report)

    init {
        adapter.setOnClickListener { app.sharing.adapter(activity::send) }
        report.setOnClickListener { app.sharing.report(activity::send) }
        view.findViewById<Switch>(R.id.backup).apply {
            isChecked = app.settings.backup
            setOnCheckedChangeListener { _, on -> app.settings.backup = on }
        }
        for (id in listOf(R.id.adapter_title, R.id.report_title, R.id.privacy_title)) heading(view.findViewById(id))
    }

    override fun render(state: AppState) {
        val found = state.report
        val learned = state.run.step > 0 && !state.run.active
        val bundle = state.bundle
        text.say(
            when {
                state.packing -> activity.getString(R.string.packing)
                !learned || bundle == null -> activity.getString(R.string.adapter_none)
                else -> activity.getString(R.string.adapter_ready, formatBytes(resources, 4L * bundle.adapterSize))
            },
        )
        adapter.isEnabled = learned && !state.packing
        report.isEnabled = found != null && !state.packing
        card.shown(found != null)
        found?.let(::show)
    }

    private fun show(report: RunReport) {
        val unknown = "–"
        val result = report.result
        val values = listOf(
            Triple(R.id.report_before, R.string.report_before, result.evalLossBefore?.let { formatDecimal(resources, it, 3) } ?: unknown),
            Triple(R.id.report_after, R.string.report_after, result.evalLossAfter?.let { formatDecimal(resources, it, 3) } ?: unknown),
            Triple(R.id.report_steps, R.string.report_steps, formatCount(resources, result.losses.size.toLong())),
            Triple(R.id.report_seconds, R.string.report_seconds, formatDuration(resources, result.stepSeconds.sum())),
            Triple(R.id.report_memory, R.string.report_memory, formatBytes(resources, result.peakAnonymousBytes ?: report.peakPss)),
            Triple(R.id.report_runtime, R.string.report_runtime, "${result.runtime ?: unknown} ${result.runtimeVersion.orEmpty()}".trim()),
        )
        for ((id, label, value) in values) view.findViewById<View>(id).figure(value, activity.getString(label))
    }
}
