import * as ort from "onnxruntime-web";
import { NodeStorage } from "./nodeFiles.js";
import { Bundle } from "../kit/bundle.js";
import { goldenBatchOf } from "../kit/bundle/golden.js";
import type { Graph } from "../kit/bundle/manifest.js";
import { BlockRunner } from "../kit/runtime/blockRunner.js";
import type { Ort } from "../kit/runtime/ort.js";

// Where a step's time goes, for benchmarks/web.py: `profile.js BUNDLE THREADS STEPS` takes steps that train every layer, on the recorded batches,
// after one that does not count. ONNX Runtime prints the profile of each program, an array of events; then comes an object with the seconds of a
// step, and of each program, in the same order, how often it ran before and since, for how many seconds, and how many bytes were copied into the
// runtime and out of it.

type Tensors = Readonly<Record<string, { readonly data: unknown }>>;
const bytesOf = (tensors: unknown) =>
  Object.values(tensors as Tensors).reduce((sum, { data }) => sum + (data as Uint8Array).byteLength, 0);

/** A program's session, which counts what it is asked. */
class Watched {
  runsBefore = 0;
  runs = 0;
  seconds = 0;
  bytesIn = 0;
  bytesOut = 0;

  private constructor(
    readonly name: string,
    readonly session: ort.InferenceSession,
  ) {}

  static async create(graphs: ReadonlyMap<string, Graph>, program: Uint8Array, options: ort.InferenceSession.SessionOptions): Promise<Watched> {
    const session = await ort.InferenceSession.create(program, { ...options, enableProfiling: true });
    const same = (a: readonly { name: string }[], b: readonly string[]) => a.map(({ name }) => name).join() === b.join();
    const [name] = [...graphs].find(([, graph]) => same(graph.inputs, session.inputNames) && same(graph.outputs, session.outputNames))!;
    return new Watched(name, session);
  }

  get inputMetadata() {
    return this.session.inputMetadata;
  }

  get outputMetadata() {
    return this.session.outputMetadata;
  }

  async run(feeds: ort.InferenceSession.FeedsType, wanted: ort.InferenceSession.FetchesType): Promise<ort.InferenceSession.ReturnType> {
    const began = performance.now();
    const results = await this.session.run(feeds, wanted);
    this.seconds += (performance.now() - began) / 1000;
    this.runs++;
    this.bytesIn += bytesOf(feeds);
    this.bytesOut += bytesOf(results);
    return results;
  }

  /** What ran so far does not count. */
  begin(): void {
    this.runsBefore = this.runs;
    this.runs = this.seconds = this.bytesIn = this.bytesOut = 0;
  }

  release(): Promise<void> {
    return this.session.release();
  }
}

async function steps(bundle: Bundle, runner: BlockRunner, adapter: Float32Array, count: number): Promise<number> {
  const { golden, manifest } = bundle;
  const layers = Array.from({ length: manifest.model.numHiddenLayers }, (_, layer) => layer);
  const began = performance.now();
  for (let number = 0; number < count; number++) {
    await runner.step({ train: layers, propagate: layers }, goldenBatchOf(golden, number % golden.batches.length), adapter);
  }
  return (performance.now() - began) / 1000;
}

async function profile(directory: string, threads: number, count: number): Promise<void> {
  const bundle = await Bundle.open(new NodeStorage(directory));
  const adapter = new Float32Array(bundle.layout.size);
  await bundle.readInitialAdapter(adapter);
  const programs: Watched[] = [];
  const create = async (program: Uint8Array, options: ort.InferenceSession.SessionOptions) => {
    programs.push(await Watched.create(bundle.manifest.graphs, program, options));
    return programs.at(-1)!;
  };
  const runner = await BlockRunner.open({ ...ort, InferenceSession: { create } } as unknown as Ort, bundle, { threads });
  await steps(bundle, runner, adapter, 1); // it loads the programs, and WebAssembly is still being compiled
  for (const program of programs) program.begin();
  const seconds = (await steps(bundle, runner, adapter, count)) / count;
  for (const { session } of programs) session.endProfiling();
  await runner.close();
  process.stdout.write(`${JSON.stringify({ seconds, programs: programs.map(({ session, ...told }) => told) })}\n`);
}

const [directory, threads, count] = process.argv.slice(2) as [string, string, string];
await profile(directory, Number(threads), Number(count));
