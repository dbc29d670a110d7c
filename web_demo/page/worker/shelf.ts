import type { Bundle } from "../../kit/bundle.js";
import { textToJsonl } from "../../kit/data/textImport.js";
import { reportTokens } from "../../kit/data/tokenReport.js";
import { LcsbError } from "../../kit/faults.js";
import { IoError, readBounded, reading, type StoredFile } from "../../kit/io/files.js";
import { flag, int32, record, text } from "../../kit/io/records.js";
import { checkFreeSpace, storing, withFile, type Storage } from "../../kit/io/storage.js";
import { oneLine } from "../../kit/io/text.js";
import { utf8 } from "../../kit/io/utf8.js";
import { CHAT_FILE, ChatFormat } from "../../kit/text/chatFormat.js";
import { Tokenizer } from "../../kit/text/tokenizer.js";
import { fileOfBlob, pour, readRecord, writeRecord } from "./files.js";
import { DATA, removeAt, storageAt } from "./places.js";
import type { DataInfo, DataSummary, Tell } from "./protocol.js";
import type { Watch } from "./turns.js";

const RECORD_FILE = "data.json";
const PREVIEWS = 20;
const MOST_TYPED_BYTES = 16 << 20;
const BLANKS = [0xef, 0xbb, 0xbf, 0x20, 0x09, 0x0d, 0x0a]; // with those of a byte order mark
const OPENING_BRACE = 0x7b;

/** `file`: the number that names it. */
const dataRecord = record({ file: int32, name: text, sample: flag, typed: flag });
interface Chosen {
  readonly file: number;
  readonly name: string;
  readonly sample: boolean;
  readonly typed: boolean;
}

/** The data to train on. A file never changes, so what could not be read leaves what was there. */
export class Shelf {
  private chosen: Chosen | null = null;
  private summary: DataSummary | null = null;

  constructor(private readonly tell: Tell) {}

  get name(): string {
    return this.chosen?.name ?? "";
  }

  /** Whether what learns from it learns to answer. */
  get talks(): boolean {
    return this.summary !== null && 2 * this.summary.conversations > this.summary.examples;
  }

  async begin(): Promise<void> {
    const storage = await storageAt(DATA);
    await storage.clean();
    this.chosen = await readRecord(storage, RECORD_FILE, dataRecord);
  }

  /** The file; whoever asks for it closes it. Throws DATA_EMPTY where there is none, DATA_UNREADABLE. */
  async open(): Promise<StoredFile> {
    if (this.chosen === null) throw new LcsbError("DATA_EMPTY", "no data was chosen");
    return this.openNumber(this.chosen.file);
  }

  /** Reads what is there under `bundle`, or without one, and tells. Throws DATA_…, TOKENIZER_…, CHAT_…. */
  async show(bundle: Bundle | null, watch: Watch): Promise<void> {
    this.summary = null;
    await this.tellOf();
    if (this.chosen === null || bundle === null) return;
    this.summary = await this.summarize(this.chosen, bundle, watch);
    await this.tellOf();
  }

  /** JSON lines as they are, or a text made into them. Throws what the kit's readers do; what was there then stays. */
  async import(name: string, blob: Blob, sample: boolean, bundle: Bundle | null, watch: Watch): Promise<void> {
    const shown = oneLine(name, 80);
    const file = fileOfBlob(blob, shown);
    const storage = await storageAt(DATA);
    await checkFreeSpace(storage, 2 * file.size); // and its tokens, while it is read
    const number = await this.freeNumber(storage);
    const report = (done: number) => {
      watch.check();
      this.tell({ type: "reading", progress: { kind: "copying", name: shown, done, total: file.size } });
    };
    const isJson = reading(shown, "DATA_UNREADABLE", () => beginsWithBrace(file));
    await this.adopt({ file: number, name: shown, sample, typed: false }, bundle, watch, async () => {
      if (!isJson) return void (await textToJsonl(file, storage, nameOf(number), watch.check));
      const pouring = (sink: Parameters<typeof pour>[1]) => reading(shown, "DATA_UNREADABLE", () => pour(file, sink, report));
      await storing(storage.path, () => storage.replace(nameOf(number), pouring));
    });
  }

  /** The person's own messages, in place of what there is. */
  async type(messages: readonly string[], bundle: Bundle | null, watch: Watch): Promise<void> {
    if (messages.length === 0) return this.clear();
    const storage = await storageAt(DATA);
    const number = await this.freeNumber(storage);
    const lines = utf8(messages.map((message) => `${JSON.stringify({ text: message })}\n`).join(""));
    if (lines.length > MOST_TYPED_BYTES)
      throw new LcsbError("DATA_LINE", `the messages have more than ${MOST_TYPED_BYTES} bytes; give them as a file`);
    await this.adopt({ file: number, name: "", sample: false, typed: true }, bundle, watch, () =>
      storing(storage.path, () => storage.replace(nameOf(number), (sink) => sink.write(lines))),
    );
  }

  async clear(): Promise<void> {
    [this.chosen, this.summary] = [null, null];
    await removeAt(DATA);
    await this.tellOf();
  }

  /** Writes a file, reads it as a run would, and only then chooses it. */
  private async adopt(chosen: Chosen, bundle: Bundle | null, watch: Watch, write: () => Promise<void>): Promise<void> {
    const storage = await storageAt(DATA);
    try {
      await write();
      const summary = bundle === null ? null : await this.summarize(chosen, bundle, watch);
      await writeRecord(storage, RECORD_FILE, chosen);
      [this.chosen, this.summary] = [chosen, summary];
    } finally {
      this.tell({ type: "reading", progress: null });
      await this.keepChosen(storage);
    }
    await this.tellOf();
  }

  private async summarize(chosen: Chosen, bundle: Bundle, watch: Watch): Promise<DataSummary> {
    const { storage, manifest } = bundle;
    const chat = manifest.files.has(CHAT_FILE) ? await ChatFormat.open(storage) : null;
    const how = { tokenizer: await Tokenizer.open(storage, manifest.model.vocabSize), chat, seqLen: manifest.seqLen };
    const file = await this.openNumber(chosen.file, chosen.name);
    const progress = async (done: number, total: number) => {
      await watch.control.rest();
      this.tell({ type: "reading", progress: { kind: "reading", name: chosen.name, done, total } });
    };
    try {
      const report = await reportTokens(file, how, { accumulation: 1, examples: PREVIEWS }, await storageAt(DATA), progress);
      const { examples, tokens, countedLabels, truncated, conversations } = report.data;
      const previews = report.preview;
      return { examples, tokens, counted: countedLabels, cut: truncated, sequences: report.sequences, conversations, previews };
    } finally {
      file.close();
      this.tell({ type: "reading", progress: null });
    }
  }

  private async tellOf(): Promise<void> {
    const { chosen } = this;
    const data: DataInfo | null = chosen && {
      name: chosen.name,
      sample: chosen.sample,
      typed: await this.typed(chosen),
      summary: this.summary,
    };
    this.tell({ type: "data", data });
  }

  private async typed(chosen: Chosen): Promise<string[] | null> {
    if (!chosen.typed) return null;
    const lines = await withFile(await storageAt(DATA), nameOf(chosen.file), (file) => readBounded(file, MOST_TYPED_BYTES));
    return new TextDecoder()
      .decode(lines)
      .trimEnd()
      .split("\n")
      .map((line) => (JSON.parse(line) as { text: string }).text);
  }

  private async openNumber(number: number, name = this.name): Promise<StoredFile> {
    const storage = await storageAt(DATA);
    try {
      return { ...(await storage.open(nameOf(number))), name };
    } catch (error) {
      if (error instanceof IoError) throw new LcsbError("DATA_UNREADABLE", `${name}: cannot be read: ${error.message}`, [name], error);
      throw error;
    }
  }

  private async freeNumber(storage: Storage): Promise<number> {
    const numbers = (await storage.list()).map((name) => Number.parseInt(name, 10)).filter((number) => number > 0);
    return Math.max(0, ...numbers) + 1;
  }

  private async keepChosen(storage: Storage): Promise<void> {
    for (const name of await storage.list()) {
      if (name !== RECORD_FILE && name !== (this.chosen && nameOf(this.chosen.file))) await storage.remove(name);
    }
  }
}

function nameOf(number: number): string {
  return `${number}.jsonl`;
}

/** Whether the first character that is no blank opens an object. */
function beginsWithBrace(file: StoredFile): boolean {
  const head = new Uint8Array(Math.min(file.size, 1 << 16));
  file.read(head, 0);
  return head.find((byte) => !BLANKS.includes(byte)) === OPENING_BRACE;
}
