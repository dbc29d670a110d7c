package lcsbmobile.app

import android.app.AlertDialog
import android.view.View
import android.widget.TextView
import lcsbmobile.app.PrivateData.Part
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Robolectric
import org.robolectric.Shadows.shadowOf
import org.robolectric.shadows.ShadowAlertDialog
import java.io.File

/** What the person's own is, and that it can be deleted, as it is pressed on the Settings screen. */
class PrivateDataTest : AppTest() {
    private val data get() = File(app.filesDir, "data")
    private val runs get() = File(app.filesDir, "runs")
    private val adapters get() = File(app.filesDir, "adapters")
    private val shared get() = ShareProvider.directory(app)

    private fun train(steps: Int) {
        app.data.importSample()
        waitFor("the sample") { state.data?.summary != null && state.reading == null }
        app.settings.steps = steps
        app.training.request(state.bundle!!, state.data!!)
        Robolectric.buildService(TrainService::class.java).create().startCommand(0, 1)
    }

    private fun kept(): Map<Part, Long> {
        app.privateData.measure()
        app.privateData.worker.join()
        return state.kept!!
    }

    private fun settings(): MainActivity = open().get().also {
        it.show(Destination.SETTINGS)
        app.privateData.worker.join()
        idle()
    }

    private fun answer() = ShadowAlertDialog.getLatestAlertDialog().getButton(AlertDialog.BUTTON_POSITIVE).run {
        performClick()
        idle()
    }

    /** Presses what a person presses to delete [parts]. */
    private fun delete(vararg parts: Part) {
        val activity = settings()
        activity.view<View>(R.id.delete_data).performClick()
        val list = ShadowAlertDialog.getLatestAlertDialog().listView
        val there = state.kept!!.filterValues { it > 0 }.keys.toList()
        assertEquals(there.size, list.count)
        for (part in parts) list.performItemClick(null, there.indexOf(part), 0)
        answer()
        val sure = "${shadowOf(ShadowAlertDialog.getLatestAlertDialog()).message}"
        for (part in there) assertEquals("$part", part in parts, sure.startsWith(app.getString(part.label)) || "\n${app.getString(part.label)}: " in sure)
        answer()
        app.privateData.worker.join()
        app.training.worker.join()
        idle()
    }

    @Test fun `each part is deleted by itself, and frees what was said`() {
        assertEquals("what is known of models is nobody's", setOf(0L), kept().values.toSet())
        assertFalse(settings().view<View>(R.id.delete_data).isEnabled)
        train(2)
        waitFor("the end") { state.run.phase == Phase.FINISHED && !app.training.running }
        app.sharing.report {}
        app.sharing.worker.join()
        File(app.cacheDir, "left").writeText("what a process left of the data")
        app.store.update { it.copy(conversation = Conversation(listOf(Said("a secret?"))), offer = Offer("another")) }
        assertTrue("${kept()}", kept().values.all { it > 0 })
        val places = listOf(Part.SHARED to listOf(shared), Part.LEARNED to listOf(adapters, runs), Part.DATA to listOf(data, File(app.cacheDir, "left")))
        for ((part, gone) in places) {
            assertTrue("$part", gone.all { it.exists() })
            delete(part)
            assertFalse("$part", gone.any { it.exists() })
            assertEquals("$part", 0L, state.kept!!.getValue(part))
            assertEquals("$part", part == Part.SHARED, state.adapters.isNotEmpty())
            assertEquals("$part", part == Part.DATA, state.data == null)
        }
        assertEquals(Conversation() to null, state.conversation to state.offer)
        assertNull(app.settings.data)
        assertEquals(Phase.NONE, state.run.phase)
        assertEquals("models stay", listOf("tiny"), state.bundles.map { it.name })
        assertEquals("Nothing of yours is on this phone.", "${settings().view<TextView>(R.id.kept).text}")
        train(2)
        waitFor("a new run") { state.run.phase == Phase.FINISHED }
    }

    @Test fun `nothing is deleted while a run is active, and one that was paused ends with its data`() {
        train(100)
        waitFor("a step") { state.run.step >= 1 }
        val activity = settings()
        activity.view<View>(R.id.delete_data).performClick()
        assertNull("no question", ShadowAlertDialog.getLatestAlertDialog())
        assertEquals("A run is under way, so nothing was deleted.", state.problem!!.what(english()))
        app.privateData.delete(Part.entries.toSet())
        app.privateData.worker.join()
        assertTrue(data.list()!!.isNotEmpty() && runs.list()!!.isNotEmpty())
        app.training.pause()
        waitFor("the pause") { state.run.phase == Phase.PAUSED && !app.training.running }
        delete(Part.DATA)
        waitFor("what is left of the run") { state.run.phase == Phase.CANCELLED && state.adapters.size == 1 }
        assertFalse(data.exists())
        assertTrue("what it learned", File(runs, "tiny/state").list()!!.any { it.startsWith("step-") })
    }
}
