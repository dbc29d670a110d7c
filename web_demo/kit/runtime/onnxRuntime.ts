import { LcsbError } from "../faults.js";
import type { Bundle } from "../bundle.js";
import type { Graph } from "../bundle/manifest.js";
import { runsOnGpu } from "../bundle/programs.js";
import type { Weights } from "../bundle/weights.js";
import { reasonOf } from "../io/text.js";
import type { Gpu } from "./gpu.js";
import { GpuTensor } from "./gpuTensor.js";
import { hostTensor, ortTensor, type Ort, type OrtSession, type OrtTensor } from "./ort.js";
import { openSession } from "./sessions.js";
import { hostOf, isOfHost, type Value, type Values } from "./values.js";

const NAME = "onnxruntime";

/** The programs of a bundle on ONNX Runtime Web: all of them by WebAssembly, or those that can be on a GPU. */
export class OnnxRuntime {
  readonly name = NAME;
  readonly version: string;
  private readonly programs = new Map<string, Program>();

  private constructor(
    private readonly ort: Ort,
    private readonly bundle: Bundle,
    private readonly weights: Weights,
    private readonly gpu: Gpu | null,
  ) {
    const version = `web ${ort.env.versions.web ?? ort.env.versions.common}`;
    this.version = gpu === null ? version : `${version} (webgpu)`;
  }

  /**
   * `threads`: of all programs of the process, which the first session decides; 0: the runtime's choice. `gpu`: with this bundle on it; null: by
   * WebAssembly alone. Throws BUNDLE_UNREADABLE.
   */
  static async open(ort: Ort, bundle: Bundle, threads: number, gpu: Gpu | null): Promise<OnnxRuntime> {
    if (threads > 0) ort.env.wasm.numThreads = threads;
    return new OnnxRuntime(ort, bundle, await bundle.openWeights(), gpu);
  }

  /**
   * Runs a program with the weights that it takes, those of `layer` where it is a layer's. `feeds`: what else it takes, and perhaps more.
   * `wanted`: the results that are computed and returned, each in memory of its own. Throws RUNTIME_FAILED, BUNDLE_UNREADABLE, GPU_….
   */
  async run(program: string, feeds: Values, wanted: readonly string[], layer = 0): Promise<Map<string, Value>> {
    const made = this.programs.get(program) ?? this.program(program);
    this.programs.set(program, made);
    return made.run(feeds, wanted, this.bundle.manifest.layers[layer]!.number);
  }

  private program(name: string): Program {
    const graph = this.bundle.manifest.graphs.get(name)!;
    return new Program(this.ort, this.version, this.bundle, graph, this.weights, this.gpu, this.gpu !== null && runsOnGpu(name));
  }

  /** They are not run for a while. */
  async release(programs: readonly string[]): Promise<void> {
    for (const program of programs) {
      await this.programs.get(program)?.close();
      this.programs.delete(program);
    }
  }

  async close(): Promise<void> {
    await this.release([...this.programs.keys()]);
    this.weights.close();
  }
}

/** One program: its session, or a session a layer where the weights are its constants. `gpu`: the runner's; `onGpu`: whether it runs there. */
class Program {
  private readonly sessions = new Map<string, OrtSession>(); // but for those that are the GPU's

  constructor(
    private readonly ort: Ort,
    private readonly version: string,
    private readonly bundle: Bundle,
    private readonly graph: Graph,
    private readonly weights: Weights,
    private readonly gpu: Gpu | null,
    private readonly onGpu: boolean,
  ) {}

  /** `number`: the layer's in its kind. */
  async run(feeds: Values, wanted: readonly string[], number: number): Promise<Map<string, Value>> {
    this.gpu?.check();
    const session = await this.session(number);
    const given: Record<string, OrtTensor> = {};
    for (const { name, weight } of this.graph.inputs) {
      given[name] = weight === null ? await this.fed(feeds.get(name)!) : this.weight(weight, number);
    }
    try {
      const results = await this.guarded(session.run(given, wanted));
      return new Map(wanted.map((name) => [name, this.result(results[name]!)]));
    } catch (error) {
      if (error instanceof LcsbError) throw error;
      throw new LcsbError("RUNTIME_FAILED", `${this.graph.file}: onnxruntime ${this.version} cannot run it: ${reasonOf(error)}`, [], error);
    }
  }

  async close(): Promise<void> {
    for (const session of this.sessions.values()) await session.release();
    this.sessions.clear();
  }

  private async session(number: number): Promise<OrtSession> {
    const layer = this.graph.initializers.length === 0 ? 0 : number;
    const key = `${this.graph.file} ${layer}`;
    const sessions = this.onGpu ? this.gpu!.sessions : this.sessions;
    const device = this.onGpu ? this.gpu!.device : null;
    const made = sessions.get(key) ?? (await openSession(this.ort, this.version, this.bundle, this.graph, this.weights, layer, device));
    sessions.set(key, made);
    return made;
  }

  private guarded<T>(work: Promise<T>): Promise<T> {
    return this.onGpu ? this.gpu!.guarded(work) : work;
  }

  private weight(name: string, number: number): OrtTensor {
    return this.onGpu ? this.gpu!.weight(this.weights, name, number) : ortTensor(this.ort, this.weights.tensor(name, number));
  }

  private async fed(value: Value): Promise<OrtTensor> {
    return this.onGpu && !isOfHost(value) ? value.device() : ortTensor(this.ort, await hostOf(value));
  }

  private result(tensor: OrtTensor): Value {
    return this.gpu === null ? hostTensor(tensor) : new GpuTensor(this.gpu, tensor);
  }
}
