package lcsbmobile.app

import android.os.Build
import android.os.SystemClock
import lcsbmobile.core.LcsbException
import lcsbmobile.core.RunControl
import lcsbmobile.core.RunOutcome
import lcsbmobile.core.RunResult
import lcsbmobile.core.processAnonymousBytes
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
) {
    private enum class Request { NONE, PAUSE, CANCEL }

    private val lock = ReentrantLock()
    private val woken = lock.newCondition()
    private var request = Request.NONE
    private var control: RunControl? = null
    private var memoryWantedUntil = 0L

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
    val worker = Worker("runs") { error -> app.store.update { it.copy(problem = Problem.of(error)) } }

    /** Shows the chosen bundle's run as it was left. Says so when the system had ended it. */
    fun begin() {
        if (running) return
        schedule()
        val bundle = app.store.state.bundle ?: return
        val record = runs.read(bundle.name)
        if (record == null) {
            app.store.update { it.copy(run = RunState(steps = app.settings.steps), report = null) }
        } else {
            worker.start { show(bundle, record) }
        }
    }

    private fun show(bundle: BundleInfo, record: RunRecord) {
        val phase = if (record.wanted == Wanted.RUNNING) Phase.INTERRUPTED else record.wanted.phase
        val shown = history(bundle)
        val problem = when {
            phase == Phase.INTERRUPTED -> Problem.INTERRUPTED
            record.fault != null -> Problem.of(record.fault, detail = record.detail)
            else -> null
        }
        app.store.update {
            if (it.run.active || it.chosen != bundle.name) return@update it
            it.copy(run = shown.copy(phase = phase, steps = record.steps), report = record.report, problem = it.problem ?: problem)
        }
    }

    /** What is saved; of what cannot be read nothing is shown, and the person is told. */
    private fun history(bundle: BundleInfo): RunState =
        try {
            engine.history(bundle, runs.state(bundle.name))
        } catch (error: LcsbException) {
            app.store.update { it.copy(problem = Problem.of(error)) }
            RunState()
        }

    /** Writes down what is asked for; the service or the job then calls [start]. */
    fun request(bundle: BundleInfo, data: DataInfo?) {
        val before = runs.read(bundle.name)
        if (before != null && before.wanted in RESUMABLE) {
            runs.write(before.copy(wanted = Wanted.RUNNING, budget = app.settings.budget, fault = null, detail = null))
        } else {
            if (data == null) return
            runs.remove(bundle.name)
            runs.write(RunRecord(bundle.name, data.file, data.name, app.settings.steps, app.settings.budget, Engine.threads()))
            app.store.update { it.copy(run = RunState(steps = app.settings.steps), report = null, comparison = Comparison()) }
        }
        app.store.update { it.copy(run = it.run.copy(phase = Phase.OPENING), problem = null) }
    }

    /** The run that waits to go on, of the chosen bundle first. */
    private fun unfinished(): RunRecord? = runs.unfinished(app.store.state.chosen)

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
        val record = app.store.state.chosen?.let(runs::read)?.takeIf { it.wanted in RESUMABLE } ?: return
        app.store.update { it.copy(run = it.run.copy(phase = Phase.PAUSING), problem = null) }
        worker.start {
            val result = try {
                val control = RunControl()
                engine.train(job(record), control, RunProgress(app.store, info(record), record, whenLoaded = control::stop))
            } catch (error: LcsbException) {
                app.store.update { it.copy(problem = Problem.of(error)) }
                null
            }
            end(record, Wanted.CANCELLED, result)
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
        memoryWantedUntil = SystemClock.elapsedRealtime() + MEMORY_REST_MILLIS
        control?.pause()
    }

    private fun vitals(): Vitals {
        val read = phone.read().let { if (SystemClock.elapsedRealtime() < memoryWantedUntil) it.copy(memoryLow = true) else it }
        app.store.update { it.copy(vitals = read) }
        return read
    }

    private fun work(record: RunRecord, turn: Turn) {
        try {
            if (app.store.state.chosen != record.bundle) {
                app.settings.chosen = record.bundle
                app.store.update { it.copy(chosen = record.bundle, run = RunState(steps = record.steps)) }
            }
            runs.write(record.copy(wanted = Wanted.RUNNING))
            check(record)
            trainByPolicy(record)
        } catch (error: Asked) {
            end(record, if (request == Request.CANCEL) Wanted.CANCELLED else Wanted.PAUSED, null)
        } catch (error: Throwable) {
            // whatever it is, the person is told, and the run can be resumed
            turn.ending = true
            val problem = Problem.of(error)
            record(record.copy(wanted = Wanted.FAILED, fault = problem.fault, detail = problem.detail))
            app.store.update { it.copy(run = it.run.copy(phase = Phase.FAILED, layer = -1), problem = problem) }
        }
        turn.ending = true
        schedule()
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
        if (request != Request.NONE) throw Asked()
    }

    private class Asked : RuntimeException()

    /** Trains, waits and trains again, as the phone allows, until the run is at an end or was asked to stop. */
    private fun trainByPolicy(record: RunRecord) {
        var decision = Decision()
        while (true) {
            decision = TrainingPolicy.decide(vitals(), decision)
            if (decision.waits) {
                if (await(decision) == Request.PAUSE) return end(record, Wanted.PAUSED, null)
                if (request != Request.CANCEL) continue
            }
            val result = trainOnce(record, decision)
            when (result.outcome) {
                RunOutcome.FINISHED -> return end(record, Wanted.FINISHED, result)
                RunOutcome.CANCELLED -> return end(record, Wanted.CANCELLED, result)
                RunOutcome.PAUSED -> if (request == Request.PAUSE) return end(record, Wanted.PAUSED, null)
            }
        }
    }

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
        control.delayMillisBetweenLayers = decision.delayMillisBetweenLayers
        val watch = thread(name = "watch", isDaemon = true) { watch(control, decision) }
        try {
            return engine.train(job(record), control, RunProgress(app.store, info(record), record))
        } finally {
            lock.withLock { this.control = null }
            watch.interrupt()
        }
    }

    private fun job(record: RunRecord): TrainingJob {
        val budget = record.budget ?: (phone.freeMemory() + (processAnonymousBytes() ?: 0))
        val (bundle, data) = library.directory(record.bundle) to shelf.file(record.data)
        return TrainingJob(bundle, data, runs.state(record.bundle), record.steps, budget, record.threads)
    }

    private fun watch(control: RunControl, first: Decision) {
        var decision = first
        try {
            while (true) {
                decision = TrainingPolicy.decide(vitals(), decision)
                val now = decision
                control.delayMillisBetweenLayers = now.delayMillisBetweenLayers
                app.store.update { it.copy(run = it.run.copy(decision = now)) }
                if (now.waits) control.pause()
                Thread.sleep(WATCH_MILLIS)
            }
        } catch (error: InterruptedException) {
            return
        }
    }

    /** [result]: of a run that is over; null where it can go on. */
    private fun end(record: RunRecord, wanted: Wanted, result: RunResult?) {
        turn?.ending = true
        val bundle = info(record)
        val report = result?.let { RunReport(it, app.store.state.vitals.peakPss, "${Build.MANUFACTURER} ${Build.MODEL}") }
        record(record.copy(wanted = wanted, report = report))
        val history = history(bundle)
        val seconds = app.store.state.run.secondsAStep
        val shown = history.copy(phase = wanted.phase, steps = record.steps, secondsAStep = seconds)
        app.store.update { it.copy(run = shown, report = report) }
        if (seconds != null) app.bundles.update(bundle.copy(secondsAStep = seconds)) // steps that were made say more than a prediction
    }

    /** Storage may be full just then; what the run itself saved does not depend on it. */
    private fun record(record: RunRecord) {
        try {
            runs.write(record)
        } catch (error: LcsbException) {
            app.store.update { it.copy(problem = Problem.of(error)) }
        }
    }

    /** While a run waits to go on and the person wants it so, [TrainJob] is scheduled. */
    fun schedule() = TrainJob.schedule(app, wanted = app.settings.trainWhenIdle && unfinished() != null)

    private companion object {
        const val WATCH_MILLIS = 2_000L
        const val WAIT_MILLIS = 5_000L
        const val MEMORY_REST_MILLIS = 60_000L
        val RESUMABLE = setOf(Wanted.RUNNING, Wanted.PAUSED, Wanted.FAILED)
    }
}
