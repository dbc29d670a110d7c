package lcsbmobile.core.runtime

import lcsbmobile.core.Bundle
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.EXECUTORCH
import lcsbmobile.core.bundle.PTE_FILE
import lcsbmobile.core.bundle.TensorType
import lcsbmobile.core.bundle.differences
import lcsbmobile.core.bundle.unreadable
import lcsbmobile.core.io.oneLine
import lcsbmobile.core.io.some
import org.pytorch.executorch.DType
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor
import java.io.File

private val DTYPES = mapOf(
    "float32" to DType.FLOAT,
    "float16" to DType.HALF,
    "int64" to DType.INT64,
    "uint8" to DType.UINT8,
    "int8" to DType.INT8,
)

/**
 * The programs of target `executorch`: methods of one file, each with an arena that was planned when it was exported and that it holds from
 * its first call on. [threads]: of the process, since all modules in it share one pool; 0: half of its cores.
 *
 * Throws RUNTIME_MISSING, RUNTIME_FAILED, BUNDLE_UNREADABLE.
 */
internal class ExecuTorch(private val bundle: Bundle, threads: Int, load: (path: String, threads: Int) -> Module = ::load) : Runtime {
    private val manifest = bundle.manifest
    private val path = File(bundle.directory, PTE_FILE)
    private val weights = WeightTensors(bundle.weights)
    private val module = orMissing("ExecuTorch", "install a build with org.pytorch.executorch for this processor") {
        orFailed("$path: executorch cannot load it") { load(path.path, threads) }
    }

    override val name: String = EXECUTORCH
    override val version: String = "unknown" // the library does not say it

    init {
        val missing = (manifest.graphs.keys - module.getMethods().toSet()).sorted()
        if (missing.isNotEmpty()) {
            module.close()
            throw unreadable("$path: expected the methods ${missing.joinToString()}, found none of these names; export the bundle again")
        }
    }

    /** Results lie in the method's arena until its next call, and are copied out of it. */
    override fun run(program: String, feeds: Values, outputs: Values, layer: Int, last: Boolean) {
        val graph = manifest.graphs.getValue(program)
        val values = feeds + weights.of(graph.inputs, manifest.layers[layer].number)
        val inputs = graph.inputs.map { value(values.getValue(it.name)) }.toTypedArray()
        orFailed("$path: $program: executorch cannot run it") {
            val results = module.execute(program, *inputs).map { it.toTensor() }
            // The library does not say beforehand what a method returns.
            val found = graph.outputs.zip(results).associate { (x, result) -> x.name to result }
            val wanted = outputs.mapValues { TensorType(it.value.dtype, it.value.shape) }
            val faults = differences("outputs", wanted, found.filterKeys { it in outputs }.mapValues { type(it.value) }).toList()
            if (faults.isNotEmpty() || results.size != graph.outputs.size) {
                val what = some(faults.ifEmpty { listOf("outputs: expected ${graph.outputs.size}, found ${results.size}") })
                throw unreadable("$path: $program: other than the manifest says: $what; export the bundle again")
            }
            for ((name, target) in outputs) copy(found.getValue(name), target)
        }
    }

    override fun close() = module.close()
}

/** Pages are read when a method first needs them. */
private fun load(path: String, threads: Int): Module = Module.load(path, Module.LOAD_MODE_MMAP, threads)

private fun <T> orFailed(what: String, act: () -> T): T = try {
    act()
} catch (error: RuntimeException) {
    // of the library's own class, and what its native side makes of a C++ exception
    throw LcsbException(Fault.RUNTIME_FAILED, "$what: ${oneLine(error.message ?: error.javaClass.simpleName)}", cause = error)
}

private fun value(x: HostTensor): EValue = (x.made ?: EValue.from(tensor(x)).also { x.made = it }) as EValue

/** Over the same memory: the library copies nothing of a direct buffer. */
private fun tensor(x: HostTensor): Tensor {
    val shape = x.shape.toLongArray()
    return when (x.dtype) {
        "float32" -> Tensor.fromBlob(x.floats, shape)
        "float16" -> Tensor.fromBlob(x.bytes.asShortBuffer(), shape)
        "int64" -> Tensor.fromBlob(x.bytes.asLongBuffer(), shape)
        "uint8" -> Tensor.fromBlobUnsigned(x.bytes, shape)
        "int8" -> Tensor.fromBlob(x.bytes, shape)
        else -> throw unreadable("executorch takes no ${x.dtype}; export the bundle again")
    }
}

private fun type(x: Tensor): TensorType {
    val dtype = x.dtype()
    return TensorType(DTYPES.entries.firstOrNull { it.value == dtype }?.key ?: "$dtype", x.shape().toList())
}

private fun copy(result: Tensor, target: HostTensor) = when (target.dtype) {
    "float32" -> result.copyDataInto(target.floats.duplicate())
    "float16" -> result.copyDataInto(target.bytes.asShortBuffer())
    "int64" -> result.copyDataInto(target.bytes.asLongBuffer())
    "uint8" -> result.copyDataIntoUnsigned(target.bytes.duplicate())
    else -> result.copyDataInto(target.bytes.duplicate())
}
