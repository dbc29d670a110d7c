import { LcsbError } from "../faults.js";
import { countedLabels, type Batch } from "../bundle/batch.js";
import type { Subset } from "../bundle/schedule.js";
import { add } from "../runtime/crossing.js";
import type { StepResult, StepRunner } from "../runtime/stepRunner.js";
import { learningRate, type LearningRateSchedule } from "./learningRate.js";
import { clipGradients, gradientNorm, scale, type AdamW } from "./optimizer.js";

// The training loop: schedule, AdamW, learning rate, accumulation, clipping, evaluation. It knows no runtime.

/** `learningRate`: the highest of the run. `accumulation`: sequences a step. */
export interface TrainConfig {
  readonly steps: number;
  readonly learningRate: number;
  readonly lrSchedule: LearningRateSchedule;
  readonly warmup: number;
  readonly accumulation: number;
}

/** Throws OPTION. */
export function checkTrainConfig(config: TrainConfig): void {
  checkLeast("steps", config.steps, 1);
  checkLeast("accumulation", config.accumulation, 1);
  checkLeast("warmup", config.warmup, 0);
  if (Number.isFinite(config.learningRate) && config.learningRate > 0) return;
  throw new LcsbError("OPTION", `lr: expected a positive number, found ${config.learningRate}`, ["lr"]);
}

/** Throws OPTION unless `value` is a whole number from `least` on. */
export function checkLeast(name: string, value: number, least: number): void {
  if (Number.isInteger(value) && value >= least) return;
  throw new LcsbError("OPTION", `${name}: expected a whole number of at least ${least}, found ${value}`, [name]);
}

/**
 * One optimizer step. `loss`: mean over all counted labels of its batches, before the update. `gradientNorm`: before clipping. Seconds:
 * `gradientSeconds` in the runtime, `optimizerSeconds` in AdamW.
 */
export interface StepOutcome {
  readonly step: number;
  readonly subset: Subset;
  readonly loss: number;
  readonly learningRate: number;
  readonly gradientNorm: number;
  readonly gradientSeconds: number;
  readonly optimizerSeconds: number;
}

/**
 * Trains `optimizer.state` in place, one step at a time. `accept` is awaited before an update: the adapter as it is has given a finite loss.
 */
export class Trainer {
  private readonly trainable: ReadonlySet<number>;

  constructor(
    private readonly runner: StepRunner,
    private readonly schedule: readonly Subset[],
    private readonly optimizer: AdamW,
    private readonly config: TrainConfig,
    private readonly accept: () => Promise<void> = async () => {},
  ) {
    checkTrainConfig(config);
    this.trainable = new Set(schedule.flatMap((subset) => subset.train));
  }

  /**
   * Step `number` (from 0) on `config.accumulation` sequences. Throws LOSS_NOT_FINITE: before anything was updated, when the loss or the
   * gradient is NaN or infinite; after the update, when what it made cannot be trained on (`AdamW.fault`).
   */
  async step(number: number, batches: readonly Batch[]): Promise<StepOutcome> {
    const subset = this.schedule[number % this.schedule.length]!;
    const started = performance.now();
    const { loss, gradients } = await this.gradients(subset, batches);
    const norm = gradientNorm(gradients);
    if (!Number.isFinite(loss) || !Number.isFinite(norm)) {
      const kept = "the last adapter that gave a finite loss was kept; try a lower learning rate";
      throw notFinite(number, `the loss is ${loss} and the gradient's norm ${norm}; ${kept}`);
    }
    const gradientSeconds = secondsSince(started);
    const { lrSchedule, steps, warmup } = this.config;
    const rate = learningRate(this.config.learningRate, lrSchedule, number, steps, warmup);
    await this.accept();
    const updating = performance.now();
    clipGradients(gradients, norm, this.optimizer.config.clipNorm);
    await this.optimizer.update(gradients, rate, this.trainable);
    const fault = this.optimizer.fault();
    if (fault !== null) throw notFinite(number, `its update would make ${fault}; the adapter before it was kept; try a lower learning rate`);
    const optimizerSeconds = secondsSince(updating);
    return { step: number + 1, subset, loss, learningRate: rate, gradientNorm: norm, gradientSeconds, optimizerSeconds };
  }

  /** Mean over all counted labels of `batches`: each batch's mean weighs as many labels as it counts. */
  private async gradients(subset: Subset, batches: readonly Batch[]): Promise<StepResult> {
    const { adapter } = this.optimizer.state;
    if (batches.length === 1) return this.runner.step(subset, batches[0]!, adapter);
    const counts = batches.map(countedLabels);
    const total = counts.reduce((sum, count) => sum + count, 0);
    const sums = new Map<number, Float32Array>();
    let loss = 0;
    for (const [index, batch] of batches.entries()) {
      const result = await this.runner.step(subset, batch, adapter);
      const weight = counts[index]! / total;
      loss += weight * result.loss;
      for (const [layer, gradient] of result.gradients) {
        scale(gradient, Math.fround(weight));
        const sum = sums.get(layer);
        if (sum === undefined) sums.set(layer, gradient);
        else add(sum, gradient);
      }
    }
    return { loss, gradients: sums };
  }
}

/** Mean loss over all counted labels. */
export async function evaluate(runner: StepRunner, batches: readonly Batch[], adapter: Float32Array): Promise<number> {
  let sum = 0;
  let count = 0;
  for (const batch of batches) {
    const counted = countedLabels(batch);
    sum += counted * (await runner.evaluate(batch, adapter));
    count += counted;
  }
  return sum / count;
}

export function secondsSince(started: number): number {
  return (performance.now() - started) / 1000;
}

function notFinite(number: number, what: string): LcsbError {
  return new LcsbError("LOSS_NOT_FINITE", `step ${number + 1}: ${what}`, [String(number + 1)]);
}
