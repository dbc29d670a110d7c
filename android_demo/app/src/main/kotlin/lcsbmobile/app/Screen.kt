package lcsbmobile.app

import android.app.AlertDialog
import android.os.Build
import android.view.View
import android.widget.Button
import android.widget.TextView

/** A part of the window that shows the state. */
interface Screen {
    val view: View

    fun render(state: AppState)
}

/** TalkBack jumps from heading to heading. */
@Guarded
fun heading(view: View) {
    if (Build.VERSION.SDK_INT >= 28) view.isAccessibilityHeading = true
}

fun View.shown(shown: Boolean) {
    visibility = if (shown) View.VISIBLE else View.GONE
}

/** Only when it differs: a live region speaks each time. */
fun TextView.say(text: CharSequence) {
    if (this.text.toString() != text.toString()) this.text = text
}

/** A figure with its label, which are read out as one. */
fun View.figure(value: String, label: String) {
    findViewById<TextView>(R.id.figure_value).say(value)
    findViewById<TextView>(R.id.figure_label).say(label)
    contentDescription = "$label: $value"
}

/** Asks before what cannot be undone. [action], [keep]: what the buttons say. */
fun confirm(activity: MainActivity, title: String, text: String, action: Int, keep: Int = R.string.cancel, confirmed: () -> Unit) {
    val dialog = AlertDialog.Builder(activity).setTitle(title).setMessage(text)
    dialog.setNegativeButton(keep, null).setPositiveButton(action) { _, _ -> confirmed() }.show()
}

/** What went wrong, above whichever screen is shown. */
class ProblemCard(activity: MainActivity) : Screen {
    override val view: View = activity.findViewById(R.id.problem)
    private val resources = activity.resources
    private val what = view.findViewById<TextView>(R.id.problem_what)
    private val todo = view.findViewById<TextView>(R.id.problem_todo)
    private val detail = view.findViewById<TextView>(R.id.problem_detail)
    private val more = view.findViewById<Button>(R.id.problem_more)
    private val action = view.findViewById<Button>(R.id.problem_action)
    private var opened: Problem? = null
    private var remedy: Remedy? = null

    init {
        val store = App.of(activity).store
        action.setOnClickListener { remedy?.let(activity::mend) }
        view.findViewById<Button>(R.id.problem_dismiss).setOnClickListener { store.update { it.copy(problem = null) } }
        more.setOnClickListener {
            opened = store.state.problem
            render(store.state)
        }
    }

    override fun render(state: AppState) {
        val problem = state.problem
        view.shown(problem != null)
        if (problem == null) return
        what.say(problem.what(resources))
        todo.say(problem.todo(resources))
        detail.say(problem.detail.orEmpty())
        detail.shown(problem.detail != null && opened === problem)
        more.shown(problem.detail != null && opened !== problem)
        remedy = remedy(problem, state)
        action.shown(remedy != null)
        remedy?.let { action.setText(it.label) }
    }
}
