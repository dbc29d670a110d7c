package lcsbmobile.app

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.RunControl
import lcsbmobile.core.RunOutcome
import lcsbmobile.core.RunResult
import lcsbmobile.core.io.processAnonymousBytes
import java.util.concurrent.TimeUnit
import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.thread
import kotlin.concurrent.withLock

/**
 * The one run that is under way in this process, whoever asked for it: the service, or the job. It is held to the [TrainingPolicy]; what
 * the core does in a step and saves is the core's.
 */
class Training(
    private val app: App,
    private val engine: Engine,
    private val library: BundleLibrary,
    private val shelf: DataShelf,
    private val runs: RunStore,
    private val phone: Phone,
    keeper: Keeper,
    private val judge: Judge,
) {
    private enum class Request { NONE, PAUSE, CANCEL }

    private val lock = ReentrantLock()
    private val woken = lock.newCondition()
    private var request = Request.NONE
    private var control: RunControl? = null
    private val watch = RunWatch(app.store, phone)
    private val saved = SavedRuns(app, engine, runs, phone, keeper)

    /** From a start to its end. [ending]: what it came to is being written down, and another may begin after it. */
    private class Turn(first: () -> Unit) {
        val whenEnded = mutableListOf(first)

        @Volatile var ending = false
    }

    @Volatile private var turn: Turn? = null

    @Volatile var thread: Thread? = null
        private set

    val running: Boolean get() = turn?.ending == false

    /** Reads what runs have saved. */
    val worker = Worker("runs", ::tell)

    private fun tell(error: Throwable) = app.store.update { it.copy(problem = Problem.of(error)) }

    /** Shows the chosen bundle's run as it was left. What is being written with another bundle ends. */
    fun begin() {
        app.trial.stop()
        if (running) return
        schedule()
        val bundle = app.store.state.bundle ?: return
        val record = runs.read(bundle.name)
        if (record == null) {
            app.store.update { it.copy(run = RunState(steps = app.settings.steps), report = null) }
        } else {
            worker.start { saved.show(bundle, record) }
        }
    }

    /** Writes down what is asked for, off the main thread, and where that worked [go]es on: the service or the job then calls [start]. */
    fun request(bundle: BundleInfo, data: DataInfo?, go: () -> Unit) {
        app.store.update { it.copy(run = it.run.copy(phase = Phase.OPENING), problem = null) }
        worker.start { if (request(bundle, data)) go() }
    }

    /** Likewise, on this thread. Whether it worked; else the person is told. What Try it is writing ends: two would share the memory. */
    fun request(bundle: BundleInfo, data: DataInfo?): Boolean {
        app.trial.stop()
        app.trial.worker.join()
        app.adapters.endComparison()
        val done = try {
            app.store.update { it.copy(problem = null) }
            saved.write(bundle, data)
        } catch (error: Throwable) {
            // whatever it is, what there was is shown again
            tell(error)
            false
        }
        app.store.update { it.copy(run = if (done) it.run.copy(phase = Phase.OPENING) else RunState()) }
        if (!done) begin()
        return done
    }

    /** The system does not let the service train now. The job goes on with the run. */
    fun refused() {
        if (running) return
        schedule()
        app.store.update {
            if (it.run.phase != Phase.OPENING) return@update it
            it.copy(run = it.run.copy(phase = Phase.INTERRUPTED), problem = Problem.BACKGROUND)
        }
    }

    /** The run that waits to go on, of the chosen bundle first. */
    private fun unfinished(): RunRecord? =
        app.store.state.let { state -> runs.unfinished(state.bundles.map { it.name }.toSet(), state.chosen) }

    /**
     * Trains on a thread of its own until the run ends or is paused, and then calls [whenEnded] on that thread. False when there is nothing
     * to train.
     */
    fun start(whenEnded: () -> Unit): Boolean = lock.withLock {
        turn?.let {
            if (!it.ending) {
                it.whenEnded += whenEnded
                return true
            }
        }
        if (turn == null && unfinished() == null) return false
        request = Request.NONE
        val (next, before) = Turn(whenEnded) to thread
        turn = next
        thread = thread(name = "training") {
            before?.join()
            unfinished()?.let { work(it, next) }
            lock.withLock { if (turn === next) turn = null }
            next.whenEnded.forEach { it() }
        }
        true
    }

    fun pause() = ask(Request.PAUSE)

    /**
     * Ends the run where it is; what it has learned stays. A run that is under way ends between two layers, one that was paused is opened
     * and ended.
     */
    fun cancel() {
        ask(Request.CANCEL)
        if (running) return
        worker.cancel() // what judges a run that was stopped before
        val record = app.store.state.chosen?.let(runs::read)?.takeIf { it.wanted in SavedRuns.RESUMABLE } ?: return
        app.store.update { it.copy(run = it.run.copy(phase = Phase.PAUSING), problem = null) }
        worker.start {
            val result = try {
                val control = RunControl()
                engine.train(job(record), control, RunProgress(app.store, info(record), record, whenLoaded = control::stop))
            } catch (error: Throwable) {
                // whatever it is, the run ends, and what it has learned stays
                tell(error)
                null
            }
            val kept = saved.end(record, Wanted.CANCELLED, result, info(record))
            if (kept != null) judge(kept, record) { worker.goOn() }
            saved.showEnd(record, Wanted.CANCELLED, info(record))
            schedule()
        }
    }

    private fun ask(what: Request) {
        lock.withLock {
            if (!running) return
            request = what
            control?.let { if (what == Request.PAUSE) it.pause() else it.stop() }
            woken.signalAll()
        }
        app.store.update { if (it.run.active) it.copy(run = it.run.copy(phase = Phase.PAUSING)) else it }
    }

    /** Saves, and keeps nothing in memory for a while. */
    fun giveMemoryBack() = lock.withLock {
        watch.leaveMemory()
        control?.pause()
    }

    private fun work(record: RunRecord, turn: Turn) {
        try {
            show(record)
            runs.write(record.copy(wanted = Wanted.RUNNING))
            check(record)
            trainByPolicy(record, turn)
        } catch (asked: Judge.Stopped) {
            end(record, if (request == Request.CANCEL) Wanted.CANCELLED else Wanted.PAUSED, null, turn)
        } catch (error: Throwable) {
            // whatever it is, the person is told, and the run can be resumed
            turn.ending = true
            val problem = Problem.of(error)
            val begun = runs.begun(record.bundle)
            saved.storing { runs.write(record.copy(wanted = Wanted.FAILED, fault = problem.fault, detail = problem.detail)) }
            app.store.update { it.copy(run = it.run.copy(phase = Phase.FAILED, layer = -1, begun = begun), problem = problem) }
        }
        turn.ending = true
        schedule()
    }

    /** The run under way is what is shown, whatever was: it may be the system or the job that has it go on. */
    private fun show(record: RunRecord) {
        if (app.store.state.chosen != record.bundle) {
            app.settings.chosen = record.bundle
            app.store.update { it.copy(chosen = record.bundle, run = RunState(), report = null, comparison = Comparison(), conversation = Conversation()) }
            app.adapters.refresh()
        }
        app.store.update {
            val phase = if (it.run.phase == Phase.PAUSING) Phase.PAUSING else Phase.OPENING
            it.copy(run = it.run.copy(phase = phase, steps = record.steps), problem = it.problem.takeIf { said -> said !== Problem.INTERRUPTED })
        }
    }

    /** Once a phone: whether it computes what the golden trace says. */
    private fun check(record: RunRecord) {
        val bundle = info(record)
        if (bundle.checked) return
        app.store.update { it.copy(run = it.run.copy(phase = Phase.TESTING)) }
        engine.check(library.directory(record.bundle), record.threads) { throwIfAsked() }
        app.bundles.update(bundle.copy(checked = true))
    }

    private fun info(record: RunRecord) = app.store.state.bundles.first { it.name == record.bundle }

    private fun throwIfAsked() {
        if (request != Request.NONE) throw Judge.Stopped()
    }

    /** Trains, waits and trains again, as the phone allows, until the run is at an end or was asked to stop. */
    private fun trainByPolicy(record: RunRecord, turn: Turn) {
        var decision = Decision()
        while (true) {
            decision = TrainingPolicy.decide(watch.vitals(), decision)
            if (decision.waits) {
                if (await(decision) == Request.PAUSE) return end(record, Wanted.PAUSED, null, turn)
                if (request != Request.CANCEL) continue
            }
            val result = try {
                trainOnce(record, decision)
            } catch (error: LcsbException) {
                if (request == Request.CANCEL) {
                    tell(error)
                    return end(record, Wanted.CANCELLED, null, turn)
                }
                if (!comesBack(record, error)) throw error
                watch.leaveMemory()
                continue
            }
            when (result.outcome) {
                RunOutcome.FINISHED -> return end(record, Wanted.FINISHED, result, turn)
                RunOutcome.CANCELLED -> return end(record, Wanted.CANCELLED, result, turn)
                RunOutcome.PAUSED -> if (request == Request.PAUSE) return end(record, Wanted.PAUSED, null, turn)
            }
        }
    }

    /** Whether [error] is that of a run which other apps leave too little memory now, and left enough before. */
    private fun comesBack(record: RunRecord, error: LcsbException) =
        (error.fault == Fault.MEMORY_TOO_SMALL || error.fault == Fault.MEMORY_EXCEEDED) && record.budget == null && runs.begun(record.bundle)

    /** Shows why it waits, and waits a while, or until somebody asks for something. */
    private fun await(decision: Decision): Request = lock.withLock {
        if (request == Request.NONE) {
            app.store.update { it.copy(run = it.run.copy(phase = Phase.WAITING, layer = -1, decision = decision)) }
            woken.await(WAIT_MILLIS, TimeUnit.MILLISECONDS)
        }
        request
    }

    private fun trainOnce(record: RunRecord, decision: Decision): RunResult {
        val control = RunControl()
        lock.withLock {
            this.control = control
            if (request == Request.PAUSE) control.pause()
            if (request == Request.CANCEL) control.stop()
        }
        try {
            return watch.during(control, decision) { engine.train(job(record), control, RunProgress(app.store, info(record), record)) }
        } finally {
            lock.withLock { this.control = null }
        }
    }

    private fun job(record: RunRecord): TrainingJob {
        val budget = record.budget ?: (phone.freeMemory() + (processAnonymousBytes() ?: 0))
        val (bundle, data) = library.directory(record.bundle) to shelf.file(record.data)
        val (rate, initial) = record.learningRate to runs.initial(record)
        return TrainingJob(bundle, data, runs.state(record.bundle), record.steps, budget, record.threads, rate, initial)
    }

    /** Writes down what it came to, and judges what it has learned: pausing or stopping ends that only. */
    private fun end(record: RunRecord, wanted: Wanted, result: RunResult?, turn: Turn) {
        val kept = saved.end(record, wanted, result, info(record))
        lock.withLock { request = Request.NONE }
        if (kept != null) judge(kept, record, ::throwIfAsked)
        turn.ending = true
        saved.showEnd(record, wanted, info(record))
    }

    private fun judge(kept: AdapterRecord, record: RunRecord, goOn: () -> Unit) {
        app.store.update { it.copy(run = it.run.copy(phase = Phase.COMPARING, layer = -1)) }
        judge.judge(kept, record.data, goOn)
    }

    /** While a run waits to go on and the person wants it so, [TrainJob] is scheduled. */
    fun schedule() = TrainJob.schedule(app, wanted = waitsForJob)

    val waitsForJob: Boolean get() = app.settings.trainWhenIdle && unfinished() != null

    private companion object {
        const val WAIT_MILLIS = 5_000L
    }
}
