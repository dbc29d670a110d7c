import assert from "node:assert/strict";
import { test } from "node:test";
import * as ort from "onnxruntime-web/wasm";
import { generate, samplingConfig } from "../../kit/generate.js";
import { verify } from "../../kit/runs/verify.js";
import { BlockRunner, holds } from "../../kit/runtime/blockRunner.js";
import { Tokenizer } from "../../kit/text/tokenizer.js";
import { bundleNames, initialAdapter, openBundle, refused } from "../tools.js";
import { bundlesJson } from "../golden.js";

const STEP_TOLERANCE = 2e-6; // float32 sums, of 128-bit registers where the reference has wider ones; kept activations are float16
const golden = bundlesJson("runtime.json");

for (const name of bundleNames) {
  test(`${name}: the golden trace and Python's greedy text`, async () => {
    const bundle = await openBundle(name);
    const runner = await BlockRunner.open(ort, bundle, { threads: 1 });
    try {
      const { difference } = await verify(bundle, runner);
      assert.equal(difference.steps, bundle.golden.steps.length + bundle.golden.run.length);
      assert.ok(Math.max(difference.stepLoss, difference.stepGradientNorm, difference.runLoss) < STEP_TOLERANCE, JSON.stringify(difference));
      const tokenizer = await Tokenizer.open(bundle.storage, bundle.manifest.model.vocabSize);
      const adapter = await initialAdapter(bundle);
      const config = samplingConfig({ temperature: 0, maxTokens: 12 });
      for (const [prompt, expected] of Object.entries<{ text: string; tokens: number; ended: string }>(golden[name].texts)) {
        const written = generate(runner, bundle, tokenizer, adapter, prompt, config);
        let text = "";
        for await (const piece of written) text += piece;
        assert.deepEqual([text, written.tokens, written.ended], [expected.text, expected.tokens, expected.ended.toUpperCase().replace(" ", "_")]);
      }
    } finally {
      await runner.close();
    }
  });
}

for (const name of ["gemma3", "lfm2", "qwen3_5", "tiny-int8-activations"]) {
  test(`${name}: the golden trace with layers kept`, async () => {
    const bundle = await openBundle(name);
    for (const keep of [1, bundle.manifest.model.numHiddenLayers]) {
      const runner = await BlockRunner.open(ort, bundle, { threads: 1, keep });
      const { difference } = await verify(bundle, runner);
      await runner.close();
      assert.ok(difference.stepGradientNorm > 0 && difference.stepGradientNorm < 2e-4, JSON.stringify(difference)); // float16 of activations
    }
  });
}

test("what a layer remembers gives the logits of a pass over all tokens, and a step in between disturbs nothing", async () => {
  for (const name of ["llama", "gemma3", "lfm2", "qwen3_5"]) {
    const bundle = await openBundle(name);
    const runner = await BlockRunner.open(ort, bundle, { threads: 1 });
    const adapter = (await initialAdapter(bundle)).map((value, i) => value + 0.001 * (i % 7));
    const ids = Array.from({ length: bundle.manifest.seqLen }, (_, i) => 4 + ((i * 37) % (bundle.manifest.model.vocabSize - 4)));
    const decoder = runner.decoder(adapter);
    let found = await decoder.prefill(ids.slice(0, 11));
    const step = bundle.golden.steps[0]!;
    for (let length = 12; length <= ids.length; length += 1) {
      if (length === 14) await runner.step(step.subset, bundle.sampleBatch!, adapter);
      found = await decoder.next(ids[length - 1]!);
      if (length % 9 !== 0 && length !== ids.length) continue;
      const whole = runner.decoder(adapter);
      const expected = await whole.prefill(ids.slice(0, length));
      const most = Math.max(...expected.map(Math.abs));
      assert.ok(found.every((logit, i) => Math.abs(logit - expected[i]!) <= 2e-5 * most), `${name} at ${length}`);
    }
    await assert.rejects(decoder.next(1), RangeError);
    await decoder.close();
    await runner.close();
  }
});

test("a step that is cancelled between two layers changes nothing", async () => {
  const bundle = await openBundle("llama");
  let left = Infinity;
  const seen: string[] = [];
  const runner: BlockRunner = await BlockRunner.open(ort, bundle, {
    threads: 1,
    betweenLayers: async () => {
      seen.push(`${runner.backward ? "-" : ""}${runner.layer}`);
      if (left-- <= 0) throw new Error("cancelled");
    },
  });
  const adapter = await initialAdapter(bundle);
  const { subset } = bundle.golden.run[0]!;
  const whole = await runner.step(subset, bundle.sampleBatch!, adapter);
  const layers = seen.splice(0);
  for (let stop = 0; stop < layers.length; stop++) {
    left = stop;
    await assert.rejects(runner.step(subset, bundle.sampleBatch!, adapter), /cancelled/);
    assert.deepEqual(seen.splice(0), layers.slice(0, stop + 1));
  }
  left = Infinity;
  assert.deepEqual(await runner.step(subset, bundle.sampleBatch!, adapter), whole);
  assert.deepEqual(layers.slice(0, 4), ["0", "1", "2", "3"]);
  assert.match(await refused("OPTION", () => runner.step({ train: [9], propagate: [9] }, bundle.sampleBatch!, adapter)), /expected ascending layers/);
  await runner.close();
});

test("what float16 does not hold is not kept", async () => {
  const of = (...bits: number[]) => ({ dtype: "float16", shape: [bits.length], data: Uint16Array.from(bits) });
  assert.ok(await holds(of(0, 0x3c00, 0xfbfe)));
  for (const bits of [0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00]) assert.ok(!(await holds(of(0, bits))));
});
