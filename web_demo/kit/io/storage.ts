import { LcsbError } from "../faults.js";
import { IoError, type StoredFile } from "./files.js";
import { megabytes } from "./text.js";

/** Takes all of `bytes`, at the end of what it has, before it returns. */
export interface Sink {
  write(bytes: Uint8Array): void;
}

/** A temporary file: bytes go to its end, and are read anywhere. It is gone once it is closed. Its methods throw IoError. */
export interface Scratch extends Sink {
  /** Fills all of `into` from byte `at` on. */
  read(into: Uint8Array, at: number): void;
  close(): void;
}

/**
 * A directory, in a browser one of the origin's private file system. Its files are read, and replaced whole: whatever ends the process, a
 * name has its old content or its new one. Every method throws IoError.
 */
export interface Storage {
  /** For messages. */
  readonly path: string;
  /** `name` may have parts, divided by slashes. */
  open(name: string): Promise<StoredFile>;
  /** The names of the files, without those of directories within. */
  list(): Promise<string[]>;
  /** Synced before it returns. */
  replace(name: string, fill: (sink: Sink) => void): Promise<void>;
  remove(name: string): Promise<void>;
  /** For what need not outlive the process. */
  scratch(): Promise<Scratch>;
  /** Takes the directory until what is returned is called, or the process ends. Null where another has it. */
  lock(): Promise<(() => void) | null>;
  /** Removes what a process left that was killed while it wrote. */
  clean(): Promise<void>;
  /** Bytes that can be written now, or at least `wanted`; null where the system does not say. */
  free(wanted: number): Promise<number | null>;
}

/** Turns an IoError while writing into STORAGE_FULL or STORAGE_FAILED that names where. */
export async function storing<T>(path: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write();
  } catch (error) {
    if (!(error instanceof IoError)) throw error;
    const full = isFull(error);
    const message = `${path}: cannot be written: ${error.message}; free some space or choose another place`;
    throw new LcsbError(full ? "STORAGE_FULL" : "STORAGE_FAILED", message, [path], error);
  }
}

/** Refuses what cannot be stored before it is begun: STORAGE_FULL, whose arguments are the bytes needed and free. */
export async function checkFreeSpace(storage: Storage, needed: number): Promise<void> {
  const free = await storage.free(needed);
  if (free === null || free >= needed) return;
  throw tooLittle(storage.path, needed, free);
}

/** STORAGE_FULL, whose arguments are the bytes needed and free. */
export function tooLittle(path: string, needed: number, free: number): LcsbError {
  const found = `${megabytes(needed)} of storage are needed, ${megabytes(free)} are free`;
  return new LcsbError("STORAGE_FULL", `${path}: ${found}; free some space or choose another place`, [String(needed), String(free)]);
}

export const isFull = (error: IoError) => /no space left|quota/i.test(error.message);

/** Opens, uses and closes a file. */
export async function withFile<T>(storage: Pick<Storage, "open">, name: string, use: (file: StoredFile) => T | Promise<T>): Promise<T> {
  const file = await storage.open(name);
  try {
    return await use(file);
  } finally {
    file.close();
  }
}
