package lcsbmobile.app

import android.content.Intent
import android.net.Uri
import android.provider.DocumentsContract
import java.util.concurrent.CancellationException
import java.util.concurrent.CountDownLatch
import java.util.concurrent.atomic.AtomicInteger
import kotlin.concurrent.thread

/** What the Model screen can do. */
class Bundles(
    private val app: App,
    private val engine: Engine,
    private val library: BundleLibrary,
    private val runs: RunStore,
    private val phone: Phone,
) {
    val worker = Worker("bundles") { error ->
        app.store.update { it.copy(transfer = null, problem = Problem.of(error)) }
    }

    private val listed = CountDownLatch(1)
    private val transfers = AtomicInteger() // that the person asked for and that have not ended

    /** Whether the process is to be kept for what is added. */
    val adding: Boolean get() = transfers.get() > 0

    /** Waits until [begin] has listed what is there. */
    fun awaitListed() = listed.await()

    /**
     * Lists what is there; the first time copies the tiny bundle out of the APK, as the runtime maps files and not assets. Goes on with what the
     * last process did not get to add.
     */
    fun begin() = worker.start {
        try {
            list()
        } finally {
            listed.countDown()
        }
        app.data.begin()
        app.adapters.begin()
        app.training.begin()
        val left = app.settings.adding?.let(::source)
        library.tidy(exceptIncoming = left != null)
        if (left != null) {
            add(left, cancelling = false, again = true)
        } else if (app.store.state.bundles.isEmpty() && !app.settings.hadBundle) {
            copy(AssetSource(app.assets, DEMO), cancelling = false, again = false) {}
        }
    }

    private fun list() {
        val listed = library.list()
        val chosen = app.settings.chosen.takeIf { name -> listed.any { it.name == name } } ?: listed.firstOrNull()?.name
        app.store.update { it.copy(bundles = listed, found = pushed().map { source -> source.name }, chosen = chosen) }
    }

    /** Bundles that were put into the app's directory on shared storage, by `lcsb android push` for one: they are used where they lie. */
    private fun pushed(): List<PlacedSource> {
        val known = library.list()
        val directories = app.getExternalFilesDir("bundles")?.listFiles().orEmpty().filter { directory ->
            directory.isDirectory && known.none { it.name == directory.name || it.place == directory.path }
        }
        return directories.sorted().map(::PlacedSource)
    }

    /** The bundle that rides in the APK. */
    fun addDemo(cancelling: Boolean = true) = add(AssetSource(app.assets, DEMO), cancelling)

    fun addFound(name: String) = worker.start { pushed().find { it.name == name }?.let { add(it, cancelling = false) } }

    /** Asks for it in a service, without which the system stops the process soon after the person has left the app. */
    fun add(source: BundleSource, cancelling: Boolean = true, again: Boolean = false) {
        transfers.incrementAndGet()
        ImportService.start(app)
        copy(source, cancelling, again) {
            transfers.decrementAndGet()
            app.store.update { it } // whoever looks at [adding] hears of it
        }
    }

    /** What the person chose can be read by the next process too, until [letGo]. */
    private fun hold(origin: Uri) {
        app.settings.adding = "$origin"
        try {
            app.contentResolver.takePersistableUriPermission(origin, Intent.FLAG_GRANT_READ_URI_PERMISSION)
        } catch (error: SecurityException) {
            return // its provider gives none that lasts
        }
    }

    private fun letGo(origin: Uri) {
        if (app.settings.adding == "$origin") app.settings.adding = null
        try {
            app.contentResolver.releasePersistableUriPermission(origin, Intent.FLAG_GRANT_READ_URI_PERMISSION)
        } catch (error: SecurityException) {
            return // there was none
        }
    }

    private fun source(origin: String): BundleSource = Uri.parse(origin).let { uri ->
        if (DocumentsContract.isTreeUri(uri)) TreeSource(app.contentResolver, uri) else ZipSource(app.contentResolver, uri)
    }

    /** [again]: what an earlier process had copied of it is there. */
    private fun copy(source: BundleSource, cancelling: Boolean, again: Boolean, ended: () -> Unit) = worker.start(cancelling) {
        try {
            source.origin?.let(::hold)
            app.store.update { it.copy(transfer = Progress(Progress.Kind.COPYING, source.name), problem = null) }
            val added = library.add(source, again) { progress ->
                worker.goOn()
                app.store.update { it.copy(transfer = progress) }
            }
            app.settings.hadBundle = true
            val (listed, found) = library.list() to pushed().map { it.name }
            app.store.update { it.copy(bundles = listed, found = found, transfer = null) }
            choose(added.name)
        } catch (error: CancellationException) {
            app.store.update { it.copy(transfer = null) }
            throw error
        } finally {
            source.origin?.let(::letGo)
            ended()
        }
    }

    fun cancel() = worker.cancel()

    /** Not while a run is under way: what it shows would belong to another model. */
    fun choose(name: String) {
        if (app.store.state.run.active || app.store.state.bundles.none { it.name == name }) return
        app.trial.stop() // of the model that was chosen
        app.settings.chosen = name
        app.store.update { it.choosing(name) }
        app.adapters.begin()
        app.training.begin()
        app.data.summarize()
    }

    fun remove(name: String) {
        if (app.store.state.run.active && app.store.state.chosen == name) return
        thread(name = "remove") {
            engine.forget(library.directory(name))
            library.remove(name)
            runs.remove(name)
            app.adapters.store.removeAll(name)
            val (left, found) = library.list() to pushed().map { it.name }
            app.store.update { it.copy(bundles = left, found = found) }
            if (app.store.state.chosen != name) return@thread
            left.firstOrNull()?.let { choose(it.name) } ?: app.store.update { it.choosing(null) }
        }
    }

    /** What was measured or found out of a bundle, if it is still there. */
    fun update(info: BundleInfo) {
        if (app.store.state.bundles.none { it.name == info.name }) return
        library.save(info)
        app.store.update { state -> state.copy(bundles = state.bundles.map { if (it.name == info.name) info else it }) }
    }

    /** Bytes that a run may take if the person does not say. */
    fun freeMemory() = phone.freeMemory()

    companion object {
        const val DEMO = "tiny"
    }
}
