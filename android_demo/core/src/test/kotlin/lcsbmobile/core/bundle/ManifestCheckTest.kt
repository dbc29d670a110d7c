package lcsbmobile.core.bundle

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import lcsbmobile.core.Bundle
import lcsbmobile.core.Fault
import lcsbmobile.core.inScratch
import lcsbmobile.core.io.repeatedKey
import lcsbmobile.core.openBundle
import lcsbmobile.core.refusal
import lcsbmobile.core.text.assertRefused
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import java.io.File

/** A manifest from anywhere: each thing that it may say is refused with a message, before anything is made by it. */
class ManifestCheckTest {
    private val directory = openBundle("llama").directory
    private val text = File(directory, MANIFEST_FILE).readText()
    private val manifest = Json.parseToJsonElement(text)

    /** [field]: such as graphs.embed.inputs.0.shape, with slashes where a name has dots; [value]: JSON, empty for none. */
    private fun JsonElement.put(field: String, value: String): JsonElement =
        put(field.split(if ('/' in field) "/" else "."), if (value.isEmpty()) null else Json.parseToJsonElement(value))

    private fun JsonElement.put(path: List<String>, value: JsonElement?): JsonElement {
        if (path.isEmpty()) return value ?: JsonNull
        val key = path[0]
        return if (this is JsonArray) {
            val index = key.toInt()
            if (index == size) JsonArray(this + value!!) else JsonArray(mapIndexed { at, old -> if (at == index) old.put(path.drop(1), value) else old })
        } else {
            val fields = (this as JsonObject).toMutableMap()
            if (path.size == 1 && value == null) fields.remove(key) else fields[key] = (fields[key] ?: JsonNull).put(path.drop(1), value)
            JsonObject(fields)
        }
    }

    private fun at(field: String): String {
        var place = manifest
        for (part in field.split(".")) place = (place as? JsonArray)?.get(part.toInt()) ?: (place as JsonObject).getValue(part)
        return place.toString()
    }

    /** What opening a bundle with this manifest and the true files says. */
    private fun refused(content: ByteArray, fault: Fault = Fault.BUNDLE_UNREADABLE): String = inScratch { scratch ->
        File(scratch, MANIFEST_FILE).writeBytes(content)
        refusal(fault) { Bundle.open(scratch) }
    }

    private fun refused(content: String, fault: Fault = Fault.BUNDLE_UNREADABLE) = refused(content.toByteArray(), fault)

    private fun assertRefused(cases: List<Triple<String, String, String>>) {
        for ((field, value, expected) in cases) {
            val message = refused(manifest.put(field, value).toString())
            assertTrue("$field = $value: $message", expected in message && "malformed manifest: " in message)
        }
    }

    @Test
    fun `values out of range`() = assertRefused(
        listOf(
            Triple("seq_len", "0", "seq_len: expected 1 to 1048576, found 0"),
            Triple("seq_len", "-5", "seq_len: expected 1 to 1048576, found -5"),
            Triple("seq_len", "1000000000000000000", "Failed to parse int for input '1000000000000000000' at path: \$.seqLen"),
            Triple("seed", "-1", "seed: expected 0 to 9007199254740992, found -1"),
            Triple("model.vocab_size", "20000000", "model.vocab_size: expected 1 to 16777216"),
            Triple("model.hidden_size", "0", "model.hidden_size: expected 1 to 262144, found 0"),
            Triple("model.num_hidden_layers", "1000000000", "model.num_hidden_layers: expected 1 to 4096, found 1000000000"),
            Triple("model.num_key_value_heads", "0", "model.num_key_value_heads: expected 1"),
            Triple("model.head_dim", "-1", "model.head_dim: expected 1"),
            Triple("model.rms_norm_eps", "2", "model.rms_norm_eps: expected 0 to 1, found 2.0"),
            Triple("model.logits_scaling", "0", "model.logits_scaling: expected 1.0E-9 to 1000000000, found 0.0"),
            Triple("model.final_logit_softcapping", "0", "model.final_logit_softcapping: expected 1.0E-9 to 1000000000, found 0.0"),
            Triple("model.attention_kinds", List(65) { "\"$it\": {\"rope_theta\": 1.0}" }.joinToString(",", "{", "}"), "expected at most 64, found 65"),
            Triple("model.attention_kinds.full_attention.window", "0", "model.attention_kinds: expected positive numbers"),
            Triple("model.rotary_dim", "0", "model.rotary_dim: expected 2 to 4096, found 0"),
            Triple("model.conv_kernel", "-1", "model.conv_kernel: expected 0 to 256, found -1"),
            Triple("model.tensor_prefix", "\"../\"", "model.tensor_prefix: expected words that end with dots, found '../'"),
            Triple("model.tensor_prefix", "\"${"a.".repeat(100_000)}\"", "model.tensor_prefix: expected words that end with dots"),
            Triple("lora.rank", "0", "lora.rank: expected 1 to 65536, found 0"),
            Triple("kinds", "[]", "kinds: expected 1 to 64, found 0"),
            Triple("kinds.0.name", "\"a_b\"", "kinds.'a_b': name: expected lower-case letters and digits"),
            Triple("kinds.0.name", "\"../x\"", "kinds.'../x': name: expected lower-case letters and digits"),
            Triple("kinds.0.reads.0", "\"adapter\"", "kinds.'block': 'adapter': expected the name of a table, a value or a state"),
            Triple("kinds.0.takes", "[\"d_h\"]", "kinds.'block': 'd_h': expected the name of a table, a value or a state"),
            Triple("kinds.0.size", "0", "kinds.'block': size: expected 1 or more, found 0"),
            Triple("kinds.0.size", "3000000000", "Failed to parse int for input '3000000000' at path: \$.kinds[0].size"),
            Triple("kinds.0.matrices.0.shape", "[-4, 48]", "expected positive dimensions, found [-4, 48]"),
            Triple("kinds.0.matrices.0.shape", "[4]", "expected positive dimensions, found [4]"),
            Triple("kinds.0.state.0.shape", "[31, 0, 12]", "kinds.'block': state: 'keys': expected positive dimensions, found [31, 0, 12]"),
            Triple("kinds.0.attention_width", "-1", "kinds.'block': attention_width: expected 0 to 16777216, found -1"),
            Triple("kinds.0.flops.forward", "-1", "kinds.'block': flops: expected 0 or more"),
            Triple("layers.1.offset", "-1", "layers.1: expected 0 or more, found number 1 at -1"),
            Triple("quantization.group_size", "0", "quantization.group_size: expected 2 to 65536, found 0"),
            Triple("quantization.bits", "5", "quantization.bits: expected 4 or 8, found 5"),
            Triple("optimizer.betas", "[1.0, 0.999]", "optimizer.betas: expected two of 0 to less than 1, found [1.0, 0.999]"),
            Triple("optimizer.betas", "[0.9]", "optimizer.betas: expected two"),
            Triple("optimizer.clip_norm", "0", "optimizer.clip_norm"),
            Triple("accuracy_level", "1", "accuracy_level: expected 0 or 4, found 1"),
            Triple("runtime.arena.initial_bytes", "-1", "runtime.arena.initial_bytes: expected 0 to 68719476736, found -1"),
            Triple("weights.1.offset", "12290", "found 'float16' [131, 6] at byte 12290"),
            Triple("weights.1.shape", "[]", "found 'float16' [] at byte"),
            Triple("weights.1.dtype", "\"float64\"", "found 'float64' [131, 6]"),
            Triple("source", "\"\\u001b]0;x\\u0007\"", "source: expected a text without control characters, found '\\x1b]0;x\\x07'"),
            Triple("tools/a\nb", "\"1\"", "tools: expected a text without control characters, found 'a\\x0ab'"),
            Triple("files/gemm.onnx/size", "1152921504606846976", "size: expected a number of at most 2^53, found 1152921504606846976"),
        ),
    )

    @Test
    fun `what onnx runtime is told`() {
        for (key in listOf("session.node_partition_config_file", "session.load_model_format", "session.optimized_model_filepath", "")) {
            val message = refused(manifest.put("runtime/session_config", """{"$key": "/tmp/written"}""").toString())
            assertTrue(message, "runtime.session_config: '$key' = '/tmp/written' is none of the entries that an export writes" in message)
        }
        val message = refused(manifest.put("runtime/session_config", """{"session.force_spinning_stop": "2"}""").toString())
        assertTrue(message, "is none of the entries" in message)
    }

    @Test
    fun `tables that do not agree`() {
        val size = openBundle("llama").manifest.kinds[0].size
        val chunks = """{"num_key_heads": 1, "num_value_heads": 1, "key_head_dim": 1, "value_head_dim": 1, "chunk": 16}"""
        val dynamic = """{"rope_type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 30}"""
        assertRefused(
            listOf(
                Triple("model.layer_types", "[\"full_attention\"]", "model.layer_types: expected one for each of 3 layers, found 1"),
                Triple("model.attention_kinds.window", """{"rope_theta": 1.0}""", "model.attention_kinds: no layer is of type 'window'"),
                Triple("model.rotary_dim", "14", "model.rotary_dim: expected an even number up to 12, found 14"),
                Triple("model.rotary_dim", "11", "model.rotary_dim: expected an even number up to 12, found 11"),
                Triple("model.num_key_value_heads", "4", "model: 6 heads are no multiple of 4 key-value heads"),
                Triple("model.linear_attention", chunks, "seq_len: expected a multiple of 16, found 31"),
                Triple("model.attention_kinds.full_attention.rope_scaling", dynamic, "seq_len: expected at most 30, as the model's RoPE has it, found 31"),
                Triple("schedule", "[]", "schedule: expected at least one step, found none"),
                Triple("schedule.0", """{"train": [3], "propagate": [3]}""", "schedule: step 1: train: expected ascending layers from 0 to 2, found [3]"),
                Triple("schedule.1", """{"train": [], "propagate": [1]}""", "schedule: step 2: expected train to be non-empty"),
                Triple("schedule.2.propagate", "[2, 1, 0]", "schedule: step 3: propagate: expected ascending layers"),
                Triple("schedule.2.propagate", "[1, 2]", "schedule: step 3: expected train to be non-empty and within propagate"),
                Triple("kinds.1", at("kinds.0"), "kinds: 'block' stands twice"),
                Triple("kinds.0.name", "\"gemm\"", "kinds.gemm: another program is called gemm_backward"),
                Triple("kinds.0.state.0.shape", "[30, 2, 12]", "kinds.block: state: 'keys': expected 31 places, found [30, 2, 12]"),
                Triple("kinds.0.size", "${size - 1}", "kinds.block: size: expected $size, where the last of 14 matrices ends, found ${size - 1}"),
                Triple("kinds.0.size", "2147483647", "layers: expected at most 1073741824 bytes of adapter, found 25769803764"),
                Triple("kinds.0.matrices.1.offset", "191", "kinds.block: matrices: expected a lora_B of rank 4 at 192, found AdapterMatrix("),
                Triple("kinds.0.matrices.1.name", "\"x.lora_B\"", "expected both of one projection, found 'self_attn.q_proj.lora_A' and 'x.lora_B'"),
                Triple("kinds.0.matrices.0.shape", "[2147483647, 2147483647]", "kinds.block: matrices: expected a lora_A of rank 4 at 0"),
                Triple("layers.3", at("layers.2"), "layers: expected 3, found 4"),
                Triple("layers.1.kind", "\"other\"", "layers.1: expected one of the kinds block, found 'other'"),
                Triple("layers.1.number", "0", "layers.1: number: expected 1, found 0"),
                Triple("layers.1.offset", "${size - 1}", "layers.1: offset: expected $size, found ${size - 1}"),
                Triple("layers.1.reads.cos", "", "layers.1: reads: expected ['cos', 'sin', 'mask'], found ['sin', 'mask']"),
                Triple("weights.${openBundle("llama").manifest.weights.size}", at("weights.0"), "'embed_tokens.weight.packed' stands twice"),
                Triple("weights.0.offset", "${1L shl 40}", "weights: the tensors end at byte 10995116"),
                Triple("weights.1.dtype", "\"float32\"", "'embed_tokens.weight.scale': expected float16 [131, 6], found float32 [131, 6]"), // all or none
                Triple("weights.1.offset", "0", "weights: 'embed_tokens.weight.packed' and 'embed_tokens.weight.scale' overlap"),
                Triple("weights.0.shape.0", "130", "weights: 'embed_tokens.weight.packed': expected int8 [131, 6, 8], found int8 [130, 6, 8]"),
                Triple("weights.0.shape", "[9007199254740992, 9007199254740992]", "weights: 'embed_tokens.weight.packed': expected int8"),
                Triple("weights.20.shape.0", "1", "expected 3 layers, found 1"),
                Triple("model.tie_word_embeddings", "false", "weights: 'lm_head.weight.packed': expected int8 [131, 6, 8], found none"),
                Triple("quantization.group_size", "10", "expected an even divisor of the 48 columns of 'embed_tokens.weight', found 10"),
                Triple("files/weights.bin", "", "of weights.bin, which has 0"),
            ),
        )
    }

    @Test
    fun `programs other than the runner feeds`() = assertRefused(
        listOf(
            Triple("graphs.head", "", "graphs: head missing"),
            Triple("graphs.gemm.file", "\"gemm_backward.onnx\"", "graphs.gemm: expected the file gemm.onnx, found 'gemm_backward.onnx'"),
            Triple("graphs.embed.inputs.0.shape", "[33]", "graphs.embed: inputs: 'input_ids': expected int64 [31], found int64 [33]"),
            Triple("graphs.embed.outputs.0.dtype", "\"float16\"", "graphs.embed: outputs: 'h': expected float32 [31, 48], found float16 [31, 48]"),
            Triple("graphs.embed.outputs.0.dtype", "\"string\"", "graphs.embed: 'h': expected a dtype and positive dimensions, found 'string' [31, 48]"),
            Triple("graphs.embed.outputs.0.shape.0", "-1", "expected a dtype and positive dimensions, found 'float32' [-1, 48]"),
            Triple("graphs.embed.outputs.0.shape", "[1048576, 1048576]", "'h': expected at most 1073741824 bytes, found float32 [1048576, 1048576]"),
            Triple("graphs.embed.outputs.0.shape", "[${(1..8).joinToString { "${1L shl 50}" }}]", "expected at most 1073741824 bytes"),
            Triple("graphs.embed.working_bytes", "-1", "graphs.embed: working_bytes: expected 0 or more, found -1"),
            Triple("graphs.embed.inputs.3.weight", "\"absent\"", "graphs.embed: 'absent' as: 'embed_tokens.weight.packed': expected nothing []"),
            Triple("graphs.embed.inputs.0.weight", "\"norm.weight\"", "graphs.embed: inputs: 'input_ids': expected int64 [31], found none"),
            Triple("graphs.embed.outputs.0.weight", "\"norm.weight\"", "graphs.embed: the output 'h' cannot be a weight"),
            Triple("graphs.block_decode.inputs.4.shape.0", "33", "graphs.block_decode: inputs: 'past_keys': expected float32 [31, 2, 12]"),
            Triple("graphs.block_forward.inputs.1.name", "\"other\"", "graphs.block_forward: inputs: 'other': expected none, found float32 [31, 12]"),
            Triple("graphs.block_forward.inputs.1.shape.0", "30", "layers.0: block_forward: 'cos' is 'cos.full_attention': expected float32 [30, 12]"),
            Triple("layers.2.reads.cos", "\"sin.x\"", "layers.2: block_decode: 'cos' is 'sin.x': expected float32 [1, 12], found none"),
            Triple("graphs.embed.outputs.1.name", "\"other\"", "graphs.embed: outputs: 'other': expected none"),
            Triple("graphs.adamw.inputs.0.shape.0", "7", "graphs.adamw: inputs: 'parameters': expected float32 [-1], found float32 [7]"),
            Triple("graphs.block_forward.inputs.5.weight", "\"layers.other.x\"", "graphs.block_forward: 'layers.other.x': expected one of the kind block"),
            Triple("graphs.block_forward.inputs.5.weight", "\"norm.weight\"", "graphs.block_forward: 'norm.weight': expected one of the kind block"),
            Triple("graphs.head.inputs.2.weight", at("graphs.block_forward.inputs.5.weight"), "graphs.head: 'layers.block."),
            Triple("graphs.block_forward_keep.outputs.1.shape.0", "9", "graphs.block_forward_keep: what block_backward_kept reads: 'kept.0': expected"),
            Triple("graphs.head.inputs.0.name", "\"kept.0\"", "graphs.head: inputs: 'h': expected float32 [31, 48], found none"),
            Triple("graphs.head.initializers.0", at("graphs.head.inputs.2"), "expected the layers' weight that it is"),
        ),
    )

    @Test
    fun `many faults are counted`() {
        val message = refused(manifest.put("model.hidden_size", "96").toString())
        assertEquals(message, 8, Regex("expected").findAll(message).count())
        assertTrue(message, Regex("\\(and \\d+ more\\); export the bundle again$").containsMatchIn(message))
    }

    @Test
    fun `another version or target`() {
        assertTrue("format version 4 is newer than 3" in refused("""{"format_version": 4, "anything": [1]}""", Fault.BUNDLE_NEWER_VERSION))
        for (version in 1..2) {
            val message = refused("""{"format_version": $version, "adapter": {}}""", Fault.BUNDLE_OLDER_VERSION)
            assertTrue(message, "format version $version is older than 3; export the bundle again" in message)
        }
        // Apple's systems alone run these, whose programs have dtypes and names that no other target's have.
        for (target in listOf("coreml", "coreai")) {
            val other = manifest.put("target", "\"$target\"").put("graphs.embed.inputs.0.dtype", "\"int32\"").put("accuracy_level", "2")
            val message = refused(other.put("graphs.adamw", "null").toString(), Fault.BUNDLE_OTHER_TARGET)
            assertTrue(message, "expected a bundle of target onnxruntime or executorch, found $target; export one" in message)
        }
    }

    @Test
    fun `malformed json`() {
        val cases = listOf(
            "[".repeat(100_000), """{"format_version": 3, "target": "onnxruntime", "x": """ + "[".repeat(100_000) + "]".repeat(100_000) + "}",
            """{"format_version": 3, "target": "onnxruntime"}""", """{"format_version": NaN}""", """{"format_version": 1e999}""",
            """{"format_version": ${"9".repeat(5000)}}""", "", "{", text.dropLast(5), text.replace("\"seq_len\": ", "\"seq_len\": \"x\", \"y\": "),
            text.replaceFirst("\"seed\":", "\"unknown\": 1, \"seed\":"),
        )
        for (case in cases) assertTrue(case.take(60), "malformed manifest: " in refused(case))
        assertTrue("not UTF-8" in refused(text.toByteArray().also { it[text.indexOf("tiny").coerceAtLeast(60)] = 0xff.toByte() }))
        assertTrue("more than the 4194304 that are read" in refused(" ".repeat(MANIFEST_BYTES + 1)))
    }

    @Test
    fun `a key that stands twice`() {
        assertTrue("the key 'seed' stands twice in an object" in refused(text.replaceFirst("\"seed\":", "\"seed\": 1, \"seed\":")))
        assertTrue("the key 'rank' stands twice in an object" in refused(text.replaceFirst("\"rank\":", "\"r\\u0061nk\": 4, \"rank\":")))
        assertEquals(null, repeatedKey("""{"a": {"b": "\\", "c": "\"a\":"}, "b": [{"a": 1}, {"a": "a"}], "c": {}}"""))
        assertEquals("a", repeatedKey("""{"a" : [], "b": {"a": 1}, "a": 2}"""))
    }
}
