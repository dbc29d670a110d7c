import { LcsbError } from "../faults.js";
import type { AdapterLayout } from "../bundle/adapterLayout.js";
import { IoError, readBounded } from "../io/files.js";
import { FLOATS, openTensors, readFloats, type StoredTensors } from "../io/safetensors.js";
import { withFile, type Storage } from "../io/storage.js";
import { quoted, some } from "../io/text.js";
import { checkDigest } from "./adapter.js";
import { PEFT_CONFIG_FILE, PEFT_MODEL_FILE } from "./peft.js";
import { MOST_CONFIG_BYTES, readPeftConfig, refusal, type PeftConfig } from "./peftConfig.js";

const TEXT_MODEL_PREFIXES = ["model.", "model.language_model.", "language_model.model."]; // the last before transformers 4.52
const PICKLED_FILE = "adapter_model.bin";

/**
 * What `readPeft` found. `baseModel`: as PEFT's configuration names it. `dtypes`: the tensors'. `matrices`: how many were read. `initial`:
 * projection -> the layers in which the directory does not adapt it.
 */
export interface ImportedPeft {
  readonly baseModel: string | null;
  readonly dtypes: ReadonlySet<string>;
  readonly matrices: number;
  readonly initial: ReadonlyMap<string, readonly number[]>;
}

/**
 * Reads PEFT's directory into `into`, float32 [N], which holds the bundle's initial adapter: where the directory does not adapt a matrix, A stays
 * and B becomes zero. The twin of `lcsb adapter import` (docs/adapter.md), but for patterns of names, which are refused.
 *
 * Nothing of the directory is believed before it was checked. Throws ADAPTER, naming what does not fit; then `into` may be half written.
 */
export async function readPeft(storage: Pick<Storage, "path" | "open" | "list">, layout: AdapterLayout, into: Float32Array): Promise<ImportedPeft> {
  const path = (name: string) => `${storage.path}/${name}`;
  try {
    const text = await withFile(storage, PEFT_CONFIG_FILE, (file) => readBounded(file, MOST_CONFIG_BYTES));
    const config = readPeftConfig(path(PEFT_CONFIG_FILE), text, layout);
    const there = await storage.list();
    if (!there.includes(PEFT_MODEL_FILE) && there.includes(PICKLED_FILE)) {
      throw refusal(storage.path, `only pickled weights (${PICKLED_FILE}), which are not read; load and save it with a newer peft`);
    }
    return await withFile(storage, PEFT_MODEL_FILE, (file) => readModel(openTensors(file, "ADAPTER"), config, layout, into));
  } catch (error) {
    if (!(error instanceof IoError)) throw error;
    throw new LcsbError("ADAPTER", `${storage.path}: cannot be read: ${error.message}; expected what PEFT's save_pretrained wrote`, [], error);
  }
}

function readModel(stored: StoredTensors, config: PeftConfig, own: AdapterLayout, into: Float32Array): ImportedPeft {
  checkDigest(stored);
  const layout = asTheFileCalls(own, stored);
  const initial = check(stored, config, layout);
  for (const [name, { values }] of layout.named(into)) {
    if (stored.tensors.has(name)) readFloats(stored, name, values);
    else if (name.includes(".lora_B.")) values.fill(0);
  }
  if (!into.every(Number.isFinite)) throw refusal(stored.file.name, "holds NaN or infinite values");
  const dtypes = new Set([...stored.tensors.values()].map((tensor) => tensor.dtype).sort());
  return { baseModel: config.baseModel, dtypes, matrices: stored.tensors.size, initial };
}

/**
 * The layout with the prefix that the file's names have: transformers' class for text alone and that for a whole multimodal checkpoint call the
 * same layers differently. With its own where the names have another.
 */
function asTheFileCalls(layout: AdapterLayout, { tensors }: StoredTensors): AdapterLayout {
  const called = TEXT_MODEL_PREFIXES.map((prefix) => layout.withPrefix(prefix));
  return called.find((named) => [...named.shapes().keys()].some((name) => tensors.has(name))) ?? layout;
}

/** Projection -> the layers that the file leaves out. */
function check(stored: StoredTensors, config: PeftConfig, layout: AdapterLayout): Map<string, number[]> {
  const faults = tensorFaults(stored, layout);
  const initial = new Map<string, number[]>();
  for (let layer = 0; layer < layout.numLayers; layer++) {
    for (const module of layout.modulesOf(layer)) {
      const missing = ["lora_A", "lora_B"].map((part) => layout.tensorName(layer, `${module}.${part}`)).filter((name) => !stored.tensors.has(name));
      if (missing.length === 2) {
        initial.set(module, [...(initial.get(module) ?? []), layer]);
        continue;
      }
      faults.push(...missing.map((name) => `${name} is missing`));
      const name = layout.moduleName(layer, module);
      if (!config.reaches(name, layer)) faults.push(`${name} is adapted, and ${PEFT_CONFIG_FILE} says it is not`);
    }
  }
  if (faults.length > 0) throw refusal(stored.file.name, `does not fit the bundle's adapter: ${some(faults)}`);
  return initial;
}

function tensorFaults({ tensors }: StoredTensors, layout: AdapterLayout): string[] {
  if (tensors.size === 0) return ["holds no tensors"];
  const wanted = layout.shapes();
  return [...tensors].flatMap(([name, { dtype, shape }]) => {
    const expected = wanted.get(name)?.join(", ");
    if (expected === undefined) return [`${quoted(name, 100)}: the bundle adapts no such matrix`];
    if (!FLOATS.includes(dtype)) return [`${name}: expected ${FLOATS.join(", ")}, found ${quoted(dtype, 10)}`];
    return shape.join(", ") === expected ? [] : [`${name}: expected [${expected}], found [${shape.join(", ")}]`];
  });
}
