package lcsbmobile.app

import android.app.Notification
import lcsbmobile.core.Verdict
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Test
import java.io.File
import java.util.concurrent.Semaphore

/** A run that is over is judged: whatever is asked meanwhile ends that, and only that. */
class JudgingTest : AppTest() {
    private val begun = Semaphore(0)
    private val asked = Semaphore(0)

    /** Compares for as long as nobody asks for anything else. */
    private inner class Waiting(engine: Engine) : AdapterEngine(engine) {
        override fun compare(directory: File, data: File, before: File?, after: File, goOn: () -> Unit, progress: (Int, Int) -> Unit): Verdict {
            begun.release()
            asked.acquire()
            goOn()
            error("it was to stop")
        }
    }

    private val training by lazy {
        val engine = Engine(app.cacheDir)
        val (library, shelf) = BundleLibrary(File(app.filesDir, "bundles"), engine) to DataShelf(File(app.filesDir, "data"))
        val (runs, adapters) = RunStore(File(app.filesDir, "runs")) to Waiting(engine)
        Training(app, engine, library, shelf, runs, Phone(app), Keeper(app, adapters, library, runs), Judge(app, adapters, library, shelf))
    }

    private fun begin(steps: Int) {
        app.settings.steps = steps
        training.request(state.bundle!!, state.data!!)
        training.start { }
    }

    /** Does [ask] while it is judged. */
    private fun meanwhile(ask: (Training) -> Unit) {
        waitFor("the judging") { begun.tryAcquire() }
        assertEquals(Phase.COMPARING, state.run.phase)
        assertEquals("Comparing…", TrainNotice(app).build().extras.getString(Notification.EXTRA_TEXT))
        ask(training)
        asked.release()
    }

    private fun assertUnjudged(phase: Phase) {
        assertEquals("$phase, ${state.problem?.detail}", phase, state.run.phase)
        assertNull(state.problem)
        assertNull(state.adapters.first().verdict)
        assertNull(state.comparing)
        assertEquals("the person is asked", state.adapters.first().id, state.undecided)
    }

    @Test fun `pausing, finishing early, leaving and a need of memory`() {
        app.data.importSample()
        waitFor("the sample") { state.data?.summary != null && state.reading == null }
        val asks = listOf<(Training) -> Unit>({ it.pause() }, { it.cancel() }, { it.leave() }, { it.giveMemoryBack() })
        for ((index, ask) in asks.withIndex()) {
            begin(2)
            meanwhile(ask)
            training.thread!!.join()
            assertUnjudged(Phase.FINISHED)
            assertEquals(index + 1, state.adapters.size)
        }
    }

    @Test fun `of a run that was stopped while it was paused, too`() {
        app.data.importSample()
        waitFor("the sample") { state.data?.summary != null && state.reading == null }
        for (ask in listOf<(Training) -> Unit>({ it.pause() }, { it.cancel() }, { it.giveMemoryBack() })) {
            begin(40)
            waitFor("a step") { state.run.step >= 1 }
            training.pause()
            training.thread!!.join()
            assertEquals(Phase.PAUSED, state.run.phase)
            training.cancel()
            meanwhile(ask)
            training.worker.join()
            assertUnjudged(Phase.CANCELLED)
        }
    }
}
