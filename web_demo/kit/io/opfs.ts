import { IoError, type StoredFile } from "./files.js";
import { type RawFiles, SCRATCH } from "./slots.js";
import type { Scratch, Sink } from "./storage.js";
import { reasonOf } from "./text.js";

/** A file that is written to its end, and may be read meanwhile. `size`: bytes so far. Its methods throw IoError. */
export interface GrowingFile extends Sink {
  readonly size: number;
  read(into: Uint8Array, at: number): void;
  /** To nothing. */
  truncate(): void;
  /** Asks the system to keep it. */
  close(): void;
}

/**
 * A directory of the origin's private file system, by synchronous access handles: in workers only. One handle a file can be open at a time,
 * in all of the origin's pages. Used by way of SlotStorage.
 */
export class OpfsFiles implements RawFiles {
  private constructor(
    readonly path: string,
    private readonly directory: FileSystemDirectoryHandle,
  ) {}

  /** The directory at `path`, its parts divided by slashes, made if need be. Throws IoError. */
  static open(path: string): Promise<OpfsFiles> {
    return guarded(async () => {
      let directory = await navigator.storage.getDirectory();
      for (const part of path.split("/")) directory = await directory.getDirectoryHandle(part, { create: true });
      return new OpfsFiles(path, directory);
    });
  }

  open(name: string): Promise<StoredFile> {
    return guarded(async () => {
      const handle = await (await this.handle(name)).createSyncAccessHandle();
      const size = handle.getSize();
      return { name, size, read: (into, at) => readFully(handle, into, at), close: () => handle.close() };
    });
  }

  list(): Promise<string[]> {
    return guarded(async () => {
      const names: string[] = [];
      for await (const [name, handle] of this.directory.entries()) if (handle.kind === "file") names.push(name);
      return names;
    });
  }

  write(name: string, fill: (sink: Sink) => void): Promise<void> {
    return guarded(async () => {
      const handle = await (await this.handle(name, true)).createSyncAccessHandle();
      try {
        handle.truncate(0);
        let at = 0;
        fill({
          write(bytes) {
            writeFully(handle, bytes, at);
            at += bytes.length;
          },
        });
        handle.flush();
      } finally {
        handle.close();
      }
    });
  }

  /** Goes on from what is there; with the directories of its name. */
  growing(name: string): Promise<GrowingFile> {
    return guarded(async () => {
      const handle = await (await this.handle(name, true)).createSyncAccessHandle();
      let size = handle.getSize();
      return {
        get size() {
          return size;
        },
        write(bytes) {
          writeFully(handle, bytes, size);
          size += bytes.length;
        },
        read: (into, at) => readFully(handle, into, at),
        truncate() {
          handle.truncate(0);
          size = 0;
        },
        close() {
          handle.flush();
          handle.close();
        },
      };
    });
  }

  /** Bytes; 0 where there is no such file. */
  async size(name: string): Promise<number> {
    try {
      return (await (await this.handle(name)).getFile()).size;
    } catch (error) {
      if ((error as Error).name === "NotFoundError") return 0;
      throw new IoError(reasonOf(error), error);
    }
  }

  scratch(): Promise<Scratch> {
    return guarded(async () => {
      const name = SCRATCH + crypto.randomUUID();
      const handle = await (await this.handle(name, true)).createSyncAccessHandle();
      let size = 0;
      return {
        write(bytes) {
          writeFully(handle, bytes, size);
          size += bytes.length;
        },
        read: (into, at) => readFully(handle, into, at),
        close: () => {
          handle.close();
          this.directory.removeEntry(name).catch(() => {}); // `clean` takes what is left
        },
      };
    });
  }

  remove(name: string): Promise<void> {
    return guarded(() => this.directory.removeEntry(name));
  }

  /** By the Web Locks API, whose locks go with the worker. */
  lock(): Promise<(() => void) | null> {
    return new Promise((settle, reject) => {
      const held = navigator.locks.request(`lcsb ${this.path}`, { ifAvailable: true }, (lock) => {
        if (lock === null) return settle(null);
        return new Promise<void>((release) => settle(() => release()));
      });
      held.catch((error: unknown) => reject(new IoError(reasonOf(error), error)));
    });
  }

  /** Chromium's estimate is a fixed figure, against recognition. So as much is tried, on a file that has no content. */
  async free(wanted: number): Promise<number | null> {
    const { quota, usage } = await guarded(() => navigator.storage.estimate());
    const estimated = quota === undefined || usage === undefined ? null : quota - usage;
    return estimated !== null && estimated < wanted ? Math.max(0, estimated) : this.room(wanted);
  }

  private room(wanted: number): Promise<number> {
    return guarded(async () => {
      const name = SCRATCH + crypto.randomUUID();
      const handle = await unlessFull(async () => (await this.handle(name, true)).createSyncAccessHandle());
      if (handle === null) return 0;
      try {
        if (fits(handle, wanted)) return wanted;
        let [least, beyond] = [0, wanted];
        while (beyond - least > wanted / 1000 + 1) {
          const middle = Math.floor((least + beyond) / 2);
          if (fits(handle, middle)) least = middle;
          else beyond = middle;
        }
        return least;
      } finally {
        handle.close();
        await this.directory.removeEntry(name);
      }
    });
  }

  private async handle(name: string, create = false): Promise<FileSystemFileHandle> {
    const parts = name.split("/");
    const last = parts.pop()!;
    let directory = this.directory;
    for (const part of parts) directory = await directory.getDirectoryHandle(part, { create });
    return directory.getFileHandle(last, { create });
  }
}

function fits(handle: FileSystemSyncAccessHandle, size: number): boolean {
  try {
    handle.truncate(size);
    return true;
  } catch (error) {
    if (exceedsQuota(error)) return false;
    throw error;
  }
}

/** Null where not even that is to be stored. */
async function unlessFull<T>(work: () => Promise<T>): Promise<T | null> {
  try {
    return await work();
  } catch (error) {
    if (exceedsQuota(error)) return null;
    throw error;
  }
}

const exceedsQuota = (error: unknown) => (error as Error).name === "QuotaExceededError";

function writeFully(handle: FileSystemSyncAccessHandle, bytes: Uint8Array, at: number): void {
  const count = handle.write(bytes as Uint8Array<ArrayBuffer>, { at });
  if (count !== bytes.length) throw new IoError("no space left");
}

function readFully(handle: FileSystemSyncAccessHandle, into: Uint8Array, at: number): void {
  const count = handle.read(into as Uint8Array<ArrayBuffer>, { at });
  if (count !== into.length) throw new IoError("ended while it was read");
}

const WORDS: Readonly<Record<string, string>> = {
  NotFoundError: "no such file",
  QuotaExceededError: "no space left: the browser's quota is reached",
  NoModificationAllowedError: "it is open in another page",
};

async function guarded<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof IoError) throw error;
    throw new IoError(WORDS[(error as Error).name] ?? reasonOf(error), error);
  }
}
