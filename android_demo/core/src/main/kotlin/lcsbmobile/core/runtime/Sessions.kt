package lcsbmobile.core.runtime

import ai.onnxruntime.NodeInfo
import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtLoggingLevel
import ai.onnxruntime.OrtSession
import ai.onnxruntime.TensorInfo
import lcsbmobile.core.Bundle
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.ANY
import lcsbmobile.core.bundle.Graph
import lcsbmobile.core.bundle.RuntimeSettings
import lcsbmobile.core.bundle.TensorType
import lcsbmobile.core.bundle.WEIGHTS_FILE
import lcsbmobile.core.bundle.checkExternalData
import lcsbmobile.core.bundle.differences
import lcsbmobile.core.bundle.unreadable
import lcsbmobile.core.io.oneLine
import lcsbmobile.core.io.some
import java.io.File

private const val OLDEST_RUNTIME = "1.18" // the first with operator set 21 and IR version 10, in which all programs are written
private val OPERATOR = Regex("Could not find an implementation for ([A-Za-z0-9_]+)|([A-Za-z0-9_.:]+)\\([-0-9]+\\) is not a registered function/op")
private val VERSION = Regex("Unsupported model IR version: [0-9]+|ONNX Runtime only \\*guarantees\\* support .*?opset [0-9]+")

internal val JAVA_TYPES = mapOf(
    "float32" to OnnxJavaType.FLOAT,
    "float16" to OnnxJavaType.FLOAT16,
    "int64" to OnnxJavaType.INT64,
    "uint8" to OnnxJavaType.UINT8,
    "int8" to OnnxJavaType.INT8,
    "bool" to OnnxJavaType.BOOL,
)

/** The runtime, loaded, which reports nothing. Throws RUNTIME_MISSING. */
internal fun importRuntime(): OrtEnvironment = orMissing("ONNX Runtime", "install a build with ai.onnxruntime for this processor") {
    keepToOneself()
    OrtEnvironment.getEnvironment().also { it.setTelemetry(false) }
}

/**
 * Official builds from 1.29 on report processes, sessions and models to Microsoft, unless this variable is set when they are loaded. Whoever has set
 * it has decided. A desktop's JVM cannot set it: whoever starts it can, and without it the start of the process is noted before the rest is off.
 */
private fun keepToOneself() {
    try {
        val setenv = Class.forName("android.system.Os").getMethod("setenv", String::class.java, String::class.java, Boolean::class.javaPrimitiveType)
        setenv.invoke(null, "ORT_DISABLE_TELEMETRY", "1", false)
    } catch (error: ReflectiveOperationException) {
        return // no Android
    }
}

/**
 * How each session is made: the manifest's settings, and what suits arenas that cannot be shared, as the Java binding has no call for it: each
 * session has its own, which gives its memory back after its last layer (Program.kt). Then the most that is held is what one program needs, as
 * with a shared arena. Values that are laid out in advance, as one block, would find no room among those of the first run.
 */
internal fun sessionOptions(settings: RuntimeSettings, threads: Int): OrtSession.SessionOptions {
    val options = OrtSession.SessionOptions()
    options.setSessionLogLevel(OrtLoggingLevel.ORT_LOGGING_LEVEL_ERROR)
    for ((key, entry) in settings.sessionConfig) options.addConfigEntry(key, entry)
    options.setIntraOpNumThreads(threads)
    options.setMemoryPatternOptimization(false)
    return options
}

/** A program's file, known to take no data but the bundle's weights, where it may. Throws BUNDLE_UNREADABLE. */
internal fun programFile(bundle: Bundle, graph: Graph): File {
    val file = File(bundle.directory, graph.file)
    checkExternalData(file, WEIGHTS_FILE, File(bundle.directory, WEIGHTS_FILE).length(), graph.initializers.map { it.name })
    return file
}

/** Throws BUNDLE_UNREADABLE unless the program takes and returns what the manifest says, by which buffers are made. */
internal fun checkSignature(session: OrtSession, graph: Graph, file: File) {
    val faults = listOf(
        Triple("inputs", graph.inputs, session.inputInfo),
        Triple("outputs", graph.outputs, session.outputInfo),
    ).flatMap { (what, described, found) ->
        differences(what, described.associate { it.name to TensorType(it.dtype, it.shape) }, found.mapValues { signature(it.value) })
    }
    if (faults.isNotEmpty()) throw unreadable("$file: other than the manifest says: ${some(faults)}; export the bundle again")
}

private fun signature(node: NodeInfo): TensorType {
    val info = node.info as? TensorInfo ?: return TensorType("no tensor", emptyList())
    val dtype = JAVA_TYPES.entries.firstOrNull { it.value == info.type }?.key ?: info.type.toString()
    return TensorType(dtype, info.shape.map { if (it < 0) ANY else it })
}

/** Names the operator that the runtime lacks, where that is the reason. */
internal fun loadError(version: String, file: File, error: OrtException): LcsbException {
    val text = error.message ?: ""
    val operator = OPERATOR.find(text)?.let { it.groupValues[1].ifEmpty { it.groupValues[2] } }
    val what = if (operator != null) "it has no operator $operator" else VERSION.find(text)?.value ?: oneLine(text)
    val message = "$file: onnxruntime $version cannot load it: $what; expected onnxruntime $OLDEST_RUNTIME or newer, with all of its operators " +
        "(a reduced build lacks some)"
    return LcsbException(Fault.RUNTIME_FAILED, message, cause = error)
}
