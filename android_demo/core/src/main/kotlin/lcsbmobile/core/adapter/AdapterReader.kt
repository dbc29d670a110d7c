package lcsbmobile.core.adapter

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.AdapterLayout
import lcsbmobile.core.io.openTensors
import lcsbmobile.core.io.part
import lcsbmobile.core.io.some
import java.io.File
import java.nio.FloatBuffer

/** PEFT's tensor names, and each matrix's elements within [adapter], float32 [N]. */
internal fun AdapterLayout.named(adapter: FloatBuffer): Map<String, FloatBuffer> =
    (0 until numLayers).flatMap { layer ->
        val vector = vector(adapter, layer)
        matrices(layer).map { tensorName(layer, it.name) to vector.part(it.offset, it.size) }
    }.toMap()

/** The shape of each of PEFT's tensors. */
internal fun AdapterLayout.shapes(): Map<String, List<Long>> =
    (0 until numLayers).flatMap { layer -> matrices(layer).map { tensorName(layer, it.name) to it.shape.map(Int::toLong) } }.toMap()

/**
 * Reads an adapter file into all of [into], float32 [N]. Throws ADAPTER naming every tensor that is missing, unknown or of another shape or
 * dtype, or for NaN and infinite values; then [into] may be half written.
 */
public fun readAdapter(file: File, layout: AdapterLayout, into: FloatBuffer) {
    val stored = openTensors(file, Fault.ADAPTER)
    val wanted = layout.shapes()
    val faults = wanted.keys.filter { it !in stored.tensors }.map { "$it is missing" }.toMutableList()
    for ((name, tensor) in stored.tensors) {
        val shape = wanted[name]
        if (shape == null) faults += "$name is unknown"
        if (shape != null && tensor.shape != shape) faults += "$name: expected $shape, found ${tensor.shape}"
        if (tensor.dtype != "F32") faults += "$name: expected F32, found ${tensor.dtype}"
    }
    for ((key, expected) in listOf("rank" to layout.lora.rank.toString(), "alpha" to layout.lora.alpha.toString())) {
        val found = stored.metadata[key] ?: expected
        if (found.toDoubleOrNull() != expected.toDouble()) faults += "$key: expected $expected, found $found"
    }
    if (faults.isNotEmpty()) {
        throw LcsbException(Fault.ADAPTER, "$file: does not fit the bundle's adapter: ${some(faults)}", listOf(file.name))
    }
    for ((name, matrix) in layout.named(into)) stored.readFloats(name, matrix)
    for (at in 0 until into.capacity()) {
        if (!into.get(at).isFinite()) throw LcsbException(Fault.ADAPTER, "$file: holds NaN or infinite values", listOf(file.name))
    }
}
