package lcsbmobile.app

import android.content.Intent
import android.net.Uri
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.EditText
import android.widget.TextView
import lcsbmobile.core.Fault
import lcsbmobile.core.Verdict
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNotEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Robolectric
import org.robolectric.Shadows.shadowOf
import org.robolectric.shadows.ShadowAlertDialog
import java.io.File

/** Several adapters of one model, from their runs to a conversation, with the real runtime. */
class AdaptersTest : AppTest() {
    private val store get() = app.adapters.store

    private fun train(steps: Int): AdapterRecord {
        if (state.data == null) app.data.importSample()
        waitFor("the sample") { state.data?.summary != null && state.reading == null }
        app.settings.steps = steps
        val before = state.adapters.size
        assertTrue(app.training.request(state.bundle!!, state.data!!))
        Robolectric.buildService(TrainService::class.java).create().startCommand(0, 1)
        waitFor("the end") { state.run.phase == Phase.FINISHED && !app.training.running && state.adapters.size > before }
        return state.adapters.first()
    }

    private fun bytes(record: AdapterRecord) = store.file(record).readBytes()

    private fun press(view: View) {
        assertTrue(view.isShown && view.isEnabled)
        view.performClick()
        idle()
    }

    @Test fun `a run loses no adapter, can begin with one, and says whether it got better`() {
        app.settings.learningRate = 2e-3
        val first = train(24)
        assertEquals("Sample messages", first.data)
        assertTrue(first.name, first.name.startsWith("Sample messages · "))
        assertEquals(24 to false, first.steps to first.chat)
        assertTrue(first.lossAfter!! < first.lossBefore!!)
        val verdict = first.verdict!!
        assertNull(verdict.against)
        assertEquals(17, verdict.verdict.examples)
        assertEquals(2e-3, state.report!!.result.learningRate, 0.0)
        if (verdict.verdict.outcome == Verdict.Outcome.BETTER) assertEquals(first.id, state.inUse) else assertEquals(first.id, state.undecided)
        app.adapters.use(first)
        waitFor("its use") { state.inUse == first.id }
        val kept = bytes(first)
        app.adapters.trainFurther(first)
        val second = train(4)
        assertEquals(first.name, second.further)
        assertEquals("it begins where the other ended", first.lossAfter, second.lossBefore)
        assertEquals(first.name, second.verdict!!.against)
        assertNull(state.further)
        assertArrayEquals(kept, bytes(first))
        assertEquals(listOf(second.id, first.id), state.adapters.map { it.id })
        assertTrue("what it wrote", state.run.samples.map { it.step }.containsAll(listOf(0, 4)) && first.example!!.isNotBlank())
        assertResultShown(second)
    }

    private fun assertResultShown(record: AdapterRecord) {
        val activity = open().get()
        activity.show(Destination.TRAIN)
        val text = activity.view<TextView>(R.id.result_text).text
        assertTrue("$text", text.startsWith("On 17 test examples that it had not seen"))
        val asked = state.undecided == record.id
        assertEquals(asked, activity.view<View>(R.id.result_use).isShown)
        if (!asked) return
        press(activity.view(R.id.result_keep))
        waitFor("the answer") { state.undecided == null }
        assertNotEquals(record.id, state.inUse)
    }

    @Test fun `a process that ended before the adapter was kept keeps it at the next start, and asks whether to use it`() {
        val first = train(2)
        store.remove(first)
        RunStore(File(app.filesDir, "runs")).run { write(read("tiny")!!.copy(kept = false)) }
        nextProcess()
        assertEquals(first.run to 2, state.adapters.single().let { it.run to it.steps })
        assertEquals(state.adapters.single().id, state.undecided)
    }

    @Test fun `an adapter that was deleted does not come back, and what an import left that the process did not survive goes`() {
        val first = train(2)
        app.adapters.remove(first)
        app.adapters.worker.join()
        val left = File(app.cacheDir, "import/adapter_model.safetensors").apply { parentFile!!.mkdirs() }
        left.writeText("half")
        nextProcess()
        assertEquals(emptyList<AdapterRecord>(), state.adapters)
        assertEquals(Phase.FINISHED, state.run.phase)
        assertFalse(left.exists())
        train(2)
        assertEquals("nor when another run takes its place", 1, state.adapters.size)
    }

    @Test fun `use, rename and delete on the screen`() {
        val (one, two) = train(2) to train(2)
        app.adapters.use(one)
        waitFor("its use") { state.inUse == one.id }
        val activity = open().get()
        activity.show(Destination.SHARE)
        val list = activity.view<ViewGroup>(R.id.adapter_list)
        assertEquals(2, list.childCount)
        assertTrue(list.getChildAt(1).findViewById<View>(R.id.adapter_used).isShown)
        val use = list.getChildAt(0).findViewById<Button>(R.id.adapter_use)
        assertEquals("Use: ${two.name}", use.contentDescription)
        press(use)
        waitFor("the other one") { state.inUse == two.id }
        AdapterList(activity, activity.findViewById(R.id.content)).rename(two)
        val dialog = ShadowAlertDialog.getLatestAlertDialog()
        dialog.findViewById<EditText>(R.id.rename_field).setText("  Mine ")
        dialog.getButton(android.app.AlertDialog.BUTTON_POSITIVE).performClick()
        waitFor("the name") { state.adapters.first().name == "Mine" }
        AdapterList(activity, activity.findViewById(R.id.content)).delete(state.adapters.first())
        ShadowAlertDialog.getLatestAlertDialog().getButton(android.app.AlertDialog.BUTTON_POSITIVE).performClick()
        waitFor("one") { state.adapters.map { it.id } == listOf(one.id) }
        assertNull(state.inUse)
        assertEquals(setOf("1.json", "1.safetensors"), File(app.filesDir, "adapters/tiny").list()!!.toSet())
    }

    @Test fun `an adapter that was shared is taken over again, and one that is none is refused`() {
        val made = train(2)
        app.sharing.adapter(made) { }
        app.sharing.worker.join()
        val zip = ShareProvider.directory(app).listFiles()!!.single()
        app.adapters.import(Uri.fromFile(zip))
        waitFor("the import") { state.adapters.size == 2 && !state.importing }
        val imported = state.adapters.first()
        assertEquals("tiny", imported.name)
        assertArrayEquals(bytes(made), bytes(imported))
        val other = temporary.newFile("x.zip").apply { writeBytes(zip.readBytes().copyOf(500)) }
        app.adapters.import(Uri.fromFile(other))
        waitFor("the refusal") { state.problem != null && !state.importing }
        assertEquals(Fault.ADAPTER, state.problem!!.fault)
        assertEquals(2, state.adapters.size)
        assertFalse(File(app.cacheDir, "import").exists())
    }

    @Test fun `two adapters are compared on the held-out examples`() {
        val (one, two) = train(2) to train(3)
        app.adapters.compare(two, one)
        waitFor("the verdict") { state.comparing?.verdict != null }
        assertEquals(one.name, state.comparing!!.verdict!!.against)
        val activity = open().get()
        activity.show(Destination.SHARE)
        assertEquals("${two.name} – ${one.name}", activity.view<TextView>(R.id.match_names).text)
        press(activity.view(R.id.match_end))
        waitFor("its end") { state.comparing == null }
    }

    private fun say(activity: MainActivity, text: String) {
        val before = state.conversation.said.size
        activity.view<EditText>(R.id.prompt).setText(text)
        press(activity.view(R.id.write))
        waitFor("the answer") { state.conversation.said.size == before + 1 && !state.conversation.writing }
    }

    @Test fun `a conversation goes on, with the adapter and without, and survives turning the phone`() {
        var controller = open()
        controller.get().show(Destination.TRY)
        assertEquals("Chat", controller.get().view<TextView>(R.id.mode_talk).text)
        assertFalse("there is none", controller.get().view<View>(R.id.adapter_on).isEnabled)
        say(controller.get(), "hi?")
        assertEquals("", controller.get().view<EditText>(R.id.prompt).text.toString())
        controller = controller.recreate()
        say(controller.get(), "and?")
        val (first, second) = state.conversation.said
        assertTrue(first.chat && second.chat && first.adapted == null)
        val list = controller.get().view<ViewGroup>(R.id.said)
        assertEquals(2, list.childCount)
        assertEquals("You: hi?", list.getChildAt(0).findViewById<View>(R.id.said_question).contentDescription)
        val shown = list.getChildAt(0).findViewById<TextView>(R.id.said_answer).text.toString()
        assertEquals(first.answer + if (first.cut) "…" else "", shown)
        press(list.getChildAt(0).findViewById(R.id.said_copy))
        val clip = app.getSystemService(android.content.ClipboardManager::class.java).primaryClip!!
        assertEquals(shown, clip.getItemAt(0).text.toString())
        press(controller.get().view(R.id.new_conversation))
        waitFor("a new one") { state.conversation.said.isEmpty() }
    }

    @Test fun `what learned from plain texts continues one`() {
        val made = train(2)
        app.adapters.use(made)
        waitFor("its use") { state.inUse == made.id }
        val activity = open().get()
        activity.show(Destination.TRY)
        assertEquals("Continue a text", activity.view<TextView>(R.id.mode_talk).text)
        val example = activity.view<ViewGroup>(R.id.example_prompts).getChildAt(0) as Button
        assertEquals(made.example!!.trim(), example.text.toString())
        press(example)
        assertEquals(made.example, activity.view<EditText>(R.id.prompt).text.toString())
        say(activity, "ok so ")
        val said = state.conversation.said.single()
        assertEquals(false to made.name, said.chat to said.adapted)
        val row = activity.view<ViewGroup>(R.id.said).getChildAt(0)
        assertEquals("ok so " + said.answer + if (said.cut) "…" else "", row.findViewById<TextView>(R.id.said_answer).text.toString())
        app.trial.change { it.copy(on = false) }
        idle()
        say(activity, "ok so ")
        assertNull(state.conversation.said.last().adapted)
    }

    private fun shared(intent: Intent): MainActivity =
        Robolectric.buildActivity(MainActivity::class.java, intent.setClass(app, MainActivity::class.java)).setup().get()

    private fun text(text: String) = Intent(Intent.ACTION_SEND).setType("text/plain").putExtra(Intent.EXTRA_TEXT, text)

    private fun agree() = ShadowAlertDialog.getLatestAlertDialog().getButton(android.app.AlertDialog.BUTTON_POSITIVE).performClick()

    @Test fun `a text that another app shares becomes a message, once the person agrees`() {
        val activity = shared(text("ok so the bread rose, x"))
        assertNull(state.data)
        assertTrue(activity.view<View>(R.id.data_name).isShown)
        agree()
        waitFor("the message") { state.data?.typed == listOf("ok so the bread rose, x") && state.reading == null }
        assertNull(state.offer)
        activity.intent = null
        shared(Intent(Intent.ACTION_PROCESS_TEXT).putExtra(Intent.EXTRA_PROCESS_TEXT, "right then"))
        ShadowAlertDialog.getLatestAlertDialog().cancel()
        waitFor("the refusal") { state.offer == null }
        assertEquals(1, state.data!!.typed!!.size)
    }

    @Test fun `a file that another app shares becomes data, and what is too much or nothing is refused in a sentence`() {
        val uri = Uri.parse("content://other/notes.txt")
        shadowOf(app.contentResolver).registerInputStream(uri, "one\ntwo\nthree\n".byteInputStream())
        shared(Intent(Intent.ACTION_SEND).setType("text/plain").putExtra(Intent.EXTRA_STREAM, uri))
        agree()
        waitFor("the file") { state.data?.summary?.examples == 3L && state.reading == null }
        for ((intent, sentence) in listOf(
            text("x".repeat(100_001)) to "What was shared is too long for one message.",
            text("  ") to "Nothing was shared that can be learned from.",
            Intent(Intent.ACTION_SEND) to "Nothing was shared that can be learned from.",
            Intent(Intent.ACTION_SEND).putExtra(Intent.EXTRA_STREAM, Uri.parse("file:///data/data/lcsbmobile.app/files/x")) to
                "Nothing was shared that can be learned from.",
        )) {
            app.store.update { it.copy(problem = null) }
            shared(intent)
            waitFor("a sentence") { state.problem != null }
            assertEquals(sentence, state.problem!!.what(english()))
            assertNull(state.offer)
        }
        shadowOf(app.contentResolver).registerInputStream(uri, "one".byteInputStream())
        app.data.import(uri, most = 2)
        waitFor("the sentence") { state.problem?.what(english()) == "The file that was shared is too large to learn from." }
        assertEquals(3L, state.data!!.summary!!.examples)
    }

    @Test fun `a learning rate is a number above 0 and up to 1, or the method's own`() {
        val activity = open().get()
        activity.show(Destination.TRAIN)
        press(activity.view(R.id.advanced_header))
        val (field, fault) = activity.view<EditText>(R.id.learning_rate) to activity.view<View>(R.id.learning_rate_fault)
        assertEquals("Automatic: 0.0008", field.hint.toString())
        for ((text, rate) in listOf("0.001" to 0.001, "2e-4" to 2e-4, "1" to 1.0, "" to null)) {
            field.setText(text)
            assertEquals(rate, app.settings.learningRate)
            assertFalse(fault.isShown)
        }
        field.setText("0.5")
        for (text in listOf("0", "-1", "1.5", "NaN", "x", "1e999", "0.1.2")) {
            field.setText(text)
            assertTrue(text, fault.isShown)
            assertEquals(0.5, app.settings.learningRate!!, 0.0)
        }
    }
}
