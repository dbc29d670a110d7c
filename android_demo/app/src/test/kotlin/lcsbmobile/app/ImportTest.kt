package lcsbmobile.app

import android.content.Intent
import android.net.Uri
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Robolectric
import org.robolectric.Shadows.shadowOf
import java.io.File
import java.util.concurrent.CancellationException
import java.util.concurrent.CountDownLatch
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream

/** A bundle is added while the person is elsewhere, over the process's end, and without a second copy of what is there. */
class ImportTest : AppTest() {
    private val llama = File(bundles, "llama")
    private val stored by lazy { File(app.filesDir, "bundles") }

    private class Endless : BundleSource {
        override val name = "endless"
        val begun = CountDownLatch(1)

        override fun copyTo(directory: File, progress: (Long, Long) -> Unit) {
            begun.countDown()
            while (true) progress(1, 2)
        }
    }

    @Test fun `a service in the foreground holds the process while a bundle is added, and cancels`() {
        val source = Endless()
        app.bundles.add(source)
        source.begun.await()
        val asked = shadowOf(app).nextStartedService
        assertEquals(ImportService::class.java.name, asked.component!!.className)
        val service = Robolectric.buildService(ImportService::class.java, asked).create().startCommand(0, 1)
        val notice = shadowOf(service.get()).lastForegroundNotification
        assertEquals("Copying endless…", notice.extras.getString(android.app.Notification.EXTRA_TITLE))
        assertEquals(listOf("Cancel"), notice.actions.map { it.title.toString() })
        idle()
        assertFalse(shadowOf(service.get()).isStoppedBySelf)
        service.get().onStartCommand(Intent(ImportService.CANCEL), 0, 2)
        waitFor("its end") { shadowOf(service.get()).isStoppedBySelf }
        assertTrue(shadowOf(service.get()).isForegroundStopped)
        assertNull(state.transfer)
        assertEquals(listOf("tiny"), state.bundles.map { it.name })
    }

    @Test fun `a service that the system restarted ends where there is nothing to add`() {
        val service = Robolectric.buildService(ImportService::class.java).create().get()
        service.onStartCommand(null, 0, 1)
        idle()
        assertTrue(shadowOf(service).isStoppedBySelf)
    }

    @Test fun `what was copied and is whole is not copied again`() {
        val directory = temporary.newFolder("library")
        val left = File(directory, ".incoming")
        llama.copyRecursively(left)
        val whole = File(left, "weights.bin").apply { setLastModified(1_000_000) }
        val (cut, changed) = File(left, "tokenizer.json") to File(left, "golden.json").takeIf { it.exists() }
        cut.writeText(cut.readText().take(10))
        changed?.run { writeBytes(readBytes().also { it[it.size / 2]++ }) }
        var most = 0L to 0L
        val info = BundleLibrary(directory, Engine(temporary.newFolder())).add(DirectorySource(llama), again = true) {
            if (it.kind == Progress.Kind.COPYING) most = it.done to it.total
        }
        assertEquals("what is there counts as done", most.second, most.first)
        val added = File(directory, info.name)
        assertEquals("not written again", 1_000_000, File(added, whole.name).lastModified())
        assertEquals(File(llama, cut.name).readText(), File(added, cut.name).readText())
    }

    private fun zipped(): File = temporary.newFile("llama.zip").also { file ->
        ZipOutputStream(file.outputStream()).use { zip ->
            for (each in llama.walk().filter { it.isFile }) {
                zip.putNextEntry(ZipEntry("llama/" + each.relativeTo(llama).path))
                each.inputStream().use { it.copyTo(zip) }
            }
        }
    }

    @Test fun `the next process goes on with what the last one did not get to add`() {
        app.settings.adding = "${Uri.fromFile(zipped())}"
        val left = File(stored, ".incoming/llama").apply { mkdirs() }
        File(llama, "manifest.json").copyTo(File(left, "manifest.json"))
        val whole = File(llama, "weights.bin").copyTo(File(left, "weights.bin")).apply { setLastModified(1_000_000) }
        app.onCreate()
        waitFor("llama") { state.chosen == "llama" && state.transfer == null && !app.bundles.adding }
        assertEquals(1_000_000, File(stored, "llama/${whole.name}").lastModified())
        assertNull("it is done", app.settings.adding)
        assertEquals(setOf("llama", "llama.json", "tiny", "tiny.json"), stored.list()!!.toSet())
    }

    @Test fun `cancelling reaches the step that is measured`() {
        val directory = temporary.newFolder("library")
        var measured = 0
        assertThrows(CancellationException::class.java) {
            BundleLibrary(directory, Engine(temporary.newFolder())).add(DirectorySource(llama)) {
                if (it.kind == Progress.Kind.TESTING && ++measured == 3) throw CancellationException()
            }
        }
        assertEquals(emptyList<String>(), directory.list()!!.toList())
    }

    @Test fun `a bundle that adb wrote is used where it lies, and stays there`() {
        val place = File(app.getExternalFilesDir("bundles"), "pushed")
        llama.copyRecursively(place)
        nextProcess()
        assertEquals(listOf("pushed"), state.found)
        app.bundles.addFound("pushed")
        waitFor("it") { state.chosen == "pushed" && state.transfer == null && !app.bundles.adding }
        assertEquals(emptyList<String>(), state.found)
        assertFalse("no second copy", File(stored, "pushed").exists())
        app.data.importSample()
        waitFor("the sample") { state.data?.summary != null && state.reading == null }
        nextProcess()
        waitFor("it again") { state.bundles.map { it.name } == listOf("pushed", "tiny") }
        val manifest = File(place, "manifest.json")
        manifest.writeText(manifest.readText() + " ")
        nextProcess()
        assertEquals("another bundle by now", listOf("tiny"), state.bundles.map { it.name })
        assertEquals(listOf("pushed"), state.found)
        llama.copyRecursively(place, overwrite = true)
        nextProcess()
        app.bundles.remove("pushed")
        waitFor("its removal") { state.bundles.map { it.name } == listOf("tiny") && state.found == listOf("pushed") }
        assertTrue(File(place, "weights.bin").isFile)
    }
}
