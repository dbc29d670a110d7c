import type { AdapterLayout } from "../bundle/adapterLayout.js";
import { adapterLayout, kindOf, PACKED, SCALE, tensorBytes, type Graph, type GraphTensor, type Manifest } from "../bundle/manifest.js";
import { KEPT, program, runsOnGpu, type Role } from "../bundle/programs.js";
import { range, type Subset } from "../bundle/schedule.js";
import { gpuWeightBytes } from "../runtime/gpuLimits.js";
import { backwardLayers } from "./cost.js";

// What a run takes, from the manifest alone: first the desktop's terms, the twin of lcsb_mobile/planning/memory.py; then what a page has
// beyond them.

const HEAD_CHUNK_BYTES = 8 << 20; // of float rows of the head that are decompressed at once
const MARGIN_BYTES = 8_000_000; // what the fit to other runs leaves: what is admitted is to run to its end
const MARGIN_SHARE = 0.06;
const CHECKED_VECTORS = 10; // of the longest layer's: two states, a gradient and what comparing them takes, when AdamW's constants are checked
const LOGITS_HELD = 5; // float32 and float64 [V] while a token is chosen
// Fitted to runs of several shapes (lcsb_mobile/planning/memory.py): the runtime's own, and the parsed graphs and kernels of a block program's
// session by its file's size.
const RUNTIME_BYTES = 5_500_000;
const SESSION_SHARE = 45;
const UPDATE_OUTPUTS = 3; // of AdamW: parameters and moments
const HEAD_HOLES = 2.9; // of what a chunk of the head holds: the memory's blocks that were split badly
// WebAssembly's module of ONNX Runtime, as the engine compiles it, and again where it is used most: measured on Node 20 with 1.30.0, after 30
// steps of any of the test bundles; 100 MB of it are there after the first program.
const PAGE_RUNTIME_BYTES = 350_000_000;
// The same of the build with WebGPU, whose module is twice as large: a tab of Chromium 156 reached 145 MB more with it.
const PAGE_GPU_RUNTIME_BYTES = 500_000_000;
const STATES = 2; // of a run, with moments: the one that is trained, and the last that gave a finite loss

/** `accumulation`: sequences a step. `samples`: texts are written before and after. */
export interface Asked {
  readonly keep: number;
  readonly accumulation?: number;
  readonly samples?: boolean;
}

/** Peak bytes of a run of these steps beyond `base`, from its start-up to its end, as the desktop predicts them. */
export function predictedPeak(manifest: Manifest, subsets: readonly Subset[], asked: Asked, base = 0): number {
  return base + sum(runTerms(manifest, subsets, asked).values());
}

/**
 * What a page's run holds beyond the desktop's, whose runtime is compiled already and whose state and weights lie in mapped files: the compiled
 * runtime; the states; of each weight that a program is fed a buffer that its bytes are read into; and the largest program's weights once more in
 * the runtime's heap. With a GPU the weights lie there instead, and what the runtime allocates there it keeps, each program's apart at worst, as
 * their sizes differ.
 */
export function pageTerms(manifest: Manifest, gpu: boolean): Map<string, number> {
  const graphs = [...manifest.graphs];
  const [there, here] = [graphs.filter(([name]) => gpu && runsOnGpu(name)), graphs.filter(([name]) => !gpu || !runsOnGpu(name))];
  const weights = (graph: Graph) => graph.inputs.filter((tensor) => tensor.weight !== null);
  const buffers = new Map(graphs.flatMap(([, graph]) => weights(graph)).map((tensor) => [tensor.weight!, bytesOf([tensor])]));
  return new Map([
    ["compiled runtime", gpu ? PAGE_GPU_RUNTIME_BYTES : PAGE_RUNTIME_BYTES],
    ["states", STATES * 3 * 4 * adapterLayout(manifest).size],
    ["weights of a layer", sum(buffers.values())],
    ["weights of a program", Math.max(...here.map(([, graph]) => bytesOf(weights(graph))))],
    ["weights on the GPU", gpu ? gpuWeightBytes(manifest) : 0],
    ["working sets on the GPU", sum(there.map(([, graph]) => graph.workingBytes ?? 0))],
  ]);
}

/** Of the runtime's heap at most: a program's weights, what it takes and returns, its own values, and the sessions. */
export function heapBytes(manifest: Manifest, gpu: boolean): number {
  const programs = [...manifest.graphs].filter(([name]) => !name.startsWith("gemm"));
  const sessions = sum(programs.map(([name]) => sessionBytes(manifest, name)));
  const largest = programs.filter(([name]) => !gpu || !runsOnGpu(name)).map(([name, graph]) => {
    const own = graph.workingBytes ?? (name.startsWith("head") || name === "logits" ? headSet(manifest) : 0);
    return bytesOf(graph.inputs) + bytesOf(graph.outputs) + own;
  });
  return sessions + Math.max(...largest);
}

/** Bytes of a run beyond its base, by what holds them: of its steps and evaluations, beside them, and a margin. */
function runTerms(manifest: Manifest, subsets: readonly Subset[], { keep, accumulation = 1, samples = false }: Asked): Map<string, number> {
  const checked = CHECKED_VECTORS * Math.max(...manifest.kinds.map((kind) => kind.size)) * 4;
  const writing = samples ? writingBytes(manifest) + LOGITS_HELD * manifest.model.vocabSize * 4 : 0;
  const terms = peakTerms(manifest, subsets, keep, accumulation).set("beside the steps", Math.max(checked, writing));
  return terms.set("margin", Math.max(MARGIN_BYTES, rint(MARGIN_SHARE * sum(terms.values()))));
}

/** What writes a text: its sessions, which stay, and what each layer remembers of it; results of two layers in turns. */
function writingBytes(manifest: Manifest): number {
  const names = [...manifest.kinds.flatMap(({ name }) => [program(name, "prefill"), program(name, "decode")]), "decode_embed", "logits"];
  const state = manifest.kinds.map((kind) => {
    const layers = manifest.layers.filter((layer) => layer.kind === kind.name).length;
    return layers * sum(kind.state.map(({ shape }) => tensorBytes("float32", shape)));
  });
  const outputs = names.map((name) => 2 * bytesOf(manifest.graphs.get(name)!.outputs));
  return sum(names.map((name) => sessionBytes(manifest, name))) + sum(state) + sum(outputs);
}

function peakTerms(manifest: Manifest, subsets: readonly Subset[], keep: number, accumulation: number): Map<string, number> {
  const backward = subsets.map((subset) => backwardLayers(manifest, subset, keep));
  const kept = [...new Set(backward.flatMap((layers) => layers.kept))];
  const used = [
    ...programs(manifest, range(manifest.layers.length), "forward"), // of the evaluation, if nothing else
    ...programs(manifest, backward.flatMap((layers) => layers.recomputed), "backward"),
    ...programs(manifest, kept, "forward_keep"),
    ...programs(manifest, kept, "backward_kept"),
  ];
  // Those that have no loop, as programs for a GPU: what they hold is known.
  const unrolled = ["head", "head_eval"].filter((name) => manifest.graphs.get(name)!.workingBytes !== null);
  const working = [...used, ...unrolled, "embed", "adamw"].map((name) => manifest.graphs.get(name)!.workingBytes ?? 0);
  return new Map([
    ["runtime", RUNTIME_BYTES],
    ["sessions", sum([...used, ...unrolled].map((name) => sessionBytes(manifest, name)))],
    ["saved layer inputs", Math.max(...backward.map((layers) => layers.recomputed.length + layers.kept.length)) * hiddenBytes(manifest)],
    ["kept activations", sum(kept.map((layer) => keptBytes(manifest, layer)))],
    ["crossing values", crossingBytes(manifest)],
    ["gradients", gradientBytes(adapterLayout(manifest), subsets, accumulation)],
    ["other buffers", fixedBuffers(manifest)],
    ["working set", Math.max(unrolled.length > 0 ? 0 : headSet(manifest), ...working)],
  ]);
}

/** What a layer's forward keeps for its backward. */
function keptBytes(manifest: Manifest, layer: number): number {
  const { outputs } = manifest.graphs.get(program(manifest.layers[layer]!.kind, "forward_keep"))!;
  return bytesOf(outputs.filter(({ name }) => name.startsWith(KEPT)));
}

/**
 * Of each size as many buffers as a step needs at most: a trained layer has its own, and so have, in Python's runner, the untrained ones of a
 * size that no trained layer below them has, one for all. What is accumulated is a copy.
 */
function gradientBytes(layout: AdapterLayout, subsets: readonly Subset[], accumulation: number): number {
  const needed = new Map<number, number>();
  const size = (layer: number) => layout.vectorSize(layer);
  for (const { train, propagate } of subsets) {
    const unread = propagate
      .filter((layer) => layer > train[0]! && !train.includes(layer))
      .filter((layer) => !train.some((below) => below < layer && size(below) === size(layer)));
    const counts = new Map<number, number>();
    for (const length of [...train.map(size), ...new Set(unread.map(size))]) counts.set(length, (counts.get(length) ?? 0) + 1);
    for (const [length, count] of counts) needed.set(length, Math.max(needed.get(length) ?? 0, count));
  }
  const copies = accumulation > 1 ? Math.max(...subsets.map(({ train }) => sum(train.map(size)))) : 0;
  return 4 * (sum([...needed].map(([length, count]) => length * count)) + copies);
}

/** What layers give to others, with its gradients, and once more for a kind's gives that go to none. */
function crossingBytes(manifest: Manifest): number {
  const bound = manifest.layers.flatMap((layer, index) => given(manifest, index).filter(({ name }) => layer.gives.has(name)));
  const once = manifest.kinds.flatMap(({ name }) => given(manifest, manifest.layers.findIndex((layer) => layer.kind === name)));
  return 2 * bytesOf([...bound, ...once]);
}

function given(manifest: Manifest, layer: number): GraphTensor[] {
  const kind = kindOf(manifest, layer);
  return manifest.graphs.get(program(kind.name, "forward"))!.outputs.filter(({ name }) => kind.gives.includes(name));
}

/** Those that `layers` are run by, one a kind. */
function programs(manifest: Manifest, layers: readonly number[], role: Role): string[] {
  return [...new Set(layers.map((layer) => program(manifest.layers[layer]!.kind, role)))];
}

/**
 * Of a program's session; of one whose weights are constants, a session a layer, with its packed copy of them (MatMulNBits with int8
 * activations: the values, and for each scale two more float32 of sums beside it).
 */
function sessionBytes(manifest: Manifest, name: string): number {
  const graph = manifest.graphs.get(name)!;
  const session = SESSION_SHARE * manifest.files.get(graph.file)!.size;
  if (graph.initializers.length === 0) return session;
  const values = bytesOf(graph.initializers.filter((tensor) => tensor.name.endsWith(PACKED)));
  const scales = bytesOf(graph.initializers.filter((tensor) => tensor.name.endsWith(SCALE)));
  const kind = name.split("_")[0];
  return manifest.layers.filter((layer) => layer.kind === kind).length * (session + values + 6 * scales);
}

/** Two results that layers take in turns, the gradient, what `embed` and the update of each kind return, and a gradient of zero. */
function fixedBuffers(manifest: Manifest): number {
  const sizes = [...new Set(manifest.kinds.map((kind) => kind.size))];
  const vectors = UPDATE_OUTPUTS * sum(sizes) + Math.max(...sizes);
  return 3 * hiddenBytes(manifest) + bytesOf(manifest.graphs.get("embed")!.outputs) + 4 * vectors;
}

/** A chunk of the head's rows in float, its logits and their exponentials, and five [T, D]. */
function headSet(manifest: Manifest): number {
  const { hiddenSize, vocabSize } = manifest.model;
  const rows = Math.min(headRows(hiddenSize), vocabSize);
  return rint(HEAD_HOLES * (rows * hiddenSize * 4 + 2 * manifest.seqLen * rows * 4 + 5 * hiddenBytes(manifest)));
}

/** Rows of the head in a chunk: a power of two. */
function headRows(hiddenSize: number): number {
  return 2 ** Math.floor(Math.log2(Math.max(256, HEAD_CHUNK_BYTES / (4 * hiddenSize))));
}

function bytesOf(tensors: readonly GraphTensor[]): number {
  return sum(tensors.map(({ dtype, shape }) => tensorBytes(dtype, shape)));
}

function hiddenBytes(manifest: Manifest): number {
  return manifest.seqLen * manifest.model.hiddenSize * 4;
}

function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

/** To the nearest whole number, of two to the even one, as Python rounds. */
function rint(value: number): number {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

