package lcsbmobile.app

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.RunControl
import lcsbmobile.core.RunOutcome
import lcsbmobile.core.RunResult
import lcsbmobile.core.io.processAnonymousBytes
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
    private val requests = Requests()
    private val watch = RunWatch(app.store, phone)
    private val saved = SavedRuns(app, engine, runs, phone, keeper)

    /** From a start to its end. [ending]: what it came to is being written down, and another may begin after it. */
    private class Turn(first: (Boolean) -> Unit) {
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
        worker.start {
            val record = runs.read(bundle.name)
            if (record != null) return@start saved.show(bundle, record)
            app.store.update {
                if (it.run.active || it.chosen != bundle.name) return@update it
                it.copy(run = RunState(steps = app.settings.steps), report = null)
            }
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

    /** The run that goes on by itself, of the chosen bundle first. Waits until the app knows its bundles. */
    private fun unfinished(): RunRecord? {
        app.bundles.awaitListed()
        return app.store.state.let { state -> runs.unfinished(state.bundles.map { it.name }.toSet(), state.chosen) }
    }

    /**
     * Trains on a thread of its own until the run ends, is paused or has to wait for long, and then calls [whenEnded] on that thread, with
     * false where there was nothing to train.
     */
    fun start(whenEnded: (trained: Boolean) -> Unit): Unit = requests.lock.withLock {
        turn?.let {
            if (!it.ending) {
                it.whenEnded += whenEnded
                return
            }
        }
        requests.forget()
        val (next, before) = Turn(whenEnded) to thread
        turn = next
        thread = thread(name = "training") {
            before?.join()
            val record = unfinished()
            record?.let { work(it, next) }
            requests.lock.withLock { if (turn === next) turn = null }
            next.whenEnded.forEach { it(record != null) }
        }
    }

    /** The person's pause lasts until they resume. */
    fun pause() {
        if (!ask(Request.PAUSE)) atRest(setOf(Wanted.RUNNING)) { end(it, Wanted.PAUSED, null) }
    }

    /** The system's interruption: the run goes on by itself. */
    fun leave() = ask(Request.LEAVE)

    /**
     * Ends the run where it is; what it has learned stays. A run that is under way ends between two layers, one that was paused is opened
     * and ended.
     */
    fun cancel() {
        if (ask(Request.CANCEL)) return
        worker.cancel() // what judges a run that was stopped before
        atRest(SavedRuns.RESUMABLE) { end(it, Wanted.CANCELLED, stopped(it)) }
    }

    /** Of the chosen bundle's run, if it is [wanted] so and nothing trains it, off the main thread. */
    private fun atRest(wanted: Set<Wanted>, action: (RunRecord) -> Unit) {
        app.store.update { if (it.run.resumable) it.copy(run = it.run.copy(phase = Phase.PAUSING), problem = null) else it }
        worker.start(cancelling = false) {
            app.store.state.chosen?.let(runs::read)?.takeIf { it.wanted in wanted }?.let(action)
            scheduleNow()
        }
    }

    /** What the run has come to; null where that cannot be said: it ends all the same, and what it has learned stays. */
    private fun stopped(record: RunRecord): RunResult? = try {
        val control = RunControl()
        engine.train(job(record), control, RunProgress(app.store, info(record), record, whenLoaded = control::stop))
    } catch (error: Throwable) {
        tell(error)
        null
    }

    /** Whether there is a turn that can be asked. */
    private fun ask(what: Request): Boolean {
        requests.lock.withLock {
            if (!running) return false
            requests.ask(what)
        }
        app.store.update { if (it.run.active) it.copy(run = it.run.copy(phase = Phase.PAUSING)) else it }
        return true
    }

    /** Saves, and keeps nothing in memory for a while. */
    fun giveMemoryBack() {
        watch.leaveMemory()
        requests.interrupt()
    }

    private fun work(record: RunRecord, turn: Turn) {
        try {
            show(record)
            runs.write(record.copy(waitsFor = null))
            check(record)
            trainByPolicy(record, turn)
        } catch (error: Asked) {
            end(record, requests.asked.wanted, null, turn)
        } catch (error: Throwable) {
            // whatever it is, the person is told, and the run can be resumed
            turn.ending = true
            val problem = Problem.of(error)
            val begun = runs.begun(record.bundle)
            saved.storing { runs.write(record.copy(wanted = Wanted.FAILED, fault = problem.fault, detail = problem.detail)) }
            app.store.update { it.copy(run = it.run.copy(phase = Phase.FAILED, layer = -1, begun = begun), problem = problem) }
        }
        turn.ending = true
        scheduleNow()
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
        engine.check(library.directory(record.bundle), record.threads, requests::throwIfAsked)
        app.bundles.update(bundle.copy(checked = true))
    }

    private fun info(record: RunRecord) = app.store.state.bundles.first { it.name == record.bundle }

    /**
     * Trains, waits and trains again, as the phone allows, until the run is at an end or was asked to stop, or what it waits for takes long: then
     * the turn ends, and a job goes on with the run.
     */
    private fun trainByPolicy(record: RunRecord, turn: Turn) {
        var decision = record.decisionAtRest
        val patience = Patience()
        while (true) {
            decision = TrainingPolicy.decide(watch.vitals(), decision)
            val asked = requests.asked
            if (decision.waits && asked == Request.NONE) {
                if (patience.isOver(decision.reason)) return end(record, Wanted.RUNNING, null, turn, decision.reason)
                await(decision)
                continue
            }
            if (asked == Request.PAUSE || asked == Request.LEAVE) return end(record, asked.wanted, null, turn)
            val result = try {
                trainOnce(record, decision)
            } catch (error: LcsbException) {
                if (requests.asked == Request.CANCEL) {
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
                RunOutcome.PAUSED -> patience.renew()
            }
        }
    }

    /** Whether [error] is that of a run which other apps leave too little memory now, and left enough before: not that of a heap that is full. */
    private fun comesBack(record: RunRecord, error: LcsbException): Boolean {
        val tooLittle = error.fault == Fault.MEMORY_EXCEEDED || (error.fault == Fault.MEMORY_TOO_SMALL && error.arguments.size == 2)
        return tooLittle && record.budget == null && runs.begun(record.bundle)
    }

    /** Shows why it waits, and waits a while, or until somebody asks for something. */
    private fun await(decision: Decision) = requests.await(WAIT_MILLIS) {
        app.store.update { it.copy(run = it.run.copy(phase = Phase.WAITING, layer = -1, decision = decision)) }
    }

    private fun trainOnce(record: RunRecord, decision: Decision): RunResult {
        val control = RunControl()
        return requests.under(control) {
            watch.during(control, decision) { engine.train(job(record), control, RunProgress(app.store, info(record), record)) }
        }
    }

    private fun job(record: RunRecord): TrainingJob {
        val budget = record.budget ?: (phone.freeMemory() + (processAnonymousBytes() ?: 0))
        val (bundle, data) = library.directory(record.bundle) to shelf.file(record.data)
        val (rate, initial) = record.learningRate to runs.initial(record)
        return TrainingJob(bundle, data, runs.state(record.bundle), record.steps, budget, record.threads, rate, initial)
    }

    /**
     * Writes down what it came to, and judges what it has learned: pausing or stopping ends that only. [turn]: none where nothing trained the run.
     */
    private fun end(record: RunRecord, wanted: Wanted, result: RunResult?, turn: Turn? = null, waitsFor: Reason? = null) {
        if (wanted !in SavedRuns.OVER) turn?.ending = true
        val ended = saved.end(record, wanted, result, waitsFor)
        requests.forget()
        ended.kept?.let { judge(it, record, if (turn == null) worker::goOn else requests::throwIfAsked) }
        turn?.ending = true
        saved.showEnd(ended.record, info(record))
    }

    private fun judge(kept: AdapterRecord, record: RunRecord, goOn: () -> Unit) {
        app.store.update { it.copy(run = it.run.copy(phase = Phase.COMPARING, layer = -1)) }
        judge.judge(kept, record.data, goOn)
    }

    /** While a run waits to go on, [TrainJob] is scheduled, as the person and the run want it, off the main thread; [then]: when it is. */
    fun schedule(then: () -> Unit = {}) = worker.start(cancelling = false) {
        try {
            scheduleNow()
        } finally {
            then()
        }
    }

    private fun scheduleNow() = unfinished().let { TrainJob.schedule(app, waiting = it != null, app.settings.trainWhenIdle, it?.waitsFor) }

    /** Whether the job of idle hours is to go on. Not on the main thread. */
    val waitsForIdle: Boolean get() = app.settings.trainWhenIdle && unfinished() != null

    private companion object {
        const val WAIT_MILLIS = 5_000L
    }
}
