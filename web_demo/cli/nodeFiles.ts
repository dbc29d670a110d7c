import { randomUUID } from "node:crypto";
import {
  closeSync, existsSync, fstatSync, fsyncSync, mkdirSync, openSync, readdirSync, readFileSync, readSync, realpathSync, renameSync, rmSync,
  statfsSync, writeFileSync, writeSync,
} from "node:fs";
import { join, sep } from "node:path";
import { IoError, type StoredFile } from "../kit/io/files.js";
import type { Scratch, Sink, Storage } from "../kit/io/storage.js";

const LOCK_FILE = "lock";

/** A regular file of Node's file system. Throws IoError. */
export function openFile(path: string): StoredFile {
  const descriptor = guarded(() => openSync(path, "r"));
  const status = fstatSync(descriptor);
  if (!status.isFile()) {
    closeSync(descriptor);
    throw new IoError("not a regular file"); // a pipe or a device may never end
  }
  return {
    name: path,
    size: status.size,
    read: (into, at) => readFully(descriptor, into, at),
    close: () => closeSync(descriptor),
  };
}

function readFully(descriptor: number, into: Uint8Array, at: number): void {
  for (let done = 0; done < into.length; ) {
    const count = guarded(() => readSync(descriptor, into, done, into.length - done, at + done));
    if (count === 0) throw new IoError("ended while it was read");
    done += count;
  }
}

function writeFully(descriptor: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) done += guarded(() => writeSync(descriptor, bytes, done));
}

const WORDS: Readonly<Record<string, string>> = {
  ENOENT: "no such file",
  EACCES: "permission denied",
  EPERM: "permission denied",
  ENOSPC: "no space left",
  EFBIG: "no space left",
};

/** Runs what Node's file system may refuse; throws IoError with the reason alone. */
export function guarded<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new IoError((code && WORDS[code]) ?? message, error);
  }
}

/** A directory of Node's file system. It takes no lock that another program would see: its own kind alone respects its `lock` file. */
export class NodeStorage implements Storage {
  private static readonly held = new Set<string>();

  constructor(readonly path: string) {}

  async open(name: string): Promise<StoredFile> {
    const root = guarded(() => realpathSync(this.path));
    const file = join(this.path, name);
    const real = guarded(() => realpathSync(file));
    if (!real.startsWith(root + sep)) throw new IoError("a link that leads outside the directory");
    return { ...openFile(real), name: file };
  }

  async list(): Promise<string[]> {
    const entries = guarded(() => readdirSync(this.path, { withFileTypes: true }));
    return entries.filter((entry) => !entry.isDirectory()).map((entry) => entry.name);
  }

  async replace(name: string, fill: (sink: Sink) => void): Promise<void> {
    const temporary = join(this.path, `.${name}.${process.pid}`);
    guarded(() => mkdirSync(this.path, { recursive: true, mode: 0o700 }));
    try {
      writeFile(temporary, fill);
      guarded(() => renameSync(temporary, join(this.path, name)));
      syncDirectory(this.path);
    } finally {
      rmSync(temporary, { force: true });
    }
  }

  async remove(name: string): Promise<void> {
    guarded(() => rmSync(join(this.path, name)));
  }

  /** It has no name once it is open. */
  async scratch(): Promise<Scratch> {
    guarded(() => mkdirSync(this.path, { recursive: true, mode: 0o700 }));
    const path = join(this.path, `.scratch-${randomUUID()}`);
    const descriptor = guarded(() => openSync(path, "wx+", 0o600));
    guarded(() => rmSync(path));
    let size = 0;
    return {
      write(bytes) {
        writeFully(descriptor, bytes);
        size += bytes.length;
      },
      read(into, at) {
        if (at + into.length > size) throw new IoError("ended while it was read");
        readFully(descriptor, into, at);
      },
      close: () => closeSync(descriptor),
    };
  }

  async lock(): Promise<(() => void) | null> {
    guarded(() => mkdirSync(this.path, { recursive: true, mode: 0o700 }));
    const key = guarded(() => realpathSync(this.path));
    const file = join(key, LOCK_FILE);
    if (NodeStorage.held.has(key) || isAlive(existsSync(file) ? readFileSync(file, "latin1") : "")) return null;
    guarded(() => writeFileSync(file, `${process.pid}\n`, { mode: 0o600 }));
    NodeStorage.held.add(key);
    return () => {
      NodeStorage.held.delete(key);
      writeFileSync(file, ""); // the file stays, as the other languages leave it
    };
  }

  async clean(): Promise<void> {
    const left = [".step-", ".adapter.safetensors.", ".scratch-"]; // what the names of unfinished files begin with
    for (const name of await this.list()) if (left.some((beginning) => name.startsWith(beginning))) await this.remove(name);
  }

  async free(): Promise<number | null> {
    const { bavail, bsize } = guarded(() => statfsSync(this.path));
    return bavail * bsize;
  }
}

/** Whether a lock's text names a process, other than this, that runs. */
function isAlive(text: string): boolean {
  const id = Number(text.trim());
  if (!Number.isInteger(id) || id <= 0 || id === process.pid) return false;
  try {
    process.kill(id, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

function writeFile(path: string, fill: (sink: Sink) => void): void {
  const descriptor = guarded(() => openSync(path, "wx", 0o600));
  try {
    fill({ write: (bytes) => writeFully(descriptor, bytes) });
    guarded(() => fsyncSync(descriptor));
  } finally {
    closeSync(descriptor);
  }
}

function syncDirectory(path: string): void {
  const descriptor = guarded(() => openSync(path, "r"));
  try {
    guarded(() => fsyncSync(descriptor));
  } finally {
    closeSync(descriptor);
  }
}
