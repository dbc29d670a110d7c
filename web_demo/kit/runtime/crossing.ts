import type { Manifest } from "../bundle/manifest.js";
import { GRADIENT, givesOf, type TensorType } from "../bundle/programs.js";
import { floatsOf, zeros } from "../bundle/weights.js";
import { floatsIn, hostOf, type Value, type Values } from "./values.js";

// What crosses between layers besides h: values that one gives and later ones take, and their gradients on the way down.

/** The values of one pass up, each held under its name until the pass, or the step, ends. */
export class Crossing {
  private readonly given = new Map<string, Value>();

  constructor(private readonly manifest: Manifest) {}

  /** What `layer` takes, by its kind's names. */
  taken(layer: number): Values {
    return new Map([...this.manifest.layers[layer]!.takes].map(([name, value]) => [name, this.given.get(value)!]));
  }

  /** The results of `layer`'s program that later layers take. What it gives under no name is not asked for. */
  wanted(layer: number): string[] {
    return [...this.manifest.layers[layer]!.gives.keys()];
  }

  put(layer: number, results: Values): void {
    for (const [name, value] of this.manifest.layers[layer]!.gives) this.given.set(value, results.get(name)!);
  }
}

/**
 * The gradients of what crossed, on the way down: each value's is summed over the layers that took it before the layer that gave it runs.
 * `propagate`: the layers that run, from min(train) up. What a layer outside of them gave has no gradient.
 */
export class CrossingGradients {
  private readonly known: ReadonlySet<string>; // the values that have a gradient
  private readonly sums = new Map<string, Value>();

  constructor(
    private readonly manifest: Manifest,
    propagate: readonly number[],
  ) {
    this.known = new Set(propagate.flatMap((layer) => [...manifest.layers[layer]!.gives.values()]));
  }

  /** What `layer`'s backward is fed for all that its kind gives: zeros where nobody took it. */
  owed(layer: number): Values {
    const names = this.manifest.layers[layer]!.gives;
    const owed = ([name, type]: [string, TensorType]): [string, Value] => {
      const value = names.get(name);
      return [GRADIENT + name, (value === undefined ? undefined : this.sums.get(value)) ?? zeros(type.dtype, type.shape)];
    };
    return new Map([...givesOf(this.manifest, layer, "forward")].map(owed));
  }

  /** The gradients of what `layer` took, as its backward's results. */
  wanted(layer: number): string[] {
    return this.takes(layer).map(([name]) => GRADIENT + name);
  }

  /** Adds what `layer`'s backward returned to the sums that there were. */
  async put(layer: number, results: Values): Promise<void> {
    for (const [name, value] of this.takes(layer)) {
      const part = results.get(GRADIENT + name)!;
      const first = this.sums.get(value);
      if (first === undefined) {
        this.sums.set(value, part);
        continue;
      }
      const sum = await hostOf(first);
      add(floatsOf(sum), await floatsIn(part));
      this.sums.set(value, sum);
    }
  }

  private takes(layer: number): [string, string][] {
    return [...this.manifest.layers[layer]!.takes].filter(([, value]) => this.known.has(value));
  }
}

/** `values` plus `added`, in place. */
export function add(values: Float32Array, added: Float32Array): void {
  for (let i = 0; i < values.length; i++) values[i]! += added[i]!;
}
