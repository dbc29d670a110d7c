package lcsbmobile.core

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import lcsbmobile.core.bundle.EXECUTORCH
import lcsbmobile.core.bundle.GraphTensor
import lcsbmobile.core.bundle.MANIFEST_FILE
import lcsbmobile.core.bundle.PRODUCTS
import lcsbmobile.core.bundle.PTE_FILE
import lcsbmobile.core.bundle.tensorBytes
import lcsbmobile.core.io.directBytes
import lcsbmobile.core.io.sha256
import lcsbmobile.core.runtime.JAVA_TYPES
import org.pytorch.executorch.DType
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor
import java.io.File
import java.nio.ByteBuffer
import java.nio.FloatBuffer
import java.nio.LongBuffer
import java.nio.ShortBuffer

// A bundle of target executorch, and what stands for the library: the same programs under the same names on ONNX Runtime.

/** Writes to [directory] what an export of [bundle]'s model for target executorch has, but for what is in `programs.pte`. */
internal fun writeExecuTorchBundle(bundle: Bundle, directory: File, change: (Map<String, JsonElement>) -> Map<String, JsonElement> = { it }) {
    val manifest = Json.parseToJsonElement(File(bundle.directory, MANIFEST_FILE).readText()).jsonObject
    val kept = manifest.getValue("files").jsonObject.filterKeys { !it.endsWith(".onnx") }
    for (name in kept.keys) File(bundle.directory, name).copyTo(File(directory, name))
    val pte = "the methods".toByteArray().also { File(directory, PTE_FILE).writeBytes(it) }
    val entry = JsonObject(mapOf("size" to JsonPrimitive(pte.size), "sha256" to JsonPrimitive(sha256(pte))))
    val settings = """{"session_config": {}, "arena": {"initial_bytes": 0}}"""
    val changed = manifest - "digest" + mapOf(
        "target" to JsonPrimitive(EXECUTORCH),
        "graphs" to JsonObject((manifest.getValue("graphs").jsonObject - PRODUCTS.toSet()).mapValues { method(it.value.jsonObject) }),
        "runtime" to Json.parseToJsonElement(settings),
        "files" to JsonObject(kept + (PTE_FILE to entry)),
    )
    File(directory, MANIFEST_FILE).writeText(JsonObject(change(changed)).toString())
}

/** All weights are inputs. */
private fun method(graph: JsonObject): JsonElement {
    val inputs = listOf("inputs", "initializers").flatMap { graph[it]?.jsonArray.orEmpty() }
    return JsonObject(graph + mapOf("file" to JsonPrimitive(PTE_FILE), "inputs" to JsonArray(inputs), "initializers" to JsonArray(emptyList())))
}

/**
 * [bundle]'s programs as methods. Results lie where those of the method's last call were, and those of every earlier call are spoilt by the
 * next: more than the library does. [calls]: the methods with what they were given.
 */
internal class OnnxModule(private val bundle: Bundle) : Module() {
    private val environment = OrtEnvironment.getEnvironment()
    private val sessions = HashMap<Pair<String, EValue?>, OrtSession>()
    private val arenas = HashMap<Pair<String, String>, ByteBuffer>()
    val calls = ArrayList<Pair<String, List<EValue>>>()
    var closed = false

    override fun getMethods(): Array<String> = (bundle.manifest.graphs.keys - PRODUCTS.toSet()).toTypedArray()

    override fun execute(methodName: String, vararg inputs: EValue): Array<EValue> {
        calls += methodName to inputs.toList()
        for (arena in arenas.values) for (at in 0 until arena.capacity()) arena.put(at, -1)
        val graph = bundle.manifest.graphs.getValue(methodName)
        check(inputs.size == graph.inputs.size + graph.initializers.size)
        val fed = graph.inputs.zip(inputs).associate { (x, value) -> x.name to onnx(value.toTensor()) }
        val constants = inputs.drop(graph.inputs.size)
        val session = sessions.getOrPut(methodName to constants.firstOrNull()) {
            val options = OrtSession.SessionOptions()
            for ((key, entry) in bundle.manifest.runtime.sessionConfig) options.addConfigEntry(key, entry)
            options.setIntraOpNumThreads(1)
            val given = graph.initializers.zip(constants).associate { (x, value) -> x.name to onnx(value.toTensor()) }
            if (given.isNotEmpty()) options.addExternalInitializers(given)
            environment.createSession(File(bundle.directory, graph.file).path, options)
        }
        val free = inputs[0].toTensor().shape().firstOrNull() ?: 1
        return graph.outputs.map { x -> result(methodName, x, free) }.also { results ->
            val outputs = graph.outputs.zip(results).associate { (x, value) -> x.name to onnx(value.toTensor()) }
            session.run(fed, emptySet(), outputs).close()
        }.toTypedArray()
    }

    private fun result(method: String, x: GraphTensor, free: Long): EValue {
        val shape = x.shape.map { if (it < 0) free else it }
        val bytes = arenas.compute(method to x.name) { _, old ->
            val size = tensorBytes(x.dtype, shape).toInt()
            old?.takeIf { it.capacity() == size } ?: directBytes(size)
        }!!
        return EValue.from(
            when (x.dtype) {
                "float32" -> Tensor.fromBlob(bytes.asFloatBuffer(), shape.toLongArray())
                "float16" -> Tensor.fromBlob(bytes.asShortBuffer(), shape.toLongArray())
                "uint8" -> Tensor.fromBlobUnsigned(bytes, shape.toLongArray())
                else -> Tensor.fromBlob(bytes, shape.toLongArray())
            },
        )
    }

    private fun onnx(x: Tensor): OnnxTensor = when (val data = x.rawDataBuffer) {
        is FloatBuffer -> OnnxTensor.createTensor(environment, data, x.shape())
        is LongBuffer -> OnnxTensor.createTensor(environment, data, x.shape())
        is ShortBuffer -> OnnxTensor.createTensor(environment, data, x.shape(), JAVA_TYPES.getValue("float16"))
        else -> OnnxTensor.createTensor(environment, data as ByteBuffer, x.shape(), JAVA_TYPES.getValue(if (x.dtype() == DType.UINT8) "uint8" else "int8"))
    }

    override fun close() {
        sessions.values.forEach { it.close() }
        closed = true
    }
}
