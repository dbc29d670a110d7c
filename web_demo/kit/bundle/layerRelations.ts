import { quoted } from "../io/text.js";
import type { AdapterMatrix, Kind, Manifest } from "./manifest.js";
import { COMMON, described, gives, GRADIENT, program, ROLES, shown, type TensorType } from "./programs.js";

// How kinds and layers must agree: with each other, and then what the layers bind with the programs that take it. Each number is in its
// range already (manifestCheck.ts).

const MOST_ADAPTER_BYTES = 2 ** 30; // of one buffer of the whole

/** What is wrong with kinds and layers by themselves, as sentences. Where it is nothing, every layer has its kind, and the adapter a layout. */
export function* layerFaults(manifest: Manifest): Generator<string> {
  yield* repeated("kinds", manifest.kinds.map((kind) => kind.name));
  const used = new Set(manifest.layers.map((layer) => layer.kind));
  for (const kind of manifest.kinds) {
    if (!used.has(kind.name)) yield `kinds: no layer is of ${quoted(kind.name)}`;
    for (const fault of kindFaults(manifest, kind)) yield `kinds.${kind.name}: ${fault}`;
  }
  const layers = manifest.model.numHiddenLayers;
  if (manifest.layers.length !== layers) yield `layers: expected ${layers}, found ${manifest.layers.length}`;
  yield* placeFaults(manifest);
  yield* crossingFaults(manifest);
}

function* kindFaults(manifest: Manifest, kind: Kind): Generator<string> {
  for (const name of ROLES.map((role) => program(kind.name, role))) if (COMMON.has(name)) yield `another program is called ${name}`;
  yield* repeated("names", [...kind.reads, ...kind.takes, ...kind.gives, ...kind.state.map((state) => state.name)]); // a program may have all
  for (const { name, shape, byPosition } of kind.state) {
    if (byPosition && shape[0] !== manifest.seqLen) yield `state: ${quoted(name)}: expected ${manifest.seqLen} places, found ${shape[0]}`;
  }
  yield* matrixFaults(manifest.lora.rank, kind);
}

/** The matrices lie one after the other, A and B of a projection in turn, and fill a layer's vector. */
function* matrixFaults(rank: number, kind: Kind): Generator<string> {
  yield* repeated("matrices", kind.matrices.map((matrix) => matrix.name));
  let end = 0;
  for (const [index, { name, shape, offset }] of kind.matrices.entries()) {
    const [part, found] = index % 2 === 0 ? ["lora_A", shape[0]] : ["lora_B", shape[1]];
    if (!name.endsWith(`.${part}`) || found !== rank || offset !== end) {
      yield `matrices: expected a ${part} of rank ${rank} at ${end}, found ${quoted(name, 80)} [${shape.join(", ")}] at ${offset}`;
    }
    end = offset + shape[0]! * shape[1]!;
  }
  for (const [a, b] of projections(kind)) {
    if (a.name.replace(/\.lora_A$/, "") !== b.name.replace(/\.lora_B$/, "")) {
      yield `matrices: expected both of one projection, found ${quoted(a.name)} and ${quoted(b.name)}`;
    }
  }
  if (end !== kind.size || kind.matrices.length % 2 !== 0) {
    yield `size: expected ${end}, where the last of ${kind.matrices.length} matrices ends, found ${kind.size}`;
  }
}

/** The A and B of each adapted projection. */
export function projections(kind: Kind): [AdapterMatrix, AdapterMatrix][] {
  const found: [AdapterMatrix, AdapterMatrix][] = [];
  for (let i = 0; i + 1 < kind.matrices.length; i += 2) found.push([kind.matrices[i]!, kind.matrices[i + 1]!]);
  return found;
}

/** Each layer is the next of its kind, and its vector lies behind the one before; all vectors fit one buffer. */
function* placeFaults(manifest: Manifest): Generator<string> {
  const kinds = new Map(manifest.kinds.map((kind) => [kind.name, kind]));
  const counts = new Map<string, number>();
  let end = 0;
  for (const [index, layer] of manifest.layers.entries()) {
    const kind = kinds.get(layer.kind);
    if (kind === undefined) {
      yield `layers.${index}: expected one of the kinds ${[...kinds.keys()].join(", ")}, found ${quoted(layer.kind, 80)}`;
      continue;
    }
    const number = counts.get(layer.kind) ?? 0;
    counts.set(layer.kind, number + 1);
    if (layer.number !== number) yield `layers.${index}: number: expected ${number}, found ${layer.number}`;
    if (layer.offset !== end) yield `layers.${index}: offset: expected ${end}, found ${layer.offset}`;
    end += kind.size;
    for (const [what, declared, bound] of [["reads", kind.reads, layer.reads], ["takes", kind.takes, layer.takes]] as const) {
      if (bound.size !== declared.length || !declared.every((name) => bound.has(name))) {
        yield `layers.${index}: ${what}: expected ${few(declared)}, found ${few([...bound.keys()])}`;
      }
    }
    const given = [...layer.gives.keys()];
    if (!given.every((name) => kind.gives.includes(name))) yield `layers.${index}: gives: expected of ${few(kind.gives)}, found ${few(given)}`;
  }
  if (4 * end > MOST_ADAPTER_BYTES) {
    yield `layers: expected at most ${MOST_ADAPTER_BYTES} bytes of adapter, found ${4 * end}; export with a smaller --rank`;
  }
}

/** A value is given once, and before it is taken. */
function* crossingFaults(manifest: Manifest): Generator<string> {
  const given = new Set<string>();
  for (const [index, layer] of manifest.layers.entries()) {
    for (const [name, value] of layer.takes) {
      if (!given.has(value)) yield `layers.${index}: takes: ${quoted(name)}: no earlier layer gives ${quoted(value)}`;
    }
    for (const value of layer.gives.values()) {
      if (given.has(value)) yield `layers.${index}: gives: ${quoted(value)} is given twice`;
      given.add(value);
    }
  }
}

/** What the layers bind is what their programs take: the tables of `embed` and `decode_embed`, and what the giver's program gives. */
export function* bindingFaults(manifest: Manifest): Generator<string> {
  for (const kind of manifest.kinds) {
    for (const role of ["forward", "prefill", "decode"] as const) {
      const found = gives(manifest, kind, role);
      for (const name of kind.gives) {
        const type = found.get(name);
        if (type?.dtype === "float32") continue;
        yield `graphs.${program(kind.name, role)}: outputs: ${quoted(name)}: expected a float32 that it gives, found ${shown(type)}`;
      }
    }
  }
  const fed = new Map([...manifest.graphs].map(([name, graph]) => [name, described(graph.inputs)]));
  const returned = new Map([...manifest.graphs].map(([name, graph]) => [name, described(graph.outputs)]));
  const givers = new Map(manifest.layers.flatMap((layer) => [...layer.gives].map(([name, value]) => [value, [layer.kind, name] as const] as const)));
  for (const [index, layer] of manifest.layers.entries()) {
    for (const role of ROLES) {
      const name = program(layer.kind, role);
      const inputs = fed.get(name);
      if (inputs === undefined) continue;
      const tables = returned.get(role === "decode" ? "decode_embed" : "embed");
      const where = `layers.${index}: ${name}`;
      for (const [read, table] of layer.reads) if (inputs.has(read)) yield* bound(where, read, inputs.get(read), table, tables?.get(table));
      for (const [taken, value] of layer.takes) {
        const [kind, given] = givers.get(value)!;
        const type = returned.get(program(kind, role === "prefill" || role === "decode" ? role : "forward"))?.get(given);
        if (inputs.has(taken)) yield* bound(where, taken, inputs.get(taken), value, type);
        if (role !== "backward" && role !== "backward_kept") continue;
        yield* bound(where, GRADIENT + taken, returned.get(name)?.get(GRADIENT + taken), value, type);
      }
    }
  }
}

function* bound(where: string, name: string, type: TensorType | undefined, to: string, found: TensorType | undefined): Generator<string> {
  if (shown(type) !== shown(found)) yield `${where}: ${quoted(name)} is ${quoted(to)}: expected ${shown(type)}, found ${shown(found)}`;
}

export function* repeated(where: string, names: readonly string[]): Generator<string> {
  const seen = new Set<string>();
  for (const name of names) {
    if (seen.has(name)) yield `${where}: ${quoted(name)} stands twice`;
    seen.add(name);
  }
}

/** Names as a message shows them: it is made for each of many layers. */
function few(names: readonly string[]): string {
  return `[${names.slice(0, 10).map((name) => quoted(name, 40)).join(", ")}${names.length > 10 ? ", ..." : ""}]`;
}
