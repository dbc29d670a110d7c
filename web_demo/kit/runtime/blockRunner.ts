import type { Bundle } from "../bundle.js";
import type { Batch } from "../bundle/batch.js";
import type { Manifest } from "../bundle/manifest.js";
import { KEPT, program, TOKENS, type Role } from "../bundle/programs.js";
import { checkSubset, type Subset } from "../bundle/schedule.js";
import { vectorOf, type HostTensor } from "../bundle/weights.js";
import { BlockDecoder } from "./blockDecoder.js";
import { CrossingGradients } from "./crossing.js";
import type { Gpu } from "./gpu.js";
import { OnnxRuntime } from "./onnxRuntime.js";
import type { Ort } from "./ort.js";
import { Pass } from "./pass.js";
import type { Decoder, LayerUpdate, StepResult, StepRunner } from "./stepRunner.js";
import { floatsIn, hostOf, type Value, type Values } from "./values.js";

const MOMENTS = ["parameters", "first_moment", "second_moment"] as const;
const MAGNITUDE = 0x7fff;
const MOST_KEPT = 0x7bff; // of float16: what is beyond is infinite, or this where a runtime saturates

/**
 * `gpu`: with this bundle on it, which runs the layers. `betweenLayers` is awaited before each layer of a step, an evaluation or a prompt:
 * it may wait, to pause, or throw, to cancel.
 */
export interface RunnerOptions {
  readonly threads?: number;
  readonly gpu?: Gpu | null;
  readonly keep?: number;
  readonly betweenLayers?: () => Promise<void>;
}

/**
 * Steps by block programs, by kind of layer, and a loop over the layers.
 *
 * `keep`: the activations of that many of the top layers are kept in the forward, and their backward does not recompute them; a layer whose
 * activations float16 does not hold recomputes them in that step all the same. While `betweenLayers` is awaited, `layer` and `backward` say
 * what comes next; when it throws, nothing has changed.
 */
export class BlockRunner implements StepRunner {
  readonly name: string;
  readonly version: string;
  readonly manifest: Manifest;
  readonly layers: number;
  /** The layer whose program runs next, `layers` for the head. */
  layer = 0;
  /** Whether it runs backward. */
  backward = false;
  private readonly keep: number;
  private readonly betweenLayers: () => Promise<void>;

  private constructor(
    readonly bundle: Bundle,
    private readonly runtime: OnnxRuntime,
    options: RunnerOptions,
  ) {
    this.manifest = bundle.manifest;
    this.layers = this.manifest.model.numHiddenLayers;
    this.keep = Math.min(options.keep ?? 0, this.layers);
    this.betweenLayers = options.betweenLayers ?? (async () => {});
    this.name = runtime.name;
    this.version = runtime.version;
  }

  /** Throws BUNDLE_UNREADABLE. */
  static async open(ort: Ort, bundle: Bundle, options: RunnerOptions = {}): Promise<BlockRunner> {
    return new BlockRunner(bundle, await OnnxRuntime.open(ort, bundle, options.threads ?? 0, options.gpu ?? null), options);
  }

  // The step

  async step(subset: Subset, batch: Batch, adapter: Float32Array): Promise<StepResult> {
    checkSubset(subset, this.layers);
    const propagate = subset.propagate.filter((layer) => layer >= subset.train[0]!);
    const saved = new Map<number, Value>(propagate.map((layer) => [layer, vectorOf(new Float32Array())]));
    const kept = new Map<number, Values>(propagate.filter((layer) => layer >= this.layers - this.keep).map((layer) => [layer, new Map()]));
    const pass = new Pass(this.manifest, adapter);
    try {
      const top = await this.forward(pass, await this.embed(pass, batch), saved, kept);
      await this.enter(this.layers, false);
      const head = await this.run(pass, "head", new Map([["h", top], ["labels", integers(batch.labels)]]), ["loss", "g"]);
      pass.drop(top);
      const gradients = await this.goBack(pass, propagate, new Set(subset.train), head.get("g")!, saved, kept);
      return { loss: (await floatsIn(head.get("loss")!))[0]!, gradients };
    } finally {
      pass.dropAll();
    }
  }

  /** From `g` down through `propagate`: the gradients of the layers of `train`, ascending. */
  private async goBack(
    pass: Pass,
    propagate: readonly number[],
    train: ReadonlySet<number>,
    g: Value,
    saved: Map<number, Value>,
    kept: Map<number, Values>,
  ): Promise<Map<number, Float32Array>> {
    const owed = new CrossingGradients(this.manifest, propagate);
    const gradients: [number, Float32Array][] = [];
    for (const layer of propagate.toReversed()) {
      await this.enter(layer, true);
      const h = saved.get(layer)!;
      const feeds = new Map([...this.feeds(pass, layer, h), ["g", g], ...owed.owed(layer), ...(kept.get(layer) ?? [])]);
      const trained = train.has(layer) ? ["d_adapter"] : []; // not asked for where no one trains
      const role = kept.has(layer) ? "backward_kept" : "backward";
      const results = await this.runLayer(pass, layer, role, feeds, ["g_next", ...trained, ...owed.wanted(layer)]);
      await owed.put(layer, results);
      if (train.has(layer)) gradients.push([layer, await floatsIn(results.get("d_adapter")!)]);
      for (const used of [h, g, ...(kept.get(layer)?.values() ?? [])]) pass.drop(used); // their memory is free for the layers below
      g = results.get("g_next")!;
      saved.delete(layer);
      kept.delete(layer);
    }
    return new Map(gradients.reverse());
  }

  async evaluate(batch: Batch, adapter: Float32Array): Promise<number> {
    const pass = new Pass(this.manifest, adapter);
    try {
      const top = await this.forward(pass, await this.embed(pass, batch), new Map(), new Map());
      await this.enter(this.layers, false);
      const results = await this.run(pass, "head_eval", new Map([["h", top], ["labels", integers(batch.labels)]]), ["loss"]);
      return (await floatsIn(results.get("loss")!))[0]!;
    } finally {
      pass.dropAll();
    }
  }

  decoder(adapter: Float32Array): Decoder {
    return new BlockDecoder(this, adapter);
  }

  async updateLayer(
    parameters: Float32Array,
    firstMoment: Float32Array,
    secondMoment: Float32Array,
    gradient: Float32Array | null,
    scalars: LayerUpdate,
  ): Promise<void> {
    const state = [parameters, firstMoment, secondMoment];
    const feeds = new Map(MOMENTS.map((name, i): [string, HostTensor] => [name, vectorOf(state[i]!)]));
    feeds.set("gradient", vectorOf(gradient ?? new Float32Array(parameters.length)));
    for (const name of ["decay", "rate", "root"] as const) {
      feeds.set(name, { dtype: "float32", shape: [], data: Float32Array.of(scalars[name]) });
    }
    const results = await this.runtime.run("adamw", feeds, MOMENTS.map((name) => `${name}_next`));
    for (const [i, name] of MOMENTS.entries()) state[i]!.set(await floatsIn(results.get(`${name}_next`)!));
  }

  /** h[0]; the tables that layers read are the pass's. */
  async embed(pass: Pass, batch: Batch): Promise<Value> {
    const { inputIds, positionIds, segmentIds } = batch;
    const feeds = new Map(TOKENS.map((name, i) => [name, integers([inputIds, positionIds, segmentIds][i]!)]));
    return this.embedBy(pass, "embed", feeds);
  }

  /** Likewise by another program of the same results. */
  async embedBy(pass: Pass, program: string, feeds: Values): Promise<Value> {
    pass.tables = await this.run(pass, program, feeds, this.manifest.graphs.get(program)!.outputs.map((output) => output.name));
    return pass.tables.get("h")!;
  }

  /**
   * h[0] -> h[L]. The input of a layer in `saved` is put there, and what one in `kept` keeps; a layer whose activations float16 does not hold
   * is taken out of `kept`. Any other input is dropped.
   */
  private async forward(pass: Pass, h: Value, saved: Map<number, Value>, kept: Map<number, Values>): Promise<Value> {
    for (let layer = 0; layer < this.layers; layer++) {
      const names = kept.has(layer) ? this.keptNames(layer) : [];
      const results = await this.forwardLayer(pass, layer, kept.has(layer) ? "forward_keep" : "forward", h, names);
      if (saved.has(layer)) saved.set(layer, h);
      else pass.drop(h);
      if (kept.has(layer)) await this.keepActivations(pass, layer, new Map(names.map((name) => [name, results.get(name)!])), kept);
      h = results.get("h_next")!;
    }
    return h;
  }

  private async keepActivations(pass: Pass, layer: number, activations: Values, kept: Map<number, Values>): Promise<void> {
    const whole = await Promise.all([...activations.values()].map(holds));
    if (whole.every(Boolean)) return void kept.set(layer, activations);
    kept.delete(layer);
    for (const value of activations.values()) pass.drop(value);
  }

  /** What a layer's program of `role` returns: `h_next`, what later layers take, and of its other results those of `names`. */
  async forwardLayer(pass: Pass, layer: number, role: Role, h: Value, names: readonly string[]): Promise<Values> {
    await this.enter(layer, false);
    const results = await this.runLayer(pass, layer, role, this.feeds(pass, layer, h), ["h_next", ...pass.crossing.wanted(layer), ...names]);
    pass.crossing.put(layer, results);
    return results;
  }

  /** What every program of a layer takes. A table that none of them does need not be there. */
  feeds({ adapter, tables, crossing }: Pass, layer: number, h: Value): Map<string, Value> {
    const reads = [...this.manifest.layers[layer]!.reads].filter(([, table]) => tables.has(table));
    const vector = vectorOf(this.bundle.layout.vector(adapter, layer));
    return new Map([["h", h], ...reads.map(([name, table]) => [name, tables.get(table)!] as const), ...crossing.taken(layer), ["adapter", vector]]);
  }

  private async enter(layer: number, backward: boolean): Promise<void> {
    this.layer = layer;
    this.backward = backward;
    await this.betweenLayers();
  }

  // Programs

  /** The results are the pass's to drop. */
  async run(pass: Pass, name: string, feeds: Values, wanted: readonly string[], layer?: number): Promise<Values> {
    const results = await this.runtime.run(name, feeds, wanted, layer);
    pass.hold(results);
    return results;
  }

  runLayer(pass: Pass, layer: number, role: Role, feeds: Values, wanted: readonly string[]): Promise<Values> {
    return this.run(pass, program(this.manifest.layers[layer]!.kind, role), feeds, wanted, layer);
  }

  release(programs: readonly string[]): Promise<void> {
    return this.runtime.release(programs);
  }

  close(): Promise<void> {
    return this.runtime.close();
  }

  private keptNames(layer: number): string[] {
    const { outputs } = this.manifest.graphs.get(program(this.manifest.layers[layer]!.kind, "forward_keep"))!;
    return outputs.map((output) => output.name).filter((name) => name.startsWith(KEPT));
  }
}

/** int64 of whole numbers. */
export function integers(values: ArrayLike<number>): HostTensor {
  return { dtype: "int64", shape: [values.length], data: BigInt64Array.from(Array.from(values), BigInt) };
}

/** Whether a kept tensor has the values that it was made of: none of float16 is infinite, NaN or the largest there is, 65504. */
export async function holds(value: Value): Promise<boolean> {
  return value.dtype !== "float16" || ((await hostOf(value)).data as Uint16Array).every((half) => (half & MAGNITUDE) < MOST_KEPT);
}
