package lcsbmobile.app

import android.net.Uri
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.checkFreeSpace
import java.io.IOException
import java.io.InputStream
import java.util.concurrent.CancellationException

/** What the Data screen can do. */
class Data(
    private val app: App,
    private val engine: Engine,
    private val library: BundleLibrary,
    private val shelf: DataShelf,
    private val runs: RunStore,
) {
    val worker = Worker("data") { error ->
        app.store.update { it.copy(reading = null, problem = Problem.of(error)) }
    }

    fun begin() {
        val (file, name) = app.settings.data ?: return
        if (!shelf.file(file).isFile) return
        app.store.update { it.copy(data = info(file, name)) }
        summarize()
    }

    /** [size]: bytes, 0 unknown. */
    fun import(uri: Uri, name: String, size: Long) = import(name, size) {
        try {
            app.contentResolver.openInputStream(uri)
        } catch (error: IOException) {
            null
        } ?: throw LcsbException(Fault.DATA_UNREADABLE, "$name: cannot be opened", listOf(name))
    }

    fun importSample() = import(app.getString(R.string.sample_name), 0) { app.assets.open("sample.jsonl") }

    private fun import(name: String, size: Long, open: () -> InputStream) = reading(name) {
        app.store.update { it.copy(reading = Progress(Progress.Kind.COPYING, name, 0, size), problem = null) }
        checkFreeSpace(app.filesDir, size)
        val file = open().use { stream ->
            shelf.add(stream) { done ->
                worker.goOn()
                app.store.update { it.copy(reading = Progress(Progress.Kind.COPYING, name, done, size)) }
            }
        }
        try {
            adopt(file, name)
        } catch (error: LcsbException) {
            shelf.file(file).delete() // what was chosen before stays
            throw error
        }
    }

    /** Adds to the person's own messages, or begins them. */
    fun type(message: String) = edit { it + message }

    fun removeTyped(index: Int) = edit { it.filterIndexed { i, _ -> i != index } }

    private fun edit(change: (List<String>) -> List<String>) {
        val messages = change(app.store.state.data?.typed.orEmpty())
        reading(app.getString(R.string.typed_name)) {
            if (messages.isEmpty()) {
                app.settings.data = null
                app.store.update { it.copy(data = null, reading = null) }
                collect()
            } else {
                adopt(shelf.addTyped(messages), app.getString(R.string.typed_name))
            }
        }
    }

    /** Only what can be read under the chosen bundle takes the place of what was there. */
    private fun adopt(file: String, name: String) {
        val bundle = app.store.state.bundle
        val summary = bundle?.let { read(it, file, name) }
        app.settings.data = file to name
        app.store.update { it.copy(reading = null, data = info(file, name).copy(summary = summary)) }
        collect()
    }

    private fun info(file: String, name: String) =
        DataInfo(file, name, shelf.typed(file).takeIf { name == app.getString(R.string.typed_name) })

    /** Files that neither the choice nor a run refers to go. */
    private fun collect() = shelf.keepOnly((runs.all().map { it.data } + listOfNotNull(app.settings.data?.first)).toSet())

    /** Counts the data anew, for another model counts it otherwise. */
    fun summarize() {
        val data = app.store.state.data ?: return
        val bundle = app.store.state.bundle ?: return
        reading(data.name) {
            val summary = read(bundle, data.file, data.name)
            app.store.update { it.copy(reading = null, data = data.copy(summary = summary)) }
        }
    }

    private fun read(bundle: BundleInfo, file: String, name: String) =
        engine.summarize(library.directory(bundle.name), shelf.file(file)) { done, total ->
            worker.goOn()
            app.store.update { it.copy(reading = Progress(Progress.Kind.READING, name, done, total)) }
        }

    private fun reading(name: String, task: () -> Unit) {
        val begun = Progress(Progress.Kind.READING, name)
        app.store.update { it.copy(reading = begun) }
        worker.start {
            try {
                app.store.update { it.copy(reading = begun) } // what was cancelled for this took it away
                task()
            } catch (error: CancellationException) {
                app.store.update { it.copy(reading = null) }
                throw error
            }
        }
    }

    fun cancel() = worker.cancel()
}
