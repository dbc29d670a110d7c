import type { Method } from "./bundle/schedule.js";
import type { SamplingConfig } from "./generate.js";
import { samplingConfig } from "./generate.js";
import type { StoredFile } from "./io/files.js";
import type { Gpu } from "./runtime/gpu.js";
import type { LearningRateSchedule } from "./training/learningRate.js";

/** The share of the examples that is held out, unless another is asked for. */
export const HOLD_OUT = 0.1;

/**
 * What a run is asked for. `learningRate` null: `defaultLearningRate`. `method` null: the bundle's schedule. `holdOut`: the share of the
 * examples that is evaluated instead of trained on, without `evaluationData`. `evaluateEvery` 0: only before and after. `memoryBudget`:
 * bytes. `keep`: that many of the top layers keep their activations; null: as many as the budget allows, none without one. `threads` 0: the
 * runtime's choice. `prompts` are continued before and after; with `chat` they are a user's messages that are answered. `seed`: of the
 * data's order. A run that was begun may go on at a lower `learningRate`, if one is given. `initialAdapter`: a file whose parameters the
 * run begins with, its moments zero; null: the bundle's. `sampleHeldOut`: after each evaluation the model continues the beginning of the
 * first held-out example (`RunObserver.wrote`), a prefill and up to `sampling.maxTokens` tokens each time. `memory`: bytes that the process
 * has now, where there is a way to know: a page has none. `gpu`: with this bundle on it, which runs the layers; null: none does.
 */
export interface RunOptions {
  readonly steps: number;
  readonly learningRate: number | null;
  readonly lrSchedule: LearningRateSchedule;
  readonly warmup: number;
  readonly accumulation: number;
  readonly method: Method | null;
  readonly evaluationData: StoredFile | null;
  readonly holdOut: number;
  readonly evaluateEvery: number;
  readonly checkpointEvery: number;
  readonly memoryBudget: number | null;
  readonly keep: number | null;
  readonly threads: number;
  readonly prompts: readonly string[];
  readonly sampling: SamplingConfig;
  readonly chat: boolean;
  readonly seed: number;
  readonly initialAdapter: StoredFile | null;
  readonly sampleHeldOut: boolean;
  readonly memory: () => number | null;
  readonly gpu: Gpu | null;
}

/** With the defaults of the other languages. */
export function runOptions(given: Partial<RunOptions> & { readonly steps: number }): RunOptions {
  return {
    learningRate: null,
    lrSchedule: "constant",
    warmup: 0,
    accumulation: 1,
    method: null,
    evaluationData: null,
    holdOut: HOLD_OUT,
    evaluateEvery: 0,
    checkpointEvery: 10,
    memoryBudget: null,
    keep: null,
    threads: 0,
    prompts: [],
    sampling: samplingConfig(),
    chat: false,
    seed: 0,
    initialAdapter: null,
    sampleHeldOut: false,
    memory: () => null,
    gpu: null,
    ...given,
  };
}
