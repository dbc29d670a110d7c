package lcsbmobile.app

/** Starts the run of what is chosen, or goes on with it. */
fun begin(activity: MainActivity) {
    val app = App.of(activity)
    val state = app.store.state
    val bundle = state.bundle ?: return
    app.training.request(bundle, state.data) { activity.runOnUiThread { train(activity) } }
}

/** From API 31 the system refuses when the app went into the background meanwhile. */
private fun train(activity: MainActivity) =
    try {
        activity.train()
    } catch (error: IllegalStateException) {
        App.of(activity).training.refused()
    }

/** Ends a run; what it has learned stays. */
fun finishEarly(activity: MainActivity) {
    val (title, text) = activity.getString(R.string.stop_title) to activity.getString(R.string.stop_text)
    confirm(activity, title, text, R.string.stop, R.string.keep_run) { App.of(activity).training.cancel() }
}
