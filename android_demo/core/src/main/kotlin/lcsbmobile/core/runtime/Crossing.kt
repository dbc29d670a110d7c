package lcsbmobile.core.runtime

import lcsbmobile.core.bundle.FORWARD
import lcsbmobile.core.bundle.GRADIENT
import lcsbmobile.core.bundle.Manifest
import lcsbmobile.core.bundle.TensorType
import lcsbmobile.core.bundle.gives
import lcsbmobile.core.io.add

// What crosses between layers besides h: values that one gives and later ones take, and their gradients on the way down.

/** The buffers of what crosses; each is made by [new] when it is first asked for, and serves every pass. */
internal class CrossingBuffers(private val new: (TensorType) -> HostTensor) {
    private val made = HashMap<Pair<String, TensorType>, HostTensor>()

    operator fun get(what: String, type: TensorType): HostTensor = made.getOrPut(what to type) { new(type) }
}

/** The values of one pass up through the layers' programs of [role], each held under its name until the pass, or the step, ends. */
internal class Crossing(private val manifest: Manifest, private val buffers: CrossingBuffers, private val role: String) {
    private val given = HashMap<String, HostTensor>()

    /** What [layer] takes, by its kind's names. */
    fun taken(layer: Int): Values = manifest.layers[layer].takes.mapValues { given.getValue(it.value) }

    /** Where [layer]'s program puts what later layers take. What it gives under no name is not asked for. */
    fun given(layer: Int): Values {
        val names = manifest.layers[layer].gives
        if (names.isEmpty()) return emptyMap()
        val types = gives(manifest, manifest.kind(layer), role)
        return names.mapValues { (name, value) -> buffers[value, types.getValue(name)].also { given[value] = it } }
    }
}

/**
 * The gradients of what crossed, on the way down: each value's is summed over the layers that took it before the layer that gave it runs.
 * [propagate]: the layers that run, from min(train) up. What a layer outside of them gave has no gradient.
 */
internal class CrossingGradients(private val manifest: Manifest, private val buffers: CrossingBuffers, propagate: List<Int>) {
    private val types = HashMap<String, TensorType>() // of the values that have a gradient
    private val sums = HashMap<String, HostTensor>()
    private val parts = ArrayList<Pair<HostTensor, HostTensor>>() // sums, and what is to be added to them

    init {
        for (layer in propagate) {
            val given = gives(manifest, manifest.kind(layer), FORWARD)
            for ((name, value) in manifest.layers[layer].gives) types[value] = given.getValue(name)
        }
    }

    /** What [layer]'s backward is fed for all that its kind gives: zeros where nobody took it. */
    fun owed(layer: Int): Values {
        val names = manifest.layers[layer].gives
        return gives(manifest, manifest.kind(layer), FORWARD).entries.associate { (name, type) ->
            "$GRADIENT$name" to (names[name]?.let(sums::get) ?: buffers[ZEROS, type])
        }
    }

    /** Where [layer]'s backward puts the gradients of what it took; [settle] follows. */
    fun taken(layer: Int): Values =
        manifest.layers[layer].takes.filterValues { it in types }.entries.associate { (name, value) ->
            val type = types.getValue(value)
            val sum = sums[value]
            val target = if (sum == null) buffers["sum of $value", type] else buffers["part of $name", type]
            if (sum == null) sums[value] = target else parts += sum to target
            "$GRADIENT$name" to target
        }

    /** Adds what the last backward returned to the sums that there were. */
    fun settle() {
        for ((sum, part) in parts) add(sum.floats, part.floats)
        parts.clear()
    }

    private companion object {
        const val ZEROS = "zeros" // never written to
    }
}
