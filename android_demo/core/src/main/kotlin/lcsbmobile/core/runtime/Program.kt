package lcsbmobile.core.runtime

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtSession
import lcsbmobile.core.Bundle
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.GraphTensor
import lcsbmobile.core.bundle.MappedWeights
import lcsbmobile.core.bundle.tensorBytes
import lcsbmobile.core.io.directBytes
import lcsbmobile.core.io.oneLine
import java.nio.ByteBuffer

internal typealias Values = Map<String, OnnxTensor> // by the names of a program's inputs or outputs

/** A tensor in memory of our own, direct, which programs write to and read from in place. */
internal class OwnTensor(environment: OrtEnvironment, dtype: String, shape: List<Long>) : AutoCloseable {
    val bytes: ByteBuffer = directBytes(tensorBytes(dtype, shape).toInt())
    val floats = bytes.asFloatBuffer()
    val tensor: OnnxTensor = OnnxTensor.createTensor(environment, bytes, shape.toLongArray(), JAVA_TYPES.getValue(dtype))

    override fun close() = tensor.close()
}

/** The tensors of `weights.bin` in place, one for each layer of a stacked one, made when they are first asked for. */
internal class WeightTensors(private val environment: OrtEnvironment, private val weights: MappedWeights) : AutoCloseable {
    private val made = HashMap<Pair<String, Int>, OnnxTensor>()

    /** Those among a program's tensors, by their names there, of the layer that is [number] of its kind. */
    fun of(tensors: List<GraphTensor>, number: Int): Values {
        val fed = HashMap<String, OnnxTensor>()
        for (x in tensors) if (x.weight != null) fed[x.name] = get(x.weight, number)
        return fed
    }

    private fun get(weight: String, number: Int) = made.getOrPut(weight to if (weights.isPerLayer(weight)) number else 0) {
        val type = JAVA_TYPES.getValue(weights.dtype(weight))
        OnnxTensor.createTensor(environment, weights.bytes(weight, number), weights.shape(weight), type)
    }

    override fun close() = made.values.forEach { it.close() }
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
            session.run(feeds.filterKeys { it in inputs } + weights.of(graph.inputs, number), emptySet(), outputs, options).close()
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
                if (constants.isNotEmpty()) options.addExternalInitializers(constants)
                environment.createSession(file.path, options)
            } catch (error: OrtException) {
                throw loadError(environment.version, file, error)
            }
        }
        checkSignature(session, graph, file)
        return session
    }

    override fun close() {
        sessions.values.forEach { it.close() }
        keeping.close()
        shrinking.close()
    }
}
