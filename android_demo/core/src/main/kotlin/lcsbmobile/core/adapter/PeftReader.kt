package lcsbmobile.core.adapter

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.AdapterLayout
import lcsbmobile.core.io.FLOATS
import lcsbmobile.core.io.StoredTensors
import lcsbmobile.core.io.openTensors
import lcsbmobile.core.io.quoted
import lcsbmobile.core.io.some
import java.io.File
import java.nio.FloatBuffer

private val TEXT_MODEL_PREFIXES = listOf("model.", "model.language_model.", "language_model.model.") // the last before transformers 4.52
private const val PICKLED_FILE = "adapter_model.bin"

/**
 * What [readPeft] found. [baseModel]: as PEFT's configuration names it. [dtypes]: the tensors'. [matrices]: how many were read. [initial]:
 * projection -> the layers in which the directory does not adapt it.
 */
public class ImportedPeft(
    public val baseModel: String?,
    public val dtypes: Set<String>,
    public val matrices: Int,
    public val initial: Map<String, List<Int>>,
)

/**
 * Reads PEFT's [directory] into [into], float32 [N], which holds the bundle's initial adapter: where the directory does not adapt a matrix, A stays
 * and B becomes zero. The twin of `lcsb adapter import` (docs/adapter.md), but for patterns of names, which are refused.
 *
 * Nothing of the directory is believed before it was checked. Throws ADAPTER, naming what does not fit; then [into] may be half written.
 */
public fun readPeft(directory: File, layout: AdapterLayout, into: FloatBuffer): ImportedPeft {
    val config = readPeftConfig(File(directory, PEFT_CONFIG_FILE), layout)
    val stored = openModel(directory)
    val named = asTheFileCalls(layout, stored)
    val initial = check(stored, config, named)
    for ((name, matrix) in named.named(into)) {
        if (name in stored.tensors) {
            stored.readFloats(name, matrix)
        } else if (".lora_B." in name) {
            for (i in 0 until matrix.capacity()) matrix.put(i, 0f)
        }
    }
    for (at in 0 until into.capacity()) if (!into.get(at).isFinite()) throw refusal(stored.file, "holds NaN or infinite values")
    return ImportedPeft(config.baseModel, stored.tensors.values.mapTo(sortedSetOf()) { it.dtype }, stored.tensors.size, initial)
}

private fun openModel(directory: File): StoredTensors {
    val file = File(directory, PEFT_MODEL_FILE)
    if (!file.isFile && File(directory, PICKLED_FILE).exists()) {
        throw refusal(directory, "only pickled weights ($PICKLED_FILE), which are not read; load and save it with a newer peft")
    }
    return openTensors(file, Fault.ADAPTER).also(::checkDigest)
}

/**
 * The layout with the prefix that the file's names have: transformers' class for text alone and that for a whole multimodal checkpoint call the same
 * layers differently. With its own where the names have another.
 */
private fun asTheFileCalls(layout: AdapterLayout, stored: StoredTensors): AdapterLayout =
    TEXT_MODEL_PREFIXES.map { layout.copy(prefix = it) }.firstOrNull { named -> named.shapes().keys.any { it in stored.tensors } } ?: layout

/** Projection -> the layers that the file leaves out. */
private fun check(stored: StoredTensors, config: PeftConfig, layout: AdapterLayout): Map<String, List<Int>> {
    val faults = tensorFaults(stored, layout).toMutableList()
    val initial = LinkedHashMap<String, MutableList<Int>>()
    for (layer in 0 until layout.numLayers) {
        for (module in layout.modules(layer)) {
            val missing = listOf("lora_A", "lora_B").map { layout.tensorName(layer, "$module.$it") }.filter { it !in stored.tensors }
            if (missing.size == 2) {
                initial.getOrPut(module) { mutableListOf() } += layer
            } else {
                faults += missing.map { "$it is missing" }
                val name = layout.moduleName(layer, module)
                if (!config.reaches(name, layer)) faults += "$name is adapted, and ${config.file.name} says it is not"
            }
        }
    }
    if (faults.isNotEmpty()) throw refusal(stored.file, "does not fit the bundle's adapter: ${some(faults)}")
    return initial
}

private fun tensorFaults(stored: StoredTensors, layout: AdapterLayout): List<String> {
    if (stored.tensors.isEmpty()) return listOf("holds no tensors")
    val wanted = layout.shapes()
    return stored.tensors.mapNotNull { (name, tensor) ->
        val shape = wanted[name]
        when {
            shape == null -> "${quoted(name, 100)}: the bundle adapts no such matrix"
            tensor.dtype !in FLOATS -> "$name: expected ${FLOATS.joinToString()}, found ${quoted(tensor.dtype, 10)}"
            tensor.shape != shape -> "$name: expected $shape, found ${tensor.shape}"
            else -> null
        }
    }
}

private fun refusal(file: File, what: String) = LcsbException(Fault.ADAPTER, "$file: $what", listOf(file.name))
