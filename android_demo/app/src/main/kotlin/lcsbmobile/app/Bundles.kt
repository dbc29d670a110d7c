package lcsbmobile.app

import java.util.concurrent.CancellationException
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

    /** Lists what is there; the first time copies the tiny bundle out of the APK, as the runtime maps files and not assets. */
    fun begin() {
        val listed = library.list()
        val chosen = app.settings.chosen.takeIf { name -> listed.any { it.name == name } } ?: listed.firstOrNull()?.name
        app.store.update { it.copy(bundles = listed, found = pushed().map { source -> source.name }, chosen = chosen) }
        worker.start { library.tidy() }
        if (listed.isEmpty() && !app.settings.hadBundle) add(AssetSource(app.assets, "tiny"), cancelling = false)
        app.data.begin()
        app.adapters.begin()
        app.training.begin()
    }

    /** Bundles that were put into the app's directory on shared storage, by `lcsb android push` for one. */
    private fun pushed(): List<DirectorySource> {
        val known = library.list().map { it.name }
        val directories = app.getExternalFilesDir("bundles")?.listFiles().orEmpty().filter { it.isDirectory && it.name !in known }
        return directories.sorted().map(::DirectorySource)
    }

    fun addFound(name: String) = pushed().find { it.name == name }?.let(::add)

    fun add(source: BundleSource, cancelling: Boolean = true) = worker.start(cancelling) {
        try {
            app.store.update { it.copy(transfer = Progress(Progress.Kind.COPYING, source.name), problem = null) }
            val added = library.add(source) { progress ->
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
        }
    }

    fun cancel() = worker.cancel()

    /** Not while a run is under way: what it shows would belong to another model. */
    fun choose(name: String) {
        if (app.store.state.run.active || app.store.state.bundles.none { it.name == name }) return
        app.trial.stop() // of the model that was chosen
        app.settings.chosen = name
        app.store.update {
            it.copy(
                chosen = name, run = RunState(), report = null, comparison = Comparison(), conversation = Conversation(), adapters = emptyList(),
                inUse = null, undecided = null, further = null, comparing = null,
            )
        }
        app.adapters.begin()
        app.training.begin()
        app.data.summarize()
    }

    fun remove(name: String) {
        if (app.store.state.run.active && app.store.state.chosen == name) return
        thread(name = "remove") {
            library.remove(name)
            engine.forget(library.directory(name))
            runs.remove(name)
            app.adapters.store.removeAll(name)
            val left = library.list()
            app.store.update { it.copy(bundles = left, chosen = it.chosen.takeIf { chosen -> chosen != name } ?: left.firstOrNull()?.name) }
            app.store.state.chosen?.let(::choose) ?: app.store.update { it.copy(run = RunState(), report = null, adapters = emptyList(), inUse = null) }
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
}
