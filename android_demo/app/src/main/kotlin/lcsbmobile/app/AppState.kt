package lcsbmobile.app

import android.net.Uri
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

/**
 * What the data comes to, as it is cached. [conversations]: examples that are some. [cut]: examples longer than a sequence. [sequences]: of an
 * epoch. [previews]: the first examples.
 */
@Serializable
data class DataSummary(
    val examples: Long,
    val tokens: Long,
    val counted: Long,
    val cut: Long,
    val dropped: Long,
    val sequences: Long,
    val previews: List<List<Piece>>,
    val conversations: Long = 0,
) {
    /** Whether what learns from it learns to answer rather than to continue. */
    val chat: Boolean get() = 2 * conversations > examples
}

/** Neighbouring tokens that all count for the loss, or none of them, as text. */
@Serializable
data class Piece(val text: String, val counted: Boolean)

/** WAITING: under way, for a while. SUSPENDED: until a job goes on with it, when what [RunState.decision] names is over. */
enum class Phase { NONE, OPENING, TESTING, EVALUATING, TRAINING, COMPARING, PAUSING, PAUSED, WAITING, SUSPENDED, INTERRUPTED, FINISHED, CANCELLED, FAILED }

/** What the model made of the beginning of a held-out example after [step] steps. [cut]: it would have written on. */
@Serializable
data class WrittenSample(val step: Int, val prompt: String, val text: String, val cut: Boolean)

/**
 * The run of the chosen bundle. [samples]: what it wrote at its evaluations. [roles]: of the step under way. [secondsAStep]: of the last steps. [begun]:
 * something of it is saved.
 */
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
    val samples: List<WrittenSample> = emptyList(),
) {
    val active: Boolean get() = phase in ACTIVE

    /** Nothing trains it now, and it goes on by itself. */
    val goesOn: Boolean get() = phase == Phase.INTERRUPTED || phase == Phase.SUSPENDED

    val resumable: Boolean get() = phase == Phase.PAUSED || goesOn || (phase == Phase.FAILED && begun)

    private companion object {
        val ACTIVE = setOf(Phase.OPENING, Phase.TESTING, Phase.EVALUATING, Phase.TRAINING, Phase.COMPARING, Phase.PAUSING, Phase.WAITING)
    }
}

/**
 * The same prompt, continued or answered before and after. [prompt] null: nothing was asked yet. [beforeCut], [afterCut]: that text would have gone on.
 */
data class Comparison(
    val prompt: String? = null,
    val before: String = "",
    val after: String = "",
    val writing: Boolean = false,
    val beforeCut: Boolean = false,
    val afterCut: Boolean = false,
)

/** A question and its answer, or a text's beginning and how it went on. [adapted]: by which adapter, null: the model as it came. [cut]: as above. */
data class Said(val question: String, val answer: String = "", val adapted: String? = null, val cut: Boolean = false, val chat: Boolean = true)

/**
 * What is said on Try it. [on]: with an adapter; [adapter]: which, null: the one in use, or the paused run's. [writing]: the last answer is being
 * written. [forgotten]: the first ones that the model no longer reads. [sideBySide]: before and after are compared instead.
 */
data class Conversation(
    val said: List<Said> = emptyList(),
    val on: Boolean = true,
    val adapter: Int? = null,
    val writing: Boolean = false,
    val forgotten: Int = 0,
    val sideBySide: Boolean = false,
)

/** What another app handed over, to be asked about: a [text] to learn from, or [uri], a file of such. */
data class Offer(val text: String? = null, val uri: Uri? = null)

/** Two adapters that are being compared, or were. [against] null: the model as it came. */
data class Match(val record: AdapterRecord, val against: AdapterRecord?, val done: Int = 0, val of: Int = 0, val verdict: StoredVerdict? = null)

/**
 * Everything that the screens show. [adapters]: the chosen bundle's. [inUse], [undecided], [further]: numbers of the one that is tried and shared, of the
 * newest while the person is asked whether to use it, and of the one that the next run begins with. [takesChat]: the bundle has a chat format. [kept]: bytes
 * of what is the person's own, null until somebody asks.
 */
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
    val adapters: List<AdapterRecord> = emptyList(),
    val inUse: Int? = null,
    val undecided: Int? = null,
    val further: Int? = null,
    val takesChat: Boolean = false,
    val conversation: Conversation = Conversation(),
    val comparing: Match? = null,
    val importing: Boolean = false,
    val offer: Offer? = null,
    val kept: Map<PrivateData.Part, Long>? = null,
) {
    val adapterInUse: AdapterRecord? get() = adapters.find { it.id == inUse }

    /** A run can go on that has learned something. */
    val pausedRun: Boolean get() = run.resumable && run.step > 0

    /** The adapter that Try it tries: the one that was chosen there, else the one in use, else the newest; null: a paused run's state, or none. */
    val tried: AdapterRecord?
        get() = adapters.find { it.id == conversation.adapter } ?: if (pausedRun) null else adapterInUse ?: adapters.firstOrNull()

    /** Whether Try it is a conversation, as what was learned was, or texts are continued. */
    val talks: Boolean get() = takesChat && (tried?.chat ?: data?.summary?.chat ?: true)

    /** Another bundle, or none: what is shown of the one before goes. */
    fun choosing(bundle: String?) = copy(
        chosen = bundle, run = RunState(), report = null, comparison = Comparison(), conversation = Conversation(), adapters = emptyList(), inUse = null,
        undecided = null, further = null, comparing = null,
    )

    val bundle: BundleInfo? get() = bundles.find { it.name == chosen }

    fun bundleOf(run: RunRecord): BundleInfo = bundles.first { it.name == run.bundle }
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
