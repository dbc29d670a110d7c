package lcsbmobile.app

import lcsbmobile.app.PrivateData.Part
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Robolectric
import java.io.File
import java.util.concurrent.CountDownLatch

class PrivateDataTest : AppTest() {
    private val data get() = File(app.filesDir, "data")
    private val runs get() = File(app.filesDir, "runs")

    private fun train(steps: Int) {
        app.data.importSample()
        waitFor("the sample") { state.data?.summary != null && state.reading == null }
        app.settings.steps = steps
        app.training.request(state.bundle!!, state.data!!)
        Robolectric.buildService(TrainService::class.java).create().startCommand(0, 1)
    }

    private fun delete(vararg parts: Part) {
        val deleted = CountDownLatch(1)
        app.privateData.delete(parts.toSet()) { deleted.countDown() }
        waitFor("the deletion") { deleted.count == 0L }
        app.training.worker.join()
        idle()
    }

    @Test fun `each part is deleted by itself, and frees what was said`() {
        train(2)
        waitFor("the end") { state.run.phase == Phase.FINISHED && !app.training.running }
        app.sharing.report {}
        app.sharing.worker.join()
        assertTrue(app.privateData.sizes().toString(), app.privateData.sizes().values.all { it > 0 })
        val places = listOf(
            Part.SHARED to ShareProvider.directory(app),
            Part.CHECKPOINTS to File(runs, "tiny/state"),
            Part.RUNS to runs,
            Part.DATA to data,
        )
        for ((part, gone) in places) {
            assertTrue("$part", gone.exists())
            delete(part)
            assertFalse("$part", gone.exists())
            assertEquals("$part", 0L, app.privateData.sizes().getValue(part))
            assertEquals("$part", part == Part.DATA, state.data == null)
        }
        assertNull(app.settings.data)
        assertEquals(Phase.NONE, state.run.phase)
        assertEquals("models stay", listOf("tiny"), state.bundles.map { it.name })
        train(2)
        waitFor("a new run") { state.run.phase == Phase.FINISHED }
    }

    @Test fun `nothing is deleted while a run is active, and one that was paused ends with its data`() {
        train(100)
        waitFor("a step") { state.run.step >= 1 }
        app.privateData.delete(Part.entries.toSet()) { error("it was refused") }
        assertEquals("A run is under way, so nothing was deleted.", state.problem!!.what(english()))
        assertTrue(data.list()!!.isNotEmpty() && runs.list()!!.isNotEmpty())
        app.training.pause()
        waitFor("the pause") { state.run.phase == Phase.PAUSED && !app.training.running }
        delete(Part.DATA)
        waitFor("what is left of the run") { state.run.phase == Phase.CANCELLED }
        assertFalse(data.exists())
        assertTrue("what it learned", File(runs, "tiny/state").list()!!.any { it.startsWith("step-") })
    }
}
