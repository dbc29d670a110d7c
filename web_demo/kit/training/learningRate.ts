import type { Subset } from "../bundle/schedule.js";

const BASE_LEARNING_RATE = 4e-4;

/** What follows the warm-up. */
export const LEARNING_RATE_SCHEDULES = ["constant", "cosine", "linear"] as const;
export type LearningRateSchedule = (typeof LEARNING_RATE_SCHEDULES)[number];

/** The rate of step `step` (from 0) of `steps`: a linear warm-up over `warmup` steps, then constant, or a cosine or a line down to zero. */
export function learningRate(base: number, schedule: LearningRateSchedule, step: number, steps: number, warmup: number): number {
  if (step < warmup) return (base * (step + 1)) / warmup;
  const progress = (step - warmup) / Math.max(1, steps - warmup);
  switch (schedule) {
    case "constant":
      return base;
    case "cosine":
      return base * 0.5 * (1 + Math.cos(Math.PI * progress));
    case "linear":
      return base * (1 - progress);
  }
}

/**
 * 4e-4, times the square root of how many steps a layer waits for its gradient on average, where the gradient is exact.
 *
 * With gradients in one step of K, AdamW's update is 1/sqrt(K) as large. The identity path's gradient is biased too strongly to be followed at
 * the higher rate (docs/decisions.md).
 */
export function defaultLearningRate(schedule: readonly Subset[], numLayers: number): number {
  const exact = schedule.every(({ train, propagate }) => propagate[0] === train[0] && propagate.length === numLayers - train[0]!);
  if (!exact) return BASE_LEARNING_RATE;
  const trained = schedule.reduce((sum, { train }) => sum + train.length, 0);
  const layers = new Set(schedule.flatMap(({ train }) => train)).size;
  return BASE_LEARNING_RATE * Math.sqrt((schedule.length * layers) / trained);
}
