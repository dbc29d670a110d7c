import { LcsbError } from "../faults.js";
import type { Bundle } from "../bundle.js";
import type { AdapterLayout } from "../bundle/adapterLayout.js";
import type { AdamWConfig } from "../bundle/config.js";
import { goldenBatchOf, type GoldenStep, type GoldenTrace } from "../bundle/golden.js";
import type { StepRunner } from "../runtime/stepRunner.js";
import { AdamW, newState, sumOfSquares } from "../training/optimizer.js";
import { Trainer } from "../training/trainer.js";

/** The largest relative differences that were found: of single steps' losses and gradient norms, and of the run's losses. */
export interface TraceDifference {
  readonly steps: number;
  readonly stepLoss: number;
  readonly stepGradientNorm: number;
  readonly runLoss: number;
}

/** What holding a runner to a bundle's golden trace came to, with the bundle's own tolerances. */
export interface VerifyResult {
  readonly runtime: string;
  readonly runtimeVersion: string;
  readonly difference: TraceDifference;
  readonly stepTolerance: number;
  readonly runTolerance: number;
}

const UPDATE_LEAST = 1e-12; // the least gradient that a program of AdamW is held to its constants by
const UPDATE_TOLERANCE = 1e-5; // relative; some square roots are off by a rounding or two
const UPDATE_NEGLIGIBLE = 1e-30; // where a square of a gradient is not a normal float32 any more
const NOTHING: TraceDifference = { steps: 0, stepLoss: 0, stepGradientNorm: 0, runLoss: 0 };

/**
 * Every recorded step, and the run through the trainer. Throws GOLDEN_TRACE with the largest differences. `progress` counts steps; it may
 * throw, to cancel.
 */
export async function verify(bundle: Bundle, runner: StepRunner, progress: (done: number, total: number) => void = () => {}): Promise<VerifyResult> {
  const { golden, layout, manifest } = bundle;
  const state = newState(layout.size);
  await bundle.readInitialAdapter(state.adapter);
  await checkUpdate(runner, layout, manifest.optimizer);
  const optimizer = new AdamW(state, layout, manifest.optimizer, runner);
  const difference = golden.run.length === 0 ? NOTHING : await checkTrace(runner, golden, optimizer, progress);
  return {
    runtime: runner.name,
    runtimeVersion: runner.version,
    difference,
    stepTolerance: golden.stepTolerance,
    runTolerance: golden.runTolerance,
  };
}

/** One recorded step, if there is one: what a run checks before it starts. Throws GOLDEN_TRACE. */
export async function checkFirstStep(runner: StepRunner, trace: GoldenTrace, adapter: Float32Array): Promise<TraceDifference> {
  const step = trace.run[0];
  if (step === undefined) return NOTHING;
  const [loss, norm] = await compare(runner, trace, step, adapter);
  return hold(runner.name, trace, { steps: 1, stepLoss: loss, stepGradientNorm: norm, runLoss: loss });
}

/**
 * Holds a runtime's AdamW to the manifest's constants: they stand in the program too, and no loss shows another `eps`. Two updates of a vector
 * of each size, at a rate of 1 and with gradients from far below `eps` to 1. Throws GOLDEN_TRACE.
 */
export async function checkUpdate(runner: StepRunner, layout: AdapterLayout, config: AdamWConfig): Promise<void> {
  const sizes = new Set(Array.from({ length: layout.numLayers }, (_, layer) => layout.vectorSize(layer)));
  for (const size of sizes) {
    const { adapter, firstMoment, secondMoment } = newState(size);
    const gradient = Float32Array.from({ length: size }, (_, i) => UPDATE_LEAST ** (1 - i / Math.max(1, size - 1)));
    for (let n = 0; n < 2; n++) await runner.updateLayer(adapter, firstMoment, secondMoment, gradient, { decay: 1, rate: 1, root: 1 });
    const right = gradient.every((value, i) => {
      const found = [adapter[i]!, firstMoment[i]!, secondMoment[i]!];
      return updated(value, config).every((x, k) => Math.abs(x - found[k]!) <= UPDATE_NEGLIGIBLE + UPDATE_TOLERANCE * Math.abs(x));
    });
    if (right) continue;
    const message = `${runner.name}: the program of AdamW does not compute what the manifest's betas and eps give; do not train with it`;
    throw new LcsbError("GOLDEN_TRACE", message);
  }
}

/** Parameter and moments after two updates from zero. */
function updated(gradient: number, config: AdamWConfig): number[] {
  const [beta1, beta2] = config.betas as readonly [number, number];
  let [parameter, first, second] = [0, 0, 0];
  for (let n = 0; n < 2; n++) {
    first = beta1 * first + (1 - beta1) * gradient;
    second = beta2 * second + (1 - beta2) * gradient * gradient;
    parameter -= first / (Math.sqrt(second) + config.eps);
  }
  return [parameter, first, second];
}

async function checkTrace(
  runner: StepRunner,
  trace: GoldenTrace,
  optimizer: AdamW,
  progress: (done: number, total: number) => void,
): Promise<TraceDifference> {
  const total = trace.steps.length + trace.run.length;
  let stepLoss = 0;
  let stepGradientNorm = 0;
  for (const [number, step] of [...trace.steps, trace.run[0]!].entries()) {
    const [loss, norm] = await compare(runner, trace, step, optimizer.state.adapter);
    stepLoss = Math.max(stepLoss, loss);
    stepGradientNorm = Math.max(stepGradientNorm, norm);
    progress(number + 1, total);
  }
  const runLoss = await runLosses(runner, trace, optimizer, (n) => progress(Math.min(total, trace.steps.length + 1 + n), total));
  return hold(runner.name, trace, { steps: total, stepLoss, stepGradientNorm, runLoss });
}

/** The largest difference over the run; it goes no further than a loss that is not finite. */
async function runLosses(runner: StepRunner, trace: GoldenTrace, optimizer: AdamW, progress: (number: number) => void): Promise<number> {
  const config = { steps: trace.run.length, learningRate: trace.learningRate, lrSchedule: "constant", warmup: 0, accumulation: 1 } as const;
  const trainer = new Trainer(runner, trace.run.map((step) => step.subset), optimizer, config);
  let largest = 0;
  for (const [number, step] of trace.run.entries()) {
    try {
      const outcome = await trainer.step(number, [goldenBatchOf(trace, step.batch)]);
      largest = Math.max(largest, relative(outcome.loss, step.loss));
    } catch (error) {
      if (!(error instanceof LcsbError) || error.fault !== "LOSS_NOT_FINITE") throw error;
      return Infinity; // it is the runtime that is at fault, not a learning rate
    }
    progress(number);
  }
  return largest;
}

/** The relative differences of a single step's loss and, at most, of its gradients' norms. */
async function compare(runner: StepRunner, trace: GoldenTrace, step: GoldenStep, adapter: Float32Array): Promise<[number, number]> {
  const found = await runner.step(step.subset, goldenBatchOf(trace, step.batch), adapter);
  const norms = step.subset.train.map((layer, i) => relative(Math.sqrt(sumOfSquares(found.gradients.get(layer)!)), step.gradientNorms[i]!));
  return [relative(found.loss, step.loss), Math.max(...norms)];
}

/** NaN counts as infinitely far, so that it can never pass. */
function relative(found: number, expected: number): number {
  const difference = Math.abs(found - expected) / Math.max(Math.abs(expected), 1e-12);
  return Number.isFinite(difference) ? difference : Infinity;
}

function hold(name: string, trace: GoldenTrace, difference: TraceDifference): TraceDifference {
  const faults = (
    [
      ["a step's loss", difference.stepLoss, trace.stepTolerance],
      ["a gradient's norm", difference.stepGradientNorm, trace.stepTolerance],
      ["the run's losses", difference.runLoss, trace.runTolerance],
    ] as const
  )
    .filter(([, found, most]) => !(found <= most))
    .map(([what, found, most]) => `${what} by ${found.toExponential(1)} (at most ${most.toExponential(1)})`);
  if (faults.length === 0) return difference;
  throw new LcsbError("GOLDEN_TRACE", `${name} does not reproduce the bundle's golden trace: ${faults.join(", ")}; do not train with it`);
}
