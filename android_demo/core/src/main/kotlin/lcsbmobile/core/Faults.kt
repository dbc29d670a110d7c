package lcsbmobile.core

/** What can go wrong, one entry a cause. An app says it in the person's language; [LcsbException.message] says it in English with every detail. */
public enum class Fault {
    BUNDLE_UNREADABLE,
    BUNDLE_OTHER_TARGET,
    BUNDLE_NEWER_VERSION,
    BUNDLE_OLDER_VERSION,
    BUNDLE_DAMAGED,
    GOLDEN_TRACE,
    RUNTIME_NOT_INCLUDED,
    RUNTIME_MISSING,
    RUNTIME_FAILED,
    TOKENIZER_UNSUPPORTED,
    TOKENIZER_DAMAGED,
    CHAT_UNSUPPORTED,
    DATA_UNREADABLE,
    DATA_ENCODING,
    DATA_LINE,
    DATA_EMPTY,
    OPTION,
    MEMORY_TOO_SMALL,
    MEMORY_EXCEEDED,
    STORAGE_FULL,
    STORAGE_FAILED,
    RUN_BUSY,
    CHECKPOINT_DAMAGED,
    CHECKPOINT_OTHER_RUN,
    ADAPTER,
    LOSS_NOT_FINITE,
}

/** [message]: one line, what, expected, found, what to do. [arguments]: what an app's sentence needs of it (a file, a line, sizes). */
public class LcsbException(
    public val fault: Fault,
    message: String,
    public val arguments: List<String> = emptyList(),
    cause: Throwable? = null,
) : Exception(message, cause)
