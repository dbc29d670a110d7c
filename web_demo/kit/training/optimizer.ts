import type { AdapterLayout } from "../bundle/adapterLayout.js";
import type { AdamWConfig } from "../bundle/config.js";
import { reserveFloats } from "../io/files.js";
import type { LayerUpdate, StepRunner } from "../runtime/stepRunner.js";

// The largest float16, which whoever loads the adapter may compute in. LoRA's parameters are below 1 and move by some learning rates a step.
const MOST_PARAMETER = 65504;
const MOST_FLOAT = 3.4028234663852886e38; // the largest float32

/** Parameters and AdamW's moments, float32 [N] each. */
export interface AdapterState {
  readonly adapter: Float32Array;
  readonly firstMoment: Float32Array;
  readonly secondMoment: Float32Array;
}

/** Zeros. Throws MEMORY_TOO_SMALL. */
export function newState(size: number): AdapterState {
  return { adapter: reserveFloats(size), firstMoment: reserveFloats(size), secondMoment: reserveFloats(size) };
}

export function copyState(source: AdapterState, target: AdapterState): void {
  target.adapter.set(source.adapter);
  target.firstMoment.set(source.firstMoment);
  target.secondMoment.set(source.secondMoment);
}

/**
 * Decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), element for element as `torch.optim.AdamW`, layer by layer as `layout`
 * says. A layer that a step does not train gets a zero gradient, or rests (`config.implicitUpdates`). `runner` computes a layer's update by the
 * program `adamw`.
 */
export class AdamW {
  /** How often each layer was updated. */
  readonly updates: Float64Array;

  constructor(
    readonly state: AdapterState,
    readonly layout: AdapterLayout,
    readonly config: AdamWConfig,
    private readonly runner: StepRunner,
  ) {
    this.updates = new Float64Array(layout.numLayers);
  }

  /**
   * One step. `gradients`: layer -> float32 of the size of its vector, for the trained layers. `trainable`: the layers that the method trains
   * in any step (null: all); another one is no parameter of the run, and stays bit for bit: no momentum moves it, and no weight decay shrinks
   * it.
   */
  async update(gradients: ReadonlyMap<number, Float32Array>, learningRate: number, trainable: ReadonlySet<number> | null = null): Promise<void> {
    const { adapter, firstMoment, secondMoment } = this.state;
    for (let layer = 0; layer < this.updates.length; layer++) {
      const moved = this.config.implicitUpdates === "momentum" && (trainable === null || trainable.has(layer));
      if (!gradients.has(layer) && !moved) continue;
      const count = ++this.updates[layer]!;
      const [parameters, first, second] = [adapter, firstMoment, secondMoment].map((values) => this.layout.vector(values, layer));
      await this.runner.updateLayer(parameters!, first!, second!, gradients.get(layer) ?? null, this.scalars(count, learningRate));
    }
  }

  /**
   * What is not finite, or of the parameters absurd, after an update, if anything. A second moment that overflowed would keep its parameter
   * where it is, and no loss shows that.
   */
  fault(): string | null {
    for (const [name, values, most] of [
      ["a parameter", this.state.adapter, MOST_PARAMETER],
      ["a first moment", this.state.firstMoment, MOST_FLOAT],
      ["a second moment", this.state.secondMoment, MOST_FLOAT],
    ] as const) {
      const bad = values.findIndex((value) => !(Math.abs(value) <= most));
      if (bad >= 0) return `${name} of ${values[bad]}`;
    }
    return null;
  }

  private scalars(count: number, learningRate: number): LayerUpdate {
    const [beta1, beta2] = this.config.betas as readonly [number, number];
    return {
      decay: Math.fround(1 - learningRate * this.config.weightDecay),
      rate: Math.fround(learningRate / (1 - beta1 ** count)),
      root: Math.fround(Math.sqrt(1 - beta2 ** count)),
    };
  }
}

/**
 * The Euclidean norm over all trained layers, summed in double precision: so it is the same on every processor to some 1e-15, and the float32
 * factor that clipping makes of it the same bits but once in many million steps.
 */
export function gradientNorm(gradients: ReadonlyMap<number, Float32Array>): number {
  let sum = 0;
  for (const gradient of gradients.values()) sum += sumOfSquares(gradient);
  return Math.sqrt(sum);
}

/** Scales by `clipNorm / norm`, in place, where the norm exceeds it (`torch.nn.utils.clip_grad_norm_`). */
export function clipGradients(gradients: ReadonlyMap<number, Float32Array>, norm: number, clipNorm: number): void {
  const factor = Math.fround(Math.min(1, clipNorm / (norm + 1e-6)));
  if (factor !== 1) for (const gradient of gradients.values()) scale(gradient, factor);
}

/** In place, by a float32. */
export function scale(values: Float32Array, factor: number): void {
  for (let i = 0; i < values.length; i++) values[i]! *= factor;
}

export function sumOfSquares(values: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! * values[i]!;
  return sum;
}
