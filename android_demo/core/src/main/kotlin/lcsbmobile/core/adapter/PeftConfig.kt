package lcsbmobile.core.adapter

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.AdapterLayout
import lcsbmobile.core.io.JsonException
import lcsbmobile.core.io.JsonReader
import lcsbmobile.core.io.ioReason
import lcsbmobile.core.io.pythonRepr
import lcsbmobile.core.io.quoted
import lcsbmobile.core.io.readBounded
import lcsbmobile.core.io.some
import java.io.File
import java.io.IOException
import kotlin.math.abs
import kotlin.math.sqrt

// What of PEFT's adapter_config.json a plain LoRA adapter needs, and what of it would change the function: lcsb_mobile/adapters/peft_config.py.

private const val MOST_CONFIG_BYTES = 4 shl 20
private const val MOST_RANK = 65_536
private const val SCALING_TOLERANCE = 1e-6 // relative
private const val ALL_LINEAR = "all-linear"

private val OFF = listOf(false, null)
private val NONE = listOf(null)
private val NO_LIST = listOf(null, emptyList<Any>())
private val NO_MAP = listOf(null, emptyMap<String, Any>())

/** Option -> the values with which an adapter is a plain LoRA. PEFT adds options with every release; one that is not here is passed over. */
private val PLAIN: Map<String, List<Any?>> = mapOf(
    "alora_invocation_tokens" to NO_LIST,
    "alpha_pattern" to NO_MAP,
    "arrow_config" to NONE,
    "bias" to listOf("none"),
    "fan_in_fan_out" to OFF,
    "init_lora_weights" to listOf(true, false, null, "gaussian", "eva", "orthogonal", "mica"), // the others subtract from the base
    "kasa_config" to NONE,
    "layer_replication" to NO_LIST,
    "lora_bias" to OFF,
    "modules_to_save" to NO_LIST,
    "monteclora_config" to NONE,
    "rank_pattern" to NO_MAP,
    "target_parameters" to NO_LIST,
    "trainable_token_indices" to listOf(null, emptyList<Any>(), emptyMap<String, Any>()),
    "use_bdlora" to NONE,
    "use_dora" to OFF,
    "use_qalora" to OFF,
)

/**
 * What decides how the tensors are used. [targets], [excluded]: ends of names, null for what PEFT chooses itself, or nothing. [layers]: the only
 * ones that are adapted; null: all.
 */
internal class PeftConfig(
    val file: File,
    val baseModel: String?,
    val rank: Int,
    private val targets: Set<String>?,
    private val excluded: Set<String>,
    private val layers: Set<Int>?,
) {
    /** Whether PEFT adapts the projection [module] of a layer, by its full name such as model.layers.0.self_attn.q_proj. */
    fun reaches(module: String, layer: Int): Boolean {
        val parts = module.split('.')
        val ends = parts.indices.map { parts.drop(it).joinToString(".") }
        return (targets == null || ends.any { it in targets }) && ends.none { it in excluded } && (layers == null || layer in layers)
    }
}

/**
 * Throws ADAPTER for a file that is none, another method than LoRA, and, all at once, for every option that changes the function and a rank or
 * scaling other than the bundle's. A pattern of names is refused: what Python's `re` makes of it is not known here, and may take for ever.
 */
internal fun readPeftConfig(file: File, layout: AdapterLayout): PeftConfig {
    val fields = PeftFields(file, read(file))
    val type = fields.text("peft_type") ?: fields.refuse("peft_type", "LORA", null)
    if (type != "LORA") fields.refuse("peft_type", "LORA", type)
    val faults = PLAIN.filter { (name, plain) -> fields.has(name) && plain.none { isPlain(fields[name], it) } }
        .map { (name, plain) -> "$name: expected ${shown(plain.first())}, found ${shown(fields[name])}" }.toMutableList()
    val rank = fields.whole("r", 8)
    if (rank !in 1..MOST_RANK) fields.refuse("r", "1 to $MOST_RANK", rank)
    faults += scalingFaults(fields, rank, layout)
    if (faults.isNotEmpty()) throw refusal(file, "does not fit the bundle's plain LoRA: ${some(faults)}")
    val targets = fields.names("target_modules", mayBeAll = true)
    return PeftConfig(file, fields.text("base_model_name_or_path"), rank, targets, fields.names("exclude_modules").orEmpty(), fields.layers())
}

private fun read(file: File): Map<String, Any?> {
    try {
        if (!file.isFile) throw refusal(file, "no such file; expected a directory that PEFT's save_pretrained wrote")
        val json = JsonReader(readBounded(file, MOST_CONFIG_BYTES))
        val fields = json.tree() as? Map<*, *> ?: throw refusal(file, "malformed: expected an object")
        json.end()
        return fields.entries.associate { (name, value) -> name as String to value }
    } catch (error: IOException) {
        throw refusal(file, "cannot be read: ${ioReason(error)}", error)
    } catch (error: JsonException) {
        throw refusal(file, "malformed: ${error.message}", error)
    }
}

private fun scalingFaults(fields: PeftFields, rank: Int, layout: AdapterLayout): List<String> {
    val faults = mutableListOf<String>()
    val root = fields.flag("use_rslora")
    val scaling = fields.number("lora_alpha", 8.0) / if (root) sqrt(rank.toDouble()) else rank.toDouble()
    val expected = layout.lora.alpha / layout.lora.rank
    if (rank != layout.lora.rank) faults += "r: expected ${layout.lora.rank}, found $rank"
    if (!(abs(scaling - expected) <= SCALING_TOLERANCE * maxOf(abs(scaling), abs(expected)))) {
        faults += "${if (root) "lora_alpha/sqrt(r)" else "lora_alpha/r"}: expected ${pythonRepr(expected)}, found ${pythonRepr(scaling)}"
    }
    return faults
}

private fun isPlain(found: Any?, plain: Any?) = (if (found is String) found.lowercase() else found) == plain

private fun refusal(file: File, what: String, cause: Exception? = null) =
    LcsbException(Fault.ADAPTER, "$file: $what", listOf(file.name), cause)

private fun shown(value: Any?): String = when (value) {
    is String -> quoted(value, 40)
    is Double -> pythonRepr(value)
    is List<*> -> if (value.isEmpty()) "[]" else "a list of ${value.size}"
    is Map<*, *> -> if (value.isEmpty()) "{}" else "an object of ${value.size}"
    else -> "$value"
}

/** The file's fields by their types; each refuses what is of another. */
private class PeftFields(private val file: File, private val fields: Map<String, Any?>) {
    fun has(name: String) = name in fields

    operator fun get(name: String) = fields[name]

    fun refuse(name: String, expected: String, found: Any?): Nothing = throw refusal(file, "$name: expected $expected, found ${shown(found)}")

    fun text(name: String): String? = fields[name]?.let { it as? String ?: refuse(name, "a string", it) }

    fun flag(name: String): Boolean = fields[name]?.let { it as? Boolean ?: refuse(name, "true or false", it) } ?: false

    fun number(name: String, default: Double): Double =
        if (has(name)) fields[name] as? Double ?: refuse(name, "a number", fields[name]) else default

    fun whole(name: String, default: Int): Int =
        number(name, default.toDouble()).let { if (it == Math.rint(it) && abs(it) < Int.MAX_VALUE) it.toInt() else refuse(name, "a whole number", it) }

    /** Null where the field is, and where it says "all-linear" and [mayBeAll]. */
    fun names(name: String, mayBeAll: Boolean = false): Set<String>? = when (val value = fields[name]) {
        null -> null
        is List<*> -> value.mapTo(HashSet()) { it as? String ?: refuse(name, "names", it) }
        is String -> if (mayBeAll && value.lowercase() == ALL_LINEAR) null else refuse(name, "a list of names (patterns are not read here)", value)
        else -> refuse(name, "a list of names", value)
    }

    fun layers(): Set<Int>? {
        val name = "layers_to_transform"
        val found = fields[name] ?: return null
        val numbers = found as? List<*> ?: listOf(found)
        return numbers.takeIf { it.isNotEmpty() }?.mapTo(HashSet()) {
            (it as? Double)?.takeIf { number -> number == Math.rint(number) }?.toInt() ?: refuse(name, "numbers of layers", it)
        }
    }
}
