package lcsbmobile.core.training

import lcsbmobile.core.bundle.AdamWConfig
import lcsbmobile.core.bundle.ImplicitUpdates
import lcsbmobile.core.io.part
import lcsbmobile.core.io.row
import lcsbmobile.core.runtime.LayerUpdate
import lcsbmobile.core.runtime.StepRunner
import java.nio.FloatBuffer
import kotlin.math.min
import kotlin.math.pow
import kotlin.math.sqrt

/**
 * Decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), element for element as `torch.optim.AdamW`, over [state]. A layer that a
 * step does not train gets a zero gradient, or rests ([ImplicitUpdates]). [runner] computes a layer's update by the program `adamw`.
 *
 * [updates]: how often each layer was updated.
 */
internal class AdamW(val state: AdapterState, val config: AdamWConfig, private val runner: StepRunner) {
    val updates = LongArray(state.layers)

    /** One step. [gradients]: layer -> float32 [n] for the trained layers. */
    fun update(gradients: Map<Int, FloatBuffer>, learningRate: Double) {
        for (layer in 0 until state.layers) {
            if (layer !in gradients && config.implicitUpdates != ImplicitUpdates.MOMENTUM) continue
            updates[layer]++
            val (parameters, first, second) =
                listOf(state.adapter, state.firstMoment, state.secondMoment).map { it.row(layer, state.size) }
            runner.updateLayer(parameters, first, second, gradients[layer], scalars(updates[layer], learningRate))
        }
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

/** [values] times [factor], in place. */
internal fun scale(values: FloatBuffer, factor: Float) =
    inPieces(values) { piece, count, start ->
        for (i in 0 until count) piece[i] *= factor
        values.part(start, count).put(piece, 0, count)
    }

/** [values] plus [added], in place. */
internal fun add(values: FloatBuffer, added: FloatBuffer) {
    val sums = FloatArray(PIECE)
    inPieces(added) { piece, count, start ->
        val target = values.part(start, count)
        target.duplicate().get(sums, 0, count)
        for (i in 0 until count) sums[i] += piece[i]
        target.put(sums, 0, count)
    }
}

private const val PIECE = 4096 // elements: an array is faster than a buffer's elements one by one

private fun sumOfSquares(values: FloatBuffer): Double {
    var sum = 0.0
    inPieces(values) { piece, count, _ -> for (i in 0 until count) sum += piece[i].toDouble() * piece[i] }
    return sum
}

/** Copies of [values] in order, as ([piece], its elements, the number of the first). */
private inline fun inPieces(values: FloatBuffer, use: (piece: FloatArray, count: Int, start: Int) -> Unit) {
    val piece = FloatArray(PIECE)
    val size = values.capacity()
    for (start in 0 until size step PIECE) {
        val count = minOf(PIECE, size - start)
        values.part(start, count).get(piece, 0, count)
        use(piece, count, start)
    }
}
