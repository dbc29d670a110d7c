package lcsbmobile.app

import android.content.Intent
import android.net.Uri
import android.os.StrictMode
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Robolectric
import java.io.File

/** What costs time is done once, and never on the main thread. */
class CachesTest : AppTest() {
    private val sample by lazy { temporary.newFile("1.jsonl").apply { app.assets.open("sample.jsonl").use { writeBytes(it.readBytes()) } } }

    @Test fun `a bundle is verified by the first process, and again where a file was changed`() {
        val directory = temporary.newFolder("tiny").also { File(bundles, "tiny").copyRecursively(it, overwrite = true) }
        val scratch = temporary.newFolder()
        fun summarize(alone: Boolean = true) = Engine(scratch) { alone }.summarize(directory, sample) { _, _ -> }
        summarize()
        val weights = File(directory, "weights.bin")
        val time = weights.lastModified() / 1000 * 1000
        weights.setLastModified(time)
        summarize() // with that time
        weights.writeBytes(weights.readBytes().also { it[0]++ })
        weights.setLastModified(time) // as nothing that is no attack does
        summarize()
        assertEquals(Fault.BUNDLE_DAMAGED, assertThrows(LcsbException::class.java) { summarize(alone = false) }.fault)
        weights.setLastModified(time + 2000)
        assertEquals(Fault.BUNDLE_DAMAGED, assertThrows(LcsbException::class.java) { summarize() }.fault)
    }

    @Test fun `data is tokenised once, and again under another model or where it was changed`() {
        val (engine, report) = Engine(temporary.newFolder()) to File(sample.path + ".report")
        fun read(bundle: String): Pair<DataSummary, Boolean> {
            report.setLastModified(0) // if it is there; what is written is newer
            return engine.summarize(File(bundles, bundle), sample) { _, _ -> } to (report.lastModified() > 0)
        }
        val (first, again) = read("tiny") to read("tiny")
        assertEquals(true to false, first.second to again.second)
        assertEquals(first.first, again.first)
        assertTrue(read("llama").second)
        sample.appendText("{\"text\": \"one more\"}\n")
        assertEquals(first.first.examples + 1, read("tiny").first.examples)
        report.writeText("{")
        assertTrue("damaged", read("tiny").second)
    }

    @Test fun `no file is read or written on the main thread, whatever is pressed`() {
        app.data.importSample()
        waitFor("the sample") { state.data?.summary != null && state.reading == null }
        val before = StrictMode.getThreadPolicy()
        StrictMode.setThreadPolicy(StrictMode.ThreadPolicy.Builder().detectAll().penaltyDeath().build())
        try {
            assertThrows("it tells", RuntimeException::class.java) { RunStore(temporary.root).read("tiny") }
            nextProcess()
            waitFor("the data") { state.data?.summary != null && state.reading == null }
            val activity = open().get()
            Destination.entries.forEach(activity::show)
            app.bundles.choose("tiny")
            app.bundles.addFound("none")
            app.bundles.add(ZipSource(app.contentResolver, Uri.fromFile(temporary.newFile("none.zip"))))
            waitFor("the refusal") { state.problem?.fault == Fault.BUNDLE_UNREADABLE && !app.bundles.adding }
            BootReceiver().onReceive(app, Intent(Intent.ACTION_BOOT_COMPLETED))
            app.training.request(state.bundle!!, state.data) {}
            app.training.worker.join()
            val service = Robolectric.buildService(TrainService::class.java).create().startCommand(0, 1)
            waitFor("a step") { state.run.step >= 1 }
            app.training.leave()
            waitFor("its end") { !app.training.running }
            app.training.cancel()
            waitFor("its end") { state.run.phase == Phase.CANCELLED }
            val made = state.adapters.single()
            app.adapters.use(made)
            app.adapters.rename(made, "mine")
            waitFor("the name and the use") { state.adapters.single().name == "mine" && state.inUse == made.id }
            app.adapters.compare(made, null)
            waitFor("the verdict") { state.comparing?.verdict != null }
            app.adapters.remove(made)
            waitFor("its removal") { state.adapters.isEmpty() }
            Incoming(activity).take(Intent(Intent.ACTION_SEND).putExtra(Intent.EXTRA_TEXT, "ok so"))
            idle()
            app.privateData.delete(PrivateData.Part.entries.toSet())
            waitFor("the deletion") { state.data == null }
            app.bundles.remove("tiny")
            waitFor("the removal") { state.bundles.isEmpty() }
            service.destroy()
        } finally {
            StrictMode.setThreadPolicy(before)
        }
    }
}
