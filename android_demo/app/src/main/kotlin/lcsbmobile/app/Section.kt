package lcsbmobile.app

import android.os.Bundle
import android.view.View
import android.view.accessibility.AccessibilityNodeInfo
import android.widget.Button
import android.widget.TextView

/**
 * A part of a screen that its header opens and closes, and that is found as it was left. [title]: the header's words. [name]: what its
 * state is stored under. [openAtFirst]: before anybody touched it.
 */
class Section(
    private val header: View,
    private val body: View,
    private val title: Int,
    private val name: String,
    private val openAtFirst: Boolean,
) {
    private val settings = App.of(header.context).settings
    private val state = header.findViewById<TextView>(R.id.section_state)
    private var summary = ""

    private var open: Boolean
        get() = settings.isOpen(name, openAtFirst)
        set(open) = settings.setOpen(name, open)

    init {
        header.findViewById<TextView>(R.id.section_title).setText(title)
        header.setOnClickListener { toggle() }
        header.accessibilityDelegate = Spoken()
        heading(header)
        show()
    }

    private fun toggle() {
        open = !open
        show()
    }

    /** [summary]: what is in it, in a few words that are seen while it is closed. */
    fun render(summary: String) {
        this.summary = summary
        show()
    }

    private fun show() {
        val open = this.open
        body.shown(open)
        state.say(summary)
        state.shown(!open && summary.isNotEmpty())
        header.findViewById<View>(R.id.section_arrow).rotation = if (open) 180f else 0f
        val words = header.resources.getString(if (open) R.string.section_open else R.string.section_closed, header.resources.getString(title))
        header.contentDescription = if (open || summary.isEmpty()) words else "$words. $summary"
    }

    /** A button, for TalkBack, that says what it will do. */
    private inner class Spoken : View.AccessibilityDelegate() {
        override fun onInitializeAccessibilityNodeInfo(host: View, info: AccessibilityNodeInfo) {
            super.onInitializeAccessibilityNodeInfo(host, info)
            info.className = Button::class.java.name
            info.addAction(if (open) COLLAPSE else EXPAND)
        }

        override fun performAccessibilityAction(host: View, action: Int, arguments: Bundle?): Boolean {
            if (action != EXPAND.id && action != COLLAPSE.id) return super.performAccessibilityAction(host, action, arguments)
            if (open == (action == EXPAND.id)) return false
            toggle()
            return true
        }
    }

    private companion object {
        val EXPAND: AccessibilityNodeInfo.AccessibilityAction = AccessibilityNodeInfo.AccessibilityAction.ACTION_EXPAND
        val COLLAPSE: AccessibilityNodeInfo.AccessibilityAction = AccessibilityNodeInfo.AccessibilityAction.ACTION_COLLAPSE
    }
}
