import assert from "node:assert/strict";
import { before, test } from "node:test";
import * as ort from "onnxruntime-web/wasm";
import { putAdapter } from "../kit/adapter/adapter.js";
import type { Bundle } from "../kit/bundle.js";
import { ADAPTER_FILE } from "../kit/bundle/manifest.js";
import { compareAdapters, compareOptions, type CompareOptions, type CompareWatch } from "../kit/compare.js";
import { readDataset } from "../kit/data/datasetReader.js";
import { pack } from "../kit/data/packing.js";
import { fileOf, readBounded, type StoredFile } from "../kit/io/files.js";
import { SlotStorage } from "../kit/io/slots.js";
import { withFile } from "../kit/io/storage.js";
import { utf8 } from "../kit/io/utf8.js";
import { RunControl, RunInterrupted } from "../kit/runControl.js";
import { runOptions } from "../kit/runOptions.js";
import { BlockRunner } from "../kit/runtime/blockRunner.js";
import { Tokenizer } from "../kit/text/tokenizer.js";
import { TrainingRun } from "../kit/trainingRun.js";
import { judge } from "../kit/verdict.js";
import { initialAdapter, MemoryFiles, openBundle, refused } from "./tools.js";

// Losses by example on a small bundle with the real runtime: which examples, what each is computed from, and what is refused.

const lines = Array.from({ length: 40 }, (_, i) => `{"text": "message ${i} of many, about ${"boats and ".repeat(i % 5)}rain"}\n`);
const dataOf = (of: readonly string[]) => fileOf(utf8(of.join("")), "data.jsonl");
const files = new MemoryFiles();
const storage = new SlotStorage(files);
let bundle: Bundle;
let run: TrainingRun;
let trained: StoredFile;

before(async () => {
  bundle = await openBundle("llama");
  const options = runOptions({ steps: 8, learningRate: 0.01, holdOut: 0.2, seed: 5, threads: 1 });
  run = new TrainingRun(ort, bundle, dataOf(lines), storage, options);
  await run.run(new RunControl());
  trained = fileOf(await withFile(storage, ADAPTER_FILE, (file) => readBounded(file, 1e6)), "trained");
});

interface Compared extends Partial<CompareOptions>, CompareWatch {
  readonly data?: StoredFile;
  readonly before?: StoredFile;
  readonly after?: StoredFile;
}

function compare({ data = dataOf(lines), before, after = trained, goOn, progress, ...options }: Compared = {}) {
  const watch = { ...(goOn && { goOn }), ...(progress && { progress }) };
  return compareAdapters(ort, bundle, data, before ?? null, after, storage, compareOptions({ threads: 1, ...options }), watch);
}

test("a run's verdict is that on what it holds out", async () => {
  const found = await run.compare();
  assert.deepEqual(found, await compare({ holdOut: 0.2, seed: 5 }));
  assert.deepEqual([found.verdict.examples, found.verdict.outcome], [8, "better"]);
  assert.deepEqual(found.verdict, judge(found.lossesBefore, found.lossesAfter));
  assert.notDeepEqual((await compare({ holdOut: 0.2, seed: 6 })).lossesBefore, found.lossesBefore);
  const same = await run.compare(trained);
  assert.deepEqual([same.lossesBefore, same.lossesAfter], [found.lossesAfter, found.lossesAfter]);
  assert.equal(same.verdict.outcome, "no-difference");
  assert.equal(files.scratches, 0);
});

test("each example is computed by itself", async () => {
  const told: string[] = [];
  const found = await compare({
    data: dataOf(lines.slice(0, 8)), holdOut: null, examples: 6, progress: (done, total) => void told.push(`${done} of ${total}`),
  });
  const { manifest } = bundle;
  const tokenizer = await Tokenizer.open(bundle.storage, manifest.model.vocabSize);
  const adapter = await initialAdapter(bundle);
  const runner = await BlockRunner.open(ort, bundle, { threads: 1 });
  const expected: number[] = [];
  for (const number of [0, 1, 2, 4, 5, 6]) {
    const line = await readDataset(dataOf([lines[number]!]), { tokenizer, chat: null, seqLen: manifest.seqLen }, storage, () => {});
    const [batch, ...more] = pack(line, manifest.seqLen, tokenizer.padId);
    assert.equal(more.length, 0);
    expected.push(await runner.evaluate(batch!, adapter));
    line.close();
  }
  await runner.close();
  assert.deepEqual(found.lossesBefore, expected);
  assert.deepEqual(told, Array.from({ length: 12 }, (_, i) => `${i + 1} of 12`));
});

test("it is cancelled between layers, by a message too, and between examples", async () => {
  const control = new RunControl();
  let layers = 0;
  const goOn = () => {
    if (++layers === 5) setImmediate(() => control.stop()); // as a page asks: it is heard between two layers, or never
    return control.rest();
  };
  await assert.rejects(compare({ goOn }), RunInterrupted);
  assert.ok(layers < 20, `${layers} layers`);
  let examples = 0;
  const progress = (done: number) => {
    examples = done;
    if (done === 2) throw new RangeError("enough");
  };
  await assert.rejects(compare({ progress }), RangeError);
  assert.equal(examples, 2);
  assert.equal(files.scratches, 0);
});

test("what cannot be compared is refused before anything is computed", async () => {
  const goOn = () => assert.fail("a layer was computed, or data was read");
  const whole = readBounded(trained, 1e6);
  const cut = fileOf(whole.subarray(0, -4), "cut");
  const pieces: Uint8Array[] = [];
  const qwen = await openBundle("qwen2");
  putAdapter({ write: (bytes) => void pieces.push(bytes.slice()) }, qwen.layout, await initialAdapter(qwen));
  const other = fileOf(new Uint8Array(Buffer.concat(pieces)), "other");
  assert.match(await refused("ADAPTER", () => compare({ after: other, goOn })), /^other: was trained on another base/);
  for (const given of [{ after: cut }, { before: cut }, { before: other }]) {
    assert.match(await refused("ADAPTER", () => compare({ ...given, goOn })), /^(cut|other): /);
  }
  assert.equal(await refused("OPTION", () => compare({ examples: 5, goOn })), "examples: expected a whole number of at least 6, found 5");
  await refused("OPTION", () => compare({ holdOut: 1 }));
  assert.match(await refused("DATA_EMPTY", () => compare({ data: dataOf(lines.slice(0, 1)) })), /has one example/);
  const empty = new MemoryFiles();
  const unfinished = new TrainingRun(ort, bundle, dataOf(lines), new SlotStorage(empty), runOptions({ steps: 1 }));
  assert.match(await refused("ADAPTER", () => unfinished.compare()), /adapter\.safetensors: cannot be read: no such file/);
  assert.deepEqual([await empty.list(), files.scratches], [[], 0]);
});
