package lcsbmobile.core.adapter

import lcsbmobile.core.bundle.AdapterLayout
import lcsbmobile.core.io.DIGEST_KEY
import lcsbmobile.core.io.UNKNOWN_DIGEST
import lcsbmobile.core.io.WrittenTensor
import lcsbmobile.core.io.pythonRepr
import lcsbmobile.core.io.replaceAtomically
import lcsbmobile.core.io.writeDigested
import lcsbmobile.core.io.writeSafetensors
import java.io.File
import java.nio.FloatBuffer

internal const val BASE_KEY = "base"
internal const val BASE_MODEL_KEY = "base_model"
internal val DIGESTED = listOf("toolkit", BASE_MODEL_KEY, BASE_KEY) // keys of the metadata that only a file with a digest has

/**
 * Writes float32 [N] under PEFT's names with the desktop's bytes (docs/adapter.md), atomically: [file] is the old one or the new one. Throws
 * STORAGE_FULL or STORAGE_FAILED. A bundle's initial adapter, of a layout without a base, states none and no digest: the manifest has both.
 */
public fun writeAdapter(file: File, layout: AdapterLayout, adapter: FloatBuffer) {
    val shapes = layout.shapes()
    val tensors = layout.named(adapter).mapValuesTo(sortedMapOf()) { (name, values) -> WrittenTensor.of(shapes.getValue(name), values) }
    val metadata = linkedMapOf("format" to "pt", "rank" to "${layout.lora.rank}", "alpha" to pythonRepr(layout.lora.alpha))
    val base = layout.base
    if (base != null) {
        for ((key, value) in DIGESTED.zip(listOf(base.toolkit, base.name, base.digest))) if (value != null) metadata[key] = value
        metadata[DIGEST_KEY] = UNKNOWN_DIGEST
    }
    replaceAtomically(file) { channel ->
        if (base != null) {
            writeDigested(channel, tensors, metadata)
        } else {
            writeSafetensors({ bytes -> while (bytes.hasRemaining()) channel.write(bytes) }, tensors, metadata)
        }
    }
}
