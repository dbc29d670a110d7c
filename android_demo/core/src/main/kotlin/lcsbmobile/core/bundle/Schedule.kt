package lcsbmobile.core.bundle

import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException

/**
 * One step's layers, ascending. [train]: their LoRA gradients are computed. [propagate]: the gradient passes through their true Jacobian; it
 * contains [train]. Every other layer above min(train) is the identity; below it nothing runs.
 */
@Serializable
public data class Subset(val train: List<Int>, val propagate: List<Int>) {
    /** Throws OPTION unless the layers are ascending, within the model, and [train] is not empty and in [propagate]. */
    public fun check(numLayers: Int): Unit = fault(numLayers)?.let { throw LcsbException(Fault.OPTION, it) } ?: Unit

    /** What is wrong, as a sentence, or null. */
    public fun fault(numLayers: Int): String? {
        for ((name, layers) in listOf("train" to train, "propagate" to propagate)) {
            val ascending = (1 until layers.size).all { layers[it - 1] < layers[it] }
            if (!ascending || layers.any { it !in 0 until numLayers }) {
                return "$name: expected ascending layers from 0 to ${numLayers - 1}, found ${few(layers)}"
            }
        }
        if (train.isEmpty() || !propagate.toHashSet().containsAll(train)) {
            return "expected train to be non-empty and within propagate, found ${few(train)} and ${few(propagate)}"
        }
        return null
    }
}

@Serializable
public enum class Method {
    @SerialName("lcsb-exact")
    LCSB_EXACT,

    @SerialName("lcsb-identity")
    LCSB_IDENTITY,

    @SerialName("full")
    FULL,

    @SerialName("freeze")
    FREEZE,
}

@Serializable
public enum class Partition {
    @SerialName("contiguous")
    CONTIGUOUS,

    @SerialName("interleaved")
    INTERLEAVED,
}

/** How a bundle's schedule was made. [partition] null: the method's own. [order]: a shuffled one is written out in the manifest. */
@Serializable
public data class ScheduleConfig(
    val method: Method = Method.LCSB_EXACT,
    val subsets: Int = 4,
    val partition: Partition? = null,
    val order: String = "cyclic",
    val seed: Long = 0,
)

/** K disjoint subsets that cover all layers; contiguous bands are listed from the top of the model down. */
internal fun partitionLayers(numLayers: Int, subsets: Int, partition: Partition): List<List<Int>> {
    if (partition == Partition.INTERLEAVED) return (0 until subsets).map { (it until numLayers step subsets).toList() }
    val bounds = (0..subsets).map { numLayers * it / subsets }
    return (subsets - 1 downTo 0).map { (bounds[it] until bounds[it + 1]).toList() }
}

/**
 * The steps of one cycle, in cyclic order and the method's own partition: of another method than the bundle's, whose schedule is its
 * manifest's. `full` and `freeze` have one step (all layers; the top 1/K of them). Throws OPTION when K is not from 1 to the number of layers.
 */
public fun makeSchedule(method: Method, subsets: Int, numLayers: Int): List<Subset> {
    if (subsets !in 1..numLayers) throw LcsbException(Fault.OPTION, "subsets: expected 1 to $numLayers (the model's layers), found $subsets")
    val everything = (0 until numLayers).toList()
    return when (method) {
        Method.FULL -> listOf(Subset(everything, everything))
        Method.FREEZE -> everything.takeLast(maxOf(1, numLayers / subsets)).let { listOf(Subset(it, it)) }
        Method.LCSB_EXACT ->
            partitionLayers(numLayers, subsets, Partition.CONTIGUOUS).map { Subset(it, everything.drop(it[0])) }
        Method.LCSB_IDENTITY -> partitionLayers(numLayers, subsets, Partition.INTERLEAVED).map { Subset(it, it) }
    }
}

/** A list as a message shows it, cut to what a line holds. */
private fun few(layers: List<Int>) = layers.joinToString(", ", "[", "]", limit = 100)
