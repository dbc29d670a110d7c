package lcsbmobile.core.runs

import lcsbmobile.core.Continuation
import lcsbmobile.core.Evaluation
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.Phase
import lcsbmobile.core.RunControl
import lcsbmobile.core.RunHistory
import lcsbmobile.core.RunInterrupted
import lcsbmobile.core.RunObserver
import lcsbmobile.core.RunOutcome
import lcsbmobile.core.Sample
import lcsbmobile.core.TextEnd
import lcsbmobile.core.adapter.readAdapter
import lcsbmobile.core.adapter.writeAdapter
import lcsbmobile.core.checkpoint.RunCheckpoint
import lcsbmobile.core.checkpoint.RunDirectory
import lcsbmobile.core.checkpoint.RunIdentity
import lcsbmobile.core.checkpoint.RunPlace
import lcsbmobile.core.checkpoint.STEP_COLUMNS
import lcsbmobile.core.data.epochs
import lcsbmobile.core.data.heldOutPrompt
import lcsbmobile.core.generate
import lcsbmobile.core.runtime.StepRunner
import lcsbmobile.core.training.AdamW
import lcsbmobile.core.training.AdapterState
import lcsbmobile.core.training.StepOutcome
import lcsbmobile.core.training.Trainer
import lcsbmobile.core.training.evaluate
import java.io.File

/** What a run in this process works with. */
internal class Running(
    val setup: RunSetup,
    val identity: RunIdentity,
    val data: RunData,
    val runner: StepRunner,
    val state: AdapterState,
    val kept: AdapterState, // room for the one that was last seen to give a finite loss, when that is a later one
    val keptLayers: () -> Int,
    val directory: RunDirectory,
    val adapterFile: File,
    val memory: MemoryWatch,
    val clock: PhaseClock,
    val control: RunControl,
    val observer: RunObserver,
)

/**
 * The part of a run that this process makes. What is kept was seen to give a finite loss: the state before an update is known to, by the loss
 * that the update was computed from, so it is copied before the update is made, and checkpoints are written then. Where steps are taken back,
 * so are the records of them.
 */
internal class Session(private val running: Running, private val checkpoint: RunCheckpoint?) {
    private val options = running.setup.options
    private val observer = running.observer
    private val optimizer = running.setup.bundle.manifest.let { AdamW(running.state, it.adapter, it.optimizer, running.runner) }
    private val trainer = Trainer(running.runner, running.setup.schedule, optimizer, running.setup.train) { accept() }
    private var begun = false // what the run begins with is there, and was evaluated
    private var seen = true // the state has given a finite loss
    private var keptStep: Int? = null // of `running.kept`, once there is one
    private val keptUpdates = LongArray(optimizer.updates.size)
    private var saved: Int? = null // the step of the newest checkpoint

    val outcomes = mutableListOf<StepOutcome>()
    val memory = mutableListOf<Long>()
    val evaluations = mutableListOf<Evaluation>()
    var samples = emptyList<Sample>()
        private set
    var resumedFrom: Int? = null
        private set
    var wroteAdapter = false
        private set

    /** The run was interrupted or has failed: what is computed now is not to be interrupted again. */
    var ending = false
        private set

    /** From the checkpoint, or the beginning, to the last step and the adapter's file, or until it is interrupted. */
    fun train(): RunOutcome =
        try {
            running.clock.enter(Phase.CHECKING)
            checkFirstStep(running.runner, running.setup.bundle.golden, running.state.adapter)
            checkUpdate(running.runner, running.setup.bundle.manifest.adapter, running.setup.bundle.manifest.optimizer)
            options.initialAdapter?.let { readAdapter(it, running.setup.bundle.manifest.adapter, running.state.adapter) }
            val before = continuePrompts(after = false)
            restore()
            begun = resumedFrom != null
            evaluateIfDue()
            begun = true
            save()
            steps()
            writeAdapter()
            samples = options.prompts.zip(before.zip(continuePrompts(after = true))) { prompt, (old, new) -> Sample(prompt, old, new) }
            RunOutcome.FINISHED
        } catch (interrupted: RunInterrupted) {
            ending = true
            look()
            keep(adapter = interrupted.outcome == RunOutcome.CANCELLED)
            interrupted.outcome
        } catch (error: Throwable) { // whatever it is, what was learnt is worth more
            ending = true
            if (begun) {
                try {
                    keep(adapter = true)
                } catch (lost: LcsbException) {
                    error.addSuppressed(lost)
                }
            }
            throw error
        }

    /** Whoever was interrupted has the time for one more look at the newest state. */
    private fun look() {
        if (seen) return
        seen = try {
            evaluate(running.runner, running.data.evaluation.take(1), running.state.adapter).isFinite()
        } catch (error: LcsbException) {
            false
        }
    }

    /** The last state that was seen to give a finite loss. */
    private fun keep(adapter: Boolean) {
        restore()
        if (!seen) goBack()
        if (adapter && outcomes.isNotEmpty()) writeAdapter()
        save()
    }

    /** Before an update: the state has given a finite loss, and is kept as it is. */
    private fun accept() {
        seen = true
        saveIfDue()
        running.kept.copyFrom(running.state)
        optimizer.updates.copyInto(keptUpdates)
        keptStep = outcomes.size
        seen = false
    }

    /** To the state before the last update. A run that has made none stays where it began. */
    private fun goBack() {
        val step = keptStep ?: return
        running.state.copyFrom(running.kept)
        keptUpdates.copyInto(optimizer.updates)
        outcomes.subList(step, outcomes.size).clear()
        memory.subList(minOf(step, memory.size), memory.size).clear()
        evaluations.removeAll { it.step > step }
        seen = true
    }

    private fun steps() {
        val tokenizer = running.setup.bundle.tokenizer
        val start = outcomes.size.toLong() * options.accumulation
        val batches = epochs(running.data.training, running.setup.bundle.manifest.seqLen, tokenizer.padId, options.seed, start).iterator()
        for (number in outcomes.size until options.steps) {
            running.clock.enter(Phase.STEPS)
            running.control.check()
            val outcome = trainer.step(number, List(options.accumulation) { batches.next() })
            outcomes += outcome
            memory += running.memory.sample()
            observer.stepped(outcome, memory.last())
            running.memory.stopAboveBudget(outcome.step)
            evaluateIfDue()
            if (seen) saveIfDue()
        }
    }

    /** Before the first step, after the last, and every `evaluateEvery`; a run that was interrupted within an evaluation makes up for it. */
    private fun evaluateIfDue() {
        val step = outcomes.size
        val due = step == 0 || step == options.steps || (options.evaluateEvery > 0 && step % options.evaluateEvery == 0)
        if (!due || evaluations.any { it.step == step }) return
        running.clock.enter(Phase.EVALUATING)
        val loss = evaluate(running.runner, running.data.evaluation, running.state.adapter)
        seen = loss.isFinite()
        if (!seen) {
            val what = if (step > 0) "try a lower learning rate" else "nothing can be trained from there"
            throw LcsbException(Fault.LOSS_NOT_FINITE, "step $step: the loss of the evaluation after it is $loss; $what", listOf("$step"))
        }
        evaluations += Evaluation(step, loss)
        saved = null
        observer.evaluated(step, loss)
        if (options.sampleHeldOut) writeHeldOut(step)
    }

    private fun writeHeldOut(step: Int) {
        running.clock.enter(Phase.WRITING)
        val setup = running.setup
        val (ids, shown) = heldOutPrompt(running.data.heldOut, setup.bundle.tokenizer, setup.chatFormat)
        val text = generate(running.runner, setup.bundle, running.state.adapter, ids, options.sampling)
        val written = writeOut(text)
        observer.wrote(step, shown, written, whole = text.ended == TextEnd.END_TOKEN || text.ended == TextEnd.STOP_TEXT)
    }

    private fun writeOut(pieces: Continuation): String {
        val text = StringBuilder()
        for (piece in pieces) {
            running.control.check() // the runner, which is closed then, closes what the text began
            text.append(piece)
        }
        return text.toString()
    }

    private fun continuePrompts(after: Boolean): List<String> {
        if (options.prompts.isEmpty()) return emptyList()
        running.clock.enter(Phase.WRITING)
        return options.prompts.map { prompt ->
            val setup = running.setup
            val text = writeOut(generate(running.runner, setup.bundle, running.state.adapter, prompt, options.sampling, setup.chat))
            text.also { observer.sampled(prompt, it, after) }
        }
    }

    private fun writeAdapter() {
        writeAdapter(running.adapterFile, running.setup.bundle.manifest.adapter, running.state.adapter)
        wroteAdapter = true
    }

    private fun saveIfDue() {
        if (outcomes.size == options.steps || outcomes.size % options.checkpointEvery == 0) save()
    }

    /** A checkpoint of the last whole step, unless there is one. Before the first evaluation there is nothing to save. */
    private fun save() {
        val step = outcomes.size
        if (saved == step || evaluations.isEmpty()) return
        running.clock.enter(Phase.SAVING)
        val runtime = "${running.runner.name} ${running.runner.version}"
        val place = RunPlace(running.identity, step, step.toLong() * options.accumulation, runtime, running.keptLayers())
        val steps = outcomes.flatMapIndexed { index, it ->
            listOf(it.loss, it.learningRate, it.gradientNorm, it.gradientSeconds, it.optimizerSeconds, memory[index].toDouble())
        }
        val evaluated = evaluations.flatMap { listOf(it.step.toDouble(), it.loss) }
        running.directory.write(
            RunCheckpoint(place, running.state, optimizer.updates, steps.toDoubleArray(), evaluated.toDoubleArray()),
        )
        saved = step
    }

    /** The state of the checkpoint, if there is one, in place of the initial one; once. */
    private fun restore() {
        if (checkpoint == null || resumedFrom != null) return
        running.state.copyFrom(checkpoint.state)
        checkpoint.updates.copyInto(optimizer.updates)
        val schedule = running.setup.schedule
        repeat(checkpoint.place.step) { number ->
            val row = checkpoint.steps.copyOfRange(number * STEP_COLUMNS, (number + 1) * STEP_COLUMNS)
            outcomes += StepOutcome(number + 1, schedule[number % schedule.size], row[0], row[1], row[2], row[3], row[4])
            memory += row[5].toLong()
        }
        for (index in checkpoint.evaluations.indices step 2) {
            evaluations += Evaluation(checkpoint.evaluations[index].toInt(), checkpoint.evaluations[index + 1])
        }
        resumedFrom = checkpoint.place.step
        saved = resumedFrom
        observer.resumed(checkpoint.place.step, RunHistory(outcomes.toList(), memory.toList(), evaluations.toList()))
    }
}
