package lcsbmobile.app

import java.util.concurrent.CountDownLatch
import kotlin.concurrent.thread
import kotlin.concurrent.withLock

/** The one run that is under way in this process, whoever asked for it: the service, or the job. What trains it is [Trainer]. */
class Training(
    private val app: App,
    engine: Engine,
    library: BundleLibrary,
    shelf: DataShelf,
    private val runs: RunStore,
    phone: Phone,
    keeper: Keeper,
    private val judge: Judge,
) {
    private val requests = Requests()
    private val trainer = Trainer(app, engine, library, shelf, runs, phone, requests)
    private val saved = SavedRuns(app, engine, runs, phone, keeper)

    /** From a start to its end. [ending]: what it came to is being written down, and another may begin after it. [written]: it is. */
    private class Turn(first: (Boolean) -> Unit) {
        val whenEnded = mutableListOf(first)
        val written = CountDownLatch(1)

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
        turn?.takeIf { it.ending }?.written?.await() // or it would write over what is asked for now
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
        if (!ask(Request.PAUSE)) atRest(setOf(Wanted.RUNNING)) { TurnEnd(Wanted.PAUSED) }
    }

    /** The system's interruption: the run goes on by itself. */
    fun leave() = ask(Request.LEAVE)

    /**
     * Ends the run where it is; what it has learned stays. A run that is under way ends between two layers, one that was paused is opened
     * and ended.
     */
    fun cancel() {
        if (!ask(Request.CANCEL)) atRest(SavedRuns.RESUMABLE, trainer::stop)
    }

    /** Ends the chosen bundle's run, if it is [wanted] so and nothing trains it, off the main thread. What judges one that was stopped before ends. */
    private fun atRest(wanted: Set<Wanted>, ending: (RunRecord) -> TurnEnd) {
        app.store.update { if (it.run.resumable) it.copy(run = it.run.copy(phase = Phase.PAUSING), problem = null) else it }
        worker.start {
            app.store.state.chosen?.let(runs::read)?.takeIf { it.wanted in wanted }?.let { end(it, ending(it)) }
            scheduleNow()
        }
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

    /** Saves, and keeps nothing in memory for a while. A run that is over is not judged. */
    fun giveMemoryBack() {
        if (app.store.state.run.phase == Phase.COMPARING && !leave()) worker.cancel()
        trainer.giveMemoryBack()
    }

    private fun work(record: RunRecord, turn: Turn) {
        try {
            show(record)
            runs.write(record.copy(waitsFor = null))
            end(record, train(record), turn)
        } catch (error: Throwable) {
            // whatever it is, the person is told, and the run can be resumed
            turn.ending = true
            val problem = Problem.of(error)
            val begun = runs.begun(record.bundle)
            saved.storing { runs.write(record.copy(wanted = Wanted.FAILED, fault = problem.fault, detail = problem.detail)) }
            app.store.update { it.copy(run = it.run.copy(phase = Phase.FAILED, layer = -1, begun = begun), problem = problem) }
        }
        turn.ending = true
        turn.written.countDown()
        scheduleNow()
    }

    private fun train(record: RunRecord): TurnEnd =
        try {
            trainer.train(record)
        } catch (error: Asked) {
            TurnEnd(requests.asked.wanted)
        }

    /** The run under way is what is shown, whatever was: it may be the system or the job that has it go on. */
    private fun show(record: RunRecord) {
        if (app.store.state.chosen != record.bundle) {
            app.settings.chosen = record.bundle
            app.store.update { it.choosing(record.bundle) }
            app.adapters.refresh()
        }
        app.store.update {
            val phase = if (it.run.phase == Phase.PAUSING) Phase.PAUSING else Phase.OPENING
            it.copy(run = it.run.copy(phase = phase, steps = record.steps), problem = it.problem.takeIf { said -> said !== Problem.INTERRUPTED })
        }
    }

    /** Writes down what it came to, and judges what it has learned: asking for anything ends that only. [turn]: none where nothing trained the run. */
    private fun end(record: RunRecord, end: TurnEnd, turn: Turn? = null) {
        if (end.wanted !in SavedRuns.OVER) turn?.ending = true
        val (ended, kept) = saved.end(record, end)
        turn?.written?.countDown()
        requests.forget()
        kept?.let { judge(it, record, if (turn == null) worker::goOn else requests::throwIfAsked) }
        turn?.ending = true
        saved.showEnd(ended)
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
}
