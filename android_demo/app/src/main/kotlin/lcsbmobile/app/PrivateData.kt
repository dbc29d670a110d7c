package lcsbmobile.app

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import java.io.File

/** What the app keeps of the person's: their data, and all that was learned from it. Models, which came from elsewhere, are none of it. */
class PrivateData(private val app: App, private val runs: RunStore, private val directories: Directories) {
    /**
     * DATA: what is or was trained on, and said on Try it. LEARNED: adapters, and what runs saved and came to; the one without the other would leave the
     * same parameters. SHARED: what was packed to be handed out; what another app took stays with it. [label]: what it is called.
     */
    enum class Part(val label: Int) {
        DATA(R.string.part_data),
        LEARNED(R.string.part_learned),
        SHARED(R.string.part_shared),
    }

    /** [scratch]: of what need not last, and in it [shared], and [models], what is known of models. */
    class Directories(val data: File, val adapters: File, val runs: File, val scratch: File, val shared: File, val models: File)

    val worker = Worker("private data") { error -> app.store.update { it.copy(problem = Problem.of(error)) } }

    /** Finds out how much there is. */
    fun measure() = worker.start(cancelling = false) { measureNow() }

    private fun measureNow() {
        onDisk("private data")
        fun bytes(file: File) = file.walk().filter { it.isFile }.sumOf { it.length() }
        val kept = Part.entries.associateWith { part -> files(part).sumOf(::bytes) }
        app.store.update { it.copy(kept = kept) }
    }

    private fun files(part: Part): List<File> = when (part) {
        Part.DATA -> listOf(directories.data) + directories.scratch.listFiles().orEmpty().filter { it !in listOf(directories.shared, directories.models) }
        Part.LEARNED -> listOf(directories.adapters, directories.runs)
        Part.SHARED -> listOf(directories.shared)
    }

    /** While a run is active nothing is deleted and the person is told: the run would write again what goes. */
    fun refused(): Boolean {
        val active = app.training.running || app.store.state.run.active
        if (active) app.store.update { it.copy(problem = Problem.RUN_ACTIVE) }
        return active
    }

    /** Deletes [parts], unless that is [refused]. A run that waits to go on ends with its data. What reads, writes, compares or packs ends first. */
    fun delete(parts: Set<Part>) {
        if (refused()) return
        worker.start(cancelling = false) {
            for (other in listOf(app.trial.worker, app.data.worker, app.sharing.worker, app.adapters.worker, app.training.worker)) {
                other.cancel()
                other.join()
            }
            if (refused()) return@start
            if (Part.DATA in parts && !app.settings.choose(null)) throw LcsbException(Fault.STORAGE_FAILED, "the settings: cannot be written")
            parts.flatMap(::files).forEach(::remove)
            if (Part.DATA in parts) endRuns()
            show(parts)
            measureNow()
        }
    }

    private fun remove(file: File) {
        if (!file.deleteRecursively()) throw LcsbException(Fault.STORAGE_FAILED, "$file: cannot be deleted", listOf(file.name))
    }

    /** None can go on without its data. */
    private fun endRuns() {
        val waiting = runs.all().filter { it.wanted in SavedRuns.RESUMABLE }
        waiting.forEach { runs.write(it.copy(wanted = Wanted.CANCELLED, waitsFor = null, fault = null, detail = null)) }
    }

    private fun show(parts: Set<Part>) {
        app.store.update { if (Part.DATA in parts) it.copy(data = null, offer = null) else it }
        if (parts == setOf(Part.SHARED)) return
        app.store.update { it.choosing(it.chosen).copy(reading = null) }
        app.adapters.refresh()
        app.training.begin()
    }
}
