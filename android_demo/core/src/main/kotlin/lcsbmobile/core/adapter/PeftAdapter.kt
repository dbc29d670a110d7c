package lcsbmobile.core.adapter

import lcsbmobile.core.bundle.AdapterLayout
import lcsbmobile.core.bundle.Manifest
import lcsbmobile.core.io.asciiJson
import lcsbmobile.core.io.pythonRepr
import lcsbmobile.core.io.replaceAtomically
import lcsbmobile.core.io.replaceDirectory
import java.io.File
import java.math.BigDecimal
import java.nio.ByteBuffer
import java.nio.FloatBuffer

internal const val PEFT_CONFIG_FILE = "adapter_config.json"
internal const val PEFT_MODEL_FILE = "adapter_model.safetensors"

/**
 * Writes [adapter], float32 [N], as the directory that `peft.PeftModel.from_pretrained` loads, with the bytes of `lcsb adapter export`
 * (docs/adapter.md). [directory] is replaced only when it is an earlier one of these, or empty. Throws OPTION, STORAGE_FULL, STORAGE_FAILED.
 */
public fun writePeft(manifest: Manifest, adapter: FloatBuffer, directory: File) {
    replaceDirectory(directory, PEFT_CONFIG_FILE) { temporary ->
        writeAdapter(File(temporary, PEFT_MODEL_FILE), manifest.adapter, adapter)
        replaceAtomically(File(temporary, PEFT_CONFIG_FILE)) { channel ->
            val text = ByteBuffer.wrap(peftConfig(manifest.adapter, manifest.baseModel.name).toByteArray(Charsets.US_ASCII))
            while (text.hasRemaining()) channel.write(text)
        }
    }
}

/** A plain LoRA, in fields that PEFT has long had: an old release refuses one that it does not know. */
private fun peftConfig(layout: AdapterLayout, baseModel: String): String {
    val alpha = layout.lora.alpha
    val targets = layout.modules.map { it.substringAfterLast('.') }.toSortedSet()
    val fields = listOf(
        "alpha_pattern" to "{}",
        "auto_mapping" to "null",
        "base_model_name_or_path" to asciiJson(baseModel),
        "bias" to "\"none\"",
        "fan_in_fan_out" to "false",
        "inference_mode" to "true",
        "init_lora_weights" to "true",
        "layers_pattern" to "null",
        "layers_to_transform" to "null",
        "lora_alpha" to if (alpha == Math.rint(alpha)) "${BigDecimal(alpha).toBigInteger()}" else pythonRepr(alpha), // PEFT declares an int
        "lora_dropout" to "0.0",
        "modules_to_save" to "null",
        "peft_type" to "\"LORA\"",
        "r" to "${layout.lora.rank}",
        "rank_pattern" to "{}",
        "revision" to "null",
        "target_modules" to targets.joinToString(",\n    ", "[\n    ", "\n  ]") { asciiJson(it) },
        "task_type" to "\"CAUSAL_LM\"",
        "use_dora" to "false",
        "use_rslora" to "false",
    )
    return fields.joinToString(",\n", "{\n", "\n}\n") { (name, value) -> "  \"$name\": $value" }
}
