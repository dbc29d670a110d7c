import assert from "node:assert/strict";
import { test } from "node:test";
import * as ort from "onnxruntime-web/wasm";
import type { Bundle } from "../../kit/bundle.js";
import { isPerLayer } from "../../kit/bundle/manifest.js";
import { generate, samplingConfig } from "../../kit/generate.js";
import { BlockRunner, type RunnerOptions } from "../../kit/runtime/blockRunner.js";
import { Gpu } from "../../kit/runtime/gpu.js";
import { checkLimits, gpuBuffers, gpuWeightBytes } from "../../kit/runtime/gpuLimits.js";
import { Tokenizer } from "../../kit/text/tokenizer.js";
import { initialAdapter, openBundle, refused } from "../tools.js";
import { FakeGpu, type BrowserGpu } from "./fakeGpu.js";

const bundle = await openBundle("llama-20-steps"); // its programs are for a GPU
const adapter = (await initialAdapter(bundle)).map((value, i) => value + 0.001 * (i % 7));
const subsets = bundle.golden.run.slice(0, 2).map((step) => step.subset);
const batch = bundle.sampleBatch!;
const weights = bundle.manifest.weights.reduce((sum, { name, shape }) => sum + (isPerLayer(name) ? shape[0]! : 1), 0); // tensors, a layer's one by one

/** The bundle on `fake`, and a runner of it. */
async function onGpu(fake: FakeGpu, options: RunnerOptions = {}): Promise<{ gpu: Gpu; runner: BlockRunner }> {
  const gpu = await Gpu.open(fake.browser, fake.ort, bundle.manifest);
  return { gpu, runner: await BlockRunner.open(gpu.ort, bundle, { threads: 1, gpu, ...options }) };
}

async function written(runner: BlockRunner): Promise<string> {
  const tokenizer = await Tokenizer.open(bundle.storage, bundle.manifest.model.vocabSize);
  let text = "";
  for await (const piece of generate(runner, bundle, tokenizer, adapter, "the", samplingConfig({ temperature: 0, maxTokens: 5 }))) text += piece;
  return text;
}

/** A step of each subset, an evaluation, and a text; after each `look` is called. */
async function everything(runner: BlockRunner, look: () => void = () => {}): Promise<unknown[]> {
  const found: unknown[] = [];
  for (const work of [...subsets.map((subset) => () => runner.step(subset, batch, adapter)), () => runner.evaluate(batch, adapter), () => written(runner)]) {
    found.push(await work());
    look();
  }
  return found;
}

for (const keep of [0, 2]) {
  test(`with ${keep} layers kept, programs on a GPU give WebAssembly's bits, and only the weights stay there`, async () => {
    const fake = new FakeGpu();
    const { gpu, runner } = await onGpu(fake, { keep });
    const found = await everything(runner, () => assert.equal(fake.live.size, weights));
    assert.match(runner.version, /^web [0-9.]+ \(webgpu\)$/);
    await runner.close();
    const another = await BlockRunner.open(gpu.ort, bundle, { threads: 1, gpu, keep });
    const { sessions } = fake;
    assert.deepEqual(await another.step(subsets[0]!, batch, adapter), found[0]);
    assert.deepEqual([fake.live.size, fake.sessions], [weights, sessions], "another runner uses what is there");
    await another.close();
    await gpu.close();
    assert.deepEqual([fake.live.size, fake.sessions], [0, 0]);
    const plain = await BlockRunner.open(ort, bundle, { threads: 1, keep });
    assert.deepEqual(found, await everything(plain));
    await plain.close();
  });
}

test("inputs of layers that nothing passes back through are freed at once", async () => {
  const fake = new FakeGpu();
  const { gpu, runner } = await onGpu(fake);
  await runner.evaluate(batch, adapter);
  const tables = bundle.manifest.graphs.get("embed")!.outputs.length;
  assert.ok(fake.most <= weights + tables + 2, `${fake.most} buffers at once, ${weights} of them weights`); // a layer's input and output
  await runner.close();
  await gpu.close();
});

test("a step that is cancelled, or in which a kernel fails, leaves nothing on the GPU but weights", async () => {
  const fake = new FakeGpu();
  let left = Infinity;
  const betweenLayers = async () => {
    if (left-- <= 0) throw new Error("cancelled");
  };
  const { gpu, runner } = await onGpu(fake, { betweenLayers });
  const whole = await runner.step(subsets[0]!, batch, adapter);
  const runs = fake.runs - 1; // one of them before the first layer
  for (let stop = 0; stop < runs; stop += 3) {
    left = stop;
    await assert.rejects(runner.step(subsets[0]!, batch, adapter), /cancelled/);
    assert.equal(fake.live.size, weights, `cancelled at ${stop}`);
    left = Infinity;
    fake.failing = fake.runs + stop;
    assert.match(await refused("GPU_FAILED", () => runner.step(subsets[0]!, batch, adapter)), /the GPU failed: a kernel failed/);
    assert.equal(fake.live.size, weights, `failed at ${stop}`);
    fake.failing = Infinity;
  }
  assert.deepEqual(await runner.step(subsets[0]!, batch, adapter), whole);
  await runner.close();
  await gpu.close();
});

test("a GPU without room for the weights fails by name, with the size", async () => {
  const fake = new FakeGpu();
  fake.room = 1;
  const { gpu, runner } = await onGpu(fake);
  assert.match(await refused("GPU_FAILED", () => runner.evaluate(batch, adapter)), /a buffer of 0\.0 MB was not to be had: no memory for it/);
  await runner.close();
  await gpu.close();
});

test("a GPU that is lost ends the step by name, even one that would wait for ever, and can be closed", async () => {
  const fake = new FakeGpu();
  const { gpu, runner } = await onGpu(fake, { betweenLayers: async () => void (runner.layer === 3 && fake.takeAway()) });
  assert.match(await refused("GPU_FAILED", () => runner.step(subsets[0]!, batch, adapter)), /the GPU was lost \(unknown\): the driver was reset/);
  await refused("GPU_FAILED", () => runner.evaluate(batch, adapter));
  await runner.close();
  await gpu.close();
});

test("what the GPU complains of is no result", async () => {
  const fake = new FakeGpu();
  const { gpu, runner } = await onGpu(fake, { betweenLayers: async () => fake.complain("out of\nmemory") });
  assert.match(await refused("GPU_FAILED", () => runner.evaluate(batch, adapter)), /the GPU failed: out of memory/);
  await runner.close();
  await gpu.close();
});

test("what a GPU does not take is refused before anything is run, with the tensor, its size and the limit", async () => {
  const { manifest } = bundle;
  const [largest, bytes] = [...gpuBuffers(manifest)].reduce((most, each) => (each[1] > most[1] ? each : most));
  const exact = { maxBufferSize: bytes, maxStorageBufferBindingSize: bytes, maxStorageBuffersPerShaderStage: 8 };
  checkLimits(manifest, exact);
  assert.match(largest, /^layers\.block\..*\.packed as float32$|attention|^block_/);
  for (const limit of ["maxBufferSize", "maxStorageBufferBindingSize"] as const) {
    const fake = new FakeGpu({ ...exact, [limit]: bytes - 1 });
    const said = await refused("GPU_UNSUITABLE", () => onGpu(fake));
    assert.ok(said.includes(largest) && /needs a buffer of .* MB, and this GPU takes at most .* MB/.test(said), said);
  }
  assert.match(await refused("GPU_UNSUITABLE", () => onGpu(new FakeGpu({ maxStorageBuffersPerShaderStage: 7 }))), /takes 7 buffers at once/);
  const without = { requestAdapter: async () => null } as unknown as BrowserGpu;
  assert.match(await refused("GPU_UNSUITABLE", () => Gpu.open(without, ort, bundle.manifest)), /gives this page no GPU/);
  const other: Bundle = await openBundle("llama");
  assert.match(await refused("GPU_UNSUITABLE", () => Gpu.open(new FakeGpu().browser, ort, other.manifest)), /--programs gpu/);
});

test("the device is asked for as much as the adapter has, and the weights are counted", async () => {
  const fake = new FakeGpu({ maxBufferSize: 2 ** 30 });
  const { gpu, runner } = await onGpu(fake);
  assert.equal(fake.requested.maxBufferSize, 2 ** 30);
  await runner.evaluate(batch, adapter);
  const held = [...fake.live].reduce((sum, buffer) => sum + buffer.bytes.length, 0);
  const most = gpuWeightBytes(bundle.manifest);
  assert.ok(held >= most && held < most + 16 * weights, `${held} bytes of ${most}`); // a buffer's size is rounded up
  await runner.close();
  await gpu.close();
});
