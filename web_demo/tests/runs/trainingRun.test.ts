import assert from "node:assert/strict";
import { test } from "node:test";
import * as ort from "onnxruntime-web/wasm";
import type { Bundle } from "../../kit/bundle.js";
import { ADAPTER_FILE } from "../../kit/bundle/manifest.js";
import { readCheckpoint } from "../../kit/checkpoint/runCheckpoint.js";
import { fileOf, readBounded } from "../../kit/io/files.js";
import { sha256 } from "../../kit/io/sha256.js";
import { SlotStorage } from "../../kit/io/slots.js";
import { withFile, type Storage } from "../../kit/io/storage.js";
import { utf8 } from "../../kit/io/utf8.js";
import { samplingConfig } from "../../kit/generate.js";
import { RunControl } from "../../kit/runControl.js";
import { runOptions, type RunOptions } from "../../kit/runOptions.js";
import type { RunObserver } from "../../kit/runRecords.js";
import type { Ort } from "../../kit/runtime/ort.js";
import { TrainingRun } from "../../kit/trainingRun.js";
import { MemoryFiles, openBundle, refused } from "../tools.js";

// The whole of it on a small bundle with the real runtime, over a browser's kind of files.

const text = Array.from({ length: 40 }, (_, i) => `{"text": "message ${i} of many, about ${"boats and ".repeat(i % 5)}rain"}\n`).join("");
const data = () => fileOf(utf8(text), "data.jsonl");
const options = (given: Partial<RunOptions> = {}) =>
  runOptions({ steps: 5, accumulation: 2, evaluateEvery: 3, checkpointEvery: 2, threads: 1, ...given });
const opened: Promise<Bundle> = openBundle("llama");

async function run(storage: Storage, given: Partial<RunOptions> = {}, observer: RunObserver = {}, control = new RunControl(), runtime: Ort = ort) {
  return new TrainingRun(runtime, await opened, data(), storage, options(given)).run(control, observer);
}

/** The runtime, whose losses are NaN from the head's run of that number on. */
function failing(from: number): Ort {
  let runs = 0;
  const create = async (program: Uint8Array, options: object) => {
    const session = await ort.InferenceSession.create(program, options);
    if (!session.outputNames.includes("g")) return session;
    return new Proxy(session, {
      get(target, name) {
        if (name !== "run") return Reflect.get(target, name);
        return async (...given: Parameters<typeof target.run>) => {
          const results = await target.run(...given);
          if (++runs >= from) (results["loss"]!.data as Float32Array)[0] = NaN;
          return results;
        };
      },
    });
  };
  return { ...ort, InferenceSession: { ...ort.InferenceSession, create } } as unknown as Ort;
}

const newStorage = () => new SlotStorage(new MemoryFiles());
const adapter = (storage: Storage) => withFile(storage, ADAPTER_FILE, (file) => Buffer.from(readBounded(file, 1e6)));

test("a run trains, says what it does, and leaves its adapter and two checkpoints", async () => {
  const said: string[] = [];
  const layers: string[] = [];
  const storage = newStorage();
  const result = await run(storage, { prompts: ["the "], sampling: samplingConfig({ maxTokens: 3 }) }, {
    data: (report, heldOut) => said.push(`${report.examples} examples, ${heldOut} held out`),
    evaluated: (step) => said.push(`evaluated ${step}`),
    stepped: (outcome) => said.push(`step ${outcome.step} of ${outcome.subset.train}`),
    layer: (index, backward) => layers.push(`${backward ? "-" : ""}${index}`),
    sampled: (prompt, _, after) => said.push(`${prompt}${after ? "after" : "before"}`),
  });
  assert.deepEqual(said, [
    "40 examples, 4 held out", "the before", "evaluated 0", "step 1 of 2", "step 2 of 1", "step 3 of 0", "evaluated 3", "step 4 of 2", "step 5 of 1",
    "evaluated 5", "the after",
  ]);
  assert.equal(result.outcome, "FINISHED");
  assert.equal(result.losses.length, 5);
  assert.ok(result.evalLossAfter! < result.evalLossBefore!);
  assert.ok(layers.join(" ").includes("0 1 2 -2 0 1 2 -2 0 1 2 -2 -1")); // steps 1 and 2, of two sequences each
  assert.deepEqual((await storage.list()).sort(), [ADAPTER_FILE, "step-00000004.safetensors", "step-00000005.safetensors"]);
});

test("paused at any layer and resumed, it ends with the bits of the unbroken run", async () => {
  const whole = newStorage();
  const expected = await run(whole);
  const broken = newStorage();
  for (const left of [3, 30, 17, 12, 17]) {
    const control = new RunControl();
    let count = left;
    // By a message, as a page asks: it is heard between two layers, or never.
    const observer = { layer: () => { if (count-- === 0) setImmediate(() => control.pause()); } };
    assert.equal((await run(broken, {}, observer, control)).outcome, "PAUSED");
  }
  const result = await run(broken);
  assert.ok(result.resumedFrom! > 0 && result.resumedFrom! < 5);
  assert.deepEqual([result.losses, result.evaluations], [expected.losses, expected.evaluations]);
  assert.deepEqual(await adapter(broken), await adapter(whole));
});

test("a stop leaves the adapter of the last step that gave a finite loss", async () => {
  const storage = newStorage();
  const control = new RunControl();
  const result = await run(storage, {}, { stepped: ({ step }) => step === 3 && control.stop() }, control);
  assert.deepEqual([result.outcome, result.losses.length], ["CANCELLED", 3]);
  const other = newStorage();
  await run(other, { steps: 3 });
  assert.deepEqual(await adapter(storage), await adapter(other));
  const before = new RunControl();
  before.stop();
  assert.equal((await run(newStorage(), {}, {}, before)).losses.length, 0);
});

test("a loss that is not finite keeps what was learnt before it", async () => {
  const storage = newStorage();
  const message = await refused("LOSS_NOT_FINITE", () => run(storage, { learningRate: 1e30 }));
  assert.match(message, /^step 1: its update would make a parameter of/);
  assert.deepEqual(await storage.list(), ["step-00000000.safetensors"]);
  await refused("CHECKPOINT_OTHER_RUN", () => run(storage));
  assert.equal((await run(storage, { learningRate: 1e-3, steps: 2 })).resumedFrom, 0); // a lower rate may be given
});

test("a loss that becomes none takes back the update before it", async () => {
  const storage = newStorage();
  const rare = { evaluateEvery: 0 }; // an evaluation that is finite would do for the state as well
  const runs = 1 + 3 * 2 + 1; // the step that is checked first, three steps of two sequences, and the first of the fourth
  assert.match(await refused("LOSS_NOT_FINITE", () => run(storage, rare, {}, new RunControl(), failing(runs))), /^step 4: the loss is NaN/);
  const other = newStorage();
  await run(other, { ...rare, steps: 2 });
  assert.deepEqual(await adapter(storage), await adapter(other));
  assert.ok((await storage.list()).includes("step-00000002.safetensors"));
  assert.equal((await run(storage, rare)).resumedFrom, 2);
});

test("a run goes on from another one's adapter, with fresh moments", async () => {
  const first = newStorage();
  const { evalLossAfter } = await run(first, { steps: 3 });
  const initialAdapter = fileOf(await adapter(first), "first");
  const second = newStorage();
  const onward = { steps: 2, initialAdapter };
  assert.equal((await run(second, onward)).evalLossBefore, evalLossAfter);
  const { layout } = await opened;
  const { place } = await readCheckpoint(second, "step-00000002.safetensors", layout.numLayers, layout.size);
  assert.equal(place.identity.initialAdapter, sha256(await adapter(first)));
  const begun = await readCheckpoint(second, "step-00000000.safetensors", layout.numLayers, layout.size);
  assert.ok([begun.state.firstMoment, begun.state.secondMoment, begun.updates].every((values) => values.every((value) => value === 0)));
  assert.equal((await run(second, { ...onward, steps: 3 })).resumedFrom, 2);
  await refused("CHECKPOINT_OTHER_RUN", () => run(second, { steps: 4 }));
  const third = newStorage();
  assert.match(await refused("ADAPTER", () => run(third, { ...onward, initialAdapter: data() })), /^data\.jsonl: /);
  assert.deepEqual(await third.list(), []);
});

test("the first held-out example is continued at each evaluation, and changes nothing", async () => {
  const plain = newStorage();
  const sampled = newStorage();
  const { losses } = await run(plain);
  const wrote: (readonly [number, string, boolean])[] = [];
  const sampling = samplingConfig({ temperature: 0, maxTokens: 5 });
  const observer: RunObserver = { wrote: (step, prompt, _, whole) => wrote.push([step, prompt, whole]) };
  assert.deepEqual((await run(sampled, { sampleHeldOut: true, sampling }, observer)).losses, losses);
  assert.deepEqual(wrote.map(([step]) => step), [0, 3, 5]);
  const [[, prompt]] = wrote as [readonly [number, string, boolean]];
  assert.ok(wrote.every((each) => each[1] === prompt && each[2] === false) && prompt.startsWith("mess"), JSON.stringify(wrote));
  assert.deepEqual(await adapter(sampled), await adapter(plain));
});

test("what cannot be run is refused before it is begun", async () => {
  const storage = newStorage();
  await refused("OPTION", () => run(storage, { steps: 0 }));
  await refused("OPTION", () => run(storage, { sampling: samplingConfig({ topP: 0 }) }));
  assert.match(await refused("MEMORY_TOO_SMALL", () => run(storage, { memoryBudget: 1_000_000 })), /nothing was run/);
  assert.match(await refused("MEMORY_EXCEEDED", () => run(storage, { memoryBudget: 1e12, memory: () => (storage.path ? counted() : 0) })), /the run reached/);
  const busy = newStorage();
  const release = (await busy.lock())!;
  await refused("RUN_BUSY", () => run(busy));
  release();
});

test("temporary files are closed, whether or not the data can be used", async () => {
  const files = new MemoryFiles();
  const storage = new SlotStorage(files);
  await refused("DATA_LINE", () => run(storage, { evaluationData: fileOf(utf8("[]"), "other.jsonl") }));
  assert.equal(files.scratches, 0);
  await run(storage, { steps: 1, evaluationData: data() });
  assert.equal(files.scratches, 0);
});

let samples = 0;
/** Little when the run is planned, too much after its first step. */
const counted = () => (samples++ === 0 ? 1 : 2e12);
