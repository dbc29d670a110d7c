import { LcsbError, type Fault } from "../faults.js";
import { megabytes } from "./text.js";

// What the kit needs of a file system, so that it runs on a browser's private files and on Node's alike. Opening is asynchronous
// (a browser's is), reading and writing what is open are not (a worker's access handles are not), so readers are plain code.

/** A file open for reading. */
export interface StoredFile {
  /** For messages. */
  readonly name: string;
  /** Bytes, when it was opened. */
  readonly size: number;
  /** Fills all of `into` from byte `at` on. Throws IoError where the file ends before. */
  read(into: Uint8Array, at: number): void;
  close(): void;
}

/** A path's last part. */
export function lastPart(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** A file or directory that is not there, cannot be read, or is no such thing: the reason in words, without its name. */
export class IoError extends Error {
  constructor(reason: string, cause?: unknown) {
    super(reason, cause === undefined ? undefined : { cause });
    this.name = "IoError";
  }
}

/** A file's whole content. Throws IoError for more than `limit` bytes. */
export function readBounded(file: StoredFile, limit: number): Uint8Array {
  if (file.size > limit) throw new IoError(`${file.size} bytes, more than the ${limit} that are read`);
  const content = new Uint8Array(file.size);
  file.read(content, 0);
  return content;
}

/** Bytes in memory as a file. */
export function fileOf(content: Uint8Array, name = "memory"): StoredFile {
  return {
    name,
    size: content.length,
    read(into, at) {
      if (at + into.length > content.length) throw new IoError("ended while it was read");
      into.set(content.subarray(at, at + into.length));
    },
    close() {},
  };
}

/** Zeroed memory. Throws MEMORY_TOO_SMALL where the browser gives none. */
export function reserveBytes(count: number): Uint8Array {
  try {
    return new Uint8Array(count);
  } catch (error) {
    throw tooSmall(count, error);
  }
}

/** `count` float32, zeroed. Throws MEMORY_TOO_SMALL. */
export function reserveFloats(count: number): Float32Array {
  try {
    return new Float32Array(count);
  } catch (error) {
    throw tooSmall(4 * count, error);
  }
}

function tooSmall(bytes: number, cause: unknown): LcsbError {
  const message = `${megabytes(bytes)} of memory cannot be reserved; close other tabs, or keep fewer layers`;
  return new LcsbError("MEMORY_TOO_SMALL", message, [String(bytes)], cause);
}

/** Runs `read`; an IoError becomes `fault`, with the file's name. */
export function reading<T>(name: string, fault: Fault, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof IoError) throw new LcsbError(fault, `${name}: cannot be read: ${error.message}`, [name], error);
    throw error;
  }
}
