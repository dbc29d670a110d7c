package lcsbmobile.app

import kotlinx.serialization.Serializable
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.Verdict
import java.util.concurrent.CancellationException

/** What examples that were held out say of an adapter beside [against]: the other's name, null: the model as it came. */
@Serializable
data class StoredVerdict(val verdict: Verdict, val against: String? = null)

/** Compares adapters on the examples of the data that a run holds out. */
class Judge(private val app: App, private val engine: AdapterEngine, private val library: BundleLibrary, private val shelf: DataShelf) {
    private val store get() = app.adapters.store

    /** What [data], a file of the data directory, says of [record] beside [against]; [goOn] may throw to stop. */
    fun compare(record: AdapterRecord, against: AdapterRecord?, data: String, goOn: () -> Unit): StoredVerdict {
        app.store.update { it.copy(comparing = Match(record, against)) }
        val directory = library.directory(record.bundle)
        val verdict = engine.compare(directory, shelf.file(data), against?.let(store::file), store.file(record), goOn) { done, of ->
            app.store.update { it.copy(comparing = Match(record, against, done, of)) }
        }
        return StoredVerdict(verdict, against?.name)
    }

    /**
     * Judges what a run has just learned beside what is in use, writes the verdict down, and uses the new one where it is better; else the person is
     * asked. [goOn] may throw to stop: then they are asked without a verdict.
     */
    fun judge(kept: AdapterRecord, data: String, goOn: () -> Unit) {
        val inUse = store.find(kept.bundle, store.inUse(kept.bundle))?.takeIf { it.id != kept.id }
        val verdict = try {
            compare(kept, inUse, data, goOn)
        } catch (stopped: CancellationException) {
            null
        } catch (error: LcsbException) {
            if (error.fault !in UNJUDGED) app.store.update { it.copy(problem = Problem.of(error)) }
            null
        } finally {
            app.store.update { it.copy(comparing = null) }
        }
        if (verdict != null) store.change(kept) { it.copy(verdict = verdict) }
        val better = verdict?.verdict?.outcome == Verdict.Outcome.BETTER
        if (better) store.use(kept)
        app.store.update { if (it.chosen == kept.bundle) it.copy(undecided = kept.id.takeIf { !better }) else it }
        app.adapters.refresh()
    }

    private companion object {
        val UNJUDGED = setOf(Fault.DATA_EMPTY, Fault.DATA_UNREADABLE) // the data is gone
    }
}
