package lcsbmobile.app

import android.app.AlertDialog
import android.content.Intent
import android.net.Uri
import android.view.View
import android.widget.Button
import android.widget.EditText
import android.widget.TextView
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import lcsbmobile.core.Fault
import lcsbmobile.core.checkpoint.checkpointFiles
import lcsbmobile.core.checkpoint.newestGood
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNotEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Robolectric
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ServiceController
import org.robolectric.shadows.ShadowAlertDialog
import java.io.File
import java.util.zip.ZipInputStream

/**
 * From the tiny bundle to an adapter, by pressing what a person presses. The system's part, starting what was asked for, is played here.
 */
class RunTest : AppTest() {
    private val cycle get() = state.bundle!!.schedule.size

    private fun MainActivity.press(id: Int) {
        val button = view<View>(id)
        waitFor("${resources.getResourceEntryName(id)} to be there") { button.isShown && button.isEnabled }
        button.performClick()
        idle()
    }

    private fun confirm() {
        ShadowAlertDialog.getLatestAlertDialog().getButton(AlertDialog.BUTTON_POSITIVE).performClick()
        idle()
    }

    /** Starts the service that the activity asked for. */
    private fun startService(): ServiceController<TrainService> {
        var intent: Intent? = null
        waitFor("the service") { // another for each bundle that was added
            intent = generateSequence { shadowOf(app).nextStartedService }.find { it.component!!.className == TrainService::class.java.name }
            intent != null
        }
        return Robolectric.buildService(TrainService::class.java, intent).create().startCommand(0, 1)
    }

    private fun useSample(activity: MainActivity) {
        activity.show(Destination.DATA)
        activity.press(R.id.sample_data)
        waitFor("the sample") { state.data?.summary != null && state.reading == null }
    }

    private fun MainActivity.text(id: Int) = view<TextView>(id).text.toString()

    private fun adapter(state: File = File(app.filesDir, "runs/tiny/state")): FloatArray {
        val bundle = app.store.state.bundle!!
        val checkpoint = newestGood(checkpointFiles(state), bundle.layers, bundle.adapterSize).second
        return FloatArray(bundle.adapterSize).also { checkpoint.state.adapter.duplicate().get(it) }
    }

    private fun begin(activity: MainActivity, steps: Int): ServiceController<TrainService> {
        app.settings.steps = steps
        activity.show(Destination.TRAIN)
        activity.press(R.id.start)
        return startService()
    }

    /** `run.steps` makes it longer, for pictures of a model that has learned something. */
    @Test fun `two cycles from the first start to a shared adapter`() {
        val activity = open().get()
        assertEquals("tiny", activity.text(R.id.bundle_name))
        val (trained, passed, skipped) = listOf(LayerRole.TRAINED, LayerRole.PASSED, LayerRole.SKIPPED)
        assertEquals(List(6) { skipped } + List(2) { trained }, state.bundle!!.schedule[0])
        assertEquals(List(2) { trained } + List(6) { passed }, state.bundle!!.schedule[3])
        useSample(activity)
        picture(activity, "run-data")
        assertEquals("170", activity.view<View>(R.id.data_examples).findViewById<TextView>(R.id.figure_value).text.toString())
        val steps = System.getProperty("run.steps")?.toInt() ?: (2 * cycle)
        begin(activity, steps)
        waitFor("the end") { state.run.phase == Phase.FINISHED }
        assertEquals("Finished", activity.text(R.id.run_phase))
        assertTrue("it was tested before the first run", state.bundle!!.checked)
        assertEquals((1..steps).toList(), state.run.training.map { it.step })
        assertEquals(0, state.run.evaluation.first().step)
        assertEquals(steps, state.run.evaluation.last().step)
        app.settings.setOpen(TrainOptions.NAME, false) // the curve is what is looked at
        app.store.update { it }
        picture(activity, "run-train")
        activity.press(R.id.try_result)
        assertTrue("trying is what comes next", activity.view<View>(R.id.prompt).isShown)
        assertTrue("it learns", state.run.evaluation.last().loss < state.run.evaluation.first().loss)
        activity.show(Destination.TRY)
        activity.press(R.id.mode_compare)
        activity.view<EditText>(R.id.prompt).setText("ok so ")
        activity.press(R.id.write)
        waitFor("both texts") { !state.comparison.writing && state.comparison.prompt != null }
        picture(activity, "run-try")
        assertTrue(activity.text(R.id.before).startsWith("ok so ") && activity.text(R.id.after).startsWith("ok so "))
        assertTrue(state.comparison.before.isNotEmpty() && state.comparison.after.isNotEmpty())
        val expected = listOf("adapter_config.json", "adapter_model.safetensors", "training_report.json").map { "adapter/$it" }
        assertEquals(expected, shareAdapter(activity).keys.sorted())
        picture(activity, "run-share")
    }

    /** Shares, and reads what another app would: the files of the ZIP. */
    private fun shareAdapter(activity: MainActivity): Map<String, ByteArray> {
        activity.show(Destination.SHARE)
        waitFor("the adapter") { activity.findViewById<View?>(R.id.share_adapter) != null }
        activity.press(R.id.share_adapter)
        waitFor("the share sheet") { !app.sharing.worker.busy && !state.packing }
        val chooser = shadowOf(activity).nextStartedActivity
        assertEquals(Intent.ACTION_CHOOSER, chooser.action)
        @Suppress("DEPRECATION")
        val send = chooser.getParcelableExtra<Intent>(Intent.EXTRA_INTENT)!!
        assertEquals("application/zip", send.type)
        assertTrue(send.flags and Intent.FLAG_GRANT_READ_URI_PERMISSION != 0)
        @Suppress("DEPRECATION")
        val uri = send.getParcelableExtra<Uri>(Intent.EXTRA_STREAM)!!
        return ZipInputStream(app.contentResolver.openInputStream(uri)).use { zip ->
            generateSequence { zip.nextEntry }.associate { it.name to zip.readBytes() }
        }
    }

    @Test fun `pause, turning the phone, and resume give the bits of the unbroken run`() {
        var controller = open()
        useSample(controller.get())
        begin(controller.get(), steps = 40)
        waitFor("the end") { state.run.phase == Phase.FINISHED && !app.training.running }
        val unbroken = adapter()
        controller.get().press(R.id.start_again)
        startService()
        waitFor("two steps") { state.run.step >= 2 }
        controller = controller.recreate()
        assertTrue(controller.get().view<View>(R.id.pause).isShown)
        controller.get().press(R.id.pause)
        waitFor("the pause") { state.run.phase == Phase.PAUSED && !app.training.running }
        controller.get().press(R.id.start)
        startService()
        waitFor("the end") { state.run.phase == Phase.FINISHED && !app.training.running }
        assertTrue(state.report!!.result.resumedFrom!! >= 2)
        assertArrayEquals(unbroken, adapter(), 0f)
    }

    @Test fun `a run that the system ended, with the clock set back, goes on bit for bit`() {
        val activity = open()
        useSample(activity.get())
        begin(activity.get(), steps = 50)
        waitFor("the end") { state.run.phase == Phase.FINISHED && !app.training.running }
        val unbroken = adapter()
        activity.get().press(R.id.start_again)
        startService()
        waitFor("the first checkpoint that is not of the beginning") { state.run.step >= 6 }
        val killed = snapshot()
        assertTrue(state.run.active)
        app.training.pause()
        app.training.thread!!.join() // what it still writes comes before what is put back
        activity.pause().stop().destroy()
        restore(killed)
        android.os.SystemClock.setCurrentTimeMillis(0)
        nextProcess()
        waitFor("what was saved") { state.run.phase == Phase.INTERRUPTED }
        val again = open().get()
        assertEquals("The system closed the app while the model was training. Nothing was lost.", again.text(R.id.problem_what))
        assertEquals(state.run.step, state.run.training.size)
        again.show(Destination.TRAIN)
        again.press(R.id.start)
        startService()
        waitFor("the end") { state.run.phase == Phase.FINISHED && !app.training.running }
        assertTrue(state.report!!.result.resumedFrom!! >= 5)
        assertArrayEquals(unbroken, adapter(), 0f)
    }

    /** What a process that is killed now leaves. Copied until no file changed meanwhile. */
    private fun snapshot(): File {
        val runs = File(app.filesDir, "runs")
        while (true) {
            val copy = temporary.newFolder()
            try {
                if (runs.copyRecursively(copy, overwrite = true) && checkpointFiles(File(copy, "tiny/state")).isNotEmpty()) return copy
            } catch (error: java.io.IOException) {
                continue
            }
        }
    }

    private fun restore(copy: File) {
        val runs = File(app.filesDir, "runs")
        runs.deleteRecursively()
        copy.copyRecursively(runs)
    }

    @Test fun `stop ends a run that is under way or paused, and what it learned can be shared`() {
        val activity = open().get()
        useSample(activity)
        begin(activity, 40)
        waitFor("three steps") { state.run.step >= 3 }
        activity.press(R.id.pause)
        waitFor("the pause") { state.run.phase == Phase.PAUSED && !app.training.running }
        activity.press(R.id.cancel_run)
        confirm()
        waitFor("the end") { state.run.phase == Phase.CANCELLED && state.report != null }
        val steps = state.report!!.result.losses.size
        assertTrue(steps in 3 until 40)
        val report = Json.parseToJsonElement(shareAdapter(activity).getValue("adapter/training_report.json").decodeToString()).jsonObject
        assertEquals(steps, report.getValue("losses").jsonArray.size)
        assertEquals("onnxruntime", report.getValue("runtime").jsonPrimitive.content)
        assertTrue(report.getValue("peak_pss_bytes").jsonPrimitive.content.toLong() >= 0)
        activity.show(Destination.TRAIN)
        activity.press(R.id.start_again)
        startService()
        waitFor("a new run") { state.run.phase == Phase.TRAINING && state.run.step < steps }
    }

    @Test fun `typed messages are data, can be taken back, and survive turning the phone`() {
        var controller = open()
        controller.get().show(Destination.DATA)
        for (message in listOf("ok so the bread rose, x", "right then, tea, x", "two things: no gloves, x")) {
            controller.get().view<EditText>(R.id.message).setText(message)
            controller.get().press(R.id.add_message)
            waitFor("the message") { state.data?.typed?.last() == message && state.reading == null }
        }
        controller.get().view<EditText>(R.id.message).setText("half")
        controller = controller.recreate()
        assertEquals("half", controller.get().view<EditText>(R.id.message).text.toString())
        assertTrue(controller.get().view<View>(R.id.message).isShown)
        assertEquals(3L, state.data!!.summary!!.examples)
        val list = controller.get().view<android.view.ViewGroup>(R.id.messages)
        val remove = list.getChildAt(0).findViewById<View>(R.id.message_remove)
        assertEquals("Remove message: two things: no gloves, x", remove.contentDescription)
        remove.performClick()
        waitFor("two messages") { state.data?.typed?.size == 2 && state.reading == null }
        assertEquals(1, File(app.filesDir, "data").list()!!.count { it.endsWith(".jsonl") })
    }

    @Test fun `trying a model without an adapter shows what it writes before`() {
        val activity = open().get()
        useSample(activity)
        activity.show(Destination.TRY)
        activity.press(R.id.mode_compare)
        activity.view<EditText>(R.id.prompt).setText("ok so ")
        activity.press(R.id.write)
        waitFor("the text") { !state.comparison.writing && state.comparison.prompt != null }
        assertTrue(activity.text(R.id.before).startsWith("ok so "))
        assertEquals("", activity.text(R.id.after))
        assertEquals("Train the model to see the difference.", activity.text(R.id.try_state))
        activity.show(Destination.SHARE)
        assertNull(activity.findViewById(R.id.share_adapter))
    }

    private fun use(activity: MainActivity, vararg messages: String) {
        for (message in messages) {
            app.data.type(message)
            waitFor("the message") { state.data?.typed?.last() == message && state.reading == null }
        }
        activity.show(Destination.TRAIN)
    }

    @Test fun `one example does not suffice, and a run that was refused for its data begins with other data`() {
        val activity = open().get()
        use(activity, "ok so the bread rose, x")
        assertFalse(activity.view<Button>(R.id.start).isEnabled)
        assertEquals("Add at least two examples first.", activity.text(R.id.run_detail))
        assertTrue(app.training.request(state.bundle!!, state.data!!))
        Robolectric.buildService(TrainService::class.java).create().startCommand(0, 1)
        waitFor("the refusal") { state.run.phase == Phase.FAILED && !app.training.running }
        assertEquals(Fault.DATA_EMPTY, state.problem!!.fault)
        assertFalse(state.run.resumable)
        use(activity, "right then, tea, x", "two things: no gloves, x")
        assertEquals("Start", activity.text(R.id.start))
        begin(activity, 2)
        waitFor("the end") { state.run.phase == Phase.FINISHED }
    }

    @Test fun `storage that refuses the request leaves what there was, and says so`() {
        val activity = open().get()
        useSample(activity)
        begin(activity, 2)
        waitFor("the end") { state.run.phase == Phase.FINISHED && !app.training.thread!!.isAlive }
        val (learned, record) = adapter() to File(app.filesDir, "runs/tiny/run.json")
        val kept = record.readText()
        record.delete()
        File(record, "in the way").mkdirs() // no file can take its place
        assertFalse(app.training.request(state.bundle!!, state.data!!))
        assertEquals(Fault.STORAGE_FAILED, state.problem!!.fault)
        assertFalse(state.run.active)
        record.deleteRecursively()
        record.writeText(kept)
        assertArrayEquals(learned, adapter(), 0f)
    }

    @Test fun `stopped without its data, a paused run's adapter can be shared`() {
        val activity = open().get()
        useSample(activity)
        begin(activity, 40)
        waitFor("three steps") { state.run.step >= 3 }
        activity.press(R.id.pause)
        waitFor("the pause") { state.run.phase == Phase.PAUSED && !app.training.thread!!.isAlive }
        File(app.filesDir, "data").deleteRecursively()
        activity.press(R.id.cancel_run)
        confirm()
        waitFor("the end") { state.run.phase == Phase.CANCELLED }
        val files = shareAdapter(activity).keys.map { it.removePrefix("adapter/") }.sorted()
        assertEquals(listOf("adapter_config.json", "adapter_model.safetensors"), files)
    }

    @Test fun `another model has its own run, and a model that is removed takes its run along`() {
        app.bundles.add(DirectorySource(File(bundles, "llama")))
        waitFor("llama") { state.chosen == "llama" && state.transfer == null }
        val activity = open().get()
        useSample(activity)
        begin(activity, 2)
        waitFor("the end") { state.run.phase == Phase.FINISHED && !app.training.running }
        app.bundles.choose("tiny")
        waitFor("tiny") { state.run.phase == Phase.NONE && state.reading == null }
        app.bundles.choose("llama")
        waitFor("llama's run") { state.run.phase == Phase.FINISHED && state.run.step == 2 }
        app.bundles.remove("llama")
        waitFor("only tiny") { state.bundles.map { it.name } == listOf("tiny") && state.chosen == "tiny" }
        assertNotEquals(true, File(app.filesDir, "runs/llama").exists())
    }
}
