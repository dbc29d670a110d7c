import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { NodeStorage } from "../cli/nodeFiles.js";
import { Bundle } from "../kit/bundle.js";
import { LcsbError, type Fault } from "../kit/faults.js";
import { fileOf, IoError } from "../kit/io/files.js";
import type { RawFiles } from "../kit/io/slots.js";
import type { Scratch, Sink, Storage } from "../kit/io/storage.js";
import { BUNDLES } from "./golden.js";

export const bundleNames = readdirSync(BUNDLES, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map((entry) => entry.name);

export const bundleStorage = (name: string) => new NodeStorage(join(BUNDLES, name));

export const openBundle = (name: string) => Bundle.open(bundleStorage(name));

export async function initialAdapter(bundle: Bundle): Promise<Float32Array> {
  const adapter = new Float32Array(bundle.layout.size);
  await bundle.readInitialAdapter(adapter);
  return adapter;
}

/** What `work`, which must refuse with `fault`, says: one line. */
export async function refused(fault: Fault, work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    assert.ok(error instanceof LcsbError, String(error));
    assert.equal(error.fault, fault, error.message);
    assert.doesNotMatch(error.message, /\n/);
    return error.message;
  }
  throw new assert.AssertionError({ message: `nothing was refused; expected ${fault}` });
}

/** A directory with some of its files replaced, or, where they are null, missing. */
export function changed(storage: Storage, files: Readonly<Record<string, Uint8Array | null>>): Storage {
  return {
    path: storage.path,
    async open(name) {
      const content = files[name];
      if (content === null) throw new IoError("no such file");
      return content === undefined ? storage.open(name) : fileOf(content, `${storage.path}/${name}`);
    },
    list: async () => [...new Set([...(await storage.list()), ...Object.keys(files)])].filter((name) => files[name] !== null),
    replace: () => Promise.reject(new IoError("read only")),
    remove: () => Promise.reject(new IoError("read only")),
    scratch: () => storage.scratch(),
    lock: () => storage.lock(),
    clean: () => storage.clean(),
    free: (wanted) => storage.free(wanted),
  };
}

/** Files in memory, as a browser's would be: what SlotStorage is used over. */
export class MemoryFiles implements RawFiles {
  readonly path = "memory";
  readonly files = new Map<string, Uint8Array>();
  /** Temporary files that are not closed. */
  scratches = 0;
  private locked = false;

  async open(name: string) {
    const content = this.files.get(name);
    if (content === undefined) throw new IoError("no such file");
    return fileOf(content, name);
  }

  async list() {
    return [...this.files.keys()];
  }

  async write(name: string, fill: (sink: Sink) => void) {
    const pieces: Uint8Array[] = [];
    fill({ write: (bytes) => void pieces.push(bytes.slice()) });
    this.files.set(name, new Uint8Array(Buffer.concat(pieces)));
  }

  async remove(name: string) {
    this.files.delete(name);
  }

  async scratch(): Promise<Scratch> {
    let content = Buffer.alloc(0);
    this.scratches++;
    return {
      write: (bytes) => (content = Buffer.concat([content, bytes])),
      read: (into, at) => into.set(content.subarray(at, at + into.length)),
      close: () => void this.scratches--,
    };
  }

  async lock() {
    if (this.locked) return null;
    this.locked = true;
    return () => {
      this.locked = false;
    };
  }

  async free() {
    return null;
  }
}
