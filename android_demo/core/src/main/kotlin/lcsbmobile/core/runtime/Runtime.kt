package lcsbmobile.core.runtime

import lcsbmobile.core.Bundle
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.GraphTensor
import lcsbmobile.core.bundle.MappedWeights
import lcsbmobile.core.bundle.otherTarget
import lcsbmobile.core.bundle.tensorBytes
import lcsbmobile.core.io.directBytes
import lcsbmobile.core.io.oneLine
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.FloatBuffer

// What a runtime provides, and the values that it takes.

internal typealias Values = Map<String, HostTensor> // by the names of a program's inputs or outputs

/**
 * A tensor in direct memory in native order, float32 in a FloatBuffer or any dtype in a ByteBuffer, which programs read and write in place.
 * [made]: what the runtime made of it, which it makes once.
 */
internal class HostTensor(val dtype: String, val shape: List<Long>, private val data: Buffer) : AutoCloseable {
    var made: Any? = null

    /** Zeroed memory of its own. */
    constructor(dtype: String, shape: List<Long>) : this(dtype, shape, directBytes(tensorBytes(dtype, shape).toInt()))

    /** Over all of a vector. */
    constructor(floats: FloatBuffer) : this("float32", listOf(floats.capacity().toLong()), floats)

    init {
        require(data.isDirect) { "a buffer of the heap would be copied" }
    }

    val floats: FloatBuffer = data as? FloatBuffer ?: bytes.asFloatBuffer()
    val bytes: ByteBuffer get() = data as ByteBuffer

    override fun close() {
        (made as? AutoCloseable)?.close()
        made = null
    }
}

/** The tensors of `weights.bin` in place, one for each layer of a stacked one, made when they are first asked for. */
internal class WeightTensors(private val weights: MappedWeights) : AutoCloseable {
    private val made = HashMap<Pair<String, Int>, HostTensor>()

    /** Those among a program's tensors, by their names there, of the layer that is [number] of its kind. */
    fun of(tensors: List<GraphTensor>, number: Int): Values {
        val fed = HashMap<String, HostTensor>()
        for (x in tensors) if (x.weight != null) fed[x.name] = get(x.weight, number)
        return fed
    }

    private fun get(weight: String, number: Int) = made.getOrPut(weight to if (weights.isPerLayer(weight)) number else 0) {
        HostTensor(weights.dtype(weight), weights.shape(weight), weights.bytes(weight, number))
    }

    override fun close() = made.values.forEach { it.close() }
}

/** What runs the programs of one bundle. [name]: of the target that they are for. */
internal interface Runtime : AutoCloseable {
    val name: String
    val version: String

    /**
     * Runs a program with the weights that it takes, those of [layer] where it is a layer's. [feeds]: what else it takes, and perhaps more.
     * [outputs]: where each result that is wanted goes. [last]: another program runs next, so that this one may give back the memory that it
     * would hold for its next layer.
     */
    fun run(program: String, feeds: Values, outputs: Values, layer: Int, last: Boolean)

    /** They are not run for a while. */
    fun release(programs: List<String>) {}
}

/** Throws BUNDLE_OTHER_TARGET. */
internal fun checkTarget(bundle: Bundle, target: String) {
    if (bundle.manifest.target != target) throw otherTarget("${bundle.directory}", bundle.manifest.target, listOf(target))
}

/** A native [library], loaded. Throws RUNTIME_MISSING where it is not there, or not for this processor. */
internal fun <T> orMissing(library: String, remedy: String, load: () -> T): T = try {
    load()
} catch (error: LinkageError) {
    // no library, none for the ABI, or its initialisation failed before
    val what = oneLine("${error.javaClass.simpleName}: ${error.message}")
    val message = "$library's native library cannot be loaded ($what); $remedy"
    throw LcsbException(Fault.RUNTIME_MISSING, message, listOf(System.getProperty("os.arch") ?: ""), error)
}
