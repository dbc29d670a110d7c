package lcsbmobile.app

import android.net.Uri
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import java.io.File
import java.io.IOException
import java.util.concurrent.CancellationException

/** What can be done with a model's adapters, on the Share screen and elsewhere. */
class Adapters(
    private val app: App,
    private val engine: AdapterEngine,
    private val library: BundleLibrary,
    val store: AdapterStore,
    private val judge: Judge,
) {
    val worker = Worker("adapters") { error ->
        app.store.update { it.copy(importing = false, comparing = null, problem = Problem.of(error)) }
    }

    private val scratch = File(app.cacheDir, "import")

    /** Shows those of the chosen bundle, and removes what the last process did not get to take over. */
    fun begin() = worker.start(cancelling = false) {
        scratch.deleteRecursively()
        store.tidy()
        refresh()
    }

    /** Reads anew what there is; not on the main thread. */
    fun refresh() {
        val bundle = app.store.state.bundle
        val (listed, used) = if (bundle == null) emptyList<AdapterRecord>() to null else store.list(bundle.name) to store.inUse(bundle.name)
        val chat = bundle != null && File(library.directory(bundle.name), "chat.json").isFile
        app.store.update { state ->
            if (state.chosen != bundle?.name) return@update state
            val further = state.further?.takeIf { id -> listed.any { it.id == id } }
            val asked = state.undecided?.takeIf { id -> listed.any { it.id == id } && id != used }
            val tried = state.conversation.adapter?.takeIf { id -> listed.any { it.id == id } }
            val conversation = if (tried == state.conversation.adapter) state.conversation else state.conversation.copy(adapter = tried)
            state.copy(adapters = listed, inUse = used, takesChat = chat, further = further, undecided = asked, conversation = conversation)
        }
    }

    private fun change(action: () -> Unit) = worker.start(cancelling = false) {
        action()
        refresh()
    }

    fun use(record: AdapterRecord) = change { store.use(record) }

    fun rename(record: AdapterRecord, name: String) = change { store.change(record) { it.copy(name = name.trim().take(MOST_NAME)) } }

    fun remove(record: AdapterRecord) {
        app.trial.stop() // it may be what is being tried
        change { store.remove(record) }
    }

    /** The next run begins with [record]'s parameters; null: with the model as it came. */
    fun trainFurther(record: AdapterRecord?) = app.store.update { it.copy(further = record?.id) }

    /** The person was asked about the newest one, and keeps what is in use. */
    fun keepOther() = app.store.update { it.copy(undecided = null) }

    /** Says which of the two does better on the held-out part of the data that is chosen. Not while a run is under way. */
    fun compare(record: AdapterRecord, against: AdapterRecord?) {
        val data = app.store.state.data ?: return
        if (app.store.state.run.active) return
        app.trial.stop()
        worker.start {
            try {
                val verdict = judge.compare(record, against, data.file) { worker.goOn() }
                app.store.update { it.copy(comparing = Match(record, against, verdict = verdict)) }
            } catch (error: CancellationException) {
                app.store.update { it.copy(comparing = null) }
                throw error
            }
        }
    }

    /** Waits for the end of what is being compared: a run needs the memory. */
    fun endComparison() {
        if (app.store.state.comparing == null) return
        worker.cancel()
        worker.join()
        app.store.update { it.copy(comparing = null) }
    }

    fun dismissComparison() = app.store.update { if (it.comparing?.verdict != null) it.copy(comparing = null) else it }

    /** Takes over PEFT's files, as a ZIP file. */
    fun import(uri: Uri) = worker.start {
        val bundle = app.store.state.bundle ?: return@start
        app.store.update { it.copy(importing = true, problem = null) }
        try {
            val (called, _) = describe(app.contentResolver, uri)
            scratch.deleteRecursively()
            unpack(uri, scratch, bundle.adapterSize)
            val name = called.removeSuffix(".zip").removeSuffix("-adapter").ifBlank { bundle.name }.take(MOST_NAME)
            val record = AdapterRecord(0, bundle.name, name, System.currentTimeMillis(), digest = engine.identity(library.directory(bundle.name)))
            store.add(record) { engine.importPeft(library.directory(bundle.name), scratch, it) }
            refresh()
        } catch (error: CancellationException) {
            throw error
        } finally {
            scratch.deleteRecursively()
            app.store.update { it.copy(importing = false) }
        }
    }

    private fun unpack(uri: Uri, scratch: File, adapterSize: Int) {
        val stream = try {
            asking(uri) { app.contentResolver.openInputStream(uri) }
        } catch (error: IOException) {
            throw LcsbException(Fault.DATA_UNREADABLE, "$uri: cannot be opened", cause = error)
        } ?: throw LcsbException(Fault.DATA_UNREADABLE, "$uri: cannot be opened")
        stream.use { unpackAdapter(it, scratch, 4L * adapterSize) { worker.goOn() } }
    }

    fun cancel() = worker.cancel()

    companion object {
        const val MOST_NAME = 60
    }
}
