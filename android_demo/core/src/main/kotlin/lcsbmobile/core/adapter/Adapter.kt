package lcsbmobile.core.adapter

import lcsbmobile.core.bundle.AdapterLayout
import lcsbmobile.core.io.WrittenTensor
import lcsbmobile.core.io.pythonRepr
import lcsbmobile.core.io.replaceAtomically
import lcsbmobile.core.io.writeSafetensors
import java.io.File
import java.nio.FloatBuffer

/**
 * Writes float32 [N] under PEFT's names with the desktop's bytes (docs/adapter.md), atomically: [file] is the old one or the new one. Throws
 * STORAGE_FULL or STORAGE_FAILED.
 */
internal fun writeAdapter(file: File, layout: AdapterLayout, adapter: FloatBuffer) {
    val shapes = layout.shapes()
    val tensors = layout.named(adapter).mapValuesTo(sortedMapOf()) { (name, values) -> WrittenTensor.of(shapes.getValue(name), values) }
    val metadata = linkedMapOf("format" to "pt", "rank" to "${layout.lora.rank}", "alpha" to pythonRepr(layout.lora.alpha))
    replaceAtomically(file) { channel ->
        writeSafetensors({ bytes -> while (bytes.hasRemaining()) channel.write(bytes) }, tensors, metadata)
    }
}
