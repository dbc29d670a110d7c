package lcsbmobile.app

import android.net.Uri
import android.view.View
import android.widget.EditText
import android.widget.TextView
import lcsbmobile.core.Fault
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import java.io.File
import java.io.InputStream
import java.util.concurrent.CancellationException
import java.util.concurrent.CountDownLatch

/** What the person chose or wrote is there until they choose otherwise. */
class DataTest : AppTest() {
    private val directory get() = File(app.filesDir, "data")

    private fun type(message: String) {
        app.data.type(message)
        waitFor("the message") { state.data?.typed?.last() == message && state.reading == null }
    }

    @Test fun `the person's own messages outlast another language`() {
        type("ok so, x")
        type("right then, x")
        RuntimeEnvironment.setQualifiers("+de")
        nextProcess()
        assertEquals(listOf("ok so, x", "right then, x"), state.data!!.typed)
        assertEquals("Meine Nachrichten", state.data!!.title(german()))
        assertEquals("My messages", state.data!!.title(english()))
        type("tea, x")
        nextProcess()
        assertEquals(3, state.data!!.typed!!.size)
    }

    @Test fun `a document of the name of the person's own messages is a document`() {
        val file = temporary.newFile("My messages")
        val message = "{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", \"content\": \"hello\"}"
        file.writeText("{\"messages\": [$message]}\n{\"text\": \"a\"}\n")
        app.settings.choose(ChosenData("1.jsonl", "My messages"))
        file.copyTo(File(directory.apply { mkdirs() }, "1.jsonl"))
        nextProcess()
        assertEquals("My messages", state.data!!.name)
        assertNull(state.data!!.typed)
    }

    @Test fun `one example is too few to begin`() {
        type("ok so, x")
        val activity = open().get()
        activity.show(Destination.DATA)
        idle()
        val sentence = "At least two examples are needed: one is set aside to test what was learned."
        assertEquals(sentence, activity.view<TextView>(R.id.data_state).text.toString())
    }

    @Test fun `a message that could not be stored stays in the field`() {
        val activity = open().get()
        activity.show(Destination.DATA)
        directory.deleteRecursively()
        directory.writeText("in the way")
        activity.view<EditText>(R.id.message).setText("ok so, x")
        activity.view<View>(R.id.add_message).performClick()
        waitFor("the problem") { state.problem?.fault == Fault.STORAGE_FAILED && state.reading == null }
        assertEquals("ok so, x", activity.view<EditText>(R.id.message).text.toString())
        directory.delete()
        activity.view<View>(R.id.add_message).performClick()
        waitFor("the message") { state.data?.typed?.size == 1 && state.reading == null }
        assertEquals("", activity.view<EditText>(R.id.message).text.toString())
    }

    /** A document whose bytes come when [more] is open. */
    private class Slow(private val more: CountDownLatch) : InputStream() {
        private val bytes = "{\"text\": \"a\"}\n{\"text\": \"b\"}\n".toByteArray().inputStream()

        override fun read(): Int = bytes.read()

        override fun read(block: ByteArray, offset: Int, length: Int): Int {
            more.await()
            return bytes.read(block, offset, length)
        }
    }

    private fun importSlowly(): CountDownLatch {
        val (uri, more) = Uri.parse("content://slow/letters.jsonl") to CountDownLatch(1)
        shadowOf(app.contentResolver).registerInputStreamSupplier(uri) { Slow(more) }
        app.data.import(uri)
        waitFor("the import") { state.reading?.kind == Progress.Kind.COPYING }
        return more
    }

    @Test fun `choosing a model leaves an import under way, and counts what it brings`() {
        app.data.importSample()
        waitFor("the sample") { state.data?.summary != null && state.reading == null }
        val more = importSlowly()
        repeat(2) { app.bundles.choose("tiny") }
        more.countDown()
        waitFor("the import") { !app.data.worker.busy && state.reading == null }
        assertEquals("letters.jsonl", state.data!!.name)
        assertEquals(2L, state.data!!.summary!!.examples)
    }

    @Test fun `an import that is cancelled leaves no file`() {
        val more = importSlowly()
        app.data.summarize()
        app.data.cancel()
        more.countDown()
        waitFor("the end") { !app.data.worker.busy && state.reading == null }
        assertNull(state.problem)
        assertNull(state.data)
        assertEquals(0, directory.list()!!.size)
    }

    @Test fun `a file that was copied goes when reading it is cancelled`() {
        val file = temporary.newFile("long.jsonl").apply { writeText("{\"text\": \"${"ab ".repeat(300)}\"}\n".repeat(8_000)) } // 7 MB
        app.data.import(Uri.fromFile(file))
        waitFor("reading") { state.reading?.let { it.kind == Progress.Kind.READING && it.done > 0 } == true }
        app.data.cancel()
        waitFor("the end") { !app.data.worker.busy && state.reading == null }
        assertNull(state.data)
        assertEquals(0, directory.list()!!.size)
    }

    @Test fun `what a process left that ended while copying goes at the next start`() {
        type("ok so, x")
        File(directory, ".incoming").writeText("half")
        File(directory, "7.jsonl").writeText("{}")
        nextProcess()
        assertEquals(state.data!!.file.let { setOf(it, "$it.report") }, directory.list()!!.toSet())
    }

    @Test fun `of three quick starts the first two are cancelled`() {
        val worker = Worker("test") { throw it }
        val (begun, first) = CountDownLatch(1) to CountDownLatch(1)
        val done = mutableListOf<Int>()
        for (number in 1..3) {
            worker.start {
                begun.countDown()
                first.await()
                try {
                    worker.goOn()
                    done += number
                } catch (error: CancellationException) {
                    done += -number
                }
            }
            begun.await()
        }
        first.countDown()
        worker.join()
        assertEquals(listOf(-1, -2, 3), done)
    }

    @Test fun `a restored choice of a model that is not there chooses another, and a phone without models is offered the tiny one`() {
        app.bundles.remove("tiny")
        waitFor("none") { state.bundles.isEmpty() }
        app.onCreate()
        app.bundles.worker.join()
        assertTrue("who removed it does not get it again", state.bundles.isEmpty())
        app.settings.chosen = "llama"
        app.settings.hadBundle = false // as on a new phone
        app.onCreate()
        waitFor("tiny") { state.chosen == "tiny" && state.transfer == null }
        app.bundles.choose("llama")
        app.bundles.update(state.bundle!!.copy(name = "llama"))
        assertEquals("tiny", app.settings.chosen)
        assertFalse(File(app.filesDir, "bundles/llama.json").exists())
    }

    @Test fun `a share sheet is opened by the window that is there when it is packed`() {
        val before = open()
        val sheet = android.content.Intent("test.SHEET")
        val after = before.recreate()
        before.pause().stop()
        idle()
        before.get().send(sheet)
        idle()
        assertNull(shadowOf(after.get()).peekNextStartedActivity())
        before.start().resume()
        idle()
        assertEquals("test.SHEET", shadowOf(after.get()).nextStartedActivity.action)
        assertNull("once", app.toSend)
    }
}
