import { LcsbError } from "../faults.js";
import { quoted } from "../io/text.js";
import { bindingFaults, layerFaults, projections, repeated } from "./layerRelations.js";
import { isPerLayer, LAYERS, PACKED, SCALE, STORAGE, storedFor, tensorBytes, WEIGHTS_FILE, type Graph, type GraphTensor, type Manifest, type Programs } from "./manifest.js";
import { described, differences, filtered, KEPT, program, ROLES, signatures, type Signature, type Tensors, type TensorType } from "./programs.js";
import { subsetFault } from "./schedule.js";

/** How a manifest's tables must agree with each other, each number being in its range already (manifestCheck.ts): what is wrong, as sentences. */
export function* relationFaults(manifest: Manifest): Generator<string> {
  let sound = true;
  for (const faults of [modelFaults(manifest), layerFaults(manifest)]) {
    for (const fault of faults) {
      sound = false;
      yield fault;
    }
  }
  if (!sound) return; // what follows rests on layers that have their kinds
  yield* weightFaults(manifest);
  yield* programFaults(manifest, signatures(manifest));
  yield* bindingFaults(manifest);
}

function* modelFaults(manifest: Manifest): Generator<string> {
  const { model, seqLen, schedule } = manifest;
  const layers = model.numHiddenLayers;
  if (model.layerTypes.length !== layers) yield `model.layer_types: expected one for each of ${layers} layers, found ${model.layerTypes.length}`;
  for (const type of model.attentionKinds.keys()) {
    if (!model.layerTypes.includes(type)) yield `model.attention_kinds: no layer is of type ${quoted(type, 80)}`;
  }
  if (model.numAttentionHeads % model.numKeyValueHeads !== 0) {
    yield `model: ${model.numAttentionHeads} heads are no multiple of ${model.numKeyValueHeads} key-value heads`;
  }
  if (model.rotaryDim % 2 !== 0 || model.rotaryDim > model.headDim) {
    yield `model.rotary_dim: expected an even number up to ${model.headDim}, found ${model.rotaryDim}`;
  }
  const chunk = model.linearAttention?.chunk ?? 1;
  if (seqLen % chunk !== 0) yield `seq_len: expected a multiple of ${chunk}, found ${seqLen}`;
  for (const { ropeScaling } of model.attentionKinds.values()) {
    if (ropeScaling === null || (ropeScaling.ropeType !== "dynamic" && ropeScaling.ropeType !== "longrope")) continue;
    const longest = ropeScaling.originalMaxPositionEmbeddings; // of which the angles depend on a token's position alone
    if (seqLen > longest) yield `seq_len: expected at most ${longest}, as the model's RoPE has it, found ${seqLen}`;
  }
  if (schedule.length === 0) yield "schedule: expected at least one step, found none";
  for (const [index, step] of schedule.entries()) {
    const fault = subsetFault(step, layers);
    if (fault !== null) yield `schedule: step ${index + 1}: ${fault}`;
  }
}

function* weightFaults(manifest: Manifest): Generator<string> {
  yield* repeated("weights", manifest.weights.map((tensor) => tensor.name));
  try {
    const expected = expectedWeights(manifest);
    yield* differences("weights", expected, filtered(table(manifest), (name) => expected.has(name)));
  } catch (error) {
    if (!(error instanceof LcsbError)) throw error;
    yield error.message;
  }
  for (const { name, shape } of manifest.weights.filter((tensor) => isPerLayer(tensor.name))) {
    const kind = name.slice(LAYERS.length).split(".")[0]!;
    const count = layersOf(manifest, kind);
    if (count === 0) {
      yield `weights: ${quoted(name)}: expected a tensor of one of the kinds ${manifest.kinds.map((known) => known.name).join(", ")}`;
    } else if (shape[0] !== count) {
      yield `weights: ${quoted(name)}: expected ${count} layers, found ${shape[0]}`;
    }
  }
  let end = 0;
  let before = "";
  for (const { name, dtype, shape, offset } of manifest.weights.toSorted((a, b) => a.offset - b.offset)) {
    if (offset < end) yield `weights: ${quoted(before)} and ${quoted(name)} overlap`;
    end = offset + tensorBytes(dtype, shape);
    before = name;
  }
  const size = manifest.files.get(WEIGHTS_FILE)?.size ?? 0;
  if (end > size) yield `weights: the tensors end at byte ${end} of ${WEIGHTS_FILE}, which has ${size}`;
}

function layersOf(manifest: Manifest, kind: string): number {
  return manifest.layers.filter((layer) => layer.kind === kind).length;
}

function table(manifest: Manifest): Map<string, TensorType> {
  return new Map(manifest.weights.map(({ name, dtype, shape }) => [name, { dtype, shape }]));
}

/** Those that are known without knowing the architecture. Throws OPTION where the group size does not divide a row. */
function expectedWeights(manifest: Manifest): Map<string, TensorType> {
  const { model, quantization, seqLen } = manifest;
  const programs = storedFor(manifest.weights);
  const tensors = new Map<string, TensorType>([["norm.weight", { dtype: "float32", shape: [model.hiddenSize] }]]);
  const add = (name: string, stack: number[], rows: number, columns: number, bits: number) => {
    for (const [tensor, type] of matrix(name, stack, rows, columns, bits, quantization.groupSize, programs)) tensors.set(tensor, type);
  };
  for (const type of model.attentionKinds.keys()) {
    for (const angle of ["cos", "sin"]) tensors.set(`rope.${type}.${angle}`, { dtype: "float32", shape: [seqLen, model.rotaryDim] });
  }
  for (const name of model.tieWordEmbeddings ? ["embed_tokens.weight"] : ["embed_tokens.weight", "lm_head.weight"]) {
    add(name, [], model.vocabSize, model.hiddenSize, quantization.embeddingBits);
  }
  for (const kind of manifest.kinds) {
    for (const [a, b] of projections(kind)) {
      const name = `${LAYERS}${kind.name}.${a.name.slice(0, -".lora_A".length)}.weight`;
      add(name, [layersOf(manifest, kind.name)], b.shape[0]!, a.shape[1]!, quantization.bits);
    }
  }
  return tensors;
}

function matrix(name: string, stack: number[], rows: number, columns: number, bits: number, group: number, programs: Programs): [string, TensorType][] {
  if (columns % group !== 0 || group % 2 !== 0) {
    const expected = `expected an even divisor of the ${columns} columns of ${quoted(name)}, found ${group}`;
    throw new LcsbError("OPTION", `quantization.group_size: ${expected}`);
  }
  const shape = [...stack, rows, columns / group];
  const packed = bits === 4 ? { dtype: "uint8", shape: [...shape, group / 2] } : { dtype: STORAGE[programs].bytes, shape: [...shape, group] };
  return [[name + PACKED, packed], [name + SCALE, { dtype: STORAGE[programs].scales, shape }]];
}

function* programFaults(manifest: Manifest, known: ReadonlyMap<string, Signature>): Generator<string> {
  const { graphs } = manifest;
  const missing = [...known.keys()].filter((name) => !graphs.has(name)).sort();
  if (missing.length > 0) yield `graphs: ${missing.join(", ")} missing`;
  const kinds = new Map(manifest.kinds.flatMap((kind) => ROLES.map((role) => [program(kind.name, role), kind.name] as const)));
  const weights = table(manifest);
  for (const [name, graph] of graphs) {
    const signature = known.get(name);
    const boundary = signature === undefined ? [] : signatureFaults(graph, signature);
    for (const faults of [fileFaults(name, graph), weightsOfProgram(graph, weights, kinds.get(name)), boundary]) {
      for (const fault of faults) yield `graphs.${name}: ${fault}`;
    }
  }
  for (const { name } of manifest.kinds) {
    const writes = graphs.get(program(name, "forward_keep"));
    const reads = graphs.get(program(name, "backward_kept"));
    if (writes === undefined || reads === undefined) continue;
    const where = `graphs.${program(name, "forward_keep")}: what ${program(name, "backward_kept")} reads`;
    yield* differences(where, kept(reads.inputs), kept(writes.outputs));
  }
}

function* fileFaults(name: string, graph: Graph): Generator<string> {
  if (graph.file !== `${name}.onnx`) yield `expected the file ${name}.onnx, found ${quoted(graph.file)}`;
  yield* repeated("inputs", [...graph.inputs, ...graph.initializers].map((tensor) => tensor.name));
  yield* repeated("outputs", graph.outputs.map((tensor) => tensor.name));
}

/** What the layers bind is looked at layer by layer. */
function* signatureFaults(graph: Graph, signature: Signature): Generator<string> {
  const inputs = filtered(described(graph.inputs), (name) => !signature.boundInputs?.has(name));
  const outputs = filtered(described(graph.outputs), (name) => !signature.boundOutputs?.has(name));
  const optional = filtered(signature.optional ?? new Map(), (name) => inputs.has(name));
  const isKept = (name: string) => name.startsWith(KEPT);
  yield* differences("inputs", new Map([...signature.inputs, ...optional]), filtered(inputs, (name) => !signature.readsKept || !isKept(name)));
  yield* differences("outputs", signature.outputs, filtered(outputs, (name) => !signature.writesKept || !isKept(name)));
}

function kept(tensors: readonly GraphTensor[]): Tensors {
  return filtered(described(tensors), (name) => name.startsWith(KEPT));
}

/** What a program is fed of `weights.bin` is there, of the dtype and shape that the program takes, and of its own `kind` of layers. */
function* weightsOfProgram(graph: Graph, weights: Tensors, kind: string | undefined): Generator<string> {
  for (const { name, weight } of graph.initializers) {
    if (weight === null || !isPerLayer(weight)) yield `${quoted(name)}: expected the layers' weight that it is`;
  }
  for (const { name, weight } of graph.outputs) if (weight !== null) yield `the output ${quoted(name)} cannot be a weight`;
  for (const { name, weight, dtype, shape } of [...graph.inputs, ...graph.initializers]) {
    if (weight === null) continue;
    if (kind === undefined ? isPerLayer(weight) : !weight.startsWith(`${LAYERS}${kind}.`)) {
      yield `${quoted(weight)}: expected ${kind === undefined ? "no weight of the layers" : `one of the kind ${kind}`}`;
    }
    const stored = weights.get(weight) ?? { dtype: "nothing", shape: [] };
    const fed = isPerLayer(weight) ? { dtype: stored.dtype, shape: stored.shape.slice(1) } : stored;
    yield* differences(`${quoted(weight)} as`, new Map([[name, fed]]), new Map([[name, { dtype, shape }]]));
  }
}
