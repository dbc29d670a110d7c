import type * as OnnxRuntimeWeb from "onnxruntime-web/wasm";
import { LcsbError } from "../faults.js";
import type { Bundle } from "../bundle.js";
import { WEIGHTS_FILE, type Graph, type Manifest } from "../bundle/manifest.js";
import { unreadable } from "../bundle/manifestCheck.js";
import { checkExternalData, PROGRAM_BYTES } from "../bundle/onnxExternalData.js";
import { ANY, differences, type TensorType } from "../bundle/programs.js";
import type { HostTensor, TensorData, Weights } from "../bundle/weights.js";
import { reasonOf, some } from "../io/text.js";

/** Stock `onnxruntime-web`, its build with WebAssembly: whoever has loaded it gives it, as a page and Node load it from different places. */
export type Ort = typeof OnnxRuntimeWeb;

export type Values = ReadonlyMap<string, HostTensor>; // by the names of a program's inputs or outputs

const NAME = "onnxruntime";
const OPERATOR = /Could not find an implementation for ([A-Za-z0-9_]+)|([A-Za-z0-9_.:]+)\([-0-9]+\) is not a registered function\/op/;

/** The programs of a bundle on ONNX Runtime Web. */
export class OnnxRuntime {
  readonly name = NAME;
  readonly version: string;
  private readonly programs = new Map<string, Program>();

  private constructor(
    private readonly ort: Ort,
    private readonly bundle: Bundle,
    private readonly weights: Weights,
  ) {
    this.version = `web ${ort.env.versions.web ?? ort.env.versions.common}`;
  }

  /** `threads`: of all programs of the process, which the first session decides; 0: the runtime's choice. Throws BUNDLE_UNREADABLE. */
  static async open(ort: Ort, bundle: Bundle, threads: number): Promise<OnnxRuntime> {
    if (threads > 0) ort.env.wasm.numThreads = threads;
    return new OnnxRuntime(ort, bundle, await bundle.openWeights());
  }

  /**
   * Runs a program with the weights that it takes, those of `layer` where it is a layer's. `feeds`: what else it takes, and perhaps more.
   * `wanted`: the results that are computed and returned, each in memory of its own. Throws RUNTIME_FAILED, BUNDLE_UNREADABLE.
   */
  async run(program: string, feeds: Values, wanted: readonly string[], layer = 0): Promise<Map<string, HostTensor>> {
    let made = this.programs.get(program);
    if (made === undefined) {
      made = new Program(this.ort, this.version, this.bundle, this.bundle.manifest.graphs.get(program)!, this.weights);
      this.programs.set(program, made);
    }
    return made.run(feeds, wanted, this.bundle.manifest.layers[layer]!.number);
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

/** One program: its session, or a session a layer where the weights are its constants. */
class Program {
  private readonly sessions = new Map<number, OnnxRuntimeWeb.InferenceSession>();

  constructor(
    private readonly ort: Ort,
    private readonly version: string,
    private readonly bundle: Bundle,
    private readonly graph: Graph,
    private readonly weights: Weights,
  ) {}

  /** `number`: the layer's in its kind. */
  async run(feeds: Values, wanted: readonly string[], number: number): Promise<Map<string, HostTensor>> {
    const session = await this.session(number);
    const given: Record<string, OnnxRuntimeWeb.Tensor> = {};
    for (const { name, weight } of this.graph.inputs) {
      given[name] = this.tensor(weight === null ? feeds.get(name)! : this.weights.tensor(weight, number));
    }
    try {
      const results = await session.run(given, wanted);
      return new Map(wanted.map((name) => [name, hostTensor(results[name]!)]));
    } catch (error) {
      throw new LcsbError("RUNTIME_FAILED", `${this.graph.file}: onnxruntime ${this.version} cannot run it: ${reasonOf(error)}`, [], error);
    }
  }

  async close(): Promise<void> {
    for (const session of this.sessions.values()) await session.release();
    this.sessions.clear();
  }

  private async session(number: number): Promise<OnnxRuntimeWeb.InferenceSession> {
    const key = this.graph.initializers.length === 0 ? 0 : number;
    const made = this.sessions.get(key) ?? (await this.load(key));
    this.sessions.set(key, made);
    return made;
  }

  private async load(number: number): Promise<OnnxRuntimeWeb.InferenceSession> {
    const { file, initializers } = this.graph;
    const { manifest, storage } = this.bundle;
    const path = `${storage.path}/${file}`;
    const program = await this.bundle.read(file, PROGRAM_BYTES);
    const size = manifest.files.get(WEIGHTS_FILE)!.size;
    checkExternalData(path, program, WEIGHTS_FILE, size, initializers.map((tensor) => tensor.name));
    const options = sessionOptions(manifest);
    if (initializers.length > 0) options.externalData = [{ path: WEIGHTS_FILE, data: new LayerBytes(this.weights, size, number) }];
    let session: OnnxRuntimeWeb.InferenceSession;
    try {
      session = await this.ort.InferenceSession.create(program, options);
    } catch (error) {
      throw loadError(this.version, path, error);
    }
    checkSignature(session, this.graph, path);
    return session;
  }

  private tensor({ dtype, shape, data }: HostTensor): OnnxRuntimeWeb.Tensor {
    return new this.ort.Tensor(dtype as "float32", data as Float32Array, shape);
  }
}

/**
 * `weights.bin` as a program with constants sees it, the bytes of another layer in the place of the first one's: the runtime asks for each
 * constant by its place, and the whole is never there.
 */
class LayerBytes extends Uint8Array {
  constructor(
    private readonly weights: Weights,
    private readonly size: number,
    private readonly number: number,
  ) {
    super(0);
  }

  override get byteLength(): number {
    return this.size;
  }

  override subarray(begin = 0, end = this.size): Uint8Array<ArrayBuffer> {
    return this.weights.replaced(begin, end - begin, this.number) as Uint8Array<ArrayBuffer>;
  }
}

/**
 * The manifest's settings. Without an arena and without values laid out in advance, what a program works with is free for the next one: the
 * heap, which never shrinks, holds one program's working set.
 */
function sessionOptions(manifest: Manifest): OnnxRuntimeWeb.InferenceSession.SessionOptions {
  const extra: Record<string, Record<string, string>> = {};
  for (const [key, value] of manifest.runtime.sessionConfig) {
    const [group, name] = key.split(".") as [string, string];
    (extra[group] ??= {})[name] = value;
  }
  return { executionProviders: ["wasm"], enableCpuMemArena: false, enableMemPattern: false, logSeverityLevel: 3, extra };
}

/** Throws BUNDLE_UNREADABLE unless the program takes and returns what the manifest says. */
function checkSignature(session: OnnxRuntimeWeb.InferenceSession, graph: Graph, path: string): void {
  const faults = [
    ...differences("inputs", new Map(graph.inputs.map((x) => [x.name, x])), typesOf(session.inputMetadata)),
    ...differences("outputs", new Map(graph.outputs.map((x) => [x.name, x])), typesOf(session.outputMetadata)),
  ];
  if (faults.length > 0) throw unreadable(`${path}: other than the manifest says: ${some(faults)}; export the bundle again`);
}

function typesOf(found: readonly OnnxRuntimeWeb.InferenceSession.ValueMetadata[]): Map<string, TensorType> {
  return new Map(
    found.map((value): [string, TensorType] => {
      if (!value.isTensor) return [value.name, { dtype: "no tensor", shape: [] }];
      return [value.name, { dtype: value.type, shape: value.shape.map((size) => (typeof size === "number" && size >= 0 ? size : ANY)) }];
    }),
  );
}

/** float16 as its bits: some browsers have an array for it, some not. */
function hostTensor({ type, dims, data }: OnnxRuntimeWeb.Tensor): HostTensor {
  const values = data as TensorData;
  if (type !== "float16") return { dtype: type, shape: dims, data: values };
  return { dtype: type, shape: dims, data: new Uint16Array(values.buffer as ArrayBuffer, values.byteOffset, values.length) };
}

/** Names the operator that the runtime lacks, where that is the reason. */
function loadError(version: string, path: string, error: unknown): LcsbError {
  const text = reasonOf(error);
  const operator = OPERATOR.exec(text);
  const what = operator === null ? text : `it has no operator ${operator[1] ?? operator[2]}`;
  return new LcsbError("RUNTIME_FAILED", `${path}: onnxruntime ${version} cannot load it: ${what}`, [], error);
}
