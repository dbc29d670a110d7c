import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { NodeStorage } from "../../cli/nodeFiles.js";
import { type Dataset, DatasetWriter } from "../../kit/data/dataset.js";
import { decodeLine } from "../../kit/data/lineRecord.js";
import { preview } from "../../kit/data/tokenReport.js";
import type { Example, LineExample } from "../../kit/data/records.js";
import { fileOf, type StoredFile } from "../../kit/io/files.js";
import type { Scratch } from "../../kit/io/storage.js";
import { utf8 } from "../../kit/io/utf8.js";
import type { Tokenizer } from "../../kit/text/tokenizer.js";

/** A directory that goes with the test. */
export function directory(context: TestContext): NodeStorage {
  const path = mkdtempSync(join(tmpdir(), "lcsb-web-"));
  context.after(() => rmSync(path, { recursive: true }));
  return new NodeStorage(path);
}

export function memory(): Scratch {
  let content = new Uint8Array();
  return {
    write(bytes) {
      content = Uint8Array.from([...content, ...bytes]);
    },
    read: (into, at) => fileOf(content).read(into, at),
    close() {},
  };
}

export function dataset(examples: readonly Example[], seqLen: number): Dataset {
  const writer = new DatasetWriter(seqLen, memory());
  for (const example of examples) writer.add(textOf(example));
  return writer.dataset("vectors", "");
}

function textOf(example: Example): LineExample {
  return { example, form: "text", uncountedTurns: 0, doubledEnds: false, furtherKeys: [] };
}

export function lines(...texts: string[]): StoredFile {
  return fileOf(utf8(texts.map((text) => `${text}\n`).join("")), "data.jsonl");
}

export function pieces(data: Dataset, index: number, tokenizer: Tokenizer): [string, boolean][] {
  return preview(data, index, tokenizer).map(({ text, counted }) => [text, counted]);
}

/** The text of a line of this form. */
export function textOfLine(raw: Uint8Array): string {
  const { line } = decodeLine(raw);
  if (line.form !== "text") throw new TypeError(line.form);
  return line.text;
}
