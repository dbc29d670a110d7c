import { kindOf, storedFor, type GraphTensor, type Kind, type Manifest } from "./manifest.js";
import { quoted } from "../io/text.js";

export const ANY = -1; // a free dimension
export const KEPT = "kept."; // what the names of the tensors begin with that a forward keeps for the backward
export const PAST = "past_"; // and of the state that a program reads while a text is written
export const GRADIENT = "d_"; // and of the gradients of what crosses between layers
const PRODUCTS = ["gemm", "gemm_backward"];
export const FOR_HOST: ReadonlySet<string> = new Set(["loss", "d_adapter", "logits"]); // the results that the host needs as numbers
export const FREE: ReadonlySet<string> = new Set([...PRODUCTS, "adamw"]); // the programs that have free dimensions
export const TOKENS = ["input_ids", "position_ids", "segment_ids"] as const;

/** The programs of a kind: KIND_ROLE. */
export const ROLES = ["forward", "backward", "forward_keep", "backward_kept", "prefill", "decode"] as const;
export type Role = (typeof ROLES)[number];

/** The names of the programs that are no kind's. */
export const COMMON: ReadonlySet<string> = new Set(["embed", "decode_embed", "head", "head_eval", "logits", "adamw", ...PRODUCTS]);

/** Whether a program runs on a GPU, in a bundle with programs for one: all but AdamW, whose state is the host's. */
export function runsOnGpu(program: string): boolean {
  return !FREE.has(program);
}

/** Whether the bundle was exported with programs for a GPU. */
export function isForGpu(manifest: Manifest): boolean {
  return storedFor(manifest.weights) === "gpu";
}

export function program(kind: string, role: Role): string {
  return `${kind}_${role}`;
}

/** What a tensor is, on a program's boundary or in `weights.bin`. */
export interface TensorType {
  readonly dtype: string;
  readonly shape: readonly number[];
}

export type Tensors = ReadonlyMap<string, TensorType>;

export function shown(type: TensorType | undefined): string {
  return type === undefined ? "none" : `${type.dtype} [${type.shape.join(", ")}]`;
}

/**
 * A program's inputs and outputs besides weights. `optional`: inputs that it has if it needs them. `boundInputs`, `boundOutputs`: those that
 * are what the layers bind them to (layerRelations.ts). `readsKept`, `writesKept`: it has inputs or outputs `kept.N` besides.
 */
export interface Signature {
  readonly inputs: Tensors;
  readonly outputs: Tensors;
  readonly optional?: Tensors;
  readonly boundInputs?: ReadonlySet<string>;
  readonly boundOutputs?: ReadonlySet<string>;
  readonly readsKept?: boolean;
  readonly writesKept?: boolean;
}

/** By program; of a manifest whose kinds and layers agree. Specification: docs/onnxruntime.md. */
export function signatures(manifest: Manifest): Map<string, Signature> {
  const found = commonPrograms(manifest);
  for (const kind of manifest.kinds) for (const role of ROLES) found.set(program(kind.name, role), signature(manifest, kind, role));
  return found;
}

/** What is wrong, tensor by tensor, as sentences. */
export function* differences(where: string, expected: Tensors, found: Tensors): Generator<string> {
  for (const name of new Set([...expected.keys(), ...found.keys()])) {
    const [wanted, is] = [shown(expected.get(name)), shown(found.get(name))];
    if (wanted !== is) yield `${where}: ${quoted(name)}: expected ${wanted}, found ${is}`;
  }
}

/** Inputs or outputs of a program besides weights. */
export function described(tensors: readonly GraphTensor[]): Map<string, TensorType> {
  return new Map(tensors.filter((tensor) => tensor.weight === null).map(({ name, dtype, shape }) => [name, { dtype, shape }]));
}

export function filtered(tensors: Tensors, keep: (name: string) => boolean): Map<string, TensorType> {
  return new Map([...tensors].filter(([name]) => keep(name)));
}

/** What a program of a kind gives: of which types it does is the exporter's choice. */
export function gives(manifest: Manifest, kind: Kind, role: Role): Map<string, TensorType> {
  if (kind.gives.length === 0) return new Map();
  return filtered(described(manifest.graphs.get(program(kind.name, role))?.outputs ?? []), (name) => kind.gives.includes(name));
}

/** Likewise of a layer, by its number. */
export function givesOf(manifest: Manifest, layer: number, role: Role): Map<string, TensorType> {
  return gives(manifest, kindOf(manifest, layer), role);
}

function commonPrograms(manifest: Manifest): Map<string, Signature> {
  const [t, d] = [manifest.seqLen, manifest.model.hiddenSize];
  const h = floats([t, d], "h");
  const labelled = new Map([...h, ...integers(t, "labels")]);
  const tables = new Set(manifest.layers.flatMap((layer) => [...layer.reads.values()]));
  tables.delete("h");
  const moments = ["parameters", "first_moment", "second_moment"];
  const product: Signature = { inputs: floats([ANY, ANY], "a", "b"), outputs: floats([ANY, ANY], "y") };
  const updated = new Map([...floats([ANY], ...moments, "gradient"), ...floats([], "decay", "rate", "root")]);
  return new Map<string, Signature>([
    ["embed", { inputs: integers(t, ...TOKENS), outputs: h, boundOutputs: tables }],
    ["decode_embed", { inputs: integers(1, "input_ids", "position_ids"), outputs: floats([1, d], "h"), boundOutputs: tables }],
    ["head", { inputs: labelled, outputs: new Map([...floats([], "loss"), ...floats([t, d], "g")]) }],
    ["head_eval", { inputs: labelled, outputs: floats([], "loss") }],
    ["logits", { inputs: floats([1, d], "h"), outputs: floats([manifest.model.vocabSize], "logits") }],
    ["adamw", { inputs: updated, outputs: floats([ANY], ...moments.map((name) => `${name}_next`)) }],
    ...PRODUCTS.map((name) => [name, product] as const),
  ]);
}

function signature(manifest: Manifest, kind: Kind, role: Role): Signature {
  const hidden = [role === "decode" ? 1 : manifest.seqLen, manifest.model.hiddenSize];
  const boundInputs = new Set([...kind.reads, ...kind.takes]);
  const fed = new Map([...floats(hidden, "h"), ...floats([kind.size], "adapter")]);
  const given = new Map([...floats(hidden, "h_next"), ...gives(manifest, kind, role === "forward_keep" ? "forward" : role)]);
  const state = kind.state.map(({ name, shape, byPosition }) => ({ name, shape, written: byPosition ? [1, ...shape.slice(1)] : shape }));
  switch (role) {
    case "prefill":
      return { inputs: fed, outputs: new Map([...given, ...state.flatMap((x) => [...floats(x.shape, x.name)])]), boundInputs };
    case "decode": {
      const optional = new Map(state.flatMap((x) => [...floats(x.shape, PAST + x.name)]));
      return { inputs: fed, outputs: new Map([...given, ...state.flatMap((x) => [...floats(x.written, x.name)])]), optional, boundInputs };
    }
    case "backward":
    case "backward_kept": {
      const kept = role === "backward_kept"; // then h may be of no use
      const owed = [...gives(manifest, kind, "forward")].map(([name, type]) => [GRADIENT + name, type] as const);
      const inputs = new Map([...filtered(fed, (name) => !kept || name !== "h"), ...floats(hidden, "g"), ...owed]);
      const outputs = new Map([...floats(hidden, "g_next"), ...floats([kind.size], "d_adapter")]);
      const boundOutputs = new Set(kind.takes.map((name) => GRADIENT + name));
      return { inputs, outputs, optional: floats(hidden, "h"), boundInputs, boundOutputs, readsKept: kept };
    }
    default:
      return { inputs: fed, outputs: given, boundInputs, writesKept: role === "forward_keep" };
  }
}

function floats(shape: readonly number[], ...names: string[]): Map<string, TensorType> {
  return new Map(names.map((name) => [name, { dtype: "float32", shape }]));
}

function integers(count: number, ...names: string[]): Map<string, TensorType> {
  return new Map(names.map((name) => [name, { dtype: "int64", shape: [count] }]));
}
