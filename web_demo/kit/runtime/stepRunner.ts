import type { Batch } from "../bundle/batch.js";
import type { Subset } from "../bundle/schedule.js";

/**
 * `loss`: mean over the counted labels. `gradients`: layer -> float32 of the size of its vector, for the trained layers only, ascending;
 * whoever asked for the step may change them.
 */
export interface StepResult {
  readonly loss: number;
  readonly gradients: ReadonlyMap<number, Float32Array>;
}

/** The scalars of one layer's update, float32, as the program `adamw` takes them. */
export interface LayerUpdate {
  readonly decay: number;
  readonly rate: number;
  readonly root: number;
}

/** Writes one sequence token by token. Logits are float32 [V], of the token after those given. */
export interface Decoder {
  /** Begins a sequence with 1 to T tokens. */
  prefill(ids: readonly number[]): Promise<Float32Array>;
  /** Appends a token; the sequence must have room for it. */
  next(id: number): Promise<Float32Array>;
  close(): Promise<void>;
}

/**
 * A runtime that computes steps of one bundle, one call at a time. `adapter` is float32 [N], and is never written to. Every method throws
 * RUNTIME_FAILED where the runtime refuses, GPU_FAILED where it runs on a GPU that is lost or computes nothing.
 */
export interface StepRunner {
  readonly name: string;
  readonly version: string;
  step(subset: Subset, batch: Batch, adapter: Float32Array): Promise<StepResult>;
  /** Mean loss over the batch's counted labels. */
  evaluate(batch: Batch, adapter: Float32Array): Promise<number>;
  /** AdamW for one layer, float32 of the size of its vector each: the first three are updated in place. `gradient` null: zero. */
  updateLayer(
    parameters: Float32Array,
    firstMoment: Float32Array,
    secondMoment: Float32Array,
    gradient: Float32Array | null,
    scalars: LayerUpdate,
  ): Promise<void>;
  /** For one sequence of tokens; the adapter must not change meanwhile. */
  decoder(adapter: Float32Array): Decoder;
  close(): Promise<void>;
}
