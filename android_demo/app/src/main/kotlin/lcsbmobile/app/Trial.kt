package lcsbmobile.app

import java.util.concurrent.CancellationException

/** What the Try it screen can do. */
class Trial(private val app: App, private val engine: Engine, private val library: BundleLibrary, private val runs: RunStore) {
    val worker = Worker("trial") { error ->
        app.store.update { it.copy(comparison = it.comparison.copy(writing = false), problem = Problem.of(error)) }
    }

    /** Continues [prompt] with the model as it came and, where there is one, with what it has learned, a piece of each in turn. */
    fun write(prompt: String) {
        val bundle = app.store.state.bundle ?: return
        worker.start {
            app.store.update { it.copy(comparison = Comparison(prompt, writing = true), problem = null) }
            try {
                engine.compare(library.directory(bundle.name), runs.state(bundle.name), prompt) { piece, after ->
                    worker.goOn()
                    app.store.update { it.copy(comparison = it.comparison.plus(piece, after)) }
                }
            } catch (error: CancellationException) {
                app.store.update { it.copy(comparison = it.comparison.copy(writing = false)) }
                throw error
            }
            app.store.update { it.copy(comparison = it.comparison.copy(writing = false)) }
        }
    }

    fun stop() = worker.cancel()

    private fun Comparison.plus(piece: String, after: Boolean) =
        if (after) copy(after = this.after + piece) else copy(before = before + piece)
}
