import { IoError, type StoredFile } from "./files.js";
import { Sha256 } from "./sha256.js";
import type { Scratch, Sink, Storage } from "./storage.js";
import { utf8 } from "./utf8.js";

// Replacing a file whole where a file system cannot rename one over another for certain, as a browser's: a name has two slots. Each holds the
// content, then a trailer: "lcsbslot", the generation (8 bytes, little-endian) and the SHA-256 of all before it. A write goes to the slot
// that does not hold the newest good generation, so a write that was cut short leaves the other. A name that was never replaced is a plain
// file (of a bundle that was fetched).

const SLOTS = ["~a", "~b"] as const;
const MARK = utf8("lcsbslot");
const TRAILER = MARK.length + 8 + 32;
const CHUNK = 1 << 18;
export const SCRATCH = ".scratch-"; // that a temporary file's name begins with

/** What a file system of a browser can do for certain. Every method throws IoError; a write may be cut short anywhere. */
export interface RawFiles {
  readonly path: string;
  open(name: string): Promise<StoredFile>;
  list(): Promise<string[]>;
  /** Empties or makes the file, fills it, and asks the system to keep it. */
  write(name: string, fill: (sink: Sink) => void): Promise<void>;
  remove(name: string): Promise<void>;
  /** Under a name of its own that begins with SCRATCH, where it has one. */
  scratch(): Promise<Scratch>;
  lock(): Promise<(() => void) | null>;
  free(wanted: number): Promise<number | null>;
}

interface Slot {
  readonly file: StoredFile;
  readonly generation: number;
  readonly name: string;
}

export class SlotStorage implements Storage {
  readonly path: string;
  private readonly good = new Set<string>(); // slots that were read or written whole: to list names, they need not be read again

  constructor(private readonly raw: RawFiles) {
    this.path = raw.path;
  }

  async open(name: string): Promise<StoredFile> {
    const slot = await this.newest(name);
    if (slot === null) return this.raw.open(name);
    const { file } = slot;
    const size = file.size - TRAILER;
    return {
      name,
      size,
      read(into, at) {
        if (at + into.length > size) throw new IoError("ended while it was read");
        file.read(into, at);
      },
      close: () => file.close(),
    };
  }

  /** A name of which no slot is good is not there. */
  async list(): Promise<string[]> {
    const plain = new Set<string>();
    for (const raw of await this.raw.list()) {
      if (raw.startsWith(SCRATCH)) continue;
      const name = logical(raw);
      if (name === raw || plain.has(name)) plain.add(name);
      else if (await this.isThere(name)) plain.add(name);
    }
    return [...plain];
  }

  async replace(name: string, fill: (sink: Sink) => void): Promise<void> {
    const newest = await this.newest(name);
    newest?.file.close();
    const target = newest?.name === name + SLOTS[0] ? SLOTS[1] : SLOTS[0];
    this.good.delete(name + target);
    await this.raw.write(name + target, (sink) => fillSlot(sink, (newest?.generation ?? 0) + 1, fill));
    this.good.add(name + target);
  }

  /** The newest slot last: what is older must not take its place. */
  async remove(name: string): Promise<void> {
    const newest = await this.newest(name);
    newest?.file.close();
    const there = new Set(await this.raw.list());
    const slots = SLOTS.map((slot) => name + slot).sort((a, b) => Number(a === newest?.name) - Number(b === newest?.name));
    for (const raw of [name, ...slots]) if (there.has(raw)) await this.removeRaw(raw);
  }

  private removeRaw(raw: string): Promise<void> {
    this.good.delete(raw);
    return this.raw.remove(raw);
  }

  scratch(): Promise<Scratch> {
    return this.raw.scratch();
  }

  lock(): Promise<(() => void) | null> {
    return this.raw.lock();
  }

  free(wanted: number): Promise<number | null> {
    return this.raw.free(wanted);
  }

  async clean(): Promise<void> {
    const names = await this.raw.list();
    for (const raw of names) {
      const name = logical(raw);
      if (raw.startsWith(SCRATCH)) await this.removeUnused(raw);
      if (name === raw) continue;
      const newest = await this.newest(name);
      newest?.file.close();
      if (newest?.name !== raw) await this.removeRaw(raw);
    }
  }

  /** One that is open in another page stays. */
  private async removeUnused(raw: string): Promise<void> {
    try {
      await this.raw.remove(raw);
    } catch (error) {
      if (!(error instanceof IoError)) throw error;
    }
  }

  private async isThere(name: string): Promise<boolean> {
    if (SLOTS.some((slot) => this.good.has(name + slot))) return true;
    const slot = await this.newest(name);
    slot?.file.close();
    return slot !== null;
  }

  private async newest(name: string): Promise<Slot | null> {
    let best: Slot | null = null;
    for (const suffix of SLOTS) {
      const slot = await this.slot(name + suffix);
      if (slot === null) continue;
      if (best !== null && best.generation > slot.generation) slot.file.close();
      else {
        best?.file.close();
        best = slot;
      }
    }
    return best;
  }

  private async slot(name: string): Promise<Slot | null> {
    let file: StoredFile;
    try {
      file = await this.raw.open(name);
    } catch (error) {
      if (error instanceof IoError) return null;
      throw error;
    }
    const generation = goodGeneration(file);
    if (generation !== null) {
      this.good.add(name);
      return { file, generation, name };
    }
    file.close();
    this.good.delete(name);
    return null;
  }
}

function logical(raw: string): string {
  const suffix = SLOTS.find((slot) => raw.endsWith(slot));
  return suffix === undefined ? raw : raw.slice(0, -suffix.length);
}

function fillSlot(sink: Sink, generation: number, fill: (sink: Sink) => void): void {
  const digest = new Sha256();
  const digested = (bytes: Uint8Array) => {
    digest.update(bytes);
    sink.write(bytes);
  };
  fill({ write: digested });
  const signed = new Uint8Array(TRAILER - 32);
  signed.set(MARK);
  new DataView(signed.buffer).setBigUint64(MARK.length, BigInt(generation), true);
  digested(signed);
  sink.write(fromHex(digest.hex()));
}

/** Null for a slot whose writing was cut short. */
function goodGeneration(file: StoredFile): number | null {
  if (file.size < TRAILER) return null;
  const trailer = new Uint8Array(TRAILER);
  file.read(trailer, file.size - TRAILER);
  if (!MARK.every((byte, i) => trailer[i] === byte)) return null;
  const digest = new Sha256();
  for (let at = 0; at < file.size - 32; at += CHUNK) {
    const piece = new Uint8Array(Math.min(CHUNK, file.size - 32 - at));
    file.read(piece, at);
    digest.update(piece);
  }
  const found = fromHex(digest.hex());
  if (!found.every((byte, i) => trailer[TRAILER - 32 + i] === byte)) return null;
  return Number(new DataView(trailer.buffer).getBigUint64(MARK.length, true));
}

function fromHex(hex: string): Uint8Array {
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}
