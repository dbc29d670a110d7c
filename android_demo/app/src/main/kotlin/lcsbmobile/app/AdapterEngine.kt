package lcsbmobile.app

import lcsbmobile.core.Chat
import lcsbmobile.core.CompareOptions
import lcsbmobile.core.Continuation
import lcsbmobile.core.Exchange
import lcsbmobile.core.SamplingConfig
import lcsbmobile.core.TextEnd
import lcsbmobile.core.Verdict
import lcsbmobile.core.adapter.readAdapter
import lcsbmobile.core.adapter.readPeft
import lcsbmobile.core.adapter.writeAdapter
import lcsbmobile.core.adapter.writePeft
import lcsbmobile.core.checkpoint.checkpointFiles
import lcsbmobile.core.checkpoint.newestGood
import lcsbmobile.core.compareAdapters
import lcsbmobile.core.generate
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.runtime.makeRunner
import java.io.File
import java.nio.FloatBuffer
import lcsbmobile.core.Bundle as CoreBundle

/** Where parameters come from: the model as it came, an adapter's file, or a run's newest checkpoint in a directory. */
sealed interface Parameters {
    object Initial : Parameters

    data class OfFile(val file: File) : Parameters

    data class OfRun(val state: File) : Parameters
}

/** What the model is to continue, or, with [earlier], to answer. [chat]: in the words of its chat format. */
class Prompt(val text: String, val chat: Boolean, val system: String?, val earlier: List<Exchange>, val temperature: Double)

/** How a text ended. [whole]: by itself. [forgotten]: earlier exchanges that did not fit any more. */
class Written(val whole: Boolean, val forgotten: Int)

/** What the app asks of the core about adapters. Each call takes long and throws the core's LcsbException. */
open class AdapterEngine(private val engine: Engine) {
    fun identity(directory: File): String = engine.open(directory).let { it.manifest.identity ?: it.digest }

    /** Hands the newest good checkpoint's adapter to [target], with its steps; null where there is none or it has learned nothing. */
    fun <T> keep(directory: File, state: File, target: (steps: Int, write: (File) -> Unit) -> T): T? {
        val layout = engine.open(directory).manifest.adapter
        val checkpoint = newest(state, layout.numLayers, layout.size)?.takeIf { it.place.step > 0 } ?: return null
        return target(checkpoint.place.step) { writeAdapter(it, layout, checkpoint.state.adapter) }
    }

    private fun newest(state: File, layers: Int, size: Int) =
        if (!state.isDirectory) null else checkpointFiles(state).takeIf { it.isNotEmpty() }?.let { newestGood(it, layers, size).second }

    fun exportPeft(directory: File, adapter: File, target: File) {
        val bundle = engine.open(directory)
        writePeft(bundle.manifest, parameters(bundle, Parameters.OfFile(adapter)), target)
    }

    /** Reads PEFT's directory [source], and writes it as an adapter's file of the bundle's. */
    fun importPeft(directory: File, source: File, target: File) {
        val bundle = engine.open(directory)
        val adapter = parameters(bundle, Parameters.Initial)
        readPeft(source, bundle.manifest.adapter, adapter)
        writeAdapter(target, bundle.manifest.adapter, adapter)
    }

    private fun parameters(bundle: CoreBundle, from: Parameters): FloatBuffer {
        val layout = bundle.manifest.adapter
        val adapter = directFloats(layout.size)
        when (from) {
            Parameters.Initial -> bundle.readInitialAdapter(adapter)
            is Parameters.OfFile -> readAdapter(from.file, layout, adapter)
            is Parameters.OfRun -> return newest(from.state, layout.numLayers, layout.size)?.state?.adapter ?: parameters(bundle, Parameters.Initial)
        }
        return adapter
    }

    /**
     * Continues or answers [prompt] with each of [adapters], a piece of each in turn. [piece] is told which of them wrote it, and may throw to stop.
     * Nothing is kept from one call to the next: the whole conversation is read again each time.
     */
    fun write(directory: File, prompt: Prompt, adapters: List<Parameters>, piece: (text: String, index: Int) -> Unit): List<Written> {
        val bundle = engine.open(directory)
        val chat = bundle.chat?.takeIf { prompt.chat }?.let { Chat(it, prompt.system, prompt.earlier) }
        val config = SamplingConfig(temperature = prompt.temperature, seed = System.nanoTime() and 0xFFFFFF, maxTokens = MOST_TOKENS)
        makeRunner(bundle, Engine.threads()).use { runner ->
            val texts = adapters.map { generate(runner, bundle, parameters(bundle, it), prompt.text, config, chat) }
            try {
                val pieces = texts.map(Continuation::iterator)
                while (pieces.any { it.hasNext() }) {
                    pieces.forEachIndexed { i, text -> if (text.hasNext()) piece(text.next(), i) }
                }
                return texts.map { Written(it.ended == TextEnd.END_TOKEN || it.ended == TextEnd.STOP_TEXT, it.forgotten) }
            } finally {
                texts.forEach { if (it.ended == null) it.close() }
            }
        }
    }

    /** On the examples of [data] that a run holds out; [before] null: the model as it came. [goOn] may throw to stop. */
    open fun compare(directory: File, data: File, before: File?, after: File, goOn: () -> Unit, progress: (Int, Int) -> Unit): Verdict =
        compareAdapters(engine.open(directory), data, before, after, engine.scratch, CompareOptions(threads = Engine.threads()), goOn, progress).verdict

    private companion object {
        const val MOST_TOKENS = 128
    }
}
