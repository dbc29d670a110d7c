import type { Bundle } from "../bundle.js";
import type { Batch } from "../bundle/batch.js";
import type { Manifest } from "../bundle/manifest.js";
import { KEPT, program, TOKENS, type Role } from "../bundle/programs.js";
import { checkSubset, type Subset } from "../bundle/schedule.js";
import { floatsOf, vectorOf, type HostTensor } from "../bundle/weights.js";
import { BlockDecoder } from "./blockDecoder.js";
import { Crossing, CrossingGradients } from "./crossing.js";
import { OnnxRuntime, type Ort, type Values } from "./onnxRuntime.js";
import type { Decoder, LayerUpdate, StepResult, StepRunner } from "./stepRunner.js";

const MOMENTS = ["parameters", "first_moment", "second_moment"] as const;
const MAGNITUDE = 0x7fff;
const MOST_KEPT = 0x7bff; // of float16: what is beyond is infinite, or this where a runtime saturates

/** `betweenLayers` is awaited before each layer of a step, an evaluation or a prompt: it may wait, to pause, or throw, to cancel. */
export interface RunnerOptions {
  readonly threads?: number;
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
  private tables: Values = new Map(); // what layers read, of the step under way

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
    return new BlockRunner(bundle, await OnnxRuntime.open(ort, bundle, options.threads ?? 0), options);
  }

  // The step

  async step(subset: Subset, batch: Batch, adapter: Float32Array): Promise<StepResult> {
    checkSubset(subset, this.layers);
    const propagate = subset.propagate.filter((layer) => layer >= subset.train[0]!);
    const saved = new Map<number, HostTensor>(propagate.map((layer) => [layer, vectorOf(new Float32Array())]));
    const kept = new Map<number, Values>(propagate.filter((layer) => layer >= this.layers - this.keep).map((layer) => [layer, new Map()]));
    const values = new Crossing(this.manifest);
    const top = await this.forward(await this.embed(batch), adapter, values, saved, kept);
    await this.enter(this.layers, false);
    const head = await this.run("head", new Map([["h", top], ["labels", integers(batch.labels)]]), ["loss", "g"]);
    const gradients = await this.goBack(propagate, new Set(subset.train), head.get("g")!, adapter, values, saved, kept);
    return { loss: floatsOf(head.get("loss")!)[0]!, gradients };
  }

  /** From `g` down through `propagate`: the gradients of the layers of `train`, ascending. */
  private async goBack(
    propagate: readonly number[],
    train: ReadonlySet<number>,
    g: HostTensor,
    adapter: Float32Array,
    values: Crossing,
    saved: Map<number, HostTensor>,
    kept: Map<number, Values>,
  ): Promise<Map<number, Float32Array>> {
    const owed = new CrossingGradients(this.manifest, propagate);
    const gradients: [number, Float32Array][] = [];
    for (const layer of propagate.toReversed()) {
      await this.enter(layer, true);
      const feeds = new Map([
        ...this.feeds(layer, saved.get(layer)!, adapter, values), ["g", g], ...owed.owed(layer), ...(kept.get(layer) ?? []),
      ]);
      const trained = train.has(layer) ? ["d_adapter"] : []; // not asked for where no one trains
      const role = kept.has(layer) ? "backward_kept" : "backward";
      const results = await this.runLayer(layer, role, feeds, ["g_next", ...trained, ...owed.wanted(layer)]);
      owed.put(layer, results);
      if (train.has(layer)) gradients.push([layer, floatsOf(results.get("d_adapter")!)]);
      g = results.get("g_next")!;
      saved.delete(layer); // its memory is free for the layers below
      kept.delete(layer);
    }
    return new Map(gradients.reverse());
  }

  async evaluate(batch: Batch, adapter: Float32Array): Promise<number> {
    const top = await this.forward(await this.embed(batch), adapter, new Crossing(this.manifest), new Map(), new Map());
    await this.enter(this.layers, false);
    const results = await this.run("head_eval", new Map([["h", top], ["labels", integers(batch.labels)]]), ["loss"]);
    return floatsOf(results.get("loss")!)[0]!;
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
    const results = await this.run("adamw", feeds, MOMENTS.map((name) => `${name}_next`));
    MOMENTS.forEach((name, i) => state[i]!.set(floatsOf(results.get(`${name}_next`)!)));
  }

  /** h[0]; the tables that layers read stay here. */
  async embed(batch: Batch): Promise<HostTensor> {
    const { inputIds, positionIds, segmentIds } = batch;
    const feeds = new Map(TOKENS.map((name, i) => [name, integers([inputIds, positionIds, segmentIds][i]!)]));
    this.tables = await this.run("embed", feeds, this.manifest.graphs.get("embed")!.outputs.map((output) => output.name));
    return this.tables.get("h")!;
  }

  /**
   * h[0] -> h[L]. The input of a layer in `saved` is put there, and what one in `kept` keeps; a layer whose activations float16 does not hold
   * is taken out of `kept`.
   */
  private async forward(
    h: HostTensor,
    adapter: Float32Array,
    values: Crossing,
    saved: Map<number, HostTensor>,
    kept: Map<number, Values>,
  ): Promise<HostTensor> {
    for (let layer = 0; layer < this.layers; layer++) {
      if (saved.has(layer)) saved.set(layer, h);
      const names = kept.has(layer) ? this.keptNames(layer) : [];
      const results = await this.forwardLayer(layer, kept.has(layer) ? "forward_keep" : "forward", h, adapter, values, names);
      const activations = new Map(names.map((name) => [name, results.get(name)!]));
      if (![...activations.values()].every(holds)) kept.delete(layer);
      else if (kept.has(layer)) kept.set(layer, activations);
      h = results.get("h_next")!;
    }
    return h;
  }

  /** What a layer's program of `role` returns: `h_next`, what later layers take, and of its other results those of `names`. */
  async forwardLayer(
    layer: number,
    role: Role,
    h: HostTensor,
    adapter: Float32Array,
    values: Crossing,
    names: readonly string[],
  ): Promise<Values> {
    await this.enter(layer, false);
    const results = await this.runLayer(layer, role, this.feeds(layer, h, adapter, values), ["h_next", ...values.wanted(layer), ...names]);
    values.put(layer, results);
    return results;
  }

  private feeds(layer: number, h: HostTensor, adapter: Float32Array, values: Crossing): Map<string, HostTensor> {
    return new Map([["h", h], ...this.read(layer, this.tables), ...values.taken(layer), ["adapter", this.vector(adapter, layer)]]);
  }

  private async enter(layer: number, backward: boolean): Promise<void> {
    this.layer = layer;
    this.backward = backward;
    await this.betweenLayers();
  }

  // Programs and what they take

  run(name: string, feeds: Values, wanted: readonly string[]): Promise<Map<string, HostTensor>> {
    return this.runtime.run(name, feeds, wanted);
  }

  runLayer(layer: number, role: Role, feeds: Values, wanted: readonly string[]): Promise<Map<string, HostTensor>> {
    return this.runtime.run(program(this.manifest.layers[layer]!.kind, role), feeds, wanted, layer);
  }

  /** The `tables` that `layer` reads, by its kind's names. One that no program takes need not be there. */
  read(layer: number, tables: Values): Map<string, HostTensor> {
    const found = new Map<string, HostTensor>();
    for (const [name, table] of this.manifest.layers[layer]!.reads) {
      const value = tables.get(table);
      if (value !== undefined) found.set(name, value);
    }
    return found;
  }

  vector(adapter: Float32Array, layer: number): HostTensor {
    return vectorOf(this.bundle.layout.vector(adapter, layer));
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
export function holds({ dtype, data }: HostTensor): boolean {
  return dtype !== "float16" || (data as Uint16Array).every((half) => (half & MAGNITUDE) < MOST_KEPT);
}
