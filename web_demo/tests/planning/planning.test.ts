import assert from "node:assert/strict";
import { test } from "node:test";
import { range } from "../../kit/bundle/schedule.js";
import { megabytes } from "../../kit/io/text.js";
import { timeShare } from "../../kit/planning/cost.js";
import { pageTerms, predictedPeak } from "../../kit/planning/memory.js";
import { planRun, type PlanOptions } from "../../kit/planning/plan.js";
import { gpuWeightBytes } from "../../kit/runtime/gpuLimits.js";
import { bundlesJson } from "../golden.js";
import { bundleNames, openBundle, refused } from "../tools.js";

test("the desktop's terms of memory, and times, are Python's", async () => {
  const golden = bundlesJson("runtime.json");
  assert.deepEqual(Object.keys(golden).sort(), bundleNames.toSorted());
  for (const [name, expected] of Object.entries<any>(golden)) {
    const { manifest } = await openBundle(name);
    const layers = manifest.model.numHiddenLayers;
    assert.deepEqual(range(layers + 1).map((keep) => predictedPeak(manifest, manifest.schedule, { keep })), expected.peaks, name);
    assert.equal(predictedPeak(manifest, manifest.schedule, { keep: 0, accumulation: 2 }, 1000), expected.accumulating);
    assert.equal(predictedPeak(manifest, manifest.schedule, { keep: 0, samples: true }), expected.samples);
    const large = { ...manifest, model: { ...manifest.model, vocabSize: 151_936, hiddenSize: 896 } };
    assert.equal(predictedPeak(large, manifest.schedule, { keep: 0 }), expected.large);
    const distinct = [...new Map(manifest.schedule.map((subset) => [JSON.stringify(subset), subset])).values()];
    for (const [i, keep] of [0, 1, layers].entries()) {
      const found = distinct.map((subset) => timeShare(manifest, subset, keep));
      assert.equal(found.length, expected.time_shares[i].length);
      found.forEach((share, n) => assert.ok(Math.abs(share - expected.time_shares[i][n]) <= 1e-12 * share));
    }
  }
});

test("what a budget allows, and what no page can hold", async () => {
  const { manifest } = await openBundle("llama-20-steps");
  const layers = manifest.model.numHiddenLayers;
  const base = 1_000_000 + [...pageTerms(manifest, false).values()].reduce((sum, bytes) => sum + bytes, 0);
  const peaks = range(layers + 1).map((keep) => predictedPeak(manifest, manifest.schedule, { keep }, base));
  const plan = (given: Partial<PlanOptions>, of = manifest) =>
    planRun(of, manifest.schedule, { base: 1_000_000, budget: null, keep: null, accumulation: 1, samples: false, gpu: false, ...given });
  assert.equal(plan({}).keep, 0);
  assert.equal(plan({ keep: 1000 }).keep, layers);
  assert.equal(plan({ budget: 1e12 }).keep, layers);
  assert.equal(plan({ budget: peaks[2]! }).keep, peaks.findLastIndex((peak) => peak <= peaks[2]!));
  assert.equal(plan({}).leastBytes, Math.min(...peaks));
  const least = await refused("MEMORY_TOO_SMALL", () => plan({ budget: Math.min(...peaks) - 1 }));
  assert.ok(least.startsWith(`the run is predicted to need at least ${megabytes(Math.min(...peaks))}, 1.0 MB of it this process`), least);
  const most = peaks.indexOf(Math.max(...peaks));
  assert.match(await refused("MEMORY_TOO_SMALL", () => plan({ budget: peaks[most]! - 1, keep: most })), /nothing was run; keeping [0-9]+ fits/);
  await refused("OPTION", () => plan({ keep: -1 }));
  const shared = pageTerms(manifest, true);
  assert.equal(shared.get("weights on the GPU"), gpuWeightBytes(manifest));
  assert.ok(shared.get("working sets on the GPU")! > manifest.graphs.get("block_backward")!.workingBytes!);
  assert.equal(shared.get("weights of a program"), 0); // all of them are there
  assert.ok(plan({ gpu: true }).predictedPeakBytes > plan({}).predictedPeakBytes);
  const { manifest: looped } = await openBundle("llama"); // whose head is reckoned by the model's sizes
  const long = { ...looped, seqLen: 1 << 20, model: { ...looped.model, hiddenSize: 1 << 12 } };
  assert.match(await refused("MEMORY_TOO_SMALL", () => plan({}, long)), /of WebAssembly's memory, which has at most 4,295.0 MB; nothing was run/);
});
