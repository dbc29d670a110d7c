import { LcsbError } from "../faults.js";
import type { AdapterLayout } from "../bundle/adapterLayout.js";
import { JsonError, JsonReader, type JsonTree } from "../io/jsonReader.js";
import { pythonRepr } from "../io/pythonJson.js";
import { quoted, some } from "../io/text.js";

// What of PEFT's adapter_config.json a plain LoRA adapter needs, and what of it would change the function: lcsb_mobile/adapters/peft_config.py.

export const MOST_CONFIG_BYTES = 4 << 20;
const MOST_RANK = 65_536;
const SCALING_TOLERANCE = 1e-6; // relative
const ALL_LINEAR = "all-linear";

const OFF = ["false", "null"];
const NONE = ["null"];
const NO_LIST = ["null", "[]"];
const NO_MAP = ["null", "{}"];

/** Option -> the values with which an adapter is a plain LoRA, as JSON. PEFT adds options with every release; one that is not here is passed over. */
const PLAIN: Readonly<Record<string, readonly string[]>> = {
  alora_invocation_tokens: NO_LIST,
  alpha_pattern: NO_MAP,
  arrow_config: NONE,
  bias: ['"none"'],
  fan_in_fan_out: OFF,
  init_lora_weights: ["true", "false", "null", '"gaussian"', '"eva"', '"orthogonal"', '"mica"'], // the others subtract from the base
  kasa_config: NONE,
  layer_replication: NO_LIST,
  lora_bias: OFF,
  modules_to_save: NO_LIST,
  monteclora_config: NONE,
  rank_pattern: NO_MAP,
  target_parameters: NO_LIST,
  trainable_token_indices: ["null", "[]", "{}"],
  use_bdlora: NONE,
  use_dora: OFF,
  use_qalora: OFF,
};

/** What decides how the tensors are used. `reaches`: whether PEFT adapts a projection, by its full name such as model.layers.0.self_attn.q_proj. */
export interface PeftConfig {
  readonly baseModel: string | null;
  reaches(module: string, layer: number): boolean;
}

/**
 * `path`: for messages. Throws ADAPTER for what is none, another method than LoRA, and, all at once, for every option that changes the function
 * and a rank or scaling other than the bundle's. A pattern of names is refused: what Python's `re` makes of it is not known here, and may take for
 * ever.
 */
export function readPeftConfig(path: string, text: Uint8Array, layout: AdapterLayout): PeftConfig {
  const fields = new PeftFields(path, parse(path, text));
  const type = fields.text("peft_type");
  if (type !== "LORA") fields.refuse("peft_type", "LORA", type);
  const faults = Object.entries(PLAIN)
    .filter(([name, plain]) => fields.has(name) && !plain.includes(shown(fields.get(name)).toLowerCase()))
    .map(([name, plain]) => `${name}: expected ${plain[0]}, found ${shown(fields.get(name))}`);
  const rank = fields.whole("r", 8);
  if (rank < 1 || rank > MOST_RANK) fields.refuse("r", `1 to ${MOST_RANK}`, rank);
  faults.push(...scalingFaults(fields, rank, layout));
  if (faults.length > 0) throw refusal(path, `does not fit the bundle's plain LoRA: ${some(faults)}`);
  const targets = fields.names("target_modules", true);
  const excluded = fields.names("exclude_modules", false) ?? new Set();
  const layers = fields.layers();
  return {
    baseModel: fields.text("base_model_name_or_path"),
    reaches(module, layer) {
      const parts = module.split(".");
      const ends = parts.map((_, i) => parts.slice(i).join("."));
      const named = targets === null || ends.some((end) => targets.has(end));
      return named && !ends.some((end) => excluded.has(end)) && (layers === null || layers.has(layer));
    },
  };
}

function parse(path: string, text: Uint8Array): Map<string, JsonTree> {
  try {
    const reader = new JsonReader(text);
    const tree = reader.tree();
    reader.finish();
    if (tree instanceof Map) return tree;
  } catch (error) {
    if (error instanceof JsonError) throw refusal(path, `malformed: ${error.message}`, error);
    throw error;
  }
  throw refusal(path, "malformed: expected an object");
}

function scalingFaults(fields: PeftFields, rank: number, { lora }: AdapterLayout): string[] {
  const faults: string[] = [];
  const root = fields.flag("use_rslora");
  const scaling = fields.number("lora_alpha", 8) / (root ? Math.sqrt(rank) : rank);
  const expected = lora.alpha / lora.rank;
  if (rank !== lora.rank) faults.push(`r: expected ${lora.rank}, found ${rank}`);
  if (!(Math.abs(scaling - expected) <= SCALING_TOLERANCE * Math.max(Math.abs(scaling), Math.abs(expected)))) {
    faults.push(`${root ? "lora_alpha/sqrt(r)" : "lora_alpha/r"}: expected ${pythonRepr(expected)}, found ${scaling}`);
  }
  return faults;
}

export function refusal(path: string, what: string, cause?: unknown): LcsbError {
  return new LcsbError("ADAPTER", `${path}: ${what}`, [path], cause);
}

function shown(value: JsonTree | undefined): string {
  if (value instanceof Map) return value.size === 0 ? "{}" : `an object of ${value.size}`;
  if (Array.isArray(value)) return value.length === 0 ? "[]" : `a list of ${value.length}`;
  return typeof value === "string" ? `"${quoted(value, 40).slice(1, -1)}"` : String(value ?? null);
}

/** The file's fields by their types; each refuses what is of another. */
class PeftFields {
  constructor(
    private readonly path: string,
    private readonly fields: ReadonlyMap<string, JsonTree>,
  ) {}

  has(name: string): boolean {
    return this.fields.has(name);
  }

  get(name: string): JsonTree {
    return this.fields.get(name) ?? null;
  }

  refuse(name: string, expected: string, found: JsonTree): never {
    throw refusal(this.path, `${name}: expected ${expected}, found ${shown(found)}`);
  }

  text(name: string): string | null {
    const value = this.get(name);
    return value === null || typeof value === "string" ? value : this.refuse(name, "a string", value);
  }

  flag(name: string): boolean {
    const value = this.get(name);
    return value === null ? false : typeof value === "boolean" ? value : this.refuse(name, "true or false", value);
  }

  number(name: string, absent: number): number {
    if (!this.has(name)) return absent;
    const value = this.get(name);
    return typeof value === "number" ? value : this.refuse(name, "a number", value);
  }

  whole(name: string, absent: number): number {
    const value = this.number(name, absent);
    return Number.isInteger(value) && Math.abs(value) < 2 ** 31 ? value : this.refuse(name, "a whole number", value);
  }

  /** Null where the field is, and where it says "all-linear" and `mayBeAll`. */
  names(name: string, mayBeAll: boolean): Set<string> | null {
    const value = this.get(name);
    if (value === null) return null;
    if (Array.isArray(value)) return new Set(value.map((one) => (typeof one === "string" ? one : this.refuse(name, "names", one))));
    if (mayBeAll && typeof value === "string" && value.toLowerCase() === ALL_LINEAR) return null;
    return this.refuse(name, "a list of names (patterns are not read here)", value);
  }

  layers(): Set<number> | null {
    const found = this.get("layers_to_transform");
    if (found === null) return null;
    const numbers = Array.isArray(found) ? found : [found];
    const whole = (one: JsonTree) => (Number.isInteger(one) ? (one as number) : this.refuse("layers_to_transform", "numbers of layers", one));
    return numbers.length === 0 ? null : new Set(numbers.map(whole));
  }
}
