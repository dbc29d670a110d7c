package lcsbmobile.core.bundle

import kotlinx.serialization.Serializable
import lcsbmobile.core.io.MOST_FAULTS
import lcsbmobile.core.io.ioReason
import lcsbmobile.core.io.jsonFault
import lcsbmobile.core.io.readBounded
import lcsbmobile.core.io.recordJson
import lcsbmobile.core.io.some
import lcsbmobile.core.io.strictUtf8
import java.io.File
import java.io.IOException

internal const val TRACE_BYTES = 4 shl 20 // that are read here: 7 kB are usual, half a megabyte at 8,192 tokens; Python takes 16 MiB
private const val WIDEST_TOLERANCE = 5e-2 // in use: of bundles whose forward rounds activations to int8

/** A [Batch] as data; all of length T. */
@Serializable
internal class GoldenBatch(val inputIds: LongArray, val labels: LongArray, val positionIds: LongArray, val segmentIds: LongArray) {
    fun batch() = Batch(inputIds, labels, positionIds, segmentIds)
}

/** [batch]: index into [GoldenTrace.batches]. [gradientNorms]: of the gradient of each layer in `subset.train`, in its order. */
@Serializable
internal class GoldenStep(val subset: Subset, val batch: Int, val loss: Double, val gradientNorms: List<Double>)

/**
 * Steps that the eager reference computed at export. [steps] are single steps at the initial adapter. [run] are consecutive optimizer steps
 * from it, at [learningRate] and with the manifest's AdamW; each records loss and gradient before its update. The tolerances are relative:
 * of a step's loss and gradient norms, and of the run's losses.
 */
@Serializable
internal class GoldenTrace(
    val batches: List<GoldenBatch>,
    val steps: List<GoldenStep>,
    val learningRate: Double,
    val run: List<GoldenStep>,
    val stepTolerance: Double = 1e-4,
    val runTolerance: Double = 1e-3,
) {
    companion object {
        /** Throws BUNDLE_UNREADABLE where it cannot be read, or is not of the manifest's model. */
        internal fun open(file: File, manifest: Manifest): GoldenTrace {
            val trace = try {
                recordJson.decodeFromString<GoldenTrace>(strictUtf8(readBounded(file, TRACE_BYTES)))
            } catch (error: IOException) {
                throw unreadable("$file: not a readable golden trace (${ioReason(error)}); export the bundle again", error)
            } catch (error: IllegalArgumentException) {
                // kotlinx.serialization's
                throw unreadable("$file: not a readable golden trace (${jsonFault(error)}); export the bundle again", error)
            }
            val faults = trace.faults(manifest).take(MOST_FAULTS * 8).toList()
            if (faults.isNotEmpty()) throw unreadable("$file: not a golden trace of this bundle: ${some(faults)}; export the bundle again")
            return trace
        }
    }
}

private fun GoldenTrace.faults(manifest: Manifest): Sequence<String> = sequence {
    for ((number, batch) in batches.withIndex()) yieldAll(batchFaults(batch, manifest).map { "batch $number: $it" })
    for ((number, step) in (steps + run).withIndex()) {
        step.subset.fault(manifest.model.numHiddenLayers)?.let { yield("step $number: $it") }
        if (step.batch !in batches.indices) yield("step $number: expected one of ${batches.size} batches, found ${step.batch}")
        val norms = step.gradientNorms
        if (norms.size != step.subset.train.size || !norms.all { it >= 0 }) {
            yield("step $number: expected the norms of ${step.subset.train.size} layers, found ${norms.take(20)}")
        }
    }
    if (!(learningRate > 0 && learningRate <= 1)) yield("learning_rate: expected more than 0 and at most 1, found $learningRate")
    for ((name, value) in listOf("step_tolerance" to stepTolerance, "run_tolerance" to runTolerance)) {
        if (!(value >= 0 && value <= WIDEST_TOLERANCE)) yield("$name: expected 0 to $WIDEST_TOLERANCE, found $value")
    }
}

private fun batchFaults(batch: GoldenBatch, manifest: Manifest): Sequence<String> = sequence {
    val tokens = manifest.seqLen
    val vocabulary = manifest.model.vocabSize
    val arrays = listOf(
        Triple("input_ids", batch.inputIds, vocabulary),
        Triple("labels", batch.labels, vocabulary),
        Triple("position_ids", batch.positionIds, tokens),
        Triple("segment_ids", batch.segmentIds, tokens),
    )
    for ((name, values, most) in arrays) {
        if (values.size != tokens) {
            yield("$name: expected $tokens numbers, found ${values.size}")
        } else if (!values.all { it in 0 until most || (name == "labels" && it == IGNORED_LABEL) }) {
            yield("$name: expected 0 to ${most - 1}, found ${values.minOrNull()} to ${values.maxOrNull()}")
        }
    }
    if (batch.labels.all { it == IGNORED_LABEL }) yield("labels: none is counted")
}
