import type { LoraConfig } from "./config.js";
import type { AdapterMatrix } from "./manifest.js";

const PEFT_PREFIX = "base_model.model.";

/** The model that an adapter changes: its name, the SHA-256 of its frozen tensors, and the toolkit's version; null where the bundle does not say. */
export interface Base {
  readonly name: string;
  readonly digest: string | null;
  readonly toolkit: string | null;
}

/**
 * Where each layer's vector lies in the adapter, float32 [N] of all layers one after the other, and each LoRA matrix in the vector.
 * `matrices`: of each kind of layers; `kinds`: of each layer. `prefix`: what the names of a checkpoint's text model begin with. `base` null:
 * of no bundle.
 *
 * For a projection W [out, in]: A is [rank, in], B is [out, rank], and y = x Wᵀ + alpha/rank * (x Aᵀ) Bᵀ.
 */
export class AdapterLayout {
  private readonly ends: readonly number[];

  constructor(
    readonly lora: LoraConfig,
    private readonly matricesOfKind: ReadonlyMap<string, readonly AdapterMatrix[]>,
    private readonly kinds: readonly string[],
    private readonly prefix: string,
    readonly base: Base | null,
  ) {
    const ends = [0];
    for (const kind of kinds) ends.push(ends.at(-1)! + vectorSize(matricesOfKind.get(kind)!));
    this.ends = ends;
  }

  get numLayers(): number {
    return this.kinds.length;
  }

  /** Of the whole adapter, in elements. */
  get size(): number {
    return this.ends.at(-1)!;
  }

  /** The adapted projections of all layers by their names within one, such as self_attn.q_proj. */
  get modules(): Set<string> {
    return new Set([...this.matricesOfKind.values()].flatMap(projections));
  }

  /** Likewise, of a layer. */
  modulesOf(layer: number): string[] {
    return projections(this.matricesOfKind.get(this.kinds[layer]!)!);
  }

  /** A projection's name in the checkpoint, such as model.layers.0.self_attn.q_proj. */
  moduleName(layer: number, module: string): string {
    return `${this.prefix}layers.${layer}.${module}`;
  }

  /** PEFT's name of a layer's matrix, such as self_attn.q_proj.lora_A. */
  tensorName(layer: number, matrix: string): string {
    return `${PEFT_PREFIX}${this.moduleName(layer, matrix)}.weight`;
  }

  /** The same matrices where the model's tensors are called otherwise. */
  withPrefix(prefix: string): AdapterLayout {
    return new AdapterLayout(this.lora, this.matricesOfKind, this.kinds, prefix, this.base);
  }

  /** Of each of PEFT's tensors. */
  shapes(): Map<string, readonly number[]> {
    const shapes = (kind: string, layer: number) =>
      this.matricesOfKind.get(kind)!.map(({ name, shape }) => [this.tensorName(layer, name), shape] as const);
    return new Map(this.kinds.flatMap(shapes));
  }

  /** Of a layer's vector, in elements. */
  vectorSize(layer: number): number {
    return this.ends[layer + 1]! - this.ends[layer]!;
  }

  /** A layer's vector within `adapter`, or whatever else is [N]; it shares the memory. */
  vector(adapter: Float32Array, layer: number): Float32Array {
    return adapter.subarray(this.ends[layer], this.ends[layer + 1]);
  }

  /** PEFT's tensors in `adapter`: name, shape, and elements, which share the memory. */
  named(adapter: Float32Array): Map<string, { shape: readonly number[]; values: Float32Array }> {
    const found = new Map<string, { shape: readonly number[]; values: Float32Array }>();
    this.kinds.forEach((kind, layer) => {
      const vector = this.vector(adapter, layer);
      for (const { name, shape, offset } of this.matricesOfKind.get(kind)!) {
        const values = vector.subarray(offset, offset + shape[0]! * shape[1]!);
        found.set(this.tensorName(layer, name), { shape, values });
      }
    });
    return found;
  }
}

function projections(matrices: readonly AdapterMatrix[]): string[] {
  const names = matrices.map((matrix) => matrix.name);
  return names.filter((name) => name.endsWith(".lora_A")).map((name) => name.slice(0, -".lora_A".length));
}

function vectorSize(matrices: readonly AdapterMatrix[]): number {
  const last = matrices.at(-1);
  return last === undefined ? 0 : last.offset + last.shape[0]! * last.shape[1]!;
}
