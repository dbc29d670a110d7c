package lcsbmobile.app

import lcsbmobile.core.Fault

/** What a problem's card offers to do about it: what its advice says, where the app can. [label]: the button's words. */
enum class Remedy(val label: Int) {
    FREE_SPACE(R.string.remedy_space),
    CHOOSE_DATA(R.string.remedy_data),
    CHOOSE_MODEL(R.string.remedy_model),
    CHANGE_OPTIONS(R.string.remedy_options),
    RESUME(R.string.resume),
    FINISH(R.string.stop),
    NOTIFICATIONS(R.string.open_settings),
}

/** Null where nothing that the app can do follows from the advice, as things stand. */
fun remedy(problem: Problem, state: AppState): Remedy? = when (val fault = problem.fault) {
    null -> when {
        problem === Problem.NOTIFICATIONS -> Remedy.NOTIFICATIONS
        problem === Problem.INTERRUPTED || problem === Problem.BACKGROUND -> Remedy.RESUME.takeIf { state.run.resumable }
        else -> null
    }
    else -> remedy(fault).takeIf { (it != Remedy.RESUME && it != Remedy.FINISH) || state.run.resumable }
}

private fun remedy(fault: Fault): Remedy? = when (fault) {
    Fault.BUNDLE_UNREADABLE, Fault.BUNDLE_OTHER_TARGET, Fault.BUNDLE_NEWER_VERSION, Fault.BUNDLE_OLDER_VERSION, Fault.BUNDLE_DAMAGED,
    Fault.GOLDEN_TRACE, Fault.RUNTIME_NOT_INCLUDED, Fault.TOKENIZER_UNSUPPORTED, Fault.TOKENIZER_DAMAGED,
    -> Remedy.CHOOSE_MODEL
    Fault.CHAT_UNSUPPORTED, Fault.DATA_UNREADABLE, Fault.DATA_ENCODING, Fault.DATA_LINE, Fault.DATA_EMPTY -> Remedy.CHOOSE_DATA
    Fault.OPTION, Fault.MEMORY_TOO_SMALL, Fault.MEMORY_EXCEEDED -> Remedy.CHANGE_OPTIONS
    Fault.STORAGE_FULL -> Remedy.FREE_SPACE
    Fault.RUNTIME_FAILED, Fault.STORAGE_FAILED -> Remedy.RESUME
    Fault.CHECKPOINT_DAMAGED, Fault.CHECKPOINT_OTHER_RUN, Fault.LOSS_NOT_FINITE -> Remedy.FINISH
    Fault.RUNTIME_MISSING, Fault.RUN_BUSY, Fault.ADAPTER -> null
}
