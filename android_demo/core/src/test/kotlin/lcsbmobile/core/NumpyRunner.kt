package lcsbmobile.core

import lcsbmobile.core.bundle.AdamWConfig
import lcsbmobile.core.bundle.Batch
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.runtime.Decoder
import lcsbmobile.core.runtime.LayerUpdate
import lcsbmobile.core.runtime.StepResult
import lcsbmobile.core.runtime.StepRunner
import java.nio.FloatBuffer
import kotlin.math.sqrt

/** No model: steps give what [steps] says, and an update is AdamW operation by operation as NumPy computes it. */
internal class NumpyRunner(
    private val config: AdamWConfig = AdamWConfig(),
    private val steps: (Batch) -> StepResult = { throw AssertionError("no step was expected") },
) : StepRunner {
    override val name = "numpy"
    override val version = "0"

    override fun step(subset: Subset, batch: Batch, adapter: FloatBuffer): StepResult = steps(batch)

    override fun evaluate(batch: Batch, adapter: FloatBuffer): Float = steps(batch).loss

    override fun updateLayer(
        parameters: FloatBuffer,
        firstMoment: FloatBuffer,
        secondMoment: FloatBuffer,
        gradient: FloatBuffer?,
        scalars: LayerUpdate,
    ) {
        val (beta1, beta2) = config.betas
        for (i in 0 until parameters.capacity()) {
            var m = firstMoment.get(i) * beta1.toFloat()
            var v = secondMoment.get(i) * beta2.toFloat()
            if (gradient != null) {
                val g = gradient.get(i)
                m += (1 - beta1).toFloat() * g
                v += (1 - beta2).toFloat() * (g * g)
            }
            firstMoment.put(i, m)
            secondMoment.put(i, v)
            val change = m / (sqrt(v) / scalars.root + config.eps.toFloat()) * scalars.rate
            parameters.put(i, parameters.get(i) * scalars.decay - change)
        }
    }

    override fun decoder(adapter: FloatBuffer): Decoder = throw AssertionError("no text was expected")

    override fun close() = Unit
}
