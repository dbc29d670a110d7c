package lcsbmobile.app

import lcsbmobile.core.Exchange
import java.util.concurrent.CancellationException

/** What the Try it screen can do. One text is written at a time, and none while a run is under way: two would share the memory. */
class Trial(private val app: App, private val engine: AdapterEngine, private val library: BundleLibrary, private val runs: RunStore) {
    val worker = Worker("trial") { error ->
        ended()
        app.store.update { it.copy(problem = Problem.of(error)) }
    }

    private fun ended() = app.store.update {
        it.copy(comparison = it.comparison.copy(writing = false), conversation = it.conversation.copy(writing = false))
    }

    /** What is being tried, and what it is called; null: there is nothing but the model as it came. */
    private fun learned(state: AppState): Pair<Parameters, String>? {
        val record = state.tried
        return when {
            record != null -> Parameters.OfFile(app.adapters.store.file(record)) to record.name
            state.pausedRun -> Parameters.OfRun(runs.state(state.chosen!!)) to app.getString(R.string.paused_run)
            else -> null
        }
    }

    /** Continues [prompt] with the model as it came and, where there is one, with what it has learned, a piece of each in turn. */
    fun compare(prompt: String) = start {
        val state = app.store.state
        val chat = state.talks
        app.store.update { it.copy(comparison = Comparison(prompt, writing = true)) }
        val adapters = listOfNotNull(Parameters.Initial, learned(state)?.first)
        val asked = Prompt(prompt, chat, system(chat), emptyList(), app.settings.temperature)
        val written = engine.write(library.directory(state.bundle!!.name), asked, adapters) { piece, index ->
            worker.goOn()
            app.store.update { it.copy(comparison = it.comparison.plus(piece, after = index == 1)) }
        }
        app.store.update {
            it.copy(comparison = it.comparison.copy(beforeCut = !written[0].whole, afterCut = written.getOrNull(1)?.whole == false))
        }
    }

    private fun Comparison.plus(piece: String, after: Boolean) =
        if (after) copy(after = this.after + piece) else copy(before = before + piece)

    private fun system(chat: Boolean) = app.settings.systemPrompt.takeIf { chat && it.isNotBlank() }

    /** Says [text] in the conversation, and writes the answer; or continues it, where that is what was learned. */
    fun say(text: String) = start {
        val state = app.store.state
        val chat = state.talks
        val (from, name) = (if (state.conversation.on) learned(state) else null) ?: (Parameters.Initial to null)
        val said = state.conversation.said
        val earlier = said.filter { chat && it.chat && it.answer.isNotBlank() }.map { Exchange(it.question, it.answer) }
        last(append = Said(text, adapted = name, chat = chat)) { it }
        val asked = Prompt(text, chat, system(chat), earlier, app.settings.temperature)
        val written = engine.write(library.directory(state.bundle!!.name), asked, listOf(from)) { piece, _ ->
            worker.goOn()
            last { it.copy(answer = it.answer + piece) }
        }.single()
        last { it.copy(cut = !written.whole) }
        app.store.update { it.copy(conversation = it.conversation.copy(forgotten = written.forgotten)) }
    }

    /** Changes what was said last. */
    private fun last(append: Said? = null, change: (Said) -> Said) = app.store.update { state ->
        val said = state.conversation.said + listOfNotNull(append)
        if (said.isEmpty()) return@update state
        state.copy(conversation = state.conversation.copy(said = said.dropLast(1) + change(said.last()), writing = true))
    }

    private fun start(write: () -> Unit) {
        val state = app.store.state
        if (state.bundle == null || state.run.active || state.comparing?.let { it.verdict == null } == true) return
        worker.start {
            app.store.update { it.copy(problem = null) }
            try {
                write()
            } catch (error: CancellationException) {
                if (app.store.state.conversation.writing) last { it.copy(cut = true) }
                ended()
                throw error
            }
            ended()
        }
    }

    fun stop() = worker.cancel()

    /** A new conversation, with the same choices. */
    fun clear() {
        worker.cancel()
        worker.start { app.store.update { it.copy(conversation = it.conversation.copy(said = emptyList(), writing = false, forgotten = 0)) } }
    }

    fun change(change: (Conversation) -> Conversation) = app.store.update { it.copy(conversation = change(it.conversation)) }
}
