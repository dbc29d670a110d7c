package lcsbmobile.app

import android.os.Build
import lcsbmobile.core.LcsbException
import java.util.UUID

/** Writes down what is to become of runs, keeps what they learned, and shows what was saved of them. */
class SavedRuns(
    private val app: App,
    private val engine: Engine,
    private val runs: RunStore,
    private val phone: Phone,
    private val keeper: Keeper,
) {
    /** Says so when the system had ended the run. What one that is over has learned is kept now, if the process ended before that. */
    fun show(bundle: BundleInfo, record: RunRecord) {
        val phase = record.phaseAtRest
        val shown = history(bundle, record)
        val problem = when {
            phase == Phase.INTERRUPTED -> Problem.INTERRUPTED
            record.fault != null -> Problem.of(record.fault, detail = record.detail)
            else -> null
        }
        val run = shown.copy(phase = phase, steps = record.steps, decision = record.decisionAtRest, begun = runs.begun(bundle.name))
        app.store.update {
            if (it.run.active || it.chosen != bundle.name) return@update it
            it.copy(run = run, report = record.report, problem = it.problem ?: problem)
        }
        if (record.wanted !in OVER) return
        keep(record)?.let { kept -> app.store.update { if (it.chosen == bundle.name) it.copy(undecided = kept.id) else it } }
    }

    /** Its adapter, once a run: what the person then deletes does not come back. Null where it has none, or was kept before. */
    private fun keep(record: RunRecord): AdapterRecord? {
        if (record.kept) return null
        var adapter: AdapterRecord? = null
        storing {
            adapter = keeper.keep(record)
            runs.write(record.copy(kept = true))
        }
        if (adapter != null) app.adapters.refresh()
        return adapter
    }

    /** What is saved; of what cannot be read nothing is shown, and the person is told. */
    private fun history(bundle: BundleInfo, record: RunRecord): RunState =
        try {
            engine.history(bundle, runs.state(bundle.name)).copy(samples = record.samples)
        } catch (error: LcsbException) {
            app.store.update { it.copy(problem = Problem.of(error)) }
            RunState()
        }

    /**
     * A run that failed before anything of it was saved, for its data may be, is none to go on with. False without data. A run that is over is kept
     * before another takes its place. Where learning went off course, a run may go on at a lower rate.
     */
    fun write(bundle: BundleInfo, data: DataInfo?): Boolean {
        val before = runs.read(bundle.name)
        val open = before?.takeIf { it.wanted in RESUMABLE }
        if (open != null && (open.wanted != Wanted.FAILED || runs.begun(bundle.name))) {
            val rate = lowered(open.learningRate ?: Engine.learningRate(bundle.schedule)) ?: open.learningRate
            val resumed = open.copy(wanted = Wanted.RUNNING, waitsFor = null, budget = app.settings.budget, fault = null, detail = null, learningRate = rate)
            runs.write(resumed)
            return true
        }
        val (file, name) = data?.let { it.file to it.name } ?: open?.let { it.data to it.dataName } ?: return false
        if (before != null && before.wanted in OVER && !before.kept) keeper.keep(before)
        val further = app.adapters.store.find(bundle.name, app.store.state.further)
        val record = RunRecord(
            bundle.name, file, name, app.settings.steps, app.settings.budget, Engine.threads(),
            id = "${UUID.randomUUID()}",
            learningRate = app.settings.learningRate,
            further = further?.name,
            chat = data?.summary?.chat,
        )
        runs.replace(record, further?.let(app.adapters.store::file))
        phone.forgetPeak()
        val fresh = RunState(steps = app.settings.steps)
        app.store.update { it.copy(run = fresh, report = null, vitals = it.vitals.copy(peakMemory = 0, peakPss = 0), further = null, undecided = null) }
        return true
    }

    /** The rate that the person asks for now, where it is lower than the run's. */
    private fun lowered(rate: Double): Double? = app.settings.learningRate?.takeIf { it < rate }

    /** Of a run that is over and has learned something, its adapter too. */
    fun end(record: RunRecord, end: TurnEnd): Pair<RunRecord, AdapterRecord?> {
        val report = end.result?.let { RunReport(it, app.store.state.vitals.peakPss, "${Build.MANUFACTURER} ${Build.MODEL}") }
        val left = record.copy(wanted = end.wanted, waitsFor = end.waitsFor, report = report, samples = app.store.state.run.samples)
        storing { runs.write(left) }
        return left to if (end.wanted in OVER) keep(left) else null
    }

    /** What [end] wrote down, on the screens. */
    fun showEnd(record: RunRecord) {
        val bundle = app.store.state.bundleOf(record)
        val seconds = app.store.state.run.secondsAStep
        val history = history(bundle, record)
        val shown = history.copy(phase = record.phaseAtRest, steps = record.steps, secondsAStep = seconds, decision = record.decisionAtRest)
        app.store.update { it.copy(run = shown, report = record.report) }
        if (seconds != null) storing { app.bundles.update(bundle.copy(secondsAStep = seconds)) } // says more than a prediction
    }

    /** Storage may be full just then; what the run itself saved does not depend on it. */
    fun storing(write: () -> Unit) {
        try {
            write()
        } catch (error: LcsbException) {
            app.store.update { it.copy(problem = Problem.of(error)) }
        }
    }

    companion object {
        val RESUMABLE = setOf(Wanted.RUNNING, Wanted.PAUSED, Wanted.FAILED)
        val OVER = setOf(Wanted.FINISHED, Wanted.CANCELLED)
    }
}
