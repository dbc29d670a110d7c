/** What can go wrong, one entry a cause. A page says it in the person's language; `LcsbError.message` says it in English with every detail. */
export type Fault =
  | "BUNDLE_UNREADABLE"
  | "BUNDLE_OTHER_TARGET"
  | "BUNDLE_NEWER_VERSION"
  | "BUNDLE_OLDER_VERSION"
  | "BUNDLE_DAMAGED"
  | "GOLDEN_TRACE"
  | "RUNTIME_FAILED"
  | "GPU_UNSUITABLE"
  | "GPU_FAILED"
  | "TOKENIZER_UNSUPPORTED"
  | "TOKENIZER_DAMAGED"
  | "CHAT_UNSUPPORTED"
  | "DATA_UNREADABLE"
  | "DATA_ENCODING"
  | "DATA_LINE"
  | "DATA_EMPTY"
  | "OPTION"
  | "MEMORY_TOO_SMALL"
  | "MEMORY_EXCEEDED"
  | "STORAGE_FULL"
  | "STORAGE_FAILED"
  | "RUN_BUSY"
  | "CHECKPOINT_DAMAGED"
  | "CHECKPOINT_OTHER_RUN"
  | "ADAPTER"
  | "LOSS_NOT_FINITE";

/** `message`: one line, what, expected, found, what to do. `args`: what a page's sentence needs of it (a file, a line, sizes). */
export class LcsbError extends Error {
  constructor(
    readonly fault: Fault,
    message: string,
    readonly args: readonly string[] = [],
    cause?: unknown,
  ) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "LcsbError";
  }
}
