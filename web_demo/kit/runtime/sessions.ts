import type { Bundle } from "../bundle.js";
import { WEIGHTS_FILE, type Graph, type Manifest } from "../bundle/manifest.js";
import { unreadable } from "../bundle/manifestCheck.js";
import { checkExternalData, PROGRAM_BYTES } from "../bundle/onnxExternalData.js";
import { ANY, differences, FOR_HOST, type TensorType } from "../bundle/programs.js";
import type { Weights } from "../bundle/weights.js";
import { LcsbError } from "../faults.js";
import { reasonOf, some } from "../io/text.js";
import { unsuitable } from "./gpuLimits.js";
import type { Ort, OrtSession, SessionOptions, ValueMetadata } from "./ort.js";

const OPERATOR = /Could not find an implementation for ([A-Za-z0-9_]+)|([A-Za-z0-9_.:]+)\([-0-9]+\) is not a registered function\/op/;

/**
 * A program's session, on `device` if there is one; where its weights are constants, with those of the layer that is `number` of its kind.
 * Throws BUNDLE_UNREADABLE, RUNTIME_FAILED; GPU_UNSUITABLE where the device has no kernel for a node of it.
 */
export async function openSession(
  ort: Ort,
  version: string,
  bundle: Bundle,
  graph: Graph,
  weights: Weights,
  number: number,
  device: GPUDevice | null,
): Promise<OrtSession> {
  const { file, initializers } = graph;
  const { manifest, storage } = bundle;
  const path = `${storage.path}/${file}`;
  const program = await bundle.read(file, PROGRAM_BYTES);
  const size = manifest.files.get(WEIGHTS_FILE)!.size;
  checkExternalData(path, program, WEIGHTS_FILE, size, initializers.map((tensor) => tensor.name));
  const options = device === null ? sessionOptions(manifest) : gpuOptions(manifest, graph, device);
  if (initializers.length > 0) options.externalData = [{ path: WEIGHTS_FILE, data: new LayerBytes(weights, size, number) }];
  let session: OrtSession;
  try {
    session = await ort.InferenceSession.create(program, options);
  } catch (error) {
    throw device === null ? loadError(version, path, error) : unsuitable(`${path}: onnxruntime ${version}: ${reasonOf(error)}`, error);
  }
  checkSignature(session, graph, path);
  return session;
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
function sessionOptions(manifest: Manifest): SessionOptions {
  return {
    executionProviders: ["wasm"], enableCpuMemArena: false, enableMemPattern: false, logSeverityLevel: 3, extra: settings(manifest.runtime.sessionConfig),
  };
}

/**
 * What is on a GPU is so as a whole: a node that fell back would send what it takes there and back, and say nothing. Results stay on the GPU, but
 * for those that the host needs.
 */
function gpuOptions(manifest: Manifest, { outputs }: Graph, device: GPUDevice): SessionOptions {
  return {
    ...sessionOptions(manifest),
    executionProviders: [{ name: "webgpu", device }],
    extra: settings(new Map([...manifest.runtime.sessionConfig, ["session.disable_cpu_ep_fallback", "1"]])),
    preferredOutputLocation: Object.fromEntries(outputs.map(({ name }) => [name, FOR_HOST.has(name) ? "cpu" : "gpu-buffer"])),
  };
}

/** As the runtime's web builds take them: by the parts of their names. */
function settings(entries: ReadonlyMap<string, string>): Record<string, Record<string, string>> {
  const extra: Record<string, Record<string, string>> = {};
  for (const [key, value] of entries) {
    const [group, name] = key.split(".") as [string, string];
    (extra[group] ??= {})[name] = value;
  }
  return extra;
}

/** Throws BUNDLE_UNREADABLE unless the program takes and returns what the manifest says. */
function checkSignature(session: OrtSession, graph: Graph, path: string): void {
  const faults = [
    ...differences("inputs", new Map(graph.inputs.map((x) => [x.name, x])), typesOf(session.inputMetadata)),
    ...differences("outputs", new Map(graph.outputs.map((x) => [x.name, x])), typesOf(session.outputMetadata)),
  ];
  if (faults.length > 0) throw unreadable(`${path}: other than the manifest says: ${some(faults)}; export the bundle again`);
}

function typesOf(found: readonly ValueMetadata[]): Map<string, TensorType> {
  return new Map(
    found.map((value): [string, TensorType] => {
      if (!value.isTensor) return [value.name, { dtype: "no tensor", shape: [] }];
      return [value.name, { dtype: value.type, shape: value.shape.map((size) => (typeof size === "number" && size >= 0 ? size : ANY)) }];
    }),
  );
}

/** Names the operator that the runtime lacks, where that is the reason. */
function loadError(version: string, path: string, error: unknown): LcsbError {
  const text = reasonOf(error);
  const operator = OPERATOR.exec(text);
  const what = operator === null ? text : `it has no operator ${operator[1] ?? operator[2]}`;
  return new LcsbError("RUNTIME_FAILED", `${path}: onnxruntime ${version} cannot load it: ${what}`, [], error);
}
