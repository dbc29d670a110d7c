package lcsbmobile.core.adapter

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.AdapterLayout
import lcsbmobile.core.io.DIGEST_KEY
import lcsbmobile.core.io.StoredTensors
import lcsbmobile.core.io.fileDigest
import lcsbmobile.core.io.ioReason
import lcsbmobile.core.io.oneLine
import lcsbmobile.core.io.openTensors
import lcsbmobile.core.io.part
import lcsbmobile.core.io.some
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.FloatBuffer
import java.nio.channels.FileChannel
import java.nio.file.StandardOpenOption.READ

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
 * Reads an adapter file into all of [into], float32 [N]. Throws ADAPTER for a file that is damaged, or of another base, as far as it says; else
 * naming every tensor that is missing, unknown or of another shape or dtype, or for NaN and infinite values; then [into] may be half written.
 */
public fun readAdapter(file: File, layout: AdapterLayout, into: FloatBuffer) {
    val stored = openTensors(file, Fault.ADAPTER)
    checkDigest(stored)
    checkBase(stored, layout)
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

/** Files of other tools, and of before there was one, state none; one whose key for it was damaged states what goes with it. */
internal fun checkDigest(stored: StoredTensors) {
    val stated = stored.metadata[DIGEST_KEY]
    if (stated == null && DIGESTED.none { it in stored.metadata }) return
    val file = stored.file
    val found = try {
        FileChannel.open(file.toPath(), READ).use { channel ->
            val header = ByteBuffer.allocate(stored.dataStart.toInt())
            while (header.hasRemaining()) if (channel.read(header) < 0) throw IOException("ended while it was read")
            fileDigest(channel, header.array(), stated.orEmpty())
        }
    } catch (error: IOException) {
        throw LcsbException(Fault.ADAPTER, "$file: cannot be read: ${ioReason(error)}", listOf(file.name), error)
    }
    if (found == stated) return
    val expected = if (stated == null) "one" else oneLine(stated, 12)
    val message = "$file: damaged: expected SHA-256 $expected, found ${found.take(12)}…; copy or write it again"
    throw LcsbException(Fault.ADAPTER, message, listOf(file.name))
}

private fun checkBase(stored: StoredTensors, layout: AdapterLayout) {
    val digest = layout.base?.digest ?: return
    val stated = stored.metadata[BASE_KEY] ?: return
    if (stated == digest) return
    val (file, expected) = stored.file to oneLine(layout.base?.name.orEmpty(), 80)
    val trained = oneLine(stored.metadata[BASE_MODEL_KEY] ?: "unknown", 80)
    throw LcsbException(
        Fault.ADAPTER,
        "$file: was trained on another base: expected $expected (${digest.take(12)}…), found $trained (${oneLine(stated, 12)}); name a bundle of " +
            "that base, or take it over by lcsb adapter export there and lcsb adapter import",
        listOf(file.name),
    )
}
