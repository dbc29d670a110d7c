import { flag, int32, integer, list, map, nullable, number, optional, record, text, type Decoded } from "../io/records.js";
import { AdapterLayout } from "./adapterLayout.js";
import { adamWConfig, loraConfig, modelConfig, quantizationConfig } from "./config.js";
import { scheduleConfig, subset } from "./schedule.js";

export const FORMAT_VERSION = 3;
export const TARGET = "onnxruntime"; // the one that runs in a browser
export const MANIFEST_FILE = "manifest.json";
export const WEIGHTS_FILE = "weights.bin";
export const ADAPTER_FILE = "adapter.safetensors";
export const GOLDEN_FILE = "golden.json";
export const LAYERS = "layers."; // what the names of tensors begin with that are stacked over the layers of a kind
export const PACKED = ".packed"; // what a quantised matrix's name ends with, with several values in a byte
export const SCALE = ".scale"; // and that of its scales

/** What one layer does on T tokens; `backward` contains the recomputed forward, `backwardKept` reads what the forward kept instead. */
const blockWork = record({ forward: integer, backward: integer, backwardKept: integer });
export type BlockWork = Decoded<typeof blockWork>;

/** One LoRA matrix within a layer's flat vector: `shape` row-major from `offset` (elements). `name`: such as self_attn.q_proj.lora_A. */
export const adapterMatrix = record({ name: text, shape: list(int32), offset: int32 });
export type AdapterMatrix = Decoded<typeof adapterMatrix>;

/** float32 that a layer remembers while a text is written. `byPosition`: [T, …], to which each token adds one place; else it is replaced. */
const stateTensor = record({ name: text, shape: list(integer), byPosition: flag });
export type StateTensor = Decoded<typeof stateTensor>;

/**
 * A kind of layers, with programs of its own. `reads` are tables without a gradient that `embed` makes once a step; `gives` are values that
 * later layers take, and whose gradients come back summed. `size`: elements of a layer's adapter. `attentionWidth`: query heads times head
 * dimension. `flops`: of matrix products; `decompressedBytes`: of float32 weights.
 */
const kind = record({
  name: text,
  reads: list(text),
  takes: list(text),
  gives: list(text),
  size: int32,
  matrices: list(adapterMatrix),
  state: list(stateTensor),
  attentionWidth: integer,
  flops: blockWork,
  decompressedBytes: blockWork,
});
export type Kind = Decoded<typeof kind>;

/**
 * `number`: among the layers of its kind, by which their weights are stacked. `offset`: of its vector in the flat adapter. `reads`, `takes`,
 * `gives`: the kind's name -> that of the step's table or value; what it gives under no name is dropped.
 */
const layer = record({
  kind: text,
  number: int32,
  offset: int32,
  reads: map(text),
  takes: optional(map(text), new Map<string, string>()),
  gives: optional(map(text), new Map<string, string>()),
});
export type Layer = Decoded<typeof layer>;

/** An input or output of a graph; -1: any size. `weight`: the tensor of `weights.bin` to feed, of `layers.…` the layer's own slice. */
const graphTensor = record({ name: text, dtype: text, shape: list(integer), meaning: text, weight: optional(nullable(text), null) });
export type GraphTensor = Decoded<typeof graphTensor>;

/**
 * A program: its file, and its inputs and outputs in order. `initializers`: weights that it holds as constants, which its sessions, one a
 * layer, are given when they are made. `workingBytes`: about what the runtime allocates while it runs; null where it was not determined.
 */
const graph = record({
  file: text,
  inputs: list(graphTensor),
  outputs: list(graphTensor),
  initializers: optional(list(graphTensor), []),
  workingBytes: optional(nullable(integer), null),
});
export type Graph = Decoded<typeof graph>;

/** `shape` is row-major; of a tensor of the blocks (`layers.KIND.NAME`) the first dimension is the layer's number in its kind. `offset` in bytes. */
const weightTensor = record({ name: text, dtype: text, shape: list(integer), offset: integer });
export type WeightTensor = Decoded<typeof weightTensor>;

const fileEntry = record({ size: integer, sha256: text });

/**
 * `manifest.json`: all that a device must know of a bundle, as data. `files` lists every file but the manifest. `schedule`: the steps of one
 * cycle. `accuracyLevel`: of the forward's products, 4 rounds activations to int8. `base`: SHA-256 of the frozen model, by which an adapter
 * knows its base. `digest`: SHA-256 of the manifest's own bytes, in which these 64 characters are zeros.
 */
export const manifest = record({
  formatVersion: integer,
  target: text,
  source: text,
  model: modelConfig,
  lora: loraConfig,
  kinds: list(kind),
  layers: list(layer),
  quantization: quantizationConfig,
  seqLen: int32,
  seed: integer,
  scheduleConfig,
  schedule: list(subset),
  optimizer: adamWConfig,
  accuracyLevel: int32,
  runtime: record({ sessionConfig: map(text), arena: record({ initialBytes: integer }) }),
  graphs: map(graph),
  weights: list(weightTensor),
  reconstructionError: map(number),
  tools: map(text),
  files: map(fileEntry),
  identity: optional(nullable(text), null),
  base: optional(nullable(text), null),
  digest: optional(nullable(text), null),
});
export type Manifest = Decoded<typeof manifest>;

/** Of layer `index`. */
export function kindOf(manifest: Manifest, index: number): Kind {
  const name = manifest.layers[index]!.kind;
  return manifest.kinds.find((kind) => kind.name === name)!;
}

/** Where each layer's vector lies in the adapter, and each LoRA matrix in it. */
export function adapterLayout(manifest: Manifest): AdapterLayout {
  const matrices = new Map(manifest.kinds.map((kind) => [kind.name, kind.matrices]));
  const base = { name: baseName(manifest), digest: manifest.base, toolkit: manifest.tools.get("lcsb_mobile") ?? null };
  return new AdapterLayout(manifest.lora, matrices, manifest.layers.map((layer) => layer.kind), manifest.model.tensorPrefix, base);
}

/** What the source is called, before its description. */
export function baseName({ source }: Manifest): string {
  const end = source.lastIndexOf(": ");
  return end > 0 ? source.slice(0, end) : source;
}

export function isPerLayer(weight: string): boolean {
  return weight.startsWith(LAYERS);
}

/**
 * How a bundle stores scales and 8-bit values, by what its programs are for. Not every GPU has float16, and ONNX Runtime's WebGPU provider picks
 * rows of uint8 alone: a value q is then stored as q + 128.
 */
export const STORAGE = { cpu: { scales: "float16", bytes: "int8" }, gpu: { scales: "float32", bytes: "uint8" } } as const;

export type Programs = keyof typeof STORAGE;

/** What programs a table of weights is for, by its scales. */
export function storedFor(weights: readonly WeightTensor[]): Programs {
  const scales = weights.filter((tensor) => tensor.name.endsWith(SCALE));
  return scales.length > 0 && scales.every((tensor) => tensor.dtype === STORAGE.gpu.scales) ? "gpu" : "cpu";
}

/** Bytes of one element. */
export const DTYPE_BYTES: Readonly<Record<string, number>> = { bool: 1, int64: 8, uint8: 1, int8: 1, float16: 2, float32: 4 };

const BEYOND = 2 ** 52; // more bytes than any file has, and few enough to add to

/** Of positive dimensions (a free one counts as 1), at most BEYOND; BEYOND too for a dtype that is none. */
export function tensorBytes(dtype: string, shape: readonly number[]): number {
  const item = Object.hasOwn(DTYPE_BYTES, dtype) ? DTYPE_BYTES[dtype]! : BEYOND;
  return shape.reduce((bytes, size) => (size > 1 ? Math.min(bytes * size, BEYOND) : bytes), item);
}
