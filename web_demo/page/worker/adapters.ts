import { readAdapterFile, writeAdapter } from "../../kit/adapter/adapter.js";
import { PEFT_CONFIG_FILE, PEFT_MODEL_FILE, peftFiles } from "../../kit/adapter/peft.js";
import { MOST_CONFIG_BYTES } from "../../kit/adapter/peftConfig.js";
import { readPeft } from "../../kit/adapter/peftReader.js";
import type { Bundle } from "../../kit/bundle.js";
import { LcsbError } from "../../kit/faults.js";
import { IoError, lastPart, readBounded, reading, reserveFloats, type StoredFile } from "../../kit/io/files.js";
import { choice, flag, int32, integer, list, nullable, number, record, text } from "../../kit/io/records.js";
import { storing, withFile, type Storage } from "../../kit/io/storage.js";
import { oneLine } from "../../kit/io/text.js";
import { fileOfBlob, pour, readRecord, writeRecord } from "./files.js";
import { ADAPTERS, storageAt } from "./places.js";
import type { AdapterInfo, StoredVerdict, Tell } from "./protocol.js";
import { wholeOf } from "./streams.js";
import { zippedFiles } from "./unzip.js";
import { zipOf } from "./zip.js";

const INDEX_FILE = "index.json";
const MOST_BYTES = 1 << 30;

const verdict = record({
  outcome: choice("better", "no-difference", "worse", "too-few"),
  examples: int32,
  improved: int32,
  against: nullable(text),
});
const adapterRecord = record({
  id: int32,
  name: text,
  made: integer,
  data: nullable(text),
  steps: nullable(int32),
  losses: nullable(list(number)),
  verdict: nullable(verdict),
  chat: flag,
  bytes: integer,
});
const index = record({ next: int32, inUse: nullable(int32), undecided: nullable(int32), adapters: list(adapterRecord) });

interface Index {
  readonly next: number;
  readonly inUse: number | null;
  readonly undecided: number | null;
  readonly adapters: readonly AdapterInfo[];
}

const NONE: Index = { next: 1, inUse: null, undecided: null, adapters: [] };

/** What was learned with one model: each run's adapter, and those that were imported, the newest first. */
export class Adapters {
  private bundle: string | null = null;
  private index = NONE;

  constructor(private readonly tell: Tell) {}

  /** The chosen model's. */
  async show(bundle: string | null): Promise<void> {
    this.bundle = bundle;
    this.index = (bundle && (await readRecord(await this.storage(), INDEX_FILE, index))) || NONE;
    this.tellOf();
  }

  get inUse(): AdapterInfo | null {
    return this.index.adapters.find(({ id }) => id === this.index.inUse) ?? null;
  }

  find(id: number): AdapterInfo {
    const found = this.index.adapters.find((adapter) => adapter.id === id);
    if (found === undefined) throw new LcsbError("ADAPTER", `there is no adapter ${id}`);
    return found;
  }

  /** Its file; whoever asks for it closes it. Throws ADAPTER. */
  async open(id: number): Promise<StoredFile> {
    try {
      return await (await this.storage()).open(nameOf(id));
    } catch (error) {
      if (error instanceof IoError) throw new LcsbError("ADAPTER", `${this.find(id).name}: cannot be read: ${error.message}`, [], error);
      throw error;
    }
  }

  /** Keeps a run's adapter as it is, and returns its number. */
  async keep(file: StoredFile, made: Pick<AdapterInfo, "name" | "data" | "steps" | "losses" | "chat">): Promise<number> {
    const storage = await this.storage();
    await storing(storage.path, () => storage.replace(nameOf(this.index.next), (sink) => pour(file, sink)));
    return this.enter({ ...made, verdict: null, bytes: file.size });
  }

  /** What the test examples said of it: it is taken into use if it is better, else the person is asked. */
  async judged(id: number, verdict: StoredVerdict | null): Promise<void> {
    const better = verdict?.outcome === "better";
    const adapters = this.index.adapters.map((adapter) => (adapter.id === id ? { ...adapter, verdict } : adapter));
    await this.change({ ...this.index, adapters, ...(better ? { inUse: id, undecided: null } : { undecided: id }) });
  }

  /** `id` null: what is in use stays. */
  use(id: number | null): Promise<void> {
    return this.change({ ...this.index, inUse: id ?? this.index.inUse, undecided: null });
  }

  async remove(id: number): Promise<void> {
    const without = (chosen: number | null) => (chosen === id ? null : chosen);
    const { inUse, undecided, adapters } = this.index;
    await this.change({
      ...this.index,
      inUse: without(inUse),
      undecided: without(undecided),
      adapters: adapters.filter((each) => each.id !== id),
    });
    await (await this.storage()).remove(nameOf(id));
  }

  /** As a file to take away. */
  async export(id: number, form: "safetensors" | "peft", bundle: Bundle): Promise<{ name: string; content: Uint8Array<ArrayBuffer> }> {
    const name = `${this.bundle}-${oneLine(this.find(id).name, 60).replace(/[^\p{L}\p{N}._-]+/gu, "-")}`;
    const file = await this.open(id);
    try {
      if (form === "safetensors") {
        const content = reading(file.name, "ADAPTER", () => readBounded(file, MOST_BYTES));
        return { name: `${name}.safetensors`, content: content as Uint8Array<ArrayBuffer> };
      }
      const adapter = reserveFloats(bundle.layout.size);
      readAdapterFile(file, bundle.layout, adapter);
      const files = [...peftFiles(bundle.layout, adapter)].map(([path, bytes]): [string, Uint8Array] => [`${name}/${path}`, bytes]);
      return { name: `${name}.zip`, content: zipOf(new Map(files)) };
    } finally {
      file.close();
    }
  }

  /** Of PEFT's two files, also in a ZIP file, or one that this toolkit wrote. Throws ADAPTER, NETWORK. */
  async import(name: string, picked: readonly { readonly path: string; readonly file: Blob }[], bundle: Bundle): Promise<void> {
    const adapter = reserveFloats(bundle.layout.size);
    await bundle.readInitialAdapter(adapter);
    const zip = picked.find(({ path }) => path.toLowerCase().endsWith(".zip"));
    const most = Float32Array.BYTES_PER_ELEMENT * bundle.layout.size + MOST_CONFIG_BYTES; // and its header
    const files = zip ? await filesOfZip(zip.path, zip.file, most) : new Map(picked.map(({ path, file }) => [lastPart(path), file]));
    const single = [...files].find(([path]) => path.endsWith(".safetensors") && path !== PEFT_MODEL_FILE);
    if (!files.has(PEFT_CONFIG_FILE) && single !== undefined) readAdapterFile(fileOfBlob(single[1], single[0]), bundle.layout, adapter);
    else await readPeft(storageOf(name, files), bundle.layout, adapter);
    const storage = await this.storage();
    await writeAdapter(storage, nameOf(this.index.next), bundle.layout, adapter);
    const bytes = await withFile(storage, nameOf(this.index.next), (file) => file.size);
    const id = await this.enter({ name: oneLine(name, 80), data: null, steps: null, losses: null, chat: true, verdict: null, bytes });
    await this.use(id);
  }

  private async enter(made: Omit<AdapterInfo, "id" | "made">): Promise<number> {
    const { next, adapters } = this.index;
    await this.change({ ...this.index, next: next + 1, adapters: [{ ...made, id: next, made: Date.now() }, ...adapters] });
    return next;
  }

  private async change(changed: Index): Promise<void> {
    await writeRecord(await this.storage(), INDEX_FILE, changed);
    this.index = changed;
    this.tellOf();
  }

  private tellOf(): void {
    const { adapters, inUse, undecided } = this.index;
    this.tell({ type: "adapters", adapters, inUse, undecided });
  }

  private storage(): Promise<Storage> {
    return storageAt(ADAPTERS, this.bundle ?? "none");
  }
}

function nameOf(id: number): string {
  return `${id}.safetensors`;
}

/** PEFT's two files out of a ZIP file, with whatever folder around them; neither has more than `most` bytes. Throws ADAPTER, NETWORK. */
export async function filesOfZip(path: string, zip: Blob, most: number): Promise<Map<string, Blob>> {
  const files = new Map<string, Blob>();
  try {
    for (const each of await zippedFiles(zip)) {
      const name = lastPart(each.path);
      if (name !== PEFT_CONFIG_FILE && name !== PEFT_MODEL_FILE) continue;
      if (files.has(name)) throw new LcsbError("ADAPTER", `${path}: it has more than one ${name}; choose a ZIP file of one adapter`);
      const content = await wholeOf((await each.read(0)).pieces, most);
      if (content === null) throw new LcsbError("ADAPTER", `${path}: ${name} has more than the ${most} bytes that an adapter of this model can have`);
      files.set(name, new Blob([content as Uint8Array<ArrayBuffer>]));
    }
    return files;
  } catch (error) {
    throw error instanceof LcsbError ? new LcsbError("ADAPTER", error.message, [path], error) : error;
  }
}

/** Picked files as a directory. */
function storageOf(path: string, files: ReadonlyMap<string, Blob>): Pick<Storage, "path" | "open" | "list"> {
  return {
    path,
    list: async () => [...files.keys()],
    async open(name) {
      const file = files.get(name);
      if (file === undefined) throw new IoError("no such file");
      return fileOfBlob(file, name);
    },
  };
}
