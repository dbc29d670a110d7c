/// What can go wrong, one entry a cause. An app says it in the person's language; `LcsbError.message` says it in English with every detail.
public enum Fault: String, Sendable, CaseIterable {
    case bundleUnreadable = "BUNDLE_UNREADABLE"
    case bundleOtherTarget = "BUNDLE_OTHER_TARGET"
    case bundleNewerVersion = "BUNDLE_NEWER_VERSION"
    case bundleOlderVersion = "BUNDLE_OLDER_VERSION"
    case bundleDamaged = "BUNDLE_DAMAGED"
    case goldenTrace = "GOLDEN_TRACE"
    case runtimeNotIncluded = "RUNTIME_NOT_INCLUDED"
    case systemOlder = "SYSTEM_OLDER"
    case runtimeMissing = "RUNTIME_MISSING"
    case runtimeFailed = "RUNTIME_FAILED"
    case tokenizerUnsupported = "TOKENIZER_UNSUPPORTED"
    case tokenizerDamaged = "TOKENIZER_DAMAGED"
    case chatUnsupported = "CHAT_UNSUPPORTED"
    case dataUnreadable = "DATA_UNREADABLE"
    case dataEncoding = "DATA_ENCODING"
    case dataLine = "DATA_LINE"
    case dataEmpty = "DATA_EMPTY"
    case option = "OPTION"
    case memoryTooSmall = "MEMORY_TOO_SMALL"
    case memoryExceeded = "MEMORY_EXCEEDED"
    case storageFull = "STORAGE_FULL"
    case storageFailed = "STORAGE_FAILED"
    case runBusy = "RUN_BUSY"
    case checkpointDamaged = "CHECKPOINT_DAMAGED"
    case checkpointOtherRun = "CHECKPOINT_OTHER_RUN"
    case adapter = "ADAPTER"
    case lossNotFinite = "LOSS_NOT_FINITE"
}

/// `message`: one line, what, expected, found, what to do. `arguments`: what an app's sentence needs of it (a file, a line, sizes).
public struct LcsbError: Error, Sendable, CustomStringConvertible {
    public let fault: Fault
    public let message: String
    public let arguments: [String]

    public init(_ fault: Fault, _ message: String, _ arguments: [String] = []) {
        (self.fault, self.message, self.arguments) = (fault, message, arguments)
    }

    public var description: String { message }
}
