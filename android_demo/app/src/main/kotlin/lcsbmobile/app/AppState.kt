package lcsbmobile.app

import android.os.Handler
import android.os.Looper
import kotlinx.serialization.Serializable
import java.util.concurrent.CopyOnWriteArrayList

/**
 * A bundle in the app's storage. [name]: its directory's. [adapterSize]: parameters of all layers. [schedule]: one cycle, by step.
 * [predictedMemory]: anonymous bytes of a step that keeps nothing. [secondsAStep]: predicted from one step that was timed on this
 * phone, later measured. [checked]: the golden trace came out right on this phone. [place]: where it lies, if not in the app's own storage,
 * and [manifest], the SHA-256 of its manifest.json as it was added.
 */
@Serializable
data class BundleInfo(
    val name: String,
    val source: String,
    val bytes: Long,
    val layers: Int,
    val adapterSize: Int,
    val seqLen: Int,
    val schedule: List<List<LayerRole>>,
    val predictedMemory: Long? = null,
    val secondsAStep: Double? = null,
    val checked: Boolean = false,
    val place: String? = null,
    val manifest: String? = null,
)

/** Something that takes long: [done] of [total] (0: unknown), both in bytes. */
data class Progress(val kind: Kind, val name: String, val done: Long = 0, val total: Long = 0) {
    enum class Kind { COPYING, VERIFYING, TESTING, READING }
}

/**
 * The data to train on. [typed]: the person's own messages, where they typed them. [summary]: under the chosen bundle, null until it was
 * read.
 */
data class DataInfo(val file: String, val name: String, val typed: List<String>? = null, val summary: DataSummary? = null) {
    /** Whether it can be trained on, as far as it was read: one example at least is held out. */
    val suffices: Boolean get() = summary == null || summary.examples >= 2
}

/** What the data comes to, as it is cached. [cut]: examples longer than a sequence. [sequences]: of an epoch. [previews]: the first examples. */
@Serializable
data class DataSummary(
    val examples: Long,
    val tokens: Long,
    val counted: Long,
    val cut: Long,
    val dropped: Long,
    val sequences: Long,
    val previews: List<List<Piece>>,
)

/** Neighbouring tokens that all count for the loss, or none of them, as text. */
@Serializable
data class Piece(val text: String, val counted: Boolean)

/** WAITING: under way, for a while. SUSPENDED: until a job goes on with it, when what [RunState.decision] names is over. */
enum class Phase { NONE, OPENING, TESTING, EVALUATING, TRAINING, PAUSING, PAUSED, WAITING, SUSPENDED, INTERRUPTED, FINISHED, CANCELLED, FAILED }

/** The run of the chosen bundle. [roles]: of the step under way. [secondsAStep]: of the last steps. [begun]: something of it is saved. */
data class RunState(
    val phase: Phase = Phase.NONE,
    val step: Int = 0,
    val steps: Int = 0,
    val training: List<LossPoint> = emptyList(),
    val evaluation: List<LossPoint> = emptyList(),
    val roles: List<LayerRole> = emptyList(),
    val layer: Int = -1,
    val secondsAStep: Double? = null,
    val decision: Decision = Decision(),
    val begun: Boolean = true,
) {
    val active: Boolean get() = phase in ACTIVE

    /** Nothing trains it now, and it goes on by itself. */
    val goesOn: Boolean get() = phase == Phase.INTERRUPTED || phase == Phase.SUSPENDED

    val resumable: Boolean get() = phase == Phase.PAUSED || goesOn || (phase == Phase.FAILED && begun)

    private companion object {
        val ACTIVE = setOf(Phase.OPENING, Phase.TESTING, Phase.EVALUATING, Phase.TRAINING, Phase.PAUSING, Phase.WAITING)
    }
}

/** The same prompt answered before and after. [prompt] null: nothing was asked yet. */
data class Comparison(val prompt: String? = null, val before: String = "", val after: String = "", val writing: Boolean = false)

/** Everything that the screens show. */
data class AppState(
    val bundles: List<BundleInfo> = emptyList(),
    val found: List<String> = emptyList(),
    val chosen: String? = null,
    val transfer: Progress? = null,
    val data: DataInfo? = null,
    val reading: Progress? = null,
    val run: RunState = RunState(),
    val vitals: Vitals = Vitals(),
    val comparison: Comparison = Comparison(),
    val report: RunReport? = null,
    val packing: Boolean = false,
    val problem: Problem? = null,
) {
    val bundle: BundleInfo? get() = bundles.find { it.name == chosen }
}

/** Holds the one [AppState]. It is changed from any thread; observers hear of the newest on the main thread, as often as that is free. */
class Store(initial: AppState) {
    @Volatile var state = initial
        private set
    private val main = Handler(Looper.getMainLooper())
    private val observers = CopyOnWriteArrayList<(AppState) -> Unit>()
    private var posted = false

    @Synchronized
    fun update(change: (AppState) -> AppState) {
        if (!posted) posted = main.post(::tell) // first: whoever sees the new state, without the lock, finds that the screens will hear of it
        state = change(state)
    }

    /** On the main thread; [observer] hears at once of what is. */
    fun observe(observer: (AppState) -> Unit) {
        observers += observer
        observer(state)
    }

    fun forget(observer: (AppState) -> Unit) {
        observers -= observer
    }

    private fun tell() {
        val newest = synchronized(this) {
            posted = false
            state
        }
        observers.forEach { it(newest) }
    }
}
