package lcsbmobile.core.training

import lcsbmobile.core.bundle.AdamWConfig
import lcsbmobile.core.bundle.AdapterLayout
import lcsbmobile.core.bundle.ImplicitUpdates
import lcsbmobile.core.io.inPieces
import lcsbmobile.core.io.scale
import lcsbmobile.core.runtime.LayerUpdate
import lcsbmobile.core.runtime.StepRunner
import java.nio.FloatBuffer
import kotlin.math.abs
import kotlin.math.min
import kotlin.math.pow
import kotlin.math.sqrt

// The largest float16, which whoever loads the adapter may compute in. LoRA's parameters are below 1 and move by some learning rates a step.
private const val MOST_PARAMETER = 65504f

/**
 * Decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), element for element as `torch.optim.AdamW`, over [state], layer by layer as
 * [layout] says. A layer that a step does not train gets a zero gradient, or rests ([ImplicitUpdates]). [runner] computes a layer's update by
 * the program `adamw`.
 *
 * [updates]: how often each layer was updated.
 */
internal class AdamW(val state: AdapterState, val layout: AdapterLayout, val config: AdamWConfig, private val runner: StepRunner) {
    val updates = LongArray(layout.numLayers)

    /**
     * One step. [gradients]: layer -> float32 of the size of its vector, for the trained layers. [trainable]: the layers that the method trains
     * in any step (null: all); another one is no parameter of the run, and stays bit for bit: no momentum moves it, and no weight decay shrinks
     * it.
     */
    fun update(gradients: Map<Int, FloatBuffer>, learningRate: Double, trainable: Set<Int>? = null) {
        for (layer in updates.indices) {
            val moved = config.implicitUpdates == ImplicitUpdates.MOMENTUM && (trainable == null || layer in trainable)
            if (layer !in gradients && !moved) continue
            updates[layer]++
            val (parameters, first, second) = listOf(state.adapter, state.firstMoment, state.secondMoment).map { layout.vector(it, layer) }
            runner.updateLayer(parameters, first, second, gradients[layer], scalars(updates[layer], learningRate))
        }
    }

    /**
     * What is not finite, or of the parameters absurd, after an update, if anything. A second moment that overflowed would keep its parameter
     * where it is, and no loss shows that.
     */
    fun fault(): String? {
        val kinds = listOf(
            Triple("a parameter", state.adapter, MOST_PARAMETER),
            Triple("a first moment", state.firstMoment, Float.MAX_VALUE),
            Triple("a second moment", state.secondMoment, Float.MAX_VALUE),
        )
        for ((name, values, most) in kinds) {
            inPieces(values) { piece, count, _ -> for (i in 0 until count) if (!(abs(piece[i]) <= most)) return "$name of ${piece[i]}" }
        }
        return null
    }

    private fun scalars(count: Long, learningRate: Double): LayerUpdate {
        val (beta1, beta2) = config.betas
        return LayerUpdate(
            decay = (1 - learningRate * config.weightDecay).toFloat(),
            rate = (learningRate / (1 - beta1.pow(count.toDouble()))).toFloat(),
            root = sqrt(1 - beta2.pow(count.toDouble())).toFloat(),
        )
    }
}

/**
 * The Euclidean norm over all trained layers, summed in double precision: so it is the same on every processor to some 1e-15, and the
 * float32 factor that clipping makes of it the same bits but once in many million steps.
 */
internal fun gradientNorm(gradients: Map<Int, FloatBuffer>): Double = sqrt(gradients.values.sumOf(::sumOfSquares))

/** Scales by `clipNorm / norm`, in place, where the norm exceeds it (`torch.nn.utils.clip_grad_norm_`). */
internal fun clipGradients(gradients: Map<Int, FloatBuffer>, norm: Double, clipNorm: Double) {
    val factor = min(1.0, clipNorm / (norm + 1e-6)).toFloat()
    if (factor != 1f) gradients.values.forEach { scale(it, factor) }
}

private fun sumOfSquares(values: FloatBuffer): Double {
    var sum = 0.0
    inPieces(values) { piece, count, _ -> for (i in 0 until count) sum += piece[i].toDouble() * piece[i] }
    return sum
}
