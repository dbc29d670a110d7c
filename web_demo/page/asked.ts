import { bundleOf, type State } from "./state.js";
import type { TrainOptions } from "./worker/protocol.js";

// What a run may be asked for.

export const STEPS = [8, 20, 40, 60, 100, 150, 200, 300, 500, 1000, 2000] as const;
export const BUDGETS = [null, 512e6, 1e9, 2e9, 4e9] as const;

/** Whether the chosen model can be trained on a GPU here. */
export function offersGpu(state: State): boolean {
  return state.gpu && bundleOf(state)?.forGpu === true;
}

/** What a run is asked for, as far as it is offered for the chosen model. */
export function optionsOf(state: State): TrainOptions {
  const { options } = state.drafts;
  return { ...options, gpu: options.gpu && offersGpu(state) };
}
