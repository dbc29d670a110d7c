import type { Method } from "./bundle/schedule.js";
import type { DataReport } from "./data/dataset.js";
import type { RunOutcome } from "./runControl.js";
import type { StepOutcome } from "./training/trainer.js";

/** What a run does, as the desktop's report calls it. */
export type Phase = "data" | "loading" | "golden trace" | "evaluation" | "gradients" | "optimizer" | "text samples" | "checkpoints";

/** The mean loss over the held-out data after `step` steps. */
export interface Evaluation {
  readonly step: number;
  readonly loss: number;
}

/** What a run did before this process: its steps, the bytes after each, and its evaluations. */
export interface RunHistory {
  readonly outcomes: readonly StepOutcome[];
  readonly memory: readonly number[];
  readonly evaluations: readonly Evaluation[];
}

/** What the model wrote after `prompt`, before and after the run. */
export interface Sample {
  readonly prompt: string;
  readonly before: string;
  readonly after: string;
}

/** Is told what happens. `layer` comes often: it must be quick. */
export interface RunObserver {
  phase?(name: Phase): void;
  /** By which runtime the run is computed: its name and version. */
  loaded?(runtime: string): void;
  /** `heldOut`: examples to evaluate on. */
  data?(report: DataReport, heldOut: number): void;
  warned?(text: string): void;
  resumed?(step: number, history: RunHistory): void;
  evaluated?(step: number, loss: number): void;
  /** `memory`: bytes after the step, 0 where the system does not say. */
  stepped?(outcome: StepOutcome, memory: number): void;
  /** The pass through a layer begins. */
  layer?(index: number, backward: boolean): void;
  sampled?(prompt: string, text: string, after: boolean): void;
  /**
   * What the model makes of the first held-out example after `step` steps, with `RunOptions.sampleHeldOut`. `prompt`: a conversation's last
   * question, or the beginning of the text. `whole`: the text came to its end, and was not cut at the most tokens.
   */
  wrote?(step: number, prompt: string, text: string, whole: boolean): void;
}

/**
 * The whole run's figures, named as `lcsb simulate --json` names them but for their case; of one that was resumed, memory and phases are of its
 * last process. Bytes are peaks over the whole process, null where the system does not say. What was not come to before the run was interrupted
 * is null or empty.
 */
export interface RunResult {
  readonly outcome: RunOutcome;
  readonly runtime: string | null;
  readonly runtimeVersion: string | null;
  readonly target: string;
  readonly method: Method;
  readonly schedule: readonly (readonly number[])[];
  readonly steps: number;
  readonly resumedFrom: number | null;
  readonly learningRate: number;
  readonly losses: readonly number[];
  readonly stepSeconds: readonly number[];
  readonly evaluations: readonly Evaluation[];
  readonly evalLossBefore: number | null;
  readonly evalLossAfter: number | null;
  readonly peakAnonymousBytes: number | null;
  readonly predictedPeakAnonymousBytes: number | null;
  readonly keptLayers: number;
  readonly phaseSeconds: ReadonlyMap<string, number>;
  readonly data: DataReport | null;
  readonly packingFill: number | null;
  readonly samples: readonly Sample[];
  readonly adapter: string | null;
  readonly checkpoints: string;
}
