package lcsbmobile.app

import android.app.AlertDialog
import android.content.Intent
import android.net.Uri
import android.os.Build

/** What other apps share with this one becomes data, once the person has agreed. Nothing of it is believed: another app made it. */
class Incoming(private val activity: MainActivity) {
    private val app = App.of(activity)
    private var dialog: AlertDialog? = null

    /** Reads what [intent] brings, if anything. */
    fun take(intent: Intent) {
        if (intent.action != Intent.ACTION_SEND && intent.action != Intent.ACTION_PROCESS_TEXT) return
        val offer = try {
            offer(intent)
        } catch (error: RuntimeException) {
            null // extras that cannot be unpacked
        }
        val length = offer?.text?.length ?: 0
        val problem = when {
            length > MOST_TEXT -> Problem.SHARED_LONG
            offer == null || (offer.uri == null && offer.text.isNullOrBlank()) -> Problem.SHARED_NONE
            else -> null
        }
        app.store.update { if (problem != null) it.copy(problem = problem) else it.copy(offer = offer) }
        activity.show(Destination.DATA)
    }

    private fun offer(intent: Intent): Offer? {
        if (intent.action == Intent.ACTION_PROCESS_TEXT) {
            return Offer(text = intent.getCharSequenceExtra(Intent.EXTRA_PROCESS_TEXT)?.take(MOST_TEXT + 1)?.toString())
        }
        val uri = stream(intent)
        if (uri == null) return Offer(text = intent.getCharSequenceExtra(Intent.EXTRA_TEXT)?.take(MOST_TEXT + 1)?.toString())
        if (uri.scheme != "content") return null // a path of another app's, or of this one's own files
        return Offer(uri = uri)
    }

    @Guarded
    private fun stream(intent: Intent): Uri? =
        if (Build.VERSION.SDK_INT >= 33) {
            intent.getParcelableExtra(Intent.EXTRA_STREAM, Uri::class.java)
        } else {
            @Suppress("DEPRECATION")
            intent.getParcelableExtra(Intent.EXTRA_STREAM)
        }

    /** Asks about what waits. */
    fun render(state: AppState) {
        val offer = state.offer
        if (offer == null || dialog?.isShowing == true) return
        val uri = offer.uri
        dialog = if (uri == null) ask(state, offer.text!!) else ask(state, uri)
    }

    /** The window goes; what waits is asked about in the next one. */
    fun end() {
        dialog?.setOnDismissListener(null)
        dialog?.dismiss()
    }

    private fun ask(state: AppState, text: String): AlertDialog {
        val other = state.data?.takeIf { it.typed == null }?.name
        val shown = if (text.length > SHOWN) text.take(SHOWN).trimEnd() + "…" else text
        val words = if (other == null) {
            activity.getString(R.string.quoted, shown)
        } else {
            activity.getString(R.string.offer_text_replaces, shown, other)
        }
        return ask(activity.getString(R.string.offer_text_title), words, R.string.offer_add) { app.data.type(text.trim()) }
    }

    private fun ask(state: AppState, uri: Uri): AlertDialog {
        val name = uri.lastPathSegment.orEmpty().substringAfterLast('/').take(SHOWN_NAME)
        val other = state.data?.title(activity.resources)
        val words = if (other == null) activity.getString(R.string.offer_file) else activity.getString(R.string.offer_file_replaces, other)
        return ask(activity.getString(R.string.offer_file_title, name), words, R.string.offer_use) { app.data.import(uri, MOST_BYTES) }
    }

    private fun ask(title: String, words: String, action: Int, agreed: () -> Unit): AlertDialog =
        AlertDialog.Builder(activity).setTitle(title).setMessage(words).setNegativeButton(R.string.cancel, null)
            .setPositiveButton(action) { _, _ -> agreed() }
            .setOnDismissListener { app.store.update { it.copy(offer = null) } }.show()

    companion object {
        const val MOST_TEXT = 100_000 // characters: what the field for a message takes
        const val MOST_BYTES = 256_000_000L
        private const val SHOWN = 300
        private const val SHOWN_NAME = 80
    }
}
