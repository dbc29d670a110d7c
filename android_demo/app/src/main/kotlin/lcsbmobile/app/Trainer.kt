package lcsbmobile.app

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.RunControl
import lcsbmobile.core.RunOutcome
import lcsbmobile.core.RunResult
import lcsbmobile.core.io.processAnonymousBytes

/** What a turn of a run came to. [result]: of a run that is over, if that can be said. [waitsFor]: what ended the turn of one that is RUNNING still. */
class TurnEnd(val wanted: Wanted, val result: RunResult? = null, val waitsFor: Reason? = null)

/** Trains a run as the phone allows, until it is at an end or somebody asks for something else. What the core does in a step and saves is the core's. */
class Trainer(
    private val app: App,
    private val engine: Engine,
    private val library: BundleLibrary,
    private val shelf: DataShelf,
    private val runs: RunStore,
    private val phone: Phone,
    private val requests: Requests,
) {
    private val watch = RunWatch(app.store, phone) { app.pace }

    /** Saves, and keeps nothing in memory for a while. */
    fun giveMemoryBack() {
        watch.leaveMemory()
        requests.interrupt()
    }

    /**
     * Trains, waits and trains again, until the run is over, was asked to stop, or waits for what takes long. Throws [Asked] where something was asked
     * before it trained, and whatever the core throws that the person is to be told.
     */
    fun train(record: RunRecord): TurnEnd {
        check(record)
        var decision = record.decisionAtRest
        val patience = Patience()
        while (true) {
            decision = TrainingPolicy.decide(watch.vitals(), decision)
            val asked = requests.asked
            if (decision.waits && asked == Request.NONE) {
                if (patience.isOver(decision.reason)) return TurnEnd(Wanted.RUNNING, waitsFor = decision.reason)
                await(decision)
                continue
            }
            if (asked == Request.PAUSE || asked == Request.LEAVE) return TurnEnd(asked.wanted)
            try {
                val result = trainOnce(record, decision)
                when (result.outcome) {
                    RunOutcome.FINISHED -> return TurnEnd(Wanted.FINISHED, result)
                    RunOutcome.CANCELLED -> return TurnEnd(Wanted.CANCELLED, result)
                    RunOutcome.PAUSED -> patience.renew()
                }
            } catch (error: LcsbException) {
                if (requests.asked == Request.CANCEL) return cancelled(error)
                if (!comesBack(record, error)) throw error
                watch.leaveMemory()
            }
        }
    }

    /** What a run that nothing trains has come to. */
    fun stop(record: RunRecord): TurnEnd = try {
        val control = RunControl()
        val progress = RunProgress(app.store, app.store.state.bundleOf(record), record, whenLoaded = control::stop)
        TurnEnd(Wanted.CANCELLED, engine.train(job(record), control, progress))
    } catch (error: Throwable) {
        cancelled(error) // whatever it is
    }

    /** It ends all the same, and what it has learned stays. */
    private fun cancelled(error: Throwable): TurnEnd {
        app.store.update { it.copy(problem = Problem.of(error)) }
        return TurnEnd(Wanted.CANCELLED)
    }

    /** Once a phone: whether it computes what the golden trace says. */
    private fun check(record: RunRecord) {
        val bundle = app.store.state.bundleOf(record)
        if (bundle.checked) return
        app.store.update { it.copy(run = it.run.copy(phase = Phase.TESTING)) }
        engine.check(library.directory(record.bundle), record.threads, requests::throwIfAsked)
        app.bundles.update(bundle.copy(checked = true))
    }

    /** Whether [error] is that of a run which other apps leave too little memory now, and left enough before: not that of a heap that is full. */
    private fun comesBack(record: RunRecord, error: LcsbException): Boolean {
        val tooLittle = error.fault == Fault.MEMORY_EXCEEDED || (error.fault == Fault.MEMORY_TOO_SMALL && error.arguments.size == 2)
        return tooLittle && record.budget == null && runs.begun(record.bundle)
    }

    /** Shows why it waits, and waits a while, or until somebody asks for something. */
    private fun await(decision: Decision) = requests.await(app.pace.wait) {
        app.store.update { it.copy(run = it.run.copy(phase = Phase.WAITING, layer = -1, decision = decision)) }
    }

    private fun trainOnce(record: RunRecord, decision: Decision): RunResult {
        val (control, progress) = RunControl() to RunProgress(app.store, app.store.state.bundleOf(record), record)
        return requests.under(control) { watch.during(control, decision) { engine.train(job(record), control, progress) } }
    }

    private fun job(record: RunRecord): TrainingJob {
        val budget = record.budget ?: (phone.freeMemory() + (processAnonymousBytes() ?: 0))
        val (bundle, data) = library.directory(record.bundle) to shelf.file(record.data)
        val (rate, initial) = record.learningRate to runs.initial(record)
        return TrainingJob(bundle, data, runs.state(record.bundle), record.steps, budget, record.threads, rate, initial)
    }
}
