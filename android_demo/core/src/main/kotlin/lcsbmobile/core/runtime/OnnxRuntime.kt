package lcsbmobile.core.runtime

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtSession
import lcsbmobile.core.Bundle
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.ONNXRUNTIME
import lcsbmobile.core.io.oneLine

/** The programs of target `onnxruntime` on stock ONNX Runtime. [threads]: of each program. Throws BUNDLE_OTHER_TARGET, RUNTIME_MISSING. */
internal class OnnxRuntime(private val bundle: Bundle, private val threads: Int) : Runtime {
    init {
        checkTarget(bundle, ONNXRUNTIME)
    }

    private val environment = importRuntime()
    private val weights = WeightTensors(bundle.weights)
    private val programs = HashMap<String, Program>()

    override val name: String = ONNXRUNTIME
    override val version: String = environment.version

    override fun run(program: String, feeds: Values, outputs: Values, layer: Int, last: Boolean) =
        programs.getOrPut(program) { Program(environment, bundle, program, threads, weights) }
            .run(feeds, outputs, bundle.manifest.layers[layer].number, last)

    /** Those that a decoder runs hold on to their memory from token to token. */
    override fun release(programs: List<String>) = programs.forEach { this.programs.remove(it)?.close() }

    override fun close() {
        programs.values.forEach { it.close() }
        weights.close()
    }
}

/** One program: its weights by layer of its kind, and its session, or a session a layer where the weights are its constants. */
internal class Program(
    private val environment: OrtEnvironment,
    private val bundle: Bundle,
    name: String,
    private val threads: Int,
    private val weights: WeightTensors,
) : AutoCloseable {
    private val graph = bundle.manifest.graphs.getValue(name)
    private val inputs = graph.inputs.filter { it.weight == null }.mapTo(HashSet()) { it.name }
    private val sessions = HashMap<Int, OrtSession>()
    private val keeping = OrtSession.RunOptions()
    private val shrinking = OrtSession.RunOptions().also { it.addRunConfigEntry("memory.enable_memory_arena_shrinkage", "cpu:0") }

    init {
        session(0)
    }

    /**
     * [feeds]: those that the program takes, and perhaps others. [outputs]: where each result that is wanted goes. [number]: the layer's in its
     * kind. [last]: another program runs next, so this one's memory is given back, which it would otherwise hold
     * for its next layer; a session that serves one layer always gives it back.
     */
    fun run(feeds: Values, outputs: Values, number: Int, last: Boolean) {
        val session = session(number)
        val options = if (last || graph.initializers.isNotEmpty()) shrinking else keeping
        try {
            session.run(tensors(feeds.filterKeys { it in inputs } + weights.of(graph.inputs, number)), emptySet(), tensors(outputs), options).close()
        } catch (error: OrtException) {
            val message = "${graph.file}: onnxruntime ${environment.version} cannot run it: ${oneLine(error.message ?: "")}"
            throw LcsbException(Fault.RUNTIME_FAILED, message, cause = error)
        }
    }

    private fun session(number: Int): OrtSession = sessions.getOrPut(if (graph.initializers.isEmpty()) 0 else number) { load(number) }

    private fun load(number: Int): OrtSession {
        val file = programFile(bundle, graph)
        val session = sessionOptions(bundle.manifest.runtime, threads).use { options ->
            try {
                val constants = weights.of(graph.initializers, number)
                if (constants.isNotEmpty()) options.addExternalInitializers(tensors(constants))
                environment.createSession(file.path, options)
            } catch (error: OrtException) {
                throw loadError(environment.version, file, error)
            }
        }
        checkSignature(session, graph, file)
        return session
    }

    private fun tensors(values: Values): Map<String, OnnxTensor> = values.mapValues { (_, x) ->
        (x.made ?: tensor(x).also { x.made = it }) as OnnxTensor
    }

    private fun tensor(x: HostTensor): OnnxTensor {
        val shape = x.shape.toLongArray()
        return if (x.dtype == "float32") {
            OnnxTensor.createTensor(environment, x.floats, shape)
        } else {
            OnnxTensor.createTensor(environment, x.bytes, shape, JAVA_TYPES.getValue(x.dtype))
        }
    }

    override fun close() {
        sessions.values.forEach { it.close() }
        keeping.close()
        shrinking.close()
    }
}
