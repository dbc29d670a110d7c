package lcsbmobile.core

import java.util.concurrent.TimeUnit
import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock

/**
 * Pauses, stops or slows a run, from any thread. It takes effect between two layers: the step under way is dropped, and redone when the run
 * is resumed. One object serves one call of [TrainingRun.run].
 */
public class RunControl {
    private val lock = ReentrantLock()
    private val asked = lock.newCondition()
    private var wanted: RunOutcome? = null

    /** How long the run rests before each layer: a cooler phone for a slower run. */
    @Volatile
    public var delayMillisBetweenLayers: Long = 0

    /** The run's state is saved and [TrainingRun.run] returns PAUSED. */
    public fun pause(): Unit = ask(RunOutcome.PAUSED)

    /** Likewise, and the adapter's file is written: CANCELLED. */
    public fun stop(): Unit = ask(RunOutcome.CANCELLED)

    private fun ask(outcome: RunOutcome) =
        lock.withLock {
            if (wanted != RunOutcome.CANCELLED) wanted = outcome
            asked.signalAll()
        }

    /** Called where the run may be interrupted. */
    internal fun check() = lock.withLock { wanted?.let { throw RunInterrupted(it) } ?: Unit }

    /** Likewise, where a stop would come too early: its result is to say what was saved, which is not read yet. */
    internal fun checkPaused() = lock.withLock { if (wanted == RunOutcome.PAUSED) throw RunInterrupted(RunOutcome.PAUSED) }

    /** Called between two layers: rests, unless it is interrupted. */
    internal fun rest() =
        lock.withLock {
            var left = TimeUnit.MILLISECONDS.toNanos(delayMillisBetweenLayers)
            while (wanted == null && left > 0) left = asked.awaitNanos(left)
            wanted?.let { throw RunInterrupted(it) } ?: Unit
        }
}

/** Somebody asked for it: no failure. */
internal class RunInterrupted(val outcome: RunOutcome) : RuntimeException(outcome.name)
