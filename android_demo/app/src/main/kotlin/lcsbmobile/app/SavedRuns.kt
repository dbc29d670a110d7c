package lcsbmobile.app

import android.os.Build
import lcsbmobile.core.LcsbException
import lcsbmobile.core.RunResult

/** Writes down what is to become of runs, and shows what was saved of them. */
class SavedRuns(private val app: App, private val engine: Engine, private val runs: RunStore, private val phone: Phone) {
    /** Says so when the system had ended the run. */
    fun show(bundle: BundleInfo, record: RunRecord) {
        val phase = record.phaseAtRest
        val shown = history(bundle)
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
    }

    /** What is saved; of what cannot be read nothing is shown, and the person is told. */
    fun history(bundle: BundleInfo): RunState =
        try {
            engine.history(bundle, runs.state(bundle.name))
        } catch (error: LcsbException) {
            app.store.update { it.copy(problem = Problem.of(error)) }
            RunState()
        }

    /** A run that failed before anything of it was saved, for its data may be, is none to go on with. False without data. */
    fun write(bundle: BundleInfo, data: DataInfo?): Boolean {
        val before = runs.read(bundle.name)?.takeIf { it.wanted in RESUMABLE }
        if (before != null && (before.wanted != Wanted.FAILED || runs.begun(bundle.name))) {
            runs.write(before.copy(wanted = Wanted.RUNNING, waitsFor = null, budget = app.settings.budget, fault = null, detail = null))
            return true
        }
        val (file, name) = data?.let { it.file to it.name } ?: before?.let { it.data to it.dataName } ?: return false
        runs.replace(RunRecord(bundle.name, file, name, app.settings.steps, app.settings.budget, Engine.threads()))
        phone.forgetPeak()
        val fresh = RunState(steps = app.settings.steps)
        app.store.update { it.copy(run = fresh, report = null, comparison = Comparison(), vitals = it.vitals.copy(peakMemory = 0, peakPss = 0)) }
        return true
    }

    /** [result]: of a run that is over; null where it can go on, or came to none. [waitsFor]: what ended its turn, of one that is RUNNING still. */
    fun end(record: RunRecord, wanted: Wanted, result: RunResult?, bundle: BundleInfo, waitsFor: Reason? = null) {
        val report = result?.let { RunReport(it, app.store.state.vitals.peakPss, "${Build.MANUFACTURER} ${Build.MODEL}") }
        val left = record.copy(wanted = wanted, waitsFor = waitsFor, report = report)
        storing { runs.write(left) }
        val history = history(bundle)
        val seconds = app.store.state.run.secondsAStep
        val shown = history.copy(phase = left.phaseAtRest, steps = record.steps, secondsAStep = seconds, decision = left.decisionAtRest)
        app.store.update { it.copy(run = shown, report = report) }
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
    }
}
