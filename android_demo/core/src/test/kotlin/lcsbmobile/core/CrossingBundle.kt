package lcsbmobile.core

import lcsbmobile.core.adapter.writeAdapter
import lcsbmobile.core.bundle.ADAPTER_FILE
import lcsbmobile.core.bundle.ANY
import lcsbmobile.core.bundle.AdamWConfig
import lcsbmobile.core.bundle.AdapterMatrix
import lcsbmobile.core.bundle.Arena
import lcsbmobile.core.bundle.Batch
import lcsbmobile.core.bundle.BlockWork
import lcsbmobile.core.bundle.FileEntry
import lcsbmobile.core.bundle.GOLDEN_FILE
import lcsbmobile.core.bundle.Graph
import lcsbmobile.core.bundle.GraphTensor
import lcsbmobile.core.bundle.Kind
import lcsbmobile.core.bundle.Layer
import lcsbmobile.core.bundle.LoraConfig
import lcsbmobile.core.bundle.MANIFEST_FILE
import lcsbmobile.core.bundle.Manifest
import lcsbmobile.core.bundle.ModelConfig
import lcsbmobile.core.bundle.QuantizationConfig
import lcsbmobile.core.bundle.RuntimeSettings
import lcsbmobile.core.bundle.ScheduleConfig
import lcsbmobile.core.bundle.StateTensor
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.bundle.TensorType
import lcsbmobile.core.bundle.WEIGHTS_FILE
import lcsbmobile.core.bundle.WeightTensor
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.io.recordJson
import lcsbmobile.core.io.sha256
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * A bundle whose layers cross: no architecture that is exported has such layers yet. With s the sum of a layer's adapter, b its bias:
 *
 * | kind   | h_next             | gives, or takes   | its programs besides                                                                 |
 * |--------|--------------------|-------------------|--------------------------------------------------------------------------------------|
 * | `give` | h (1 + s + b)      | value = h (s + b) | what is kept is h, so `backward_kept` takes none; remembers h by place, and its sum  |
 * |        |                    |                   | keeps 200,000 b too, which float16 does not hold of the second: its gradients are NaN by what is kept |
 * | `take` | h + value s scale  | value             | reads scale, a token's position + 1                                                  |
 * | `pair` | h + left right s   | left, right       | keeps nothing                                                                        |
 *
 * The loss is half the sum of the squares of h.
 */
internal object CrossingBundle {
    const val TOKENS = 4
    const val WIDTH = 2
    const val VOCABULARY = 5
    val places = listOf(
        Layer("give", 0, 0, emptyMap(), gives = mapOf("value" to "a")),
        Layer("take", 0, 4, mapOf("scale" to "scale"), mapOf("value" to "a")),
        Layer("give", 1, 9, emptyMap(), gives = mapOf("value" to "b")),
        Layer("pair", 0, 13, emptyMap(), mapOf("left" to "a", "right" to "b")),
        Layer("pair", 1, 19, emptyMap(), mapOf("left" to "b", "right" to "b")),
        Layer("give", 2, 25, emptyMap()),
        Layer("take", 1, 29, mapOf("scale" to "scale"), mapOf("value" to "b")),
    )
    val biases = floatArrayOf(0.25f, -0.5f, 0.125f) // of the layers `give`
    val embedding = FloatArray(VOCABULARY * WIDTH) { (it * 7 % 11 - 5) / 8f }

    private val hidden = float(TOKENS, WIDTH)
    private val one = float(1, WIDTH)
    private val kinds = listOf(
        kind("give", 2, 2, gives = listOf("value"))
            .copy(state = listOf(StateTensor("seen", hidden.shape, true), StateTensor("total", one.shape, false))),
        kind("take", 4, 1, reads = listOf("scale"), takes = listOf("value")),
        kind("pair", 2, 4, takes = listOf("left", "right")),
    )
    private val bias = GraphTensor("bias", "float32", listOf(1), "", "layers.give.bias")
    private val files = LinkedHashMap<String, ByteArray>()
    private val graphs = LinkedHashMap<String, Graph>()

    private fun float(vararg shape: Int) = TensorType("float32", shape.map { it.toLong() })

    private fun integer(count: Int) = TensorType("int64", listOf(count.toLong()))

    private fun kind(
        name: String,
        columns: Int,
        rows: Int,
        reads: List<String> = emptyList(),
        takes: List<String> = emptyList(),
        gives: List<String> = emptyList(),
    ): Kind {
        val matrices = listOf(AdapterMatrix("p.lora_A", listOf(1, columns), 0), AdapterMatrix("p.lora_B", listOf(rows, 1), columns))
        val work = BlockWork(name.length.toLong(), 10, 100)
        return Kind(name, reads, takes, gives, columns + rows, matrices, emptyList(), 0, work, work)
    }

    private fun program(
        name: String,
        inputs: Map<String, TensorType>,
        outputs: Map<String, TensorType>,
        weights: List<GraphTensor> = emptyList(),
        write: OnnxWriter.() -> Unit,
    ) {
        fun described(tensors: Map<String, TensorType>) = tensors.map { GraphTensor(it.key, it.value.dtype, it.value.shape, "") }
        val fed = weights.associate { it.name to TensorType(it.dtype, it.shape) }
        files["$name.onnx"] = OnnxWriter(inputs + fed, outputs).also(write).bytes()
        graphs[name] = Graph("$name.onnx", described(inputs) + weights, described(outputs))
    }

    private fun OnnxWriter.product(a: String, b: String, result: String? = null) = if (result == null) call("Mul", a, b) else call("Mul", a, b, result = result)

    private fun OnnxWriter.total(a: String, b: String, result: String? = null) = if (result == null) call("Add", a, b) else call("Add", a, b, result = result)

    /** A gradient of s, for each element of the adapter. */
    private fun OnnxWriter.spread(scalar: String, size: Long) = call("Expand", scalar, integers(size), result = "d_adapter")

    private fun givePrograms() {
        val adapter = "adapter" to float(4)
        val gradients = mapOf("g_next" to hidden, "d_adapter" to float(4))

        fun OnnxWriter.factor() = total(sum("adapter"), "bias")

        fun OnnxWriter.forward(value: String = "value") = factor().let { s -> total("h", product("h", s, value), "h_next") }

        fun OnnxWriter.backward(h: String) {
            total("g", product(total("g", "d_value"), factor()), "g_next")
            spread(sum(product(total("g", "d_value"), h)), 4)
        }
        val weights = listOf(bias)
        program("give_forward", mapOf("h" to hidden, adapter), mapOf("h_next" to hidden, "value" to hidden), weights) { forward() }
        val kept = mapOf("kept.0" to hidden, "kept.1" to TensorType("float16", listOf(1)))
        program("give_forward_keep", mapOf("h" to hidden, adapter), mapOf("h_next" to hidden, "value" to hidden) + kept, weights) {
            forward()
            call("Identity", "h", result = "kept.0")
            call("Cast", product("bias", floats(listOf(1), 2e5f)), result = "kept.1", attributes = mapOf("to" to 10L))
        }
        program("give_backward", mapOf("h" to hidden, "g" to hidden, "d_value" to hidden, adapter), gradients, weights) { backward("h") }
        program("give_backward_kept", mapOf("g" to hidden, "d_value" to hidden, adapter) + kept, gradients, weights) {
            val wide = call("Cast", "kept.1", attributes = mapOf("to" to 1L))
            backward(total("kept.0", product(wide, floats(listOf(1), 0f))))
        }
        val remembered = mapOf("h_next" to hidden, "value" to hidden, "seen" to hidden, "total" to one)
        program("give_prefill", mapOf("h" to hidden, adapter), remembered, weights) {
            forward()
            call("Identity", "h", result = "seen")
            call("ReduceSum", "h", integers(0), result = "total")
        }
        val past = mapOf("past_seen" to hidden, "past_total" to one)
        program("give_decode", mapOf("h" to one, adapter) + past, mapOf("h_next" to one, "value" to one, "seen" to one, "total" to one), weights) {
            total(total(forwardOf("h", factor()), call("ReduceSum", "past_seen", integers(0))), "past_total", "h_next")
            call("Identity", "h", result = "seen")
            total("past_total", "h", "total")
        }
    }

    /** What is passed on of the token alone, while its value is given. */
    private fun OnnxWriter.forwardOf(h: String, factor: String) = total(h, product(h, factor, "value"))

    private fun takePrograms() {
        val adapter = "adapter" to float(5)
        val gradients = mapOf("g_next" to hidden, "d_value" to hidden, "d_adapter" to float(5))
        for ((role, h, rows) in listOf(Triple("forward", hidden, TOKENS), Triple("prefill", hidden, TOKENS), Triple("decode", one, 1))) {
            program("take_$role", mapOf("h" to h, "scale" to float(rows, 1), "value" to h, adapter), mapOf("h_next" to h)) {
                total("h", product(product("value", "scale"), sum("adapter")), "h_next")
            }
        }
        val read = mapOf("h" to hidden, "scale" to float(TOKENS, 1), "value" to hidden, adapter)
        program("take_forward_keep", read, mapOf("h_next" to hidden, "kept.0" to hidden)) {
            total("h", product(product("value", "scale", "kept.0"), sum("adapter")), "h_next")
        }
        fun OnnxWriter.backward(scaled: String) {
            call("Identity", "g", result = "g_next")
            product(product("g", "scale"), sum("adapter"), "d_value")
            spread(sum(product("g", scaled)), 5)
        }
        val fed = mapOf("g" to hidden, "scale" to float(TOKENS, 1), adapter)
        program("take_backward", fed + mapOf("h" to hidden, "value" to hidden), gradients) { backward(product("value", "scale")) }
        program("take_backward_kept", fed + mapOf("kept.0" to hidden), gradients) { backward("kept.0") }
    }

    private fun pairPrograms() {
        val adapter = "adapter" to float(6)
        for ((role, h) in listOf("forward" to hidden, "forward_keep" to hidden, "prefill" to hidden, "decode" to one)) {
            program("pair_$role", mapOf("h" to h, "left" to h, "right" to h, adapter), mapOf("h_next" to h)) {
                total("h", product(product("left", "right"), sum("adapter")), "h_next")
            }
        }
        for (role in listOf("backward", "backward_kept")) {
            val fed = mapOf("h" to hidden, "g" to hidden, "left" to hidden, "right" to hidden, adapter)
            program("pair_$role", fed, mapOf("g_next" to hidden, "d_left" to hidden, "d_right" to hidden, "d_adapter" to float(6))) {
                call("Identity", "g", result = "g_next")
                val scaled = product("g", sum("adapter"))
                product(scaled, "right", "d_left")
                product(scaled, "left", "d_right")
                spread(sum(product("g", product("left", "right"))), 6)
            }
        }
    }

    private fun commonPrograms() {
        val table: OnnxWriter.() -> String = { floats(listOf(VOCABULARY, WIDTH), *embedding) }
        val ids = listOf("input_ids", "position_ids", "segment_ids").associateWith { integer(TOKENS) }
        for ((name, inputs, h) in listOf(Triple("embed", ids, hidden), Triple("decode_embed", ids.keys.take(2).associateWith { integer(1) }, one))) {
            val rows = h.shape[0]
            program(name, inputs, mapOf("h" to h, "scale" to float(rows.toInt(), 1))) {
                call("Gather", table(), "input_ids", result = "h")
                val places = call("Reshape", call("Cast", "position_ids", attributes = mapOf("to" to 1L)), integers(rows, 1))
                total(places, floats(emptyList(), 1f), "scale")
            }
        }
        program("head", mapOf("h" to hidden, "labels" to integer(TOKENS)), mapOf("loss" to float(), "g" to hidden)) {
            product(sum(product("h", "h")), floats(emptyList(), 0.5f), "loss")
            call("Identity", "h", result = "g")
        }
        program("head_eval", mapOf("h" to hidden, "labels" to integer(TOKENS)), mapOf("loss" to float())) {
            product(sum(product("h", "h")), floats(emptyList(), 0.5f), "loss")
        }
        program("logits", mapOf("h" to one), mapOf("logits" to float(VOCABULARY))) {
            call("Reshape", call("MatMul", "h", call("Transpose", table())), integers(VOCABULARY.toLong()), result = "logits")
        }
        val free = TensorType("float32", listOf(ANY))
        val moments = listOf("parameters", "first_moment", "second_moment")
        val scalars = listOf("decay", "rate", "root").associateWith { float() }
        program("adamw", (moments + "gradient").associateWith { free } + scalars, moments.associate { "${it}_next" to free }) {
            call("Sub", product("parameters", "decay"), product("gradient", "rate"), result = "parameters_next")
            call("Identity", "gradient", result = "first_moment_next")
            call("Identity", "second_moment", result = "second_moment_next")
        }
        val matrix = TensorType("float32", listOf(ANY, ANY))
        for (name in listOf("gemm", "gemm_backward")) {
            program(name, mapOf("a" to matrix, "b" to matrix), mapOf("y" to matrix)) { call("MatMul", "a", "b", result = "y") }
        }
    }

    private fun weights(): Pair<List<WeightTensor>, ByteArray> {
        val stored = linkedMapOf(
            "norm.weight" to float(WIDTH),
            "embed_tokens.weight.packed" to TensorType("int8", listOf(VOCABULARY.toLong(), 1, 2)),
            "embed_tokens.weight.scale" to TensorType("float16", listOf(VOCABULARY.toLong(), 1)),
            "layers.give.bias" to float(biases.size, 1),
        )
        for (kind in kinds) {
            val count = places.count { it.kind == kind.name }.toLong()
            val shape = listOf(count, kind.matrices[1].shape[0].toLong(), kind.matrices[0].shape[1] / 2L)
            stored["layers.${kind.name}.p.weight.packed"] = TensorType("uint8", shape + 1L)
            stored["layers.${kind.name}.p.weight.scale"] = TensorType("float16", shape)
        }
        val table = stored.entries.mapIndexed { at, (name, type) -> WeightTensor(name, type.dtype, type.shape, at * 4096L) }
        val bytes = ByteBuffer.allocate(4096 * table.size).order(ByteOrder.LITTLE_ENDIAN)
        val start = table.first { it.name == bias.weight }.offset.toInt()
        biases.forEachIndexed { at, value -> bytes.putFloat(start + 4 * at, value) }
        return table to bytes.array()
    }

    /** Writes it; [change] makes another manifest of the true one. */
    fun write(directory: File, change: (Manifest) -> Manifest = { it }): File {
        commonPrograms()
        givePrograms()
        takePrograms()
        pairPrograms()
        val (table, bytes) = weights()
        files[WEIGHTS_FILE] = bytes
        files[GOLDEN_FILE] = """{"batches":[],"steps":[],"learning_rate":0.001,"run":[]}""".toByteArray()
        for (name in listOf("tokenizer.json", "tokenizer_config.json")) files[name] = "{}".toByteArray()
        val all = places.indices.toList()
        val manifest = Manifest(
            formatVersion = 3, target = "onnxruntime", source = "none",
            model = ModelConfig(
                "crossing", VOCABULARY, WIDTH, 4, places.size, 1, 1, 2, 1e-6, true, places.map { it.kind }, emptyMap(), 2,
                queryScale = 1.0, tensorPrefix = "model.language_model.",
            ),
            lora = LoraConfig(1, 2.0), kinds = kinds, layers = places, quantization = QuantizationConfig(groupSize = 2), seqLen = TOKENS, seed = 0,
            scheduleConfig = ScheduleConfig(), schedule = listOf(Subset(all, all)), optimizer = AdamWConfig(), accuracyLevel = 0,
            runtime = RuntimeSettings(emptyMap(), Arena(0)), graphs = graphs, weights = table,
            reconstructionError = emptyMap(), tools = emptyMap(), files = emptyMap(),
        )
        for ((name, content) in files) File(directory, name).writeBytes(content)
        writeAdapter(File(directory, ADAPTER_FILE), manifest.adapter, adapter())
        val entries = (files.keys + ADAPTER_FILE).associateWith { File(directory, it).run { FileEntry(length(), sha256(readBytes())) } }
        File(directory, MANIFEST_FILE).writeText(recordJson.encodeToString(Manifest.serializer(), change(manifest.copy(files = entries))))
        return directory
    }

    fun adapter() = directFloats(34).also { for (at in 0 until 34) it.put(at, (at * 5 % 13 - 6) / 16f) }

    fun batch() = Batch(longArrayOf(1, 4, 0, 3), longArrayOf(0, 1, 2, 3), longArrayOf(0, 1, 2, 0), longArrayOf(0, 0, 0, 1))
}
