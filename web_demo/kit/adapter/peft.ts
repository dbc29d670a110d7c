import type { AdapterLayout } from "../bundle/adapterLayout.js";
import { asciiJson, pythonRepr } from "../io/pythonJson.js";
import { utf8 } from "../io/utf8.js";
import { putAdapter } from "./adapter.js";

export const PEFT_CONFIG_FILE = "adapter_config.json";
export const PEFT_MODEL_FILE = "adapter_model.safetensors";

/**
 * The files of a directory that `peft.PeftModel.from_pretrained` loads, with the bytes of `lcsb adapter export` (docs/adapter.md): `adapter` is
 * float32 [N] of the bundle whose `layout` it is.
 */
export function peftFiles(layout: AdapterLayout, adapter: Float32Array): Map<string, Uint8Array> {
  const pieces: Uint8Array[] = [];
  putAdapter({ write: (bytes) => void pieces.push(bytes) }, layout, adapter);
  const model = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    model.set(piece, at);
    at += piece.length;
  }
  return new Map([[PEFT_MODEL_FILE, model], [PEFT_CONFIG_FILE, utf8(peftConfig(layout, layout.base?.name ?? ""))]]);
}

/** A plain LoRA, in fields that PEFT has long had: an old release refuses one that it does not know. */
export function peftConfig({ lora, modules }: AdapterLayout, baseModel: string): string {
  const targets = [...new Set([...modules].map((name) => name.split(".").at(-1)!))].sort();
  const fields: readonly (readonly [string, string])[] = [
    ["alpha_pattern", "{}"],
    ["auto_mapping", "null"],
    ["base_model_name_or_path", asciiJson(baseModel)],
    ["bias", '"none"'],
    ["fan_in_fan_out", "false"],
    ["inference_mode", "true"],
    ["init_lora_weights", "true"],
    ["layers_pattern", "null"],
    ["layers_to_transform", "null"],
    ["lora_alpha", Number.isInteger(lora.alpha) ? String(lora.alpha) : pythonRepr(lora.alpha)], // PEFT declares an int
    ["lora_dropout", "0.0"],
    ["modules_to_save", "null"],
    ["peft_type", '"LORA"'],
    ["r", String(lora.rank)],
    ["rank_pattern", "{}"],
    ["revision", "null"],
    ["target_modules", `[\n    ${targets.map(asciiJson).join(",\n    ")}\n  ]`],
    ["task_type", '"CAUSAL_LM"'],
    ["use_dora", "false"],
    ["use_rslora", "false"],
  ];
  return `{\n${fields.map(([name, value]) => `  "${name}": ${value}`).join(",\n")}\n}\n`;
}
