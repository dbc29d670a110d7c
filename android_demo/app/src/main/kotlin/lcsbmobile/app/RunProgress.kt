package lcsbmobile.app

import lcsbmobile.core.RunHistory
import lcsbmobile.core.RunObserver
import lcsbmobile.core.training.StepOutcome
import lcsbmobile.core.Phase as CorePhase

/** Writes what a run tells into the store. [whenLoaded]: when what it had saved was found. */
class RunProgress(
    private val store: Store,
    private val info: BundleInfo,
    private val record: RunRecord,
    private val whenLoaded: () -> Unit = {},
) : RunObserver {
    private val recent = ArrayDeque<Double>() // seconds of the last steps of a cycle or two

    override fun phase(name: CorePhase) {
        if (name == CorePhase.LOADING) whenLoaded()
        show {
            when (name) {
                CorePhase.READING, CorePhase.LOADING, CorePhase.CHECKING -> copy(phase = Phase.OPENING)
                CorePhase.EVALUATING -> copy(phase = Phase.EVALUATING, roles = List(info.layers) { LayerRole.SKIPPED })
                CorePhase.STEPS -> copy(phase = Phase.TRAINING, roles = info.schedule[step % info.schedule.size])
                else -> this
            }
        }
    }

    override fun resumed(step: Int, history: RunHistory) = show {
        copy(
            step = step,
            training = history.outcomes.map { LossPoint(it.step, it.loss) },
            evaluation = history.evaluations.map { LossPoint(it.step, it.loss) },
        )
    }

    override fun evaluated(step: Int, loss: Double) = show {
        copy(evaluation = evaluation.filter { it.step != step } + LossPoint(step, loss))
    }

    override fun wrote(step: Int, prompt: String, text: String, whole: Boolean) = show {
        copy(samples = samples.filter { it.step < step } + WrittenSample(step, prompt, text, cut = !whole))
    }

    override fun stepped(outcome: StepOutcome, memory: Long) {
        recent += outcome.gradientSeconds + outcome.optimizerSeconds
        while (recent.size > 2 * info.schedule.size) recent.removeFirst()
        val seconds = recent.average()
        show {
            copy(
                step = outcome.step,
                steps = record.steps,
                training = training.filter { it.step < outcome.step } + LossPoint(outcome.step, outcome.loss),
                roles = info.schedule[outcome.step % info.schedule.size],
                secondsAStep = seconds,
            )
        }
    }

    override fun layer(index: Int, backward: Boolean) = show { copy(layer = index) }

    /** Somebody who asked for a pause sees that until it has come. */
    private fun show(change: RunState.() -> RunState) = store.update { state ->
        val run = state.run.change()
        state.copy(run = if (state.run.phase == Phase.PAUSING) run.copy(phase = Phase.PAUSING) else run)
    }
}
