package lcsbmobile.app

import android.os.StrictMode
import java.util.concurrent.CancellationException
import java.util.concurrent.CopyOnWriteArrayList
import kotlin.concurrent.thread

/** Before files are read or written: never on the main thread, which draws. StrictMode tells, where it watches for that. */
fun onDisk(what: String) = StrictMode.noteSlowCall(what)

/** Does one thing after the other on threads of its own; each asks [goOn] now and then, which throws when it was cancelled. */
class Worker(private val name: String, private val failed: (Throwable) -> Unit) {
    private class Task {
        @Volatile var cancelled = false
    }

    private val tasks = CopyOnWriteArrayList<Task>() // that have not ended

    @Volatile private var running: Task? = null

    @Volatile private var thread: Thread? = null

    val busy: Boolean get() = thread?.isAlive == true

    /** Cancels what is under way or waits, if [cancelling], and begins when all that has ended. */
    @Synchronized
    fun start(cancelling: Boolean = true, action: () -> Unit) {
        if (cancelling) cancel()
        val before = thread
        val task = Task().also { tasks += it }
        thread = thread(name = name) {
            before?.join()
            running = task
            try {
                action()
            } catch (error: CancellationException) {
                return@thread // as asked
            } catch (error: Throwable) {
                // whatever it is, the person is told
                failed(error)
            } finally {
                tasks -= task
            }
        }
    }

    fun goOn() {
        if (running?.cancelled == true) throw CancellationException()
    }

    /** All that was started and has not ended. */
    fun cancel() = tasks.forEach { it.cancelled = true }

    /** Waits for the end of what is under way. */
    fun join() = thread?.join()
}
