import { LcsbError, type Fault } from "../faults.js";
import { lastPart, reading, type StoredFile } from "../io/files.js";
import { Sha256, sha256 } from "../io/sha256.js";
import { type Storage, storing } from "../io/storage.js";
import type { ChatFormat } from "../text/chatFormat.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { type Dataset, DatasetWriter } from "./dataset.js";
import { FORMS, isBlankLine, LineFault } from "./lineRecord.js";
import { otherFormat } from "./otherFormats.js";
import { type LineExample, readLine } from "./records.js";

export const LINE_LIMIT = 1 << 20; // bytes of the longest line
const PROGRESS_BYTES = 1 << 18; // read between two reports of progress
const CHUNK = 1 << 16;
const NEWLINE = 0x0a;
const RETURN = 0x0d;

/** Bytes that are done, of how many. It may throw to cancel; a promise is waited for, so that what else waits can run. */
export type Progress = (done: number, total: number) => void | Promise<void>;

/** A model's tokens, its chat format (null refuses `messages`), and what an example is cut to. */
export interface Reading {
  readonly tokenizer: Tokenizer;
  readonly chat: ChatFormat | null;
  readonly seqLen: number;
}

/**
 * Reads one example a line that is not blank, each cut to `seqLen` tokens; their tokens go into a temporary file of `storage`, so that they
 * take no memory.
 *
 * Throws LcsbError "FILE:LINE: reason" for the first malformed line (the reason of a file of another format is the command that makes JSON
 * lines of it), with DATA_LINE, DATA_ENCODING, or what the tokenizer threw; its arguments are the file's name, the line and the reason.
 * DATA_EMPTY when nothing to train on is left; DATA_UNREADABLE; STORAGE_FULL, STORAGE_FAILED.
 */
export function readDataset(
  file: StoredFile,
  how: Reading,
  storage: Pick<Storage, "path" | "scratch">,
  progress: Progress = () => {},
): Promise<Dataset> {
  return storing(storage.path, async () => {
    const scratch = await storage.scratch();
    try {
      const writer = new DatasetWriter(how.seqLen, scratch);
      return writer.dataset(file.name, await addLines(writer, file, how, progress));
    } catch (error) {
      scratch.close();
      throw error;
    }
  });
}

/** Returns the file's SHA-256. */
async function addLines(writer: DatasetWriter, file: StoredFile, how: Reading, progress: Progress): Promise<string> {
  const digest = new Sha256();
  let reported = 0;
  const other = (raw: Uint8Array) => (writer.lines === 0 ? otherFormat(raw, lastPart(file.name)) : null);
  for (const { number, raw, done } of eachLine(file, other)) {
    digest.update(raw);
    const line = isBlankLine(raw) ? null : readNumbered(file, number, raw, how, other);
    if (line === null) writer.passOverBlank();
    else writer.add(line, lineHash(raw));
    if (done - reported < PROGRESS_BYTES) continue;
    await progress(done, file.size);
    reported = done;
  }
  return digest.hex();
}

type Other = (raw: Uint8Array) => string | null;

function readNumbered(file: StoredFile, number: number, raw: Uint8Array, { tokenizer, chat }: Reading, other: Other): LineExample {
  try {
    return readLine(raw, tokenizer, chat);
  } catch (error) {
    if (error instanceof LineFault) {
      throw lineError(error.encoding ? "DATA_ENCODING" : "DATA_LINE", file, number, other(raw) ?? error.reason, error);
    }
    if (error instanceof LcsbError) throw lineError(error.fault, file, number, error.message, error);
    throw error;
  }
}

export function lineError(fault: Fault, file: StoredFile, number: number, reason: string, cause?: Error): LcsbError {
  return new LcsbError(fault, `${file.name}:${number}: ${reason}`, [lastPart(file.name), String(number), reason], cause);
}

/** 52 bits of a digest of the line without its end. */
function lineHash(raw: Uint8Array): number {
  return Number.parseInt(sha256(withoutEnd(raw)).slice(0, 13), 16);
}

/** A line without what ends it. */
export function withoutEnd(raw: Uint8Array): Uint8Array {
  return raw.subarray(0, raw.findLastIndex((byte) => byte !== NEWLINE && byte !== RETURN) + 1);
}

/** `raw`: its bytes with its end, until the next line is asked for; the last line may have no end. `done`: bytes of the file with it. */
export interface FileLine {
  readonly number: number;
  readonly raw: Uint8Array;
  readonly done: number;
}

/**
 * A file's lines, numbered from 1. Throws LcsbError with DATA_LINE for a line that is too long (the reason is what `other` says of its
 * beginning, if anything), and DATA_UNREADABLE.
 */
export function* eachLine(file: StoredFile, other: Other = () => null): Generator<FileLine> {
  const lines = new LineReader(file);
  let done = 0;
  for (let number = 1; ; number++) {
    const raw = reading(file.name, "DATA_UNREADABLE", () => lines.next());
    if (raw.length === 0) return;
    done += raw.length;
    if (raw.length > LINE_LIMIT) {
      const reason = `a line of more than ${LINE_LIMIT} bytes; give it in parts, one JSON object a line: ${FORMS}`;
      throw lineError("DATA_LINE", file, number, other(raw) ?? reason);
    }
    yield { number, raw, done };
  }
}

class LineReader {
  private buffer = new Uint8Array(CHUNK);
  private start = 0; // of what is in the buffer and was not given
  private end = 0;
  private taken = 0; // bytes of the file

  constructor(private readonly file: StoredFile) {}

  /** The next line with its end; empty behind the last. Of one beyond LINE_LIMIT some bytes more than that. */
  next(): Uint8Array {
    let searched = this.start;
    for (;;) {
      const found = this.buffer.subarray(0, this.end).indexOf(NEWLINE, searched);
      const stop = found < 0 ? this.end : found + 1;
      if (found >= 0 || stop - this.start > LINE_LIMIT || this.taken === this.file.size) return this.give(stop);
      const unfinished = this.end - this.start;
      this.fill();
      searched = this.start + unfinished;
    }
  }

  private give(stop: number): Uint8Array {
    const line = this.buffer.subarray(this.start, stop);
    this.start = stop;
    return line;
  }

  /** Reads on; what is there moves to the buffer's beginning, which grows if it is full. */
  private fill(): void {
    const held = this.buffer.subarray(this.start, this.end);
    if (held.length === this.buffer.length) this.buffer = new Uint8Array(2 * held.length);
    this.buffer.set(held);
    this.start = 0;
    this.end = held.length;
    const count = Math.min(this.buffer.length - this.end, this.file.size - this.taken);
    this.file.read(this.buffer.subarray(this.end, this.end + count), this.taken);
    this.end += count;
    this.taken += count;
  }
}
