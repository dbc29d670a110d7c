package lcsbmobile.core.runs

import lcsbmobile.core.Bundle
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.AdamWConfig
import lcsbmobile.core.bundle.AdapterLayout
import lcsbmobile.core.bundle.GoldenStep
import lcsbmobile.core.bundle.GoldenTrace
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.io.toArray
import lcsbmobile.core.runtime.LayerUpdate
import lcsbmobile.core.runtime.StepRunner
import lcsbmobile.core.training.AdamW
import lcsbmobile.core.training.TrainConfig
import lcsbmobile.core.training.Trainer
import lcsbmobile.core.training.mappedState
import java.io.File
import java.nio.FloatBuffer
import kotlin.math.abs
import kotlin.math.max
import kotlin.math.pow
import kotlin.math.sqrt

/** The largest relative differences that were found: of single steps' losses and gradient norms, and of the run's losses. */
public class TraceDifference(public val steps: Int, public val stepLoss: Double, public val stepGradientNorm: Double, public val runLoss: Double)

/** What holding a runner to a bundle's golden trace came to, with the bundle's own tolerances. */
public class VerifyResult(
    public val runtime: String,
    public val runtimeVersion: String,
    public val difference: TraceDifference,
    public val stepTolerance: Double,
    public val runTolerance: Double,
)

private const val UPDATE_LEAST = 1e-12 // the least gradient that a program of AdamW is held to its constants by
private const val UPDATE_TOLERANCE = 1e-5 // relative; some square roots are off by a rounding or two
private const val UPDATE_NEGLIGIBLE = 1e-30 // where a square of a gradient is not a normal float32 any more
private val NOTHING = TraceDifference(0, 0.0, 0.0, 0.0)

/**
 * Every recorded step, and the run through the trainer, whose state lies in a file in [scratch] meanwhile. Throws GOLDEN_TRACE with the largest
 * differences. [progress] counts steps; it may throw, to cancel.
 */
public fun verify(bundle: Bundle, runner: StepRunner, scratch: File, progress: (done: Int, total: Int) -> Unit = { _, _ -> }): VerifyResult {
    val trace = bundle.golden
    val layout = bundle.manifest.adapter
    val state = mappedState(scratch, layout.size)
    bundle.readInitialAdapter(state.adapter)
    checkUpdate(runner, layout, bundle.manifest.optimizer)
    val difference = if (trace.run.isEmpty()) NOTHING else checkTrace(runner, trace, AdamW(state, layout, bundle.manifest.optimizer, runner), progress)
    return VerifyResult(runner.name, runner.version, difference, trace.stepTolerance, trace.runTolerance)
}

/** One recorded step, if there is one: what a run checks before it starts. Throws GOLDEN_TRACE. */
internal fun checkFirstStep(runner: StepRunner, trace: GoldenTrace, adapter: FloatBuffer): TraceDifference {
    if (trace.run.isEmpty()) return NOTHING
    val (loss, norm) = compare(runner, trace, trace.run[0], adapter)
    return TraceDifference(1, loss, norm, loss).also { hold(runner.name, trace, it) }
}

/**
 * Holds a runtime's AdamW to the manifest's constants: they stand in the program too, and no loss shows another `eps`. Two updates of a vector of
 * each size, at a rate of 1 and with gradients from far below `eps` to 1. Throws GOLDEN_TRACE.
 */
internal fun checkUpdate(runner: StepRunner, layout: AdapterLayout, config: AdamWConfig) {
    for (size in (0 until layout.numLayers).map(layout::vectorSize).distinct()) {
        val (parameters, first, second, gradient) = List(4) { directFloats(size) }
        for (i in 0 until size) gradient.put(i, UPDATE_LEAST.pow(1 - i / max(1.0, size - 1.0)).toFloat())
        repeat(2) { runner.updateLayer(parameters, first, second, gradient, LayerUpdate(decay = 1f, rate = 1f, root = 1f)) }
        for (i in 0 until size) {
            val expected = updated(gradient.get(i).toDouble(), config)
            val found = listOf(parameters, first, second).map { it.get(i).toDouble() }
            if (expected.zip(found).all { (x, y) -> abs(x - y) <= UPDATE_NEGLIGIBLE + UPDATE_TOLERANCE * abs(x) }) continue
            val message = "${runner.name}: the program of AdamW does not compute what the manifest's betas and eps give; do not train with it"
            throw LcsbException(Fault.GOLDEN_TRACE, message)
        }
    }
}

/** Parameter and moments after two updates from zero. */
private fun updated(gradient: Double, config: AdamWConfig): List<Double> {
    val (beta1, beta2) = config.betas
    var (parameter, first, second) = listOf(0.0, 0.0, 0.0)
    repeat(2) {
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient * gradient
        parameter -= first / (sqrt(second) + config.eps)
    }
    return listOf(parameter, first, second)
}

private fun checkTrace(runner: StepRunner, trace: GoldenTrace, optimizer: AdamW, progress: (Int, Int) -> Unit): TraceDifference {
    val total = trace.steps.size + trace.run.size
    var losses = 0.0
    var norms = 0.0
    for ((number, step) in (trace.steps + trace.run[0]).withIndex()) {
        val (loss, norm) = compare(runner, trace, step, optimizer.state.adapter)
        losses = max(losses, loss)
        norms = max(norms, norm)
        progress(number + 1, total)
    }
    val runLoss = runLosses(runner, trace, optimizer) { progress(minOf(total, trace.steps.size + 1 + it), total) }
    return TraceDifference(total, losses, norms, runLoss).also { hold(runner.name, trace, it) }
}

/** The largest difference over the run; it goes no further than a loss that is not finite. */
private fun runLosses(runner: StepRunner, trace: GoldenTrace, optimizer: AdamW, progress: (Int) -> Unit): Double {
    val trainer = Trainer(runner, trace.run.map { it.subset }, optimizer, TrainConfig(trace.run.size, trace.learningRate))
    var largest = 0.0
    for ((number, step) in trace.run.withIndex()) {
        try {
            val outcome = trainer.step(number, listOf(trace.batches[step.batch].batch()))
            largest = max(largest, relative(outcome.loss, step.loss))
        } catch (error: LcsbException) {
            if (error.fault != Fault.LOSS_NOT_FINITE) throw error
            return Double.POSITIVE_INFINITY // it is the runtime that is at fault, not a learning rate
        }
        progress(number)
    }
    return largest
}

/** The relative differences of a single step's loss and, at most, of its gradients' norms. */
private fun compare(runner: StepRunner, trace: GoldenTrace, step: GoldenStep, adapter: FloatBuffer): Pair<Double, Double> {
    val found = runner.step(step.subset, trace.batches[step.batch].batch(), adapter)
    val norms = step.subset.train.zip(step.gradientNorms).map { (layer, expected) -> relative(norm(found.gradients.getValue(layer)), expected) }
    return relative(found.loss.toDouble(), step.loss) to norms.max()
}

private fun norm(gradient: FloatBuffer): Double = sqrt(gradient.toArray().sumOf { it.toDouble() * it })

/** NaN counts as infinitely far, so that it can never pass. */
private fun relative(found: Double, expected: Double): Double {
    val difference = abs(found - expected) / max(abs(expected), 1e-12)
    return if (difference.isFinite()) difference else Double.POSITIVE_INFINITY
}

private fun hold(name: String, trace: GoldenTrace, difference: TraceDifference) {
    val faults = listOf(
        Triple("a step's loss", difference.stepLoss, trace.stepTolerance),
        Triple("a gradient's norm", difference.stepGradientNorm, trace.stepTolerance),
        Triple("the run's losses", difference.runLoss, trace.runTolerance),
    ).filter { (_, found, most) -> found > most }.map { (what, found, most) -> "$what by ${figure(found)} (at most ${figure(most)})" }
    if (faults.isEmpty()) return
    val message = "$name does not reproduce the bundle's golden trace: ${faults.joinToString()}; do not train with it"
    throw LcsbException(Fault.GOLDEN_TRACE, message)
}

private fun figure(value: Double) = "%.1e".format(java.util.Locale.ROOT, value)
