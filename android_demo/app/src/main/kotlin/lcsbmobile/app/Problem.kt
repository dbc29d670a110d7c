package lcsbmobile.app

import android.content.res.Resources
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import java.io.IOException

/**
 * What went wrong and what to do, as sentences in the person's language. [detail]: in English, with every number, for who wants to know.
 */
class Problem private constructor(
    private val what: Int,
    private val todo: Int,
    private val arguments: List<String>,
    val detail: String?,
    val fault: Fault?,
) {
    /** [arguments] that are numbers count bytes, but for the second of a file and a line. */
    fun what(resources: Resources): String = when (what) {
        R.string.fault_data_line_number -> resources.getString(what, arguments[1])
        R.string.fault_memory_too_small_sizes, R.string.fault_storage_full_sizes ->
            resources.getString(what, *arguments.take(2).map { formatBytes(resources, it.toLong()) }.toTypedArray())
        else -> resources.getString(what)
    }

    fun todo(resources: Resources): String = resources.getString(todo)

    companion object {
        val ACCESS = own(R.string.problem_access, R.string.problem_access_todo)
        val NO_PICKER = own(R.string.problem_picker, R.string.problem_picker_todo)
        val NOTIFICATIONS = own(R.string.problem_notifications, R.string.problem_notifications_todo)
        val SHARED_LONG = own(R.string.problem_shared_long, R.string.problem_shared_long_todo)
        val SHARED_LARGE = own(R.string.problem_shared_large, R.string.problem_shared_large_todo)
        val SHARED_NONE = own(R.string.problem_shared_none, R.string.problem_shared_none_todo)
        val COMPARISON = own(R.string.problem_comparison, R.string.compare_needs_data)
        val TYPED = own(R.string.problem_typed, R.string.problem_typed_todo)
        val INTERRUPTED = own(R.string.problem_interrupted, R.string.problem_interrupted_todo)
        val RUN_ACTIVE = own(R.string.problem_run_active, R.string.problem_run_active_todo)
        val BACKGROUND = own(R.string.problem_background, R.string.problem_background_todo)

        private fun own(what: Int, todo: Int) = Problem(what, todo, emptyList(), null, null)

        fun of(fault: Fault, arguments: List<String> = emptyList(), detail: String? = null): Problem {
            val (what, todo) = sentences(fault)
            return Problem(withArguments(fault, arguments) ?: what, todo, arguments, detail, fault)
        }

        fun of(error: Throwable): Problem = when (error) {
            is LcsbException -> of(error.fault, error.arguments, error.message)
            is LinkageError -> of(Fault.RUNTIME_MISSING, detail = "$error")
            is OutOfMemoryError -> of(Fault.MEMORY_EXCEEDED, detail = "$error")
            is DataShelf.Full -> TYPED
            is Data.TooLarge -> SHARED_LARGE
            is SecurityException -> Problem(R.string.problem_access, R.string.problem_access_todo, emptyList(), "$error", null)
            is IOException -> of(Fault.STORAGE_FAILED, detail = "$error")
            else -> Problem(R.string.problem_unexpected, R.string.problem_unexpected_todo, emptyList(), "$error", null)
        }

        /** The sentence that says a fault with its figures, where there are any. */
        private fun withArguments(fault: Fault, arguments: List<String>): Int? {
            val numbers = arguments.isNotEmpty() && arguments.all { it.toLongOrNull() != null }
            return when {
                fault == Fault.DATA_LINE && arguments.getOrNull(1)?.toLongOrNull() != null -> R.string.fault_data_line_number
                fault == Fault.MEMORY_TOO_SMALL && numbers && arguments.size >= 2 -> R.string.fault_memory_too_small_sizes
                fault == Fault.STORAGE_FULL && numbers && arguments.size == 2 -> R.string.fault_storage_full_sizes
                else -> null
            }
        }

        /** The compiler sees to it that no fault is without its sentences. */
        private fun sentences(fault: Fault): Pair<Int, Int> = when (fault) {
            Fault.BUNDLE_UNREADABLE -> R.string.fault_bundle_unreadable to R.string.fault_bundle_unreadable_todo
            Fault.BUNDLE_OTHER_TARGET -> R.string.fault_bundle_other_target to R.string.fault_bundle_other_target_todo
            Fault.BUNDLE_NEWER_VERSION -> R.string.fault_bundle_newer_version to R.string.fault_bundle_newer_version_todo
            Fault.BUNDLE_OLDER_VERSION -> R.string.fault_bundle_older_version to R.string.fault_bundle_older_version_todo
            Fault.BUNDLE_DAMAGED -> R.string.fault_bundle_damaged to R.string.fault_bundle_damaged_todo
            Fault.GOLDEN_TRACE -> R.string.fault_golden_trace to R.string.fault_golden_trace_todo
            Fault.RUNTIME_NOT_INCLUDED -> R.string.fault_runtime_not_included to R.string.fault_runtime_not_included_todo
            Fault.RUNTIME_MISSING -> R.string.fault_runtime_missing to R.string.fault_runtime_missing_todo
            Fault.RUNTIME_FAILED -> R.string.fault_runtime_failed to R.string.fault_runtime_failed_todo
            Fault.TOKENIZER_UNSUPPORTED -> R.string.fault_tokenizer_unsupported to R.string.fault_tokenizer_unsupported_todo
            Fault.TOKENIZER_DAMAGED -> R.string.fault_tokenizer_damaged to R.string.fault_tokenizer_damaged_todo
            Fault.CHAT_UNSUPPORTED -> R.string.fault_chat_unsupported to R.string.fault_chat_unsupported_todo
            Fault.DATA_UNREADABLE -> R.string.fault_data_unreadable to R.string.fault_data_unreadable_todo
            Fault.DATA_ENCODING -> R.string.fault_data_encoding to R.string.fault_data_encoding_todo
            Fault.DATA_LINE -> R.string.fault_data_line to R.string.fault_data_line_todo
            Fault.DATA_EMPTY -> R.string.fault_data_empty to R.string.fault_data_empty_todo
            Fault.OPTION -> R.string.fault_option to R.string.fault_option_todo
            Fault.MEMORY_TOO_SMALL -> R.string.fault_memory_too_small to R.string.fault_memory_too_small_todo
            Fault.MEMORY_EXCEEDED -> R.string.fault_memory_exceeded to R.string.fault_memory_exceeded_todo
            Fault.STORAGE_FULL -> R.string.fault_storage_full to R.string.fault_storage_full_todo
            Fault.STORAGE_FAILED -> R.string.fault_storage_failed to R.string.fault_storage_failed_todo
            Fault.RUN_BUSY -> R.string.fault_run_busy to R.string.fault_run_busy_todo
            Fault.CHECKPOINT_DAMAGED -> R.string.fault_checkpoint_damaged to R.string.fault_checkpoint_damaged_todo
            Fault.CHECKPOINT_OTHER_RUN -> R.string.fault_checkpoint_other_run to R.string.fault_checkpoint_other_run_todo
            Fault.ADAPTER -> R.string.fault_adapter to R.string.fault_adapter_todo
            Fault.LOSS_NOT_FINITE -> R.string.fault_loss_not_finite to R.string.fault_loss_not_finite_todo
        }
    }
}
