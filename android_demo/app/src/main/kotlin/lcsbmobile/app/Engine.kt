package lcsbmobile.app

import lcsbmobile.core.Bundle
import lcsbmobile.core.RunControl
import lcsbmobile.core.RunOptions
import lcsbmobile.core.RunResult
import lcsbmobile.core.SamplingConfig
import lcsbmobile.core.TrainingRun
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.checkpoint.RunCheckpoint
import lcsbmobile.core.checkpoint.STEP_COLUMNS
import lcsbmobile.core.checkpoint.checkpointFiles
import lcsbmobile.core.checkpoint.newestGood
import lcsbmobile.core.data.reportTokens
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.io.processAnonymousBytes
import lcsbmobile.core.runs.verify
import lcsbmobile.core.runtime.checkIncluded
import lcsbmobile.core.runtime.makeRunner
import lcsbmobile.core.training.defaultLearningRate
import lcsbmobile.core.training.planRun
import lcsbmobile.core.training.stepCost
import java.io.File

/**
 * What to train: [state] is the run's directory, [budget] bytes of anonymous memory. [learningRate] null: the core's choice. [initialAdapter]: what the
 * run begins with; null: the model as it came.
 */
class TrainingJob(
    val bundle: File,
    val data: File,
    val state: File,
    val steps: Int,
    val budget: Long,
    val threads: Int,
    val learningRate: Double? = null,
    val initialAdapter: File? = null,
)

/**
 * All that the app asks of the core. Each call takes long and throws the core's LcsbException. [scratch]: a directory for what need not
 * outlive a call, or can be found out again. [alone]: whether nobody but the app can write in a directory.
 */
class Engine(val scratch: File, private val alone: (File) -> Boolean = { true }) {
    private var opened: Bundle? = null

    /** Of bundles that were verified. */
    val known = File(scratch, "verified")
    private val verified = VerifiedBundles(known)

    /**
     * Verifying reads every byte, so it is done once, and again where a file was changed since; a bundle is opened once a process. Its weights are
     * mapped and take no memory that counts.
     */
    @Synchronized
    fun open(directory: File): Bundle {
        opened?.let { if (it.directory == directory) return it }
        onDisk("a bundle")
        return Bundle.open(directory, verified.of(directory).takeIf { alone(directory) }).also {
            opened = it
            verified.put(directory, it.stamp)
        }
    }

    @Synchronized
    fun forget(directory: File) {
        if (opened?.directory == directory) opened = null
        verified.forget(directory)
    }

    /** What was inspected in [from] is in [to] now. */
    fun renamed(from: File, to: File) {
        verified.of(from)?.let { verified.put(to, it) }
        verified.forget(from)
    }

    /** Verifies a bundle, tokenizer included, and sees what it takes on this phone. [progress] may throw to stop, also while a step is measured. */
    fun inspect(directory: File, name: String, progress: (Progress) -> Unit): BundleInfo {
        onDisk("a bundle")
        verified.forget(directory)
        val bundle = Bundle.open(directory) { done, total -> progress(Progress(Progress.Kind.VERIFYING, name, done, total)) }
        verified.put(directory, bundle.stamp)
        val manifest = bundle.manifest
        val testing = { progress(Progress(Progress.Kind.TESTING, name)) }
        checkIncluded(manifest.target)
        bundle.tokenizer
        bundle.chat
        testing()
        return BundleInfo(
            name = name,
            source = manifest.source,
            bytes = manifest.files.values.sumOf { it.size },
            layers = manifest.model.numHiddenLayers,
            adapterSize = manifest.adapter.size,
            seqLen = manifest.seqLen,
            schedule = manifest.schedule.map { roles(it, manifest.model.numHiddenLayers) },
            predictedMemory = planRun(manifest, manifest.schedule, processAnonymousBytes() ?: 0, null, null).predictedPeakBytes,
            secondsAStep = measure(bundle, testing),
        )
    }

    /** The mean of a cycle's steps, by proportion from one that is timed; the one before it warms up. */
    private fun measure(bundle: Bundle, goOn: () -> Unit): Double? {
        val manifest = bundle.manifest
        val batch = bundle.sampleBatch ?: return null
        val adapter = directFloats(manifest.adapter.size).also(bundle::readInitialAdapter)
        val subset = manifest.schedule.first()
        return makeRunner(bundle, threads(), betweenLayers = goOn).use { runner ->
            runner.step(subset, batch, adapter)
            val started = System.nanoTime()
            runner.step(subset, batch, adapter)
            val seconds = (System.nanoTime() - started) / 1e9
            seconds * manifest.schedule.map { stepCost(manifest, it).timeUnits }.average() / stepCost(manifest, subset).timeUnits
        }
    }

    /** Holds this phone to the bundle's golden trace; throws GOLDEN_TRACE. [goOn] may throw to stop. */
    fun check(directory: File, threads: Int, goOn: () -> Unit) {
        val bundle = open(directory)
        makeRunner(bundle, threads, betweenLayers = goOn).use { verify(bundle, it, scratch) }
    }

    /** [progress]: bytes read of all; it may throw to stop. What it came to is kept beside [data], for as long as both are what they were. */
    fun summarize(directory: File, data: File, progress: (Long, Long) -> Unit): DataSummary {
        val bundle = open(directory)
        return DataReports.of(data, bundle.digest) { summarize(bundle, data, progress) }
    }

    private fun summarize(bundle: Bundle, data: File, progress: (Long, Long) -> Unit): DataSummary {
        val report = reportTokens(data, bundle.tokenizer, bundle.chat, bundle.manifest.seqLen, 1, PREVIEWS, scratch, progress)
        return DataSummary(
            examples = report.data.examples,
            tokens = report.data.tokens,
            counted = report.data.countedLabels,
            cut = report.data.truncated,
            dropped = report.data.withoutLabels,
            sequences = report.sequences,
            conversations = report.data.conversations,
            previews = report.preview.map { pieces -> pieces.map { Piece(it.text, it.counted) } },
        )
    }

    fun train(job: TrainingJob, control: RunControl, progress: RunProgress): RunResult {
        val options = RunOptions(
            steps = job.steps,
            evaluateEvery = maxOf(job.steps / 4, EVALUATE_EVERY),
            checkpointEvery = CHECKPOINT_EVERY,
            memoryBudget = job.budget,
            threads = job.threads,
            learningRate = job.learningRate,
            initialAdapter = job.initialAdapter,
            sampleHeldOut = true,
            sampling = SamplingConfig(temperature = 0.0, maxTokens = SAMPLE_TOKENS),
        )
        return TrainingRun(open(job.bundle), job.data, job.state, options).run(control, progress)
    }

    /** What the run has saved, as the screens show it; nothing where nothing is saved or all is damaged, which resuming says. */
    fun history(info: BundleInfo, state: File): RunState {
        onDisk("a checkpoint")
        val checkpoint = newest(state, info.layers, info.adapterSize) ?: return RunState()
        val step = checkpoint.place.step
        val evaluations = checkpoint.evaluations.toList().chunked(2)
        return RunState(
            step = step,
            training = (0 until step).map { LossPoint(it + 1, checkpoint.steps[it * STEP_COLUMNS]) },
            evaluation = evaluations.map { (step, loss) -> LossPoint(step.toInt(), loss) },
        )
    }

    private fun newest(state: File, layers: Int, size: Int): RunCheckpoint? =
        if (!state.isDirectory) null else checkpointFiles(state).takeIf { it.isNotEmpty() }?.let { newestGood(it, layers, size).second }

    companion object {
        private const val PREVIEWS = 20
        private const val EVALUATE_EVERY = 20 // steps at least: an evaluation takes as long as some five
        private const val SAMPLE_TOKENS = 24 // of what it writes at each evaluation: as long as reading a few sequences
        private const val CHECKPOINT_EVERY = 5 // steps: what is lost at most when the system ends the process

        /** Half of a phone's cores are slow ones. */
        fun threads(): Int = (Runtime.getRuntime().availableProcessors() / 2).coerceIn(1, 4)

        /** What the core takes if the person names none, by the steps of a cycle. */
        fun learningRate(schedule: List<List<LayerRole>>): Double {
            val subsets = schedule.map { roles ->
                Subset(roles.indices.filter { roles[it] == LayerRole.TRAINED }, roles.indices.filter { roles[it] != LayerRole.SKIPPED })
            }
            return defaultLearningRate(subsets, schedule.first().size)
        }

        fun roles(subset: Subset, layers: Int): List<LayerRole> = List(layers) {
            if (it in subset.train) {
                LayerRole.TRAINED
            } else if (it in subset.propagate) {
                LayerRole.PASSED
            } else {
                LayerRole.SKIPPED
            }
        }
    }
}
