package lcsbmobile.core.runs

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.Phase
import lcsbmobile.core.RunObserver
import lcsbmobile.core.io.megabytes
import lcsbmobile.core.io.processAnonymousBytes
import lcsbmobile.core.training.seconds

/**
 * This process's anonymous memory while it trains, and the budget. A phone counts anonymous memory against an app: it cannot be dropped and
 * read again, as the pages of a mapped file can.
 */
internal class MemoryWatch(private val budget: Long?) {
    var peak: Long? = null
        private set
    private var looked = System.nanoTime()

    /** Bytes now, 0 where the system does not say. */
    fun sample(): Long {
        looked = System.nanoTime()
        val now = processAnonymousBytes() ?: return 0
        peak = maxOf(peak ?: 0, now)
        return now
    }

    /** Between two layers of step [step]: looks only now and then, as it takes some milliseconds. Throws MEMORY_EXCEEDED. */
    fun look(step: Int) {
        if (seconds(looked, System.nanoTime()) < INTERVAL) return
        sample()
        stopAboveBudget(step)
    }

    /** Throws MEMORY_EXCEEDED. */
    fun stopAboveBudget(step: Int) {
        val reached = peak ?: return
        if (budget != null && reached > budget) {
            throw LcsbException(
                Fault.MEMORY_EXCEEDED,
                "step $step: the run reached ${megabytes(reached)} of anonymous memory, more than the ${megabytes(budget)} allowed; it was " +
                    "stopped and the last adapter that gave a finite loss kept; allow more, or export with a shorter --seq-len",
                listOf(reached.toString(), budget.toString()),
            )
        }
    }

    private companion object {
        const val INTERVAL = 0.25 // seconds
    }
}

/** How long each phase took. */
internal class PhaseClock(private val observer: RunObserver) {
    private val nanos = linkedMapOf<Phase, Long>()
    private var phase: Phase? = null
    private var since = 0L

    /** From now on the run is in [next]; null: in none. */
    fun enter(next: Phase?) {
        val now = System.nanoTime()
        phase?.let { nanos[it] = (nanos[it] ?: 0) + now - since }
        phase = next
        since = now
        if (next != null) observer.phase(next)
    }

    /** AdamW's [optimizer] seconds are taken out of the steps that contain them. */
    fun seconds(optimizer: Double): Map<String, Double> {
        val found = nanos.entries.associateTo(linkedMapOf()) { it.key.label to it.value / 1e9 }
        found[Phase.STEPS.label] = (found[Phase.STEPS.label] ?: 0.0) - optimizer
        found[Phase.OPTIMIZER.label] = optimizer
        return found
    }
}
