import { LcsbError } from "../faults.js";
import { lastPart, type StoredFile } from "../io/files.js";
import { type Sink, type Storage, storing } from "../io/storage.js";
import { lossyUtf8, utf8 } from "../io/utf8.js";
import { eachLine, lineError, withoutEnd } from "./datasetReader.js";
import { checkedText, LineFault } from "./lineRecord.js";
import { otherFormat } from "./otherFormats.js";

const MOST_BYTES = 1 << 17; // of a document's text: with escapes it is below LINE_LIMIT
const RECORD_MARKS = utf8(",;\t[");

/**
 * Writes a plain text of UTF-8 as data of one document a line, and returns how many documents. A document is a paragraph where blank lines
 * part them, else a line; one of more than MOST_BYTES is parted at the end of a line, or within one. Nothing is held but one document.
 *
 * `output` of `storage` is replaced. `check` is called for each line of either reading; it may throw to stop. Throws LcsbError with
 * DATA_ENCODING and DATA_LINE for a line as `readDataset` does, DATA_EMPTY, DATA_UNREADABLE, STORAGE_FULL and STORAGE_FAILED.
 */
export async function textToJsonl(input: StoredFile, storage: Storage, output: string, check: () => void = () => {}): Promise<number> {
  const byParagraph = hasParagraphs(input, check);
  let documents = 0;
  await storing(storage.path, () =>
    storage.replace(output, (sink) => {
      const writer = new DocumentWriter(sink);
      for (const line of eachTextLine(input, check)) {
        if (!isBlank(line)) writer.add(line);
        if (isBlank(line) || !byParagraph) writer.finish();
      }
      writer.finish();
      documents = writer.documents;
      if (documents === 0) throw new LcsbError("DATA_EMPTY", `${input.name}: the file is empty; expected text`, [lastPart(input.name)]);
    }),
  );
  return documents;
}

/** Whether there is a blank line between two that are not. */
function hasParagraphs(input: StoredFile, check: () => void): boolean {
  let found = false;
  let before: "nothing" | "text" | "blank" = "nothing"; // a blank line is one only behind a text
  for (const line of eachTextLine(input, check)) {
    if (isBlank(line)) {
      if (before === "text") before = "blank";
      continue;
    }
    if (before === "nothing") refuseRecords(line, input);
    found ||= before === "blank";
    before = "text";
  }
  return found;
}

/** A text does not begin as records in another format than JSON lines do: to learn their marks would be no use. */
function refuseRecords(first: Uint8Array, input: StoredFile): void {
  const isWord = !first.some((byte) => RECORD_MARKS.includes(byte));
  const reason = isWord ? null : otherFormat(first, lastPart(input.name));
  if (reason !== null) throw new LcsbError("DATA_LINE", `${input.name}: ${reason}`, [lastPart(input.name)]);
}

/** Each line without its end and without a mark of the byte order. */
function* eachTextLine(input: StoredFile, check: () => void): Generator<Uint8Array> {
  for (const { number, raw } of eachLine(input)) {
    check();
    yield withoutEnd(textOf(input, number, raw));
  }
}

function textOf(input: StoredFile, number: number, raw: Uint8Array): Uint8Array {
  try {
    return checkedText(raw);
  } catch (error) {
    if (error instanceof LineFault) throw lineError("DATA_ENCODING", input, number, error.reason, error);
    throw error;
  }
}

function isBlank(line: Uint8Array): boolean {
  return line.every((byte) => byte === 0x20 || byte === 0x09);
}

/** Gathers a document's lines and writes it as JSON. */
class DocumentWriter {
  documents = 0;
  private parts: Uint8Array[] = []; // of the document at hand
  private size = 0; // bytes of its text, without the ends of its lines

  constructor(private readonly sink: Sink) {}

  /** A line of the document at hand; what is too much begins another. */
  add(line: Uint8Array): void {
    if (this.size + line.length > MOST_BYTES) this.finish();
    let start = 0;
    while (line.length - start > MOST_BYTES) {
      let end = start + MOST_BYTES;
      while ((line[end]! & 0xc0) === 0x80) end--; // not within a character
      this.put(line.slice(start, end));
      this.finish();
      start = end;
    }
    this.put(line.slice(start));
  }

  finish(): void {
    if (this.parts.length === 0) return;
    const text = this.parts.map(lossyUtf8).join("\n");
    this.sink.write(utf8(`{"text": ${JSON.stringify(text)}}\n`));
    this.documents++;
    this.parts = [];
    this.size = 0;
  }

  private put(part: Uint8Array): void {
    this.parts.push(part);
    this.size += part.length;
  }
}
