package lcsbmobile.app

import java.util.concurrent.CancellationException
import kotlin.concurrent.thread

/** Does one thing at a time on a thread of its own; the thing asks [goOn] now and then, which throws when it was cancelled. */
class Worker(private val name: String, private val failed: (Throwable) -> Unit) {
    @Volatile private var cancelled = false

    @Volatile private var thread: Thread? = null

    val busy: Boolean get() = thread?.isAlive == true

    /** Cancels what is under way, waits for its end on the new thread, and begins. */
    @Synchronized
    fun start(task: () -> Unit) {
        val before = thread
        cancelled = true
        thread = thread(name = name) {
            before?.join()
            cancelled = false
            try {
                task()
            } catch (error: CancellationException) {
                return@thread // as asked
            } catch (error: Throwable) {
                // whatever it is, the person is told
                failed(error)
            }
        }
    }

    fun goOn() {
        if (cancelled) throw CancellationException()
    }

    fun cancel() {
        cancelled = true
    }

    /** Waits for the end of what is under way. */
    fun join() = thread?.join()
}
