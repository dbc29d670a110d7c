package lcsbmobile.app

import android.os.SystemClock
import lcsbmobile.core.RunControl
import kotlin.concurrent.thread

/**
 * Milliseconds. [look]: from one look at the phone to the next while it trains; [wait]: likewise while it waits. [rest]: between two layers, on
 * a phone that is warm; a layer's forward or backward takes 20 to 100 there, so that this is about half the load.
 */
class Pace(val look: Long = 2_000, val wait: Long = 5_000, val rest: Long = 60) {
    fun between(decision: Decision): Long = if (decision.slower) rest else 0
}

/** Looks after the phone while a run trains or waits, and holds the run to the [TrainingPolicy]. */
class RunWatch(private val store: Store, private val phone: Phone, private val pace: () -> Pace) {
    @Volatile private var memoryWantedUntil = 0L

    /** For a while memory counts as low, whatever the system says. */
    fun leaveMemory() {
        memoryWantedUntil = SystemClock.elapsedRealtime() + MEMORY_REST_MILLIS
    }

    fun vitals(): Vitals {
        val read = phone.read().let { if (SystemClock.elapsedRealtime() < memoryWantedUntil) it.copy(memoryLow = true) else it }
        store.update { it.copy(vitals = read) }
        return read
    }

    /** [train]s under [control], which is slowed down and paused as the phone wants it. */
    fun <T> during(control: RunControl, decision: Decision, train: () -> T): T {
        control.delayMillisBetweenLayers = pace().between(decision)
        val watch = thread(name = "watch", isDaemon = true) { watch(control, decision) }
        try {
            return train()
        } finally {
            watch.interrupt()
        }
    }

    private fun watch(control: RunControl, first: Decision) {
        var decision = first
        try {
            while (true) {
                decision = TrainingPolicy.decide(vitals(), decision)
                val now = decision
                control.delayMillisBetweenLayers = pace().between(now)
                store.update { it.copy(run = it.run.copy(decision = now)) }
                if (now.waits) control.pause()
                Thread.sleep(pace().look)
            }
        } catch (error: InterruptedException) {
            return
        }
    }

    private companion object {
        const val MEMORY_REST_MILLIS = 60_000L
    }
}

/**
 * How long a run waits with the processor kept on: a while for what passes soon, heat or other apps' need of memory, and not at all for a
 * battery, which takes hours. Then its turn ends, and a job goes on with it.
 */
class Patience {
    private var since: Long? = null

    fun isOver(reason: Reason?): Boolean {
        val now = SystemClock.elapsedRealtime()
        val begun = since ?: now.also { since = it }
        return reason == Reason.BATTERY || now - begun >= LONGEST_MILLIS
    }

    /** It trained meanwhile. */
    fun renew() {
        since = null
    }

    private companion object {
        const val LONGEST_MILLIS = 180_000L
    }
}
