package lcsbmobile.app

import android.content.ClipData
import android.content.Intent
import lcsbmobile.core.io.storing
import java.io.File
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream

/** What the Share screen can do: packs a file, and then says how to hand it out. */
class Sharing(private val app: App, private val engine: AdapterEngine, private val library: BundleLibrary, private val runs: RunStore) {
    val worker = Worker("sharing") { error ->
        app.store.update { it.copy(packing = false, problem = Problem.of(error)) }
    }

    /** PEFT's directory and, of the last run, its report, as a ZIP file. [send] is called on the worker's thread. */
    fun adapter(record: AdapterRecord, send: (Intent) -> Unit) = pack(send, R.string.adapter_subject) { bundle, directory ->
        val peft = File(directory, "adapter")
        engine.exportPeft(library.directory(bundle.name), app.adapters.store.file(record), peft)
        val run = runs.read(bundle.name)?.takeIf { record.run != null && it.id == record.run }
        run?.report?.toJson()?.let { File(peft, "training_report.json").writeText(it) }
        val file = File(directory, "${bundle.name}-adapter.zip")
        zip(peft, file)
        peft.deleteRecursively()
        file
    }

    fun report(send: (Intent) -> Unit) = pack(send, R.string.report_subject) { bundle, directory ->
        File(directory, "${bundle.name}-report.json").apply { writeText(checkNotNull(report(bundle)) { "no report" }) }
    }

    private fun pack(send: (Intent) -> Unit, subject: Int, make: (BundleInfo, File) -> File) {
        val bundle = app.store.state.bundle ?: return
        worker.start {
            app.store.update { it.copy(packing = true, problem = null) }
            val directory = ShareProvider.directory(app)
            val file = storing(directory) {
                directory.deleteRecursively()
                directory.mkdirs()
                make(bundle, directory)
            }
            app.store.update { it.copy(packing = false) }
            send(intent(file, app.getString(subject, bundle.name)))
        }
    }

    private fun intent(file: File, subject: String): Intent {
        val uri = ShareProvider.uri(file)
        val send = Intent(Intent.ACTION_SEND).setType(ShareProvider.typeOf(file.name))
        send.putExtra(Intent.EXTRA_STREAM, uri).putExtra(Intent.EXTRA_SUBJECT, subject)
        send.clipData = ClipData.newRawUri(subject, uri) // what the permission to read is given for
        send.addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION)
        return Intent.createChooser(send, subject).addFlags(Intent.FLAG_GRANT_READ_URI_PERMISSION)
    }

    private fun report(bundle: BundleInfo): String? = runs.read(bundle.name)?.report?.toJson()

    private fun zip(directory: File, file: File) = ZipOutputStream(file.outputStream().buffered()).use { zip ->
        for (entry in directory.listFiles().orEmpty().sorted()) {
            zip.putNextEntry(ZipEntry("${directory.name}/${entry.name}"))
            entry.inputStream().use { it.copyTo(zip) }
        }
    }
}
