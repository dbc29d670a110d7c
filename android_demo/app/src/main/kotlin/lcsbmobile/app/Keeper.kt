package lcsbmobile.app

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException

/** Puts what a run has learned into the adapters' store, once a run, however often it is asked. */
class Keeper(private val app: App, private val engine: AdapterEngine, private val library: BundleLibrary, private val runs: RunStore) {
    private val store get() = app.adapters.store

    /** Of a run that is over. Null where it has learned nothing, or all that it saved is damaged. */
    fun keep(record: RunRecord): AdapterRecord? {
        if (!runs.learned(record.bundle)) return null
        return try {
            keepNow(record)
        } catch (error: LcsbException) {
            if (error.fault != Fault.CHECKPOINT_DAMAGED) throw error
            null
        }
    }

    private fun keepNow(record: RunRecord): AdapterRecord? {
        val directory = library.directory(record.bundle)
        val id = record.id ?: "${record.bundle}-before" // of a run that an earlier version of the app began
        store.list(record.bundle).find { it.run == id }?.let { return it }
        val result = record.report?.result
        val learned = AdapterRecord(
            id = 0,
            bundle = record.bundle,
            name = name(record),
            made = System.currentTimeMillis(),
            data = record.dataName,
            lossBefore = result?.evalLossBefore,
            lossAfter = result?.evalLossAfter,
            chat = result?.data?.let { 2 * it.conversations > it.lines } ?: record.chat,
            example = record.samples.firstOrNull()?.prompt,
            digest = engine.identity(directory),
            run = id,
            further = record.further,
        )
        return engine.keep(directory, runs.state(record.bundle)) { steps, write -> store.add(learned.copy(steps = steps), write) }
    }

    /** The data's name, and the day. */
    private fun name(record: RunRecord) = "${record.dataName} · ${formatDay(app.resources, System.currentTimeMillis())}".take(Adapters.MOST_NAME)
}
