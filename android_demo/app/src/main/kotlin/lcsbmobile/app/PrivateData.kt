package lcsbmobile.app

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import java.io.File

/** What the app keeps of the person's: their data, and all that was learned from it. Models, which came from elsewhere, are none of it. */
class PrivateData(private val app: App, private val runs: RunStore, private val directories: Directories) {
    /**
     * DATA: what is or was trained on. CHECKPOINTS: what runs have learned, and can go on from or be shared by. RUNS: those, and what runs were asked
     * for and came to. SHARED: what was packed to be handed out; what another app took stays with it.
     */
    enum class Part { DATA, CHECKPOINTS, RUNS, SHARED }

    /** [scratch]: of what need not last, [shared] in it. */
    class Directories(val data: File, val runs: File, val scratch: File, val shared: File)

    private val worker = Worker("private data") { error -> app.store.update { it.copy(problem = Problem.of(error)) } }

    /** Bytes that deleting a part would free. Reads directories: not on the main thread. */
    fun sizes(): Map<Part, Long> {
        onDisk("private data")
        fun bytes(file: File) = file.walk().filter { it.isFile }.sumOf { it.length() }
        return Part.entries.associateWith { part -> files(part).sumOf(::bytes) }
    }

    private fun files(part: Part): List<File> = when (part) {
        Part.DATA -> listOf(directories.data) + directories.scratch.listFiles().orEmpty().filter { it != directories.shared }
        Part.CHECKPOINTS -> directories.runs.listFiles().orEmpty().map { runs.state(it.name) }
        Part.RUNS -> listOf(directories.runs)
        Part.SHARED -> listOf(directories.shared)
    }

    /**
     * Deletes [parts], and calls [deleted] when that is done, on another thread. While a run is active nothing is deleted and the person is told:
     * the run would write again what goes. A run that waits to go on ends with its data or its checkpoints. What reads, writes or packs ends first.
     */
    fun delete(parts: Set<Part>, deleted: () -> Unit = {}) {
        if (refusedByRun()) return
        worker.start {
            for (other in listOf(app.trial.worker, app.data.worker, app.sharing.worker, app.training.worker)) {
                other.cancel()
                other.join()
            }
            if (refusedByRun()) return@start
            if (Part.DATA in parts && !app.settings.choose(null)) throw LcsbException(Fault.STORAGE_FAILED, "the settings: cannot be written")
            parts.flatMap(::files).forEach(::remove)
            if (parts.any { it != Part.SHARED }) endRuns()
            show(parts)
            deleted()
        }
    }

    private fun remove(file: File) {
        if (!file.deleteRecursively()) throw LcsbException(Fault.STORAGE_FAILED, "$file: cannot be deleted", listOf(file.name))
    }

    private fun refusedByRun(): Boolean {
        val active = app.training.running || app.store.state.run.active
        if (active) app.store.update { it.copy(problem = Problem.RUN_ACTIVE) }
        return active
    }

    /** None can go on without what was deleted. */
    private fun endRuns() {
        val waiting = runs.all().filter { it.wanted in SavedRuns.RESUMABLE }
        waiting.forEach { runs.write(it.copy(wanted = Wanted.CANCELLED, waitsFor = null, fault = null, detail = null)) }
    }

    private fun show(parts: Set<Part>) {
        app.store.update {
            it.copy(
                data = it.data.takeIf { Part.DATA !in parts },
                reading = null,
                run = RunState(steps = app.settings.steps),
                report = null,
                comparison = Comparison(),
            )
        }
        app.training.begin()
    }
}
