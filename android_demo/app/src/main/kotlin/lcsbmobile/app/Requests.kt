package lcsbmobile.app

import lcsbmobile.core.RunControl
import java.util.concurrent.CancellationException
import java.util.concurrent.TimeUnit
import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock

/** What may be asked of a run. LEAVE: the system wants it to make room, and it goes on by itself. [wanted]: what becomes of the run. */
enum class Request(val wanted: Wanted) {
    NONE(Wanted.RUNNING),
    PAUSE(Wanted.PAUSED),
    CANCEL(Wanted.CANCELLED),
    LEAVE(Wanted.RUNNING),
}

/** Somebody asked for something else than what is under way. */
class Asked : CancellationException()

/** What was asked of the turn under way, from any thread, and who hears of it: the core, between two layers, or whoever waits. */
class Requests {
    val lock = ReentrantLock() // a turn begins under it too
    private val woken = lock.newCondition()
    private var control: RunControl? = null

    @Volatile var asked = Request.NONE
        private set

    /** For what takes long and asks now and then. */
    fun throwIfAsked() {
        if (asked != Request.NONE) throw Asked()
    }

    fun forget() = lock.withLock { asked = Request.NONE }

    /** The system's wish is no answer to a person's. */
    fun ask(what: Request) = lock.withLock {
        if (what != Request.LEAVE || asked == Request.NONE) asked = what
        control?.let(::tell)
        woken.signalAll()
    }

    /** The steps under way end, and nothing was asked. */
    fun interrupt() = lock.withLock { control?.pause() }

    /** [run]s under [control], which hears of what is and was asked. */
    fun <T> under(control: RunControl, run: () -> T): T {
        lock.withLock {
            this.control = control
            if (asked != Request.NONE) tell(control)
        }
        try {
            return run()
        } finally {
            lock.withLock { this.control = null }
        }
    }

    private fun tell(control: RunControl) = if (asked == Request.CANCEL) control.stop() else control.pause()

    /** Waits a while, or until something is asked. [waiting] is called first, unless something was. */
    fun await(millis: Long, waiting: () -> Unit) {
        lock.withLock {
            if (asked != Request.NONE) return
            waiting()
            woken.await(millis, TimeUnit.MILLISECONDS)
        }
    }
}
