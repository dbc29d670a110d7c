import type { JsonReader, JsonTree } from "../io/jsonReader.js";
import { DamagedTokenizer, shown } from "./tokenizerParts.js";

/** The settings of `tokenizer_config.json` that are used; a token is a string or {"content": string}. */
export interface TokenizerConfig {
  readonly bosToken: string | null;
  readonly eosToken: string | null;
  readonly padToken: string | null;
  readonly addBosToken: boolean | null;
  readonly eosTokenIds: readonly number[];
}

const USED = ["bos_token", "eos_token", "pad_token", "add_bos_token", "eos_token_id"];

/** Throws JsonError, DamagedTokenizer. */
export function readTokenizerConfig(json: JsonReader): TokenizerConfig {
  const found = new Map<string, JsonTree>();
  json.object((key) => (USED.includes(key) ? found.set(key, json.tree()) : json.skip()));
  json.finish();
  const token = (name: string) => tokenOf(name, found.get(name) ?? null);
  const addsBos = found.get("add_bos_token");
  return {
    bosToken: token("bos_token"),
    eosToken: token("eos_token"),
    padToken: token("pad_token"),
    addBosToken: typeof addsBos === "boolean" ? addsBos : null,
    eosTokenIds: idsOf(found.get("eos_token_id") ?? []),
  };
}

function tokenOf(name: string, tree: JsonTree): string | null {
  const value = tree instanceof Map ? (tree.get("content") ?? null) : tree;
  if (value === null || typeof value === "string") return value || null;
  throw new DamagedTokenizer(`${name}: expected a string or {"content": string}, found ${shown(tree)}`);
}

function idsOf(tree: JsonTree): number[] {
  return (Array.isArray(tree) ? tree : [tree]).map((value) => {
    if (typeof value === "number" && Number.isInteger(value) && value >= 0) return value;
    throw new DamagedTokenizer(`eos_token_id: expected a number or a list of numbers, found ${shown(tree)}`);
  });
}
