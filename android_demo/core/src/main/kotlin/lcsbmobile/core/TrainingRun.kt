package lcsbmobile.core

import lcsbmobile.core.bundle.ADAPTER_FILE
import lcsbmobile.core.checkpoint.RunCheckpoint
import lcsbmobile.core.checkpoint.RunDirectory
import lcsbmobile.core.checkpoint.checkpointFiles
import lcsbmobile.core.data.Dataset
import lcsbmobile.core.data.countSequences
import lcsbmobile.core.io.checkFreeSpace
import lcsbmobile.core.io.mostDirectBytes
import lcsbmobile.core.io.processAnonymousBytes
import lcsbmobile.core.runs.MemoryWatch
import lcsbmobile.core.runs.PhaseClock
import lcsbmobile.core.runs.RunData
import lcsbmobile.core.runs.RunSetup
import lcsbmobile.core.runs.Running
import lcsbmobile.core.runs.Session
import lcsbmobile.core.runs.readData
import lcsbmobile.core.runtime.BlockRunner
import lcsbmobile.core.runtime.makeRunner
import lcsbmobile.core.training.Plan
import lcsbmobile.core.training.mappedState
import lcsbmobile.core.training.mostKept
import lcsbmobile.core.training.planRun
import java.io.File

/**
 * The fine-tune, from a bundle and a data file to an adapter: begun, or gone on with from the newest checkpoint in [directory], bit for bit.
 *
 * [directory] holds the run's checkpoints (docs/run_checkpoint.md), [adapterFile] once the run has ended, and files without a name while it
 * runs; it is made if need be.
 */
public class TrainingRun(private val bundle: Bundle, private val data: File, private val directory: File, private val options: RunOptions) {
    public val adapterFile: File = File(directory, ADAPTER_FILE)

    /**
     * Runs until the last step, or until [control] interrupts; blocks. Every check that needs no training is made before the first step.
     *
     * Throws OPTION, DATA_…, TOKENIZER_…, CHAT_…, RUN_BUSY, CHECKPOINT_DAMAGED, CHECKPOINT_OTHER_RUN, ADAPTER (of the initial one),
     * MEMORY_TOO_SMALL (it cannot fit; nothing was run), GOLDEN_TRACE, RUNTIME_…, STORAGE_FULL, STORAGE_FAILED, LOSS_NOT_FINITE or MEMORY_EXCEEDED. From the first step on,
     * whatever ends the run leaves the last adapter that was seen to give a finite loss, and a checkpoint of it.
     */
    public fun run(control: RunControl, observer: RunObserver): RunResult {
        val setup = RunSetup(options, bundle)
        return RunDirectory(directory).use { checkpoints ->
            checkFreeSpace(directory, setup.storage)
            val clock = PhaseClock(observer)
            clock.enter(Phase.READING)
            setup.date = checkpoints.beginning(bundle.manifest.adapter.numLayers, bundle.manifest.adapter.size)
            try {
                // of a run that was begun, a stop comes at the first layer, when its steps are known
                val check = if (checkpointFiles(directory).isEmpty()) control::check else control::checkPaused
                val examples = readData(setup, data, directory, check)
                observer.data(examples.training.report, examples.heldOut.size)
                train(setup, examples, checkpoints, clock, control, observer)
            } catch (interrupted: RunInterrupted) {
                // nothing was begun, and what there was is still there
                result(setup, interrupted.outcome, null, clock)
            }
        }
    }

    /**
     * Whether the run's adapter gives the examples that the run holds out a lower loss than [before], an adapter's file or null for the base
     * model. The run has ended, and is in no other hands. [examples], [goOn], [progress] as [compareAdapters] takes them; it throws as that does,
     * and RUN_BUSY or CHECKPOINT_DAMAGED.
     */
    public fun compare(
        before: File? = null,
        examples: Int = COMPARED_EXAMPLES,
        goOn: () -> Unit = {},
        progress: (done: Int, total: Int) -> Unit = { _, _ -> },
    ): Comparison {
        val setup = RunSetup(options, bundle)
        val comparing = Comparing(setup, before, adapterFile, examples, goOn, progress)
        return RunDirectory(directory).use { checkpoints ->
            setup.date = checkpoints.beginning(bundle.manifest.adapter.numLayers, bundle.manifest.adapter.size)
            comparing.on(data, directory)
        }
    }

    private fun train(
        setup: RunSetup,
        examples: RunData,
        checkpoints: RunDirectory,
        clock: PhaseClock,
        control: RunControl,
        observer: RunObserver,
    ): RunResult {
        val layout = bundle.manifest.adapter
        val identity = setup.identity(examples)
        val checkpoint = checkpoints.newest(layout.numLayers, layout.size, identity, options.learningRate != null, observer::warned)
        clock.enter(Phase.LOADING)
        val plan = plan(setup, checkpoint, observer)
        val memory = MemoryWatch(options.memoryBudget)
        lateinit var session: Session
        lateinit var runner: BlockRunner
        runner = makeRunner(bundle, options.threads, plan?.keep ?: options.keep ?: 0) {
            if (!session.ending) {
                control.rest()
                memory.look(session.outcomes.size + 1)
                if (runner.layer < layout.numLayers) observer.layer(runner.layer, runner.backward)
            }
        }
        return runner.use {
            val (state, last) = List(2) { mappedState(directory, layout.size) }
            bundle.readInitialAdapter(state.adapter)
            session = Session(
                Running(setup, identity, examples, runner, state, last, runner::kept, checkpoints, adapterFile, memory, clock, control, observer),
                checkpoint,
            )
            val outcome = session.train()
            clock.enter(null)
            result(setup, outcome, Begun(examples, session, runner, plan, memory), clock)
        }
    }

    /**
     * What the run keeps; null where the system does not say what memory this process has. The step that is checked first counts too. A run that
     * was begun keeps as many layers as it did, or as direct buffers hold here.
     */
    private fun plan(setup: RunSetup, checkpoint: RunCheckpoint?, observer: RunObserver): Plan? {
        val base = processAnonymousBytes() ?: return null
        val (manifest, accumulation, direct) = Triple(bundle.manifest, options.accumulation, mostDirectBytes())
        val subsets = setup.schedule + bundle.golden.run.take(1).map { it.subset }
        val before = checkpoint?.place?.keptLayers
        val possible = before?.let { minOf(it, mostKept(manifest, subsets, accumulation, direct)) }
        if (options.keep == null && possible != before) {
            observer.warned("the run kept $before layers and keeps $possible now, as many as fit into this app's heap: the last bits may differ")
        }
        val keep = options.keep ?: possible
        val writes = options.prompts.isNotEmpty() || options.sampleHeldOut
        return planRun(manifest, subsets, base, options.memoryBudget, keep, accumulation, writes, direct)
    }

    private class Begun(
        val data: RunData,
        val session: Session,
        val runner: BlockRunner,
        val plan: Plan?,
        val memory: MemoryWatch,
    )

    private fun result(setup: RunSetup, outcome: RunOutcome, begun: Begun?, clock: PhaseClock): RunResult {
        val session = begun?.session
        val outcomes = session?.outcomes.orEmpty()
        val evaluations = session?.evaluations.orEmpty()
        val optimizer = outcomes.drop(session?.resumedFrom ?: 0).sumOf { it.optimizerSeconds }
        return RunResult(
            outcome = outcome,
            runtime = begun?.runner?.name,
            runtimeVersion = begun?.runner?.version,
            target = bundle.manifest.target,
            method = setup.method,
            schedule = setup.schedule.map { it.train },
            steps = options.steps,
            resumedFrom = session?.resumedFrom,
            learningRate = setup.train.learningRate,
            losses = outcomes.map { it.loss },
            stepSeconds = outcomes.map { it.gradientSeconds + it.optimizerSeconds },
            evaluations = evaluations,
            evalLossBefore = evaluations.firstOrNull()?.loss,
            evalLossAfter = evaluations.lastOrNull()?.loss,
            peakAnonymousBytes = begun?.memory?.peak,
            predictedPeakAnonymousBytes = begun?.plan?.predictedPeakBytes,
            keptLayers = begun?.runner?.kept ?: 0,
            phaseSeconds = clock.seconds(optimizer),
            data = begun?.data?.training?.report,
            packingFill = begun?.let { packingFill(it.data.training) },
            samples = session?.samples.orEmpty(),
            adapter = adapterFile.path.takeIf { session?.wroteAdapter == true },
            checkpoints = directory.path,
        )
    }

    /** The share of the first epoch's tokens that are not padding. */
    private fun packingFill(training: Dataset): Double {
        val seqLen = bundle.manifest.seqLen
        val tokens = (0 until training.size).sumOf { training.length(it).toLong() }
        return tokens.toDouble() / (countSequences(training, seqLen, options.seed) * seqLen)
    }
}
