import assert from "node:assert/strict";
import { test } from "node:test";
import { AdapterLayout } from "../../kit/bundle/adapterLayout.js";
import { wholeSequence, type Batch } from "../../kit/bundle/batch.js";
import type { AdamWConfig } from "../../kit/bundle/config.js";
import { makeSchedule } from "../../kit/bundle/schedule.js";
import { sha256 } from "../../kit/io/sha256.js";
import type { LayerUpdate, StepResult, StepRunner } from "../../kit/runtime/stepRunner.js";
import { defaultLearningRate, learningRate } from "../../kit/training/learningRate.js";
import { AdamW, clipGradients, gradientNorm, newState } from "../../kit/training/optimizer.js";
import { evaluate, Trainer } from "../../kit/training/trainer.js";
import { goldenJson } from "../golden.js";
import { refused } from "../tools.js";

const vectors = goldenJson("run_vectors.json");
const LAYERS = 3;
const SIZE = 3072;
const TRAINED = [[2], [0, 1], [0, 1, 2], [1]]; // a cycle
const CONFIG: AdamWConfig = { betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0.01, clipNorm: 1, implicitUpdates: "momentum" };
const f = Math.fround;

/** No model: steps give what `steps` says, and an update is AdamW operation by operation as NumPy computes it. */
class NumpyRunner implements StepRunner {
  readonly name = "numpy";
  readonly version = "0";

  constructor(
    private readonly config: AdamWConfig,
    private readonly steps: (batch: Batch) => StepResult = () => assert.fail("no step was expected"),
  ) {}

  async step(_: unknown, batch: Batch) {
    return this.steps(batch);
  }

  async evaluate(batch: Batch) {
    return this.steps(batch).loss;
  }

  async updateLayer(p: Float32Array, m: Float32Array, v: Float32Array, gradient: Float32Array | null, { decay, rate, root }: LayerUpdate) {
    const [beta1, beta2] = this.config.betas as [number, number];
    for (let i = 0; i < p.length; i++) {
      const g = gradient?.[i] ?? 0;
      m[i] = f(f(m[i]! * f(beta1)) + f(f(1 - beta1) * g));
      v[i] = f(f(v[i]! * f(beta2)) + f(f(1 - beta2) * f(g * g)));
      const change = f(f(m[i]! / f(f(f(Math.sqrt(v[i]!)) / root) + f(this.config.eps))) * rate);
      p[i] = f(f(p[i]! * decay) - change);
    }
  }

  decoder(): never {
    return assert.fail("no text was expected");
  }

  async close() {}
}

function layoutOf(...sizes: number[]): AdapterLayout {
  const kinds = sizes.map((_, i) => `k${i}`);
  const matrices = new Map(kinds.map((kind, i) => [kind, [{ name: "x.lora_A", shape: [1, sizes[i]!], offset: 0 }]]));
  return new AdapterLayout({ rank: 1, alpha: 1 }, matrices, kinds, "model.", null);
}

const element = (step: number, layer: number) => (_: unknown, i: number) =>
  (((i * 7919 + step * 104729 + layer * 1299709) % 65536) - 32768) / (step % 3 === 0 ? 8388608 : 131072);
const gradient = (step: number, layer: number) => Float32Array.from({ length: SIZE }, element(step, layer));
const bytes = (values: Float32Array) => new Uint8Array(values.buffer);

test("AdamW and clipping give Python's bits over 20 steps, the implicit update too", async () => {
  for (const expected of vectors.adamw) {
    const layout = layoutOf(...Array<number>(LAYERS).fill(SIZE));
    const state = newState(layout.size);
    for (let layer = 0; layer < LAYERS; layer++) layout.vector(state.adapter, layer).set(gradient(100 + layer, 0));
    const config = { ...CONFIG, implicitUpdates: expected.implicit_updates };
    const optimizer = new AdamW(state, layout, config, new NumpyRunner(config));
    for (const [step, wanted] of expected.norms.entries()) {
      const gradients = new Map(TRAINED[step % TRAINED.length]!.map((layer) => [layer, gradient(step, layer)]));
      const norm = gradientNorm(gradients);
      assert.ok(Math.abs(norm - wanted) <= 1e-14 * wanted); // double sums in another order: some 3,072 roundings of 1e-16, most of which cancel
      clipGradients(gradients, norm, config.clipNorm);
      await optimizer.update(gradients, learningRate(1e-3, "cosine", step, expected.norms.length, 3));
    }
    assert.deepEqual([...optimizer.updates], expected.updates);
    assert.deepEqual([state.adapter, state.firstMoment, state.secondMoment].map((values) => sha256(bytes(values))), expected.sha256);
  }
});

test("a layer that the method never trains stays bit for bit", async () => {
  const layout = layoutOf(5, 7);
  const state = newState(layout.size);
  state.adapter.forEach((_, i) => (state.adapter[i] = 1 + i));
  const config = { ...CONFIG, weightDecay: 0.5 };
  const optimizer = new AdamW(state, layout, config, new NumpyRunner(config));
  for (let n = 0; n < 3; n++) await optimizer.update(new Map([[1, new Float32Array(7)]]), 0.1, new Set([1]));
  assert.deepEqual([...state.adapter.subarray(0, 5)], [1, 2, 3, 4, 5]);
  assert.ok(state.adapter[5]! < 6); // by weight decay alone
  assert.deepEqual([...optimizer.updates], [0, 3]);
});

test("learning rates and schedules are Python's", () => {
  for (const { schedule, steps, warmup, rates } of vectors.learning_rates) {
    for (const [step, expected] of rates.entries()) {
      const found = learningRate(4e-4, schedule, step, steps, warmup);
      const allowed = schedule === "cosine" ? 4e-16 * expected + 4e-4 * 1.2e-16 : 0; // a cosine's last digit is each library's own
      assert.ok(Math.abs(found - expected) <= allowed, `${schedule} ${step}: ${found}, ${expected}`);
    }
  }
  for (const { method, subsets, layers, schedule, learning_rate } of vectors.schedules) {
    const made = makeSchedule(method, subsets, layers);
    assert.deepEqual(made, schedule);
    assert.equal(defaultLearningRate(made, layers), learning_rate);
  }
});

const labelled = (count: number): Batch => {
  const labels = Int32Array.from({ length: 4 }, (_, i) => (i < count ? 1 : -100));
  return { ...wholeSequence([1, 2, 3, 4], 4), labels };
};

test("accumulated sequences weigh as many labels as they count", async () => {
  const layout = layoutOf(2);
  const state = newState(2);
  const steps = ({ labels }: Batch) => {
    const first = labels[1] === 1; // of two sequences, that of three labels
    return { loss: first ? 1 : 5, gradients: new Map([[0, Float32Array.of(first ? 4 : 0, 8)]]) };
  };
  const runner = new NumpyRunner(CONFIG, steps);
  const optimizer = new AdamW(state, layout, { ...CONFIG, clipNorm: 1e9 }, runner);
  const config = { steps: 1, learningRate: 0.1, lrSchedule: "constant", warmup: 0, accumulation: 2 } as const;
  const trainer = new Trainer(runner, [{ train: [0], propagate: [0] }], optimizer, config);
  const { loss, gradientNorm: norm } = await trainer.step(0, [labelled(3), labelled(1)]);
  assert.equal(loss, 0.75 * 1 + 0.25 * 5);
  assert.equal(norm, Math.sqrt(3 * 3 + 8 * 8));
  assert.equal(await evaluate(runner, [labelled(3), labelled(1)], state.adapter), 2);
});

test("a loss or an update that is not finite is refused: the loss before anything changed", async () => {
  const run = async (loss: number, value: number, rate: number) => {
    const state = newState(2);
    const runner = new NumpyRunner(CONFIG, () => ({ loss, gradients: new Map([[0, Float32Array.of(value, 1)]]) }));
    const config = { steps: 1, learningRate: rate, lrSchedule: "constant", warmup: 0, accumulation: 1 } as const;
    const trainer = new Trainer(runner, [{ train: [0], propagate: [0] }], new AdamW(state, layoutOf(2), CONFIG, runner), config);
    return [await refused("LOSS_NOT_FINITE", () => trainer.step(4, [labelled(2)])), state.adapter.every((x) => x === 0)] as const;
  };
  const [message, unchanged] = await run(NaN, 1, 0.1);
  assert.match(message, /^step 5: the loss is NaN and the gradient's norm 1.41[0-9]+; the last adapter that gave a finite loss was kept; try a lower/);
  assert.ok(unchanged);
  assert.equal((await run(1, Infinity, 0.1))[1], true);
  assert.match((await run(1, 1, 1e6))[0], /its update would make a parameter of -?[0-9.]+; the adapter before it was kept/);
});
