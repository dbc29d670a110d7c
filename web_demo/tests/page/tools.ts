import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as ort from "onnxruntime-web/wasm";
import { openFile } from "../../cli/nodeFiles.js";
import { readAdapter } from "../../kit/adapter/adapter.js";
import { peftFiles } from "../../kit/adapter/peft.js";
import { ADAPTER_FILE } from "../../kit/bundle/manifest.js";
import { SlotStorage } from "../../kit/io/slots.js";
import { withFile } from "../../kit/io/storage.js";
import { readBounded } from "../../kit/io/files.js";
import { RunControl } from "../../kit/runControl.js";
import { runOptions } from "../../kit/runOptions.js";
import { TrainingRun } from "../../kit/trainingRun.js";
import { BUNDLES } from "../golden.js";
import { MemoryFiles, openBundle } from "../tools.js";

export const SAMPLE = fileURLToPath(new URL("../../../../lcsb_mobile/tiny/messages.jsonl", import.meta.url));
export const folderOf = (bundle: string) => join(BUNDLES, bundle);

/** What the kit on Node makes of the sample messages, or other data, with the page's options: the adapter's file, and PEFT's files. */
export async function trainedOnNode(name: string, steps: number, data = SAMPLE): Promise<{ adapter: Buffer; peft: Map<string, Uint8Array> }> {
  const bundle = await openBundle(name);
  const storage = new SlotStorage(new MemoryFiles());
  const options = runOptions({ steps, evaluateEvery: 20, checkpointEvery: 5, threads: 1 });
  await new TrainingRun(ort, bundle, openFile(data), storage, options).run(new RunControl());
  const values = new Float32Array(bundle.layout.size);
  await readAdapter(storage, ADAPTER_FILE, bundle.layout, values);
  const adapter = await withFile(storage, ADAPTER_FILE, (file) => Buffer.from(readBounded(file, 1 << 30)));
  return { adapter, peft: peftFiles(bundle.layout, values) };
}

/** A file of few examples in `directory`, for runs whose evaluations take long. */
export function fewExamples(directory: string): string {
  const file = join(directory, "few.jsonl");
  writeFileSync(file, readFileSync(SAMPLE, "utf8").split("\n").slice(0, 12).join("\n"));
  return file;
}

/** The files of a ZIP, as Python's own module reads them: name -> content. */
export function unzipped(content: Uint8Array): Map<string, Buffer> {
  const directory = mkdtempSync(join(tmpdir(), "lcsb-zip-"));
  const program =
    "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; " +
    "z.extractall(sys.argv[2]); print('\\n'.join(z.namelist()))";
  try {
    const file = join(directory, "file.zip");
    writeFileSync(file, content);
    const names = execFileSync(process.env["PYTHON"] ?? "python3", ["-c", program, file, join(directory, "out")], { encoding: "utf8" })
      .trim()
      .split("\n");
    return new Map(names.map((name) => [name, readFileSync(join(directory, "out", name))]));
  } finally {
    rmSync(directory, { recursive: true });
  }
}
