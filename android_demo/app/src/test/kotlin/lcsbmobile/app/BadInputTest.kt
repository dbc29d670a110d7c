package lcsbmobile.app

import android.content.pm.PackageManager
import android.net.Uri
import android.view.View
import android.widget.TextView
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonObject
import lcsbmobile.core.Fault
import lcsbmobile.core.checkpoint.checkpointFiles
import lcsbmobile.core.io.checkFreeSpace
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Robolectric
import org.robolectric.Shadows.shadowOf
import java.io.File
import java.io.InputStream

/**
 * What goes wrong is said in a sentence that a person understands, with what to do, in both languages; and what was there is still there.
 */
class BadInputTest : AppTest() {
    private fun MainActivity.text(id: Int) = view<TextView>(id).text.toString()

    /** The sentence on the screen is [english], in German [german]; then it is closed. */
    private fun assertSaid(english: String, german: String, fault: Fault? = null) {
        waitFor(english) { state.problem != null && state.transfer == null && state.reading == null && !state.run.active }
        val problem = state.problem!!
        assertEquals(english, problem.what(english()))
        assertEquals(german, problem.what(german()))
        assertEquals(fault, problem.fault)
        val activity = open().get()
        assertTrue(activity.view<View>(R.id.problem).isShown)
        assertEquals(english, activity.text(R.id.problem_what))
        assertTrue(activity.text(R.id.problem_todo).length > 10)
        activity.view<View>(R.id.problem_dismiss).performClick()
        idle()
        assertFalse(activity.view<View>(R.id.problem).isShown)
        assertNull(state.problem)
    }

    /** The tiny bundle with its manifest or another file changed. */
    private fun changed(change: (File) -> Unit): BundleSource {
        val directory = temporary.newFolder()
        File(bundles, "tiny").copyRecursively(directory)
        change(directory)
        return DirectorySource(directory)
    }

    /** As of before a manifest had a digest of its own. */
    private fun manifest(directory: File, from: Regex, to: String) =
        File(directory, "manifest.json").run { writeText(readText().replace(from, to).replace(Regex(""",\s*"digest": *"[0-9a-f]*""""), "")) }

    /** As an export of target executorch is described. */
    private fun forExecuTorch(directory: File) {
        val path = File(directory, "manifest.json")
        val manifest = Json.parseToJsonElement(path.readText()).jsonObject
        val (graphs, files) = listOf("graphs", "files").map { manifest.getValue(it).jsonObject }
        val pte = "programs.pte"
        File(directory, "embed.onnx").renameTo(File(directory, pte))
        val methods = (graphs - "gemm" - "gemm_backward").mapValues { JsonObject(it.value.jsonObject + ("file" to JsonPrimitive(pte))) }
        val kept = files.filterKeys { !it.endsWith(".onnx") } + (pte to files.getValue("embed.onnx"))
        val changes = mapOf("target" to JsonPrimitive("executorch"), "graphs" to JsonObject(methods), "files" to JsonObject(kept))
        path.writeText(JsonObject(manifest - "digest" + changes).toString())
    }

    private fun assertStillOnlyTiny() {
        assertEquals(listOf("tiny"), state.bundles.map { it.name })
        assertEquals(setOf("tiny", "tiny.json"), File(app.filesDir, "bundles").list()!!.toSet())
    }

    @Test fun `a bundle of another target`() {
        app.bundles.add(changed { manifest(it, Regex("\"target\": ?\"onnxruntime\""), "\"target\": \"coreml\"") })
        assertSaid(
            "This model was not exported for this app.",
            "Dieses Modell wurde nicht für diese App exportiert.",
            Fault.BUNDLE_OTHER_TARGET,
        )
        app.bundles.add(changed(::forExecuTorch))
        assertSaid(
            "This model needs ExecuTorch, which this app does not include.",
            "Dieses Modell braucht ExecuTorch, das in dieser App nicht enthalten ist.",
            Fault.RUNTIME_NOT_INCLUDED,
        )
        assertStillOnlyTiny()
    }

    @Test fun `a bundle of a newer version`() {
        app.bundles.add(changed { manifest(it, Regex("\"format_version\": ?3"), "\"format_version\": 4") })
        assertSaid(
            "This model needs a newer version of the app.",
            "Dieses Modell braucht eine neuere Version der App.",
            Fault.BUNDLE_NEWER_VERSION,
        )
        assertStillOnlyTiny()
    }

    @Test fun `a bundle of an older version`() {
        app.bundles.add(changed { manifest(it, Regex("\"format_version\": ?3"), "\"format_version\": 2") })
        assertSaid(
            "This model was exported with a version of “lcsb export” that is too old for this app.",
            "Dieses Modell wurde mit einer Version von „lcsb export“ erzeugt, die für diese App zu alt ist.",
            Fault.BUNDLE_OLDER_VERSION,
        )
        assertStillOnlyTiny()
    }

    @Test fun `a changed byte`() {
        app.bundles.add(
            changed { directory ->
                java.io.RandomAccessFile(File(directory, "weights.bin"), "rw").use {
                    it.seek(100_000)
                    val byte = it.read()
                    it.seek(100_000)
                    it.write(byte xor 1)
                }
            },
        )
        assertSaid("A file of the model is damaged.", "Eine Datei des Modells ist beschädigt.", Fault.BUNDLE_DAMAGED)
        assertStillOnlyTiny()
    }

    @Test fun `a folder that is no bundle`() {
        app.bundles.add(DirectorySource(temporary.newFolder()))
        assertSaid("The model could not be read.", "Das Modell konnte nicht gelesen werden.", Fault.BUNDLE_UNREADABLE)
        assertStillOnlyTiny()
    }

    @Test fun `a tokenizer of a kind that the app lacks`() {
        app.bundles.add(
            changed { directory ->
                val tokenizer = File(directory, "tokenizer.json")
                tokenizer.writeText(tokenizer.readText().replaceFirst(Regex("\"type\": ?\"BPE\""), "\"type\":\"WordPiece\""))
                restate(directory, "tokenizer.json")
            },
        )
        assertSaid(
            "This model splits text in a way the app does not support.",
            "Dieses Modell zerlegt Text auf eine Weise, die die App nicht unterstützt.",
            Fault.TOKENIZER_UNSUPPORTED,
        )
        assertStillOnlyTiny()
    }

    /** Whoever changes a file can state its new digest. */
    private fun restate(directory: File, name: String) {
        val bytes = File(directory, name).readBytes()
        val digest = java.security.MessageDigest.getInstance("SHA-256").digest(bytes).joinToString("") { "%02x".format(it) }
        val manifest = Json.parseToJsonElement(File(directory, "manifest.json").readText()).jsonObject
        val entry = JsonObject(mapOf("size" to JsonPrimitive(bytes.size), "sha256" to JsonPrimitive(digest)))
        val files = JsonObject(manifest.getValue("files").jsonObject + (name to entry))
        File(directory, "manifest.json").writeText(JsonObject(manifest - "digest" + ("files" to files)).toString())
    }

    @Test fun `too little storage for a bundle`() {
        app.bundles.add(
            object : BundleSource {
                override val name = "large"

                override fun copyTo(directory: File, progress: (Long, Long) -> Unit) = checkFreeSpace(directory, Long.MAX_VALUE / 2)
            },
        )
        waitFor("the problem") { state.problem != null }
        assertTrue(state.problem!!.what(german()).startsWith("Dafür werden 4611686018,4 GB Speicherplatz gebraucht, aber nur "))
        assertEquals(Fault.STORAGE_FULL, state.problem!!.fault)
        assertStillOnlyTiny()
    }

    @Test fun `a copy that is cancelled leaves nothing`() {
        val begun = java.util.concurrent.CountDownLatch(1)
        app.bundles.add(
            object : BundleSource {
                override val name = "endless"

                override fun copyTo(directory: File, progress: (Long, Long) -> Unit) {
                    File(directory, "part").writeText("x")
                    begun.countDown()
                    while (true) progress(1, 2)
                }
            },
        )
        begun.await()
        val activity = open().get()
        waitFor("the card") { activity.view<View>(R.id.transfer).isShown }
        assertEquals("Copying endless…", activity.text(R.id.transfer_title))
        activity.view<View>(R.id.transfer_cancel).performClick()
        waitFor("the end") { state.transfer == null && !app.bundles.worker.busy }
        assertNull(state.problem)
        assertStillOnlyTiny()
    }

    private fun import(bytes: ByteArray) {
        val file = temporary.newFile().apply { writeBytes(bytes) }
        app.data.import(Uri.fromFile(file))
    }

    @Test fun `a text in a wrong encoding, and what was there before stays`() {
        app.data.importSample()
        waitFor("the sample") { state.data?.summary != null && state.reading == null }
        import("Grüße".toByteArray(Charsets.ISO_8859_1))
        assertSaid("The file is not UTF-8 text.", "Die Datei ist kein UTF-8-Text.", Fault.DATA_ENCODING)
        import("{\"text\": \"Grüße\"}\n".toByteArray(Charsets.ISO_8859_1))
        assertSaid("The file is not UTF-8 text.", "Die Datei ist kein UTF-8-Text.", Fault.DATA_ENCODING)
        assertEquals("Sample messages", state.data!!.name)
        assertEquals(1, File(app.filesDir, "data").list()!!.count { it.endsWith(".jsonl") })
    }

    @Test fun `an empty file, and one with nothing to learn from`() {
        for (text in listOf("", "\n \n", "{\"prompt\": \"so long that nothing of the completion is left over\", \"completion\": \"x\"}")) {
            import(text.toByteArray())
            assertSaid(
                "There is nothing to learn from in this data.",
                "Diese Daten enthalten nichts, was sich lernen lässt.",
                Fault.DATA_EMPTY,
            )
        }
        assertNull(state.data)
    }

    @Test fun `a malformed line is named by its number`() {
        import("{\"text\": \"a\"}\n{\"txt\": \"b\"}\n".toByteArray())
        assertSaid(
            "Line 2 of the file is not a usable example.",
            "Zeile 2 der Datei ist kein brauchbares Beispiel.",
            Fault.DATA_LINE,
        )
    }

    @Test fun `a document that cannot be read`() {
        app.data.import(Uri.fromFile(File("/nowhere/gone.txt")))
        assertSaid("The file could not be read.", "Die Datei konnte nicht gelesen werden.", Fault.DATA_UNREADABLE)
    }

    @Test fun `a document that the app may no longer read`() {
        shadowOf(app.contentResolver).registerInputStreamSupplier(Uri.parse("content://revoked/1")) { throw SecurityException("revoked") }
        app.data.import(Uri.parse("content://revoked/1"))
        assertSaid("The app is no longer allowed to read this file or folder.", "Die App darf diese Datei oder diesen Ordner nicht mehr lesen.")
    }

    /** [lines] times the same line, made as it is read. */
    private class LargeFile(private val lines: Long) : InputStream() {
        private val line = "{\"text\": \"${"ab ".repeat(5_000)}\"}\n".toByteArray()
        private var at = 0L

        override fun read(): Int = error("read in blocks")

        override fun read(bytes: ByteArray, offset: Int, length: Int): Int {
            val size = lines * line.size
            if (at >= size) return -1
            val count = minOf(length.toLong(), size - at, line.size - at % line.size).toInt()
            line.copyInto(bytes, offset, (at % line.size).toInt(), (at % line.size).toInt() + count)
            at += count
            return count
        }
    }

    @Test fun `a large file is streamed through little memory`() {
        val shelf = DataShelf(temporary.newFolder())
        System.gc()
        val before = Runtime.getRuntime().run { totalMemory() - freeMemory() }
        var (most, next) = 0L to 0L
        val name = shelf.add(LargeFile(6_000)) { // 90 MB
            if (it >= next) {
                next += 20_000_000
                System.gc()
                most = maxOf(most, Runtime.getRuntime().run { totalMemory() - freeMemory() })
            }
        }
        assertTrue(shelf.file(name).length() > 88_000_000)
        assertTrue("${(most - before) / 1_000_000} MB", most - before < 20_000_000)
    }

    private fun begin(budget: Long? = null): MainActivity {
        app.data.importSample()
        waitFor("the sample") { state.data?.summary != null && state.reading == null }
        app.settings.steps = 8
        app.settings.budget = budget
        app.training.request(state.bundle!!, state.data!!)
        Robolectric.buildService(TrainService::class.java).create().startCommand(0, 1)
        return open().get()
    }

    @Test fun `too little memory is refused with the prediction, and more memory mends it`() {
        begin(budget = 10_000_000)
        waitFor("the refusal") { state.run.phase == Phase.FAILED && !app.training.running }
        val problem = state.problem!!
        assertEquals(Fault.MEMORY_TOO_SMALL, problem.fault)
        val (sentence, satz) = problem.what(english()) to problem.what(german())
        assertTrue(sentence, Regex("Training needs about [0-9,.]+ [MG]B of memory but may use only 10 MB\\.").matches(sentence))
        assertTrue(satz, Regex("Das Training braucht etwa [0-9,.]+ [MG]B Arbeitsspeicher, darf aber nur 10 MB nutzen\\.").matches(satz))
        app.settings.budget = null
        app.training.request(state.bundle!!, null)
        Robolectric.buildService(TrainService::class.java).create().startCommand(0, 2)
        waitFor("the end") { state.run.phase == Phase.FINISHED }
    }

    @Test fun `damaged checkpoints are said, and Stop and Start begin anew`() {
        begin()
        waitFor("the end") { state.run.phase == Phase.FINISHED && !app.training.running }
        val directory = File(app.filesDir, "runs/tiny")
        File(directory, "run.json").run { writeText(readText().replace("FINISHED", "PAUSED")) }
        for (file in checkpointFiles(File(directory, "state"))) file.writeBytes(file.readBytes().also { it[it.size / 2]++ })
        app.onCreate()
        waitFor("the problem") { state.problem != null }
        assertSaid("The saved state of this run is damaged.", "Der gespeicherte Stand dieses Trainings ist beschädigt.", Fault.CHECKPOINT_DAMAGED)
        app.training.cancel()
        waitFor("the end of it") { state.run.phase == Phase.CANCELLED }
        begin()
        waitFor("the end") { state.run.phase == Phase.FINISHED }
    }

    @Test fun `without a file manager`() {
        shadowOf(app).checkActivities(true)
        val window = open().get()
        window.view<View>(R.id.add_folder).performClick()
        assertSaid("This phone has no app for choosing files.", "Auf diesem Gerät gibt es keine App, mit der sich Dateien auswählen lassen.")
    }

    @Test fun `notifications that are refused do not keep it from training`() {
        val activity = open().get()
        activity.train()
        assertEquals(TrainService::class.java.name, shadowOf(app).nextStartedService.component!!.className)
        val asked = shadowOf(activity).lastRequestedPermission
        assertEquals(listOf("android.permission.POST_NOTIFICATIONS"), asked.requestedPermissions.toList())
        activity.onRequestPermissionsResult(asked.requestCode, asked.requestedPermissions, intArrayOf(PackageManager.PERMISSION_DENIED))
        idle()
        assertTrue(activity.view<View>(R.id.problem_action).isShown)
        activity.train()
        assertTrue("asked once", app.settings.askedToNotify && shadowOf(activity).lastRequestedPermission === asked)
        activity.view<View>(R.id.problem_action).performClick()
        assertEquals(android.provider.Settings.ACTION_APP_NOTIFICATION_SETTINGS, shadowOf(activity).nextStartedActivity.action)
        assertSaid(
            "Notifications are off, so progress shows only in the app. Training continues anyway.",
            "Mitteilungen sind ausgeschaltet. Den Fortschritt siehst du deshalb nur in der App; das Training läuft trotzdem weiter.",
        )
    }
}
