import { LcsbError } from "../faults.js";
import { quoted, some } from "../io/text.js";
import type { AttentionKind } from "./config.js";
import { DTYPE_BYTES, tensorBytes, type Graph, type Kind, type Manifest } from "./manifest.js";
import { relationFaults } from "./manifestRelations.js";
import { ANY, FREE, GRADIENT, PAST } from "./programs.js";

// What a manifest must hold before anything of its bundle is read, however it came here. Specification: docs/hostile_input.md.

const BUFFER_BYTES = 2 ** 30; // of one tensor that a runner makes a buffer for; a mask [T, T] has them at 16,384 tokens
const PAGE = 4096;
const MOST_DIMENSIONS = 8;
const MOST_WIDTH = 2 ** 24; // of attention: heads times a head's dimension
const MOST_FAULTS_SOUGHT = 1000;
const MOST_KINDS = 64; // of attention, and of layers; a model has one or two
const MOST_PREFIX = 200;
const DIGEST = /^[0-9a-f]{64}$/;
const KIND = /^[a-z][a-z0-9]{0,30}$/; // no underscore: the first one in a program's name ends its kind
const NAME = /^[a-z][a-z0-9_]*$/; // of what a kind reads, takes, gives and remembers
const PREFIX = /^(?:[A-Za-z0-9_]+\.)*$/;
const RESERVED = new Set(["h", "g", "adapter", "h_next", "g_next"]); // what else a program takes and returns, as what begins so:
const RESERVED_BEGINNINGS = [PAST, GRADIENT];
const STORED = new Set(["uint8", "int8", "float16", "float32"]); // the dtypes of weights.bin

// The session configuration entries that a manifest may have; each is "0" or "1". Others make ONNX Runtime write and read files at a path of
// the manifest's choice, or take a model for another format.
const SESSION_CONFIG = new Set(["session.disable_quant_qdq", "session.force_spinning_stop", "mlas.disable_kleidiai"]);

// Far above any model: what is allocated is bounded by BUFFER_BYTES and by the sizes of the files.
const RANGES: readonly (readonly [string, number, number, (manifest: Manifest) => number])[] = [
  ["seq_len", 1, 1048576, (m) => m.seqLen],
  ["seed", 0, 2 ** 53, (m) => m.seed],
  ["model.vocab_size", 1, 16777216, (m) => m.model.vocabSize],
  ["model.hidden_size", 1, 262144, (m) => m.model.hiddenSize],
  ["model.intermediate_size", 1, 1048576, (m) => m.model.intermediateSize],
  ["model.num_hidden_layers", 1, 4096, (m) => m.model.numHiddenLayers],
  ["model.num_attention_heads", 1, 4096, (m) => m.model.numAttentionHeads],
  ["model.num_key_value_heads", 1, 4096, (m) => m.model.numKeyValueHeads],
  ["model.head_dim", 1, 4096, (m) => m.model.headDim],
  ["model.rms_norm_eps", 0, 1, (m) => m.model.rmsNormEps],
  ["model.query_scale", 1e-9, 1e9, (m) => m.model.queryScale],
  ["model.embedding_scale", 1e-9, 1e9, (m) => m.model.embeddingScale],
  ["model.residual_multiplier", 1e-9, 1e9, (m) => m.model.residualMultiplier],
  ["model.logits_scaling", 1e-9, 1e9, (m) => m.model.logitsScaling],
  ["model.attn_logit_softcapping", 1e-9, 1e9, (m) => m.model.attnLogitSoftcapping ?? 1],
  ["model.final_logit_softcapping", 1e-9, 1e9, (m) => m.model.finalLogitSoftcapping ?? 1],
  ["model.rotary_dim", 2, 4096, (m) => m.model.rotaryDim],
  ["model.conv_kernel", 0, 256, (m) => m.model.convKernel],
  ["lora.rank", 1, 65536, (m) => m.lora.rank],
  ["lora.alpha", 1e-9, 1e9, (m) => m.lora.alpha],
  ["quantization.group_size", 2, 65536, (m) => m.quantization.groupSize],
  ["schedule_config.subsets", 1, 4096, (m) => m.scheduleConfig.subsets],
  ["optimizer.eps", 0, 1, (m) => m.optimizer.eps],
  ["optimizer.weight_decay", 0, 1e3, (m) => m.optimizer.weightDecay],
  ["optimizer.clip_norm", 1e-30, 1e30, (m) => m.optimizer.clipNorm],
  ["runtime.arena.initial_bytes", 0, 68719476736, (m) => m.runtime.arena.initialBytes],
];

/** Throws BUNDLE_UNREADABLE with all that is wrong; relations are looked at once each value is in its range. */
export function checkManifest(manifest: Manifest, path: string): void {
  let faults = first(valueFaults(manifest));
  if (faults.length === 0) faults = first(relationFaults(manifest));
  if (faults.length > 0) throw unreadable(`${path}: malformed manifest: ${some(faults)}; export the bundle again`);
}

export function unreadable(message: string, cause?: unknown): LcsbError {
  return new LcsbError("BUNDLE_UNREADABLE", message, [], cause);
}

export function first(faults: Iterable<string>): string[] {
  const found: string[] = [];
  for (const fault of faults) if (found.push(fault) === MOST_FAULTS_SOUGHT) break;
  return found;
}

function* valueFaults(manifest: Manifest): Generator<string> {
  for (const [field, least, most, value] of RANGES) {
    const found = value(manifest);
    if (!(found >= least && found <= most)) yield `${field}: expected ${least} to ${most}, found ${found}`;
  }
  yield* choiceFaults(manifest);
  for (const [field, value] of [["identity", manifest.identity], ["base", manifest.base], ["digest", manifest.digest]] as const) {
    if (value !== null && !DIGEST.test(value)) yield `${field}: expected a SHA-256, found ${quoted(value, 80)}`;
  }
  for (const [key, value] of manifest.runtime.sessionConfig) {
    if (!SESSION_CONFIG.has(key) || !["0", "1"].includes(value)) {
      yield `runtime.session_config: ${quoted(key)} = ${quoted(value, 80)} is none of the entries that an export writes`;
    }
  }
  yield* tableFaults(manifest);
  if (manifest.kinds.length < 1 || manifest.kinds.length > MOST_KINDS) yield `kinds: expected 1 to ${MOST_KINDS}, found ${manifest.kinds.length}`;
  for (const kind of manifest.kinds) for (const fault of kindFaults(kind)) yield `kinds.${quoted(kind.name, 80)}: ${fault}`;
  for (const [index, { number, offset }] of manifest.layers.entries()) {
    if (Math.min(number, offset) < 0) yield `layers.${index}: expected 0 or more, found number ${number} at ${offset}`;
  }
  for (const [name, graph] of manifest.graphs) for (const fault of graphFaults(name, graph)) yield `graphs.${name}: ${fault}`;
}

function* choiceFaults({ model, quantization, accuracyLevel, scheduleConfig, optimizer }: Manifest): Generator<string> {
  const prefix = model.tensorPrefix;
  if (prefix.length > MOST_PREFIX || !PREFIX.test(prefix)) {
    yield `model.tensor_prefix: expected words that end with dots, found ${quoted(prefix, 80)}`;
  }
  if (model.attentionKinds.size > MOST_KINDS) yield `model.attention_kinds: expected at most ${MOST_KINDS}, found ${model.attentionKinds.size}`;
  for (const kind of model.attentionKinds.values()) {
    if (!numbers(kind).every((x) => x > 0 && x <= 1e12)) yield `model.attention_kinds: expected positive numbers, found ${numbers(kind).join(", ")}`;
  }
  const heads = Object.values(model.linearAttention ?? {});
  if (!heads.every((x) => x >= 1 && x <= 4096)) yield `model.linear_attention: expected 1 to 4096, found ${heads.join(", ")}`;
  for (const [field, bits] of [["bits", quantization.bits], ["embedding_bits", quantization.embeddingBits]] as const) {
    if (bits !== 4 && bits !== 8) yield `quantization.${field}: expected 4 or 8, found ${bits}`;
  }
  if (!["search", "gptq"].includes(quantization.quantizer)) {
    yield `quantization.quantizer: expected search or gptq, found ${quoted(quantization.quantizer)}`;
  }
  if (accuracyLevel !== 0 && accuracyLevel !== 4) yield `accuracy_level: expected 0 or 4, found ${accuracyLevel}`;
  const { order } = scheduleConfig;
  if (!["cyclic", "shuffled"].includes(order)) yield `schedule_config.order: expected cyclic or shuffled, found ${quoted(order)}`;
  const { betas } = optimizer;
  if (betas.length !== 2 || !betas.every((beta) => beta >= 0 && beta < 1)) {
    yield `optimizer.betas: expected two of 0 to less than 1, found ${betas.slice(0, 20).join(", ")}`;
  }
}

function numbers({ ropeTheta, ropeScaling, window }: AttentionKind): number[] {
  const found = window === null ? [ropeTheta] : [ropeTheta, window];
  if (ropeScaling === null) return found;
  const { factor, lowFreqFactor, highFreqFactor, attentionFactor, betaFast, betaSlow, shortFactor } = ropeScaling;
  return [...found, factor, lowFreqFactor, highFreqFactor, attentionFactor, betaFast, betaSlow, ...shortFactor];
}

function* tableFaults(manifest: Manifest): Generator<string> {
  for (const { name, dtype, shape, offset } of manifest.weights) {
    const dimensions = shape.length >= 1 && shape.length <= MOST_DIMENSIONS && shape.every((size) => size >= 1);
    if (dimensions && offset >= 0 && offset % PAGE === 0 && STORED.has(dtype)) continue;
    const found = `${quoted(dtype, 20)} [${shape.slice(0, 20).join(", ")}] at byte ${offset}`;
    yield `weights: ${quoted(name)}: expected positive dimensions at a multiple of ${PAGE} bytes, found ${found}`;
  }
}

function* kindFaults(kind: Kind): Generator<string> {
  if (!KIND.test(kind.name)) yield "name: expected lower-case letters and digits";
  for (const name of [...kind.reads, ...kind.takes, ...kind.gives, ...kind.state.map((state) => state.name)]) {
    if (!NAME.test(name) || RESERVED.has(name) || RESERVED_BEGINNINGS.some((beginning) => name.startsWith(beginning))) {
      yield `${quoted(name, 80)}: expected the name of a table, a value or a state`;
    }
  }
  if (kind.size < 1) yield `size: expected 1 or more, found ${kind.size}`;
  for (const { name, shape, offset } of kind.matrices) {
    if (shape.length !== 2 || shape.some((size) => size < 1) || offset < 0) {
      yield `matrices: ${quoted(name)}: expected positive dimensions, found [${shape.slice(0, 20).join(", ")}] at ${offset}`;
    }
  }
  for (const { name, shape } of kind.state) {
    if (shape.length < 1 || shape.length > MOST_DIMENSIONS || shape.some((size) => size < 1)) {
      yield `state: ${quoted(name)}: expected positive dimensions, found [${shape.slice(0, 20).join(", ")}]`;
    } else if (tensorBytes("float32", shape) > BUFFER_BYTES) {
      yield `state: ${quoted(name)}: expected at most ${BUFFER_BYTES} bytes, found [${shape.join(", ")}]`;
    }
  }
  if (kind.attentionWidth < 0 || kind.attentionWidth > MOST_WIDTH) yield `attention_width: expected 0 to ${MOST_WIDTH}, found ${kind.attentionWidth}`;
  for (const [field, work] of [["flops", kind.flops], ["decompressed_bytes", kind.decompressedBytes]] as const) {
    const least = Math.min(work.forward, work.backward, work.backwardKept);
    if (least < 0) yield `${field}: expected 0 or more, found ${least}`;
  }
}

function* graphFaults(name: string, graph: Graph): Generator<string> {
  const least = FREE.has(name) ? ANY : 1;
  for (const { name: tensor, dtype, shape, weight } of [...graph.inputs, ...graph.initializers, ...graph.outputs]) {
    const dimensions = shape.length <= MOST_DIMENSIONS && shape.every((size) => size !== 0 && size >= least);
    if (!Object.hasOwn(DTYPE_BYTES, dtype) || !dimensions) {
      yield `${quoted(tensor)}: expected a dtype and positive dimensions, found ${quoted(dtype, 20)} [${shape.slice(0, 20).join(", ")}]`;
    } else if (weight === null && tensorBytes(dtype, shape) > BUFFER_BYTES) {
      yield `${quoted(tensor)}: expected at most ${BUFFER_BYTES} bytes, found ${dtype} [${shape.join(", ")}]; export with a shorter --seq-len`;
    }
  }
  if (graph.workingBytes !== null && graph.workingBytes < 0) yield `working_bytes: expected 0 or more, found ${graph.workingBytes}`;
}
