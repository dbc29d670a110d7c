package lcsbmobile.app

import android.net.Uri
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.io.checkFreeSpace
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

    /** Shows what was chosen, and removes what nothing refers to: the files of copies and edits that the process did not survive. */
    fun begin() {
        val chosen = app.settings.data
        if (chosen == null) {
            worker.start { collect() }
        } else {
            reading(name(chosen)) {
                collect()
                val found = if (shelf.file(chosen.file).isFile) info(chosen) else null
                app.store.update { it.copy(data = found) }
                summarizeNow()
            }
        }
    }

    /** Throws [TooLarge] as soon as it is more than [most] bytes, whatever its provider says of it. */
    fun import(uri: Uri, most: Long = Long.MAX_VALUE) = reading(uri.lastPathSegment.orEmpty()) {
        val (name, size) = describe(app.contentResolver, uri)
        if (size > most) throw TooLarge()
        import(name, size, most) { open(uri, name) }
    }

    class TooLarge : Exception("the file is larger than what is taken from other apps")

    private fun open(uri: Uri, name: String): InputStream {
        val unreadable = { error: IOException? -> LcsbException(Fault.DATA_UNREADABLE, "$name: cannot be opened", listOf(name), error) }
        return try {
            asking(uri) { app.contentResolver.openInputStream(uri) } ?: throw unreadable(null)
        } catch (error: IOException) {
            throw unreadable(error)
        }
    }

    fun importSample() {
        val name = app.getString(R.string.sample_name)
        reading(name) { import(name, 0) { app.assets.open("sample.jsonl") } }
    }

    private fun import(name: String, size: Long, most: Long = Long.MAX_VALUE, open: () -> InputStream) {
        app.store.update { it.copy(reading = Progress(Progress.Kind.COPYING, name, 0, size), problem = null) }
        checkFreeSpace(app.filesDir, size)
        val file = open().use { stream ->
            shelf.add(stream) { done ->
                worker.goOn()
                if (done > most) throw TooLarge()
                app.store.update { it.copy(reading = Progress(Progress.Kind.COPYING, name, done, size)) }
            }
        }
        adopt(ChosenData(file, name))
    }

    /** Adds to the person's own messages, or begins them. */
    fun type(message: String) = edit { it + message }

    fun removeTyped(index: Int) = edit { it.filterIndexed { i, _ -> i != index } }

    private fun edit(change: (List<String>) -> List<String>) {
        val name = app.getString(R.string.typed_name)
        reading(name) {
            val messages = change(app.store.state.data?.typed.orEmpty())
            if (messages.isEmpty()) {
                choose(null, null)
            } else {
                adopt(ChosenData(shelf.addTyped(messages), name, typed = true))
            }
        }
    }

    /** Only what can be read under the chosen bundle takes the place of what was there; else the file goes, and that stays. */
    private fun adopt(chosen: ChosenData) {
        val info = try {
            info(chosen).copy(summary = app.store.state.bundle?.let { read(it, chosen.file, chosen.name) })
        } catch (error: Throwable) {
            shelf.file(chosen.file).delete()
            throw error
        }
        choose(chosen, info)
    }

    private fun choose(chosen: ChosenData?, info: DataInfo?) {
        val stored = app.settings.choose(chosen)
        app.store.update { it.copy(reading = null, data = info) }
        if (!stored) throw LcsbException(Fault.STORAGE_FAILED, "the settings: cannot be written")
        collect()
    }

    private fun info(chosen: ChosenData) = DataInfo(chosen.file, name(chosen), if (chosen.typed) shelf.typed(chosen.file) else null)

    private fun name(chosen: ChosenData) = if (chosen.typed) app.getString(R.string.typed_name) else chosen.name

    /** Files that neither the choice nor a run refers to go. */
    private fun collect() = shelf.keepOnly((runs.all().map { it.data } + listOfNotNull(app.settings.data?.file)).toSet())

    /** Counts the data anew, for another model counts it otherwise; after what is under way, for that may be other data. */
    fun summarize() {
        val data = app.store.state.data
        if (data != null || worker.busy) reading(data?.name.orEmpty(), cancelling = false) { summarizeNow() }
    }

    private fun summarizeNow() {
        val data = app.store.state.data
        val bundle = app.store.state.bundle
        val summary = if (data == null || bundle == null) null else read(bundle, data.file, data.name, whileChosen = true)
        app.store.update { it.copy(reading = null, data = data?.copy(summary = summary)) }
    }

    /** [whileChosen]: another choice of the bundle cancels it. */
    private fun read(bundle: BundleInfo, file: String, name: String, whileChosen: Boolean = false) =
        engine.summarize(library.directory(bundle.name), shelf.file(file)) { done, total ->
            worker.goOn()
            if (whileChosen && app.store.state.chosen != bundle.name) throw CancellationException()
            app.store.update { it.copy(reading = Progress(Progress.Kind.READING, name, done, total)) }
        }

    private fun reading(name: String, cancelling: Boolean = true, task: () -> Unit) {
        val begun = Progress(Progress.Kind.READING, name)
        app.store.update { if (cancelling || it.reading == null) it.copy(reading = begun) else it }
        worker.start(cancelling) {
            try {
                app.store.update { it.copy(reading = begun) } // what went before this took it away
                task()
            } catch (error: CancellationException) {
                app.store.update { it.copy(reading = null) }
                throw error
            }
        }
    }

    fun cancel() = worker.cancel()
}
