package lcsbmobile.core.runtime

import lcsbmobile.core.bundle.Batch
import lcsbmobile.core.bundle.Subset
import java.nio.FloatBuffer

/**
 * [loss]: mean over the counted labels. [gradients]: layer -> float32 of the size of its vector, for the trained layers only, ascending:
 * direct buffers of the runner's, which its next step overwrites; whoever asked for the step may change them.
 */
public class StepResult(public val loss: Float, public val gradients: Map<Int, FloatBuffer>)

/** The scalars of one layer's update, as the program `adamw` takes them. */
public class LayerUpdate(public val decay: Float, public val rate: Float, public val root: Float)

/** Writes one sequence token by token. Logits are float32 [V], of the token after those given. */
public interface Decoder : AutoCloseable {
    /** Begins a sequence with 1 to T tokens. */
    public fun prefill(ids: IntArray): FloatArray

    /** Appends a token; the sequence must have room for it. */
    public fun next(id: Int): FloatArray
}

/**
 * A runtime that computes steps of one bundle, from one thread at a time. `adapter` is float32 [N], direct, in native order, and is never
 * written to. Every method throws RUNTIME_FAILED where the runtime refuses.
 */
public interface StepRunner : AutoCloseable {
    public val name: String
    public val version: String

    public fun step(subset: Subset, batch: Batch, adapter: FloatBuffer): StepResult

    /** Mean loss over the batch's counted labels. */
    public fun evaluate(batch: Batch, adapter: FloatBuffer): Float

    /** AdamW for one layer, float32 of the size of its vector each, direct, in native order: the first three are updated in place. [gradient] null: zero. */
    public fun updateLayer(
        parameters: FloatBuffer,
        firstMoment: FloatBuffer,
        secondMoment: FloatBuffer,
        gradient: FloatBuffer?,
        scalars: LayerUpdate,
    )

    /** For one sequence of tokens; the adapter must not change meanwhile. */
    public fun decoder(adapter: FloatBuffer): Decoder
}
