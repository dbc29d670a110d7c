package lcsbmobile.core.bundle

import lcsbmobile.core.Bundle
import lcsbmobile.core.CrossingBundle
import lcsbmobile.core.Fault
import lcsbmobile.core.inScratch
import lcsbmobile.core.refusal
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

/** A manifest whose layers bind what they should not. */
class LayerRelationsTest {
    private fun refused(expected: String, change: (Manifest) -> Manifest) = inScratch { scratch ->
        val message = refusal(Fault.BUNDLE_UNREADABLE) { Bundle.open(CrossingBundle.write(scratch, change)) }
        assertTrue("$expected: $message", expected in message && "malformed manifest: " in message)
    }

    private fun Manifest.layer(index: Int, change: (Layer) -> Layer) = copy(layers = layers.mapIndexed { at, it -> if (at == index) change(it) else it })

    private fun Manifest.kind(name: String, change: (Kind) -> Kind) = copy(kinds = kinds.map { if (it.name == name) change(it) else it })

    private fun Manifest.graph(name: String, change: (Graph) -> Graph) = copy(graphs = graphs + (name to change(graphs.getValue(name))))

    private fun List<GraphTensor>.reshaped(name: String, vararg shape: Long) = map { if (it.name == name) it.copy(shape = shape.toList()) else it }

    private fun List<GraphTensor>.without(name: String) = filter { it.name != name }

    @Test
    fun `layers that give and take agree`() = inScratch { scratch ->
        val manifest = Bundle.open(CrossingBundle.write(scratch)).manifest
        assertEquals(34, manifest.adapter.size)
        assertEquals(listOf(4, 5, 4, 6, 6, 4, 5), manifest.layers.indices.map { manifest.adapter.vectorSize(it) })
        assertEquals("base_model.model.model.language_model.layers.3.p.lora_B.weight", manifest.adapter.tensorName(3, "p.lora_B"))
    }

    @Test
    fun `what is bound`() {
        refused("layers.1: takes: 'value': no earlier layer gives 'c'") { it.layer(1) { layer -> layer.copy(takes = mapOf("value" to "c")) } }
        refused("layers.1: takes: 'value': no earlier layer gives 'b'") { it.layer(1) { layer -> layer.copy(takes = mapOf("value" to "b")) } }
        refused("layers.2: gives: 'a' is given twice") { it.layer(2) { layer -> layer.copy(gives = mapOf("value" to "a")) } }
        refused("layers.2: gives: expected of ['value'], found ['other']") { it.layer(2) { layer -> layer.copy(gives = mapOf("other" to "b")) } }
        refused("layers.3: takes: expected ['left', 'right'], found ['left']") { it.layer(3) { layer -> layer.copy(takes = mapOf("left" to "a")) } }
        refused("layers.1: reads: expected ['scale'], found []") { it.layer(1) { layer -> layer.copy(reads = emptyMap()) } }
        refused("layers.6: take_forward: 'scale' is 'other': expected float32 [4, 1], found none") {
            it.layer(6) { layer -> layer.copy(reads = mapOf("scale" to "other")) }
        }
        refused("kinds: no layer is of 'unused'") { it.copy(kinds = it.kinds + it.kinds[0].copy(name = "unused")) }
        refused("kinds.take: names: 'scale' stands twice") { it.kind("take") { kind -> kind.copy(takes = listOf("value", "scale")) } }
        refused("kinds.give: names: 'seen' stands twice") { it.kind("give") { kind -> kind.copy(gives = listOf("value", "seen")) } }
    }

    /** Each layer could name all of them: what is said must not grow by that. */
    @Test
    fun `many names`() {
        val many = List(20_000) { "n$it" }
        refused("reads: expected ['n0', 'n1', 'n2', 'n3', 'n4', 'n5', 'n6', 'n7', 'n8', 'n9', ...], found []") { it.kind("give") { kind -> kind.copy(reads = many) } }
        refused("gives: expected of ['value', 'n0'") { manifest ->
            manifest.kind("give") { it.copy(gives = it.gives + many) }.layer(0) { layer -> layer.copy(gives = many.associateWith { it } + ("none" to "none")) }
        }
    }

    @Test
    fun `what crosses is of one shape`() {
        refused("layers.1: take_forward: 'value' is 'a': expected float32 [4, 3], found float32 [4, 2]") { manifest ->
            manifest.graph("take_forward") { it.copy(inputs = it.inputs.reshaped("value", 4, 3)) }
        }
        refused("layers.6: take_decode: 'value' is 'b': expected float32 [2, 2], found float32 [1, 2]") { manifest ->
            manifest.graph("take_decode") { it.copy(inputs = it.inputs.reshaped("value", 2, 2)) }
        }
        refused("layers.4: pair_backward_kept: 'd_right' is 'b': expected none, found float32 [4, 2]") { manifest ->
            manifest.graph("pair_backward_kept") { it.copy(outputs = it.outputs.without("d_right")) }
        }
        refused("graphs.give_backward: inputs: 'd_value': expected float32 [4, 2], found none") { manifest ->
            manifest.graph("give_backward") { it.copy(inputs = it.inputs.without("d_value")) }
        }
        refused("graphs.give_forward_keep: outputs: 'value': expected float32 [4, 2], found none") { manifest ->
            manifest.graph("give_forward_keep") { it.copy(outputs = it.outputs.without("value")) }
        }
        for (program in listOf("give_forward", "give_prefill", "give_decode")) {
            refused("graphs.$program: outputs: 'value': expected a float32 that it gives, found none") { manifest ->
                manifest.graph(program) { it.copy(outputs = it.outputs.without("value")) }
            }
        }
    }

    @Test
    fun `programs of a kind`() {
        refused("graphs: give_decode, pair_prefill missing") { it.copy(graphs = it.graphs - "give_decode" - "pair_prefill") }
        refused("graphs.take_backward: inputs: 'g': expected float32 [4, 2], found none") { manifest ->
            manifest.graph("take_backward") { it.copy(inputs = it.inputs.without("g")) }
        }
        refused("graphs.give_prefill: outputs: 'total': expected float32 [1, 2], found float32 [2, 2]") { manifest ->
            manifest.graph("give_prefill") { it.copy(outputs = it.outputs.reshaped("total", 2, 2)) }
        }
        refused("graphs.give_decode: outputs: 'seen': expected float32 [1, 2], found float32 [4, 2]") { manifest ->
            manifest.graph("give_decode") { it.copy(outputs = it.outputs.reshaped("seen", 4, 2)) }
        }
        refused("graphs.give_decode: inputs: 'past_other': expected none, found float32 [1, 2]") { manifest ->
            manifest.graph("give_decode") { it.copy(inputs = it.inputs + it.inputs[0].copy(name = "past_other")) }
        }
        refused("graphs.take_forward: outputs: 'kept.0': expected none, found float32 [4, 2]") { manifest ->
            manifest.graph("take_forward") { it.copy(outputs = it.outputs + manifest.graphs.getValue("take_forward_keep").outputs[1]) }
        }
        refused("graphs.take_forward_keep: what take_backward_kept reads: 'kept.0': expected float32 [4, 2], found none") { manifest ->
            manifest.graph("take_forward_keep") { it.copy(outputs = it.outputs.without("kept.0")) }
        }
        refused("graphs.take_forward: 'layers.give.bias': expected one of the kind take") { manifest ->
            manifest.graph("take_forward") { it.copy(inputs = it.inputs + manifest.graphs.getValue("give_forward").inputs.last()) }
        }
    }

    @Test
    fun `weights are stacked by kind`() {
        fun Manifest.reshaped(name: String, vararg shape: Long) =
            copy(weights = weights.map { if (it.name == name) it.copy(shape = shape.toList()) else it })
        refused("weights: 'layers.give.bias': expected 3 layers, found 7") { it.reshaped("layers.give.bias", 7, 1) }
        refused("weights: 'layers.pair.p.weight.scale': expected float16 [2, 4, 1], found float16 [7, 4, 1]") {
            it.reshaped("layers.pair.p.weight.scale", 7, 4, 1)
        }
        refused("weights: 'layers.bias': expected a tensor of one of the kinds give, take, pair") { manifest ->
            manifest.copy(weights = manifest.weights.map { if (it.name == "layers.give.bias") it.copy(name = "layers.bias") else it })
        }
    }
}
