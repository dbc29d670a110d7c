package lcsbmobile.app

import android.content.ClipData
import android.content.ClipboardManager
import android.os.Build
import android.view.View
import android.view.ViewGroup
import android.widget.ScrollView
import android.widget.TextView
import android.widget.Toast

/** What was said, the newest last. Of a long conversation the last part is shown. */
class ConversationView(private val activity: MainActivity, view: View) {
    private val scroll = view.findViewById<ScrollView>(R.id.try_scroll)
    private val list = view.findViewById<ViewGroup>(R.id.said)
    private var shown = emptyList<Said>()

    fun render(conversation: Conversation) {
        list.shown(!conversation.sideBySide)
        val said = conversation.said.takeLast(MOST_SHOWN)
        if (said == shown) return
        val same = said.zip(shown).takeWhile { (now, then) -> now.question == then.question && now.adapted == then.adapted }.size
        while (list.childCount > same) list.removeViewAt(list.childCount - 1)
        for (index in said.indices) {
            if (index >= list.childCount) list.addView(row())
            if (said[index] != shown.getOrNull(index) || index >= same) show(list.getChildAt(index), said[index])
        }
        val grown = said.size > shown.size
        shown = said
        if (grown) scroll.post { scroll.fullScroll(View.FOCUS_DOWN) }
    }

    private fun row(): View = activity.layoutInflater.inflate(R.layout.said, list, false)

    private fun show(row: View, said: Said) {
        row.findViewById<TextView>(R.id.said_question).apply {
            shown(said.chat)
            say(said.question)
            contentDescription = activity.getString(R.string.labelled, activity.getString(R.string.you), said.question)
        }
        val answer = continued(activity, said.question, said.answer, said.cut, part = !said.chat)
        row.findViewById<TextView>(R.id.said_answer).say(answer)
        row.findViewById<TextView>(R.id.said_by).say(said.adapted ?: activity.getString(R.string.without_adapter))
        row.findViewById<View>(R.id.said_copy).setOnClickListener { copy("$answer") }
    }

    private fun copy(text: String) {
        val label = activity.getString(R.string.app_name)
        activity.getSystemService(ClipboardManager::class.java).setPrimaryClip(ClipData.newPlainText(label, text))
        if (Build.VERSION.SDK_INT < 33) Toast.makeText(activity, R.string.copied, Toast.LENGTH_SHORT).show() // newer systems say so themselves
    }

    private companion object {
        const val MOST_SHOWN = 50
    }
}
