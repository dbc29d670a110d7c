package lcsbmobile.core

import lcsbmobile.core.CrossingBundle.TOKENS
import lcsbmobile.core.CrossingBundle.WIDTH
import lcsbmobile.core.bundle.Batch
import lcsbmobile.core.bundle.Layer
import lcsbmobile.core.bundle.Subset

private const val ELEMENTS = TOKENS * WIDTH

private typealias Values = DoubleArray // [TOKENS * WIDTH]

private inline fun each(value: (Int) -> Double): Values = DoubleArray(ELEMENTS) { value(it) }

/** A step on CrossingBundle in double precision, by the formulas of its table. */
internal class CrossingReference(batch: Batch) {
    private val layers = CrossingBundle.places
    private val factors = factors()
    private val scale = each { batch.positionIds[it / WIDTH] + 1.0 }
    private val inputs = ArrayList<Values>()
    private val given = HashMap<String, Values>()
    private val top: Values

    val loss: Double get() = top.sumOf { it * it } / 2

    init {
        var h = each { CrossingBundle.embedding[batch.inputIds[it / WIDTH].toInt() * WIDTH + it % WIDTH].toDouble() }
        for ((layer, place) in layers.withIndex()) {
            val (before, s) = h to factors[layer]
            inputs += before
            val added = product(layer)
            h = each { before[it] + added[it] * s }
            for (value in place.gives.values) given[value] = each { before[it] * s }
        }
        top = h
    }

    /** s, and b where a layer has one. */
    private fun factors(): List<Double> {
        val adapter = CrossingBundle.adapter()
        val ends = layers.map { it.offset } + adapter.capacity()
        return layers.mapIndexed { layer, place ->
            val bias = if (place.kind == "give") CrossingBundle.biases[place.number] else 0f
            (ends[layer] until ends[layer + 1]).sumOf { adapter.get(it).toDouble() } + bias
        }
    }

    /** What a layer multiplies with s and adds to h; so it is the derivative of the layer's output by s too. */
    private fun product(layer: Int): Values {
        val place = layers[layer]
        return when (place.kind) {
            "give" -> inputs[layer]
            "take" -> each { taken(place, "value")[it] * scale[it] }
            else -> each { taken(place, "left")[it] * taken(place, "right")[it] }
        }
    }

    private fun taken(place: Layer, name: String) = given.getValue(place.takes.getValue(name))

    /** Of each trained layer's s. A layer outside `propagate` passes g on, and what it gave has no gradient. */
    fun gradients(subset: Subset): Map<Int, Double> {
        val owed = HashMap<String, Values>()
        val found = sortedMapOf<Int, Double>()
        var g = top
        for (layer in subset.propagate.filter { it >= subset.train[0] }.reversed()) {
            val (place, s, above) = Triple(layers[layer], factors[layer], g)
            fun owe(name: String, gradient: (Int) -> Double) {
                val sum = owed.getOrPut(place.takes.getValue(name)) { DoubleArray(ELEMENTS) }
                for (at in 0 until ELEMENTS) sum[at] += gradient(at)
            }
            var upper = above // of what the layer adds, as its value is the same
            when (place.kind) {
                "give" -> {
                    upper = each { above[it] + (owed[place.gives["value"]]?.get(it) ?: 0.0) }
                    g = each { above[it] + upper[it] * s }
                }
                "take" -> owe("value") { above[it] * s * scale[it] }
                else -> {
                    owe("left") { above[it] * s * taken(place, "right")[it] }
                    owe("right") { above[it] * s * taken(place, "left")[it] }
                }
            }
            if (layer in subset.train) found[layer] = product(layer).let { added -> (0 until ELEMENTS).sumOf { upper[it] * added[it] } }
        }
        return found
    }
}
