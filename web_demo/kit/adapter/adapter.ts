import { LcsbError } from "../faults.js";
import type { AdapterLayout } from "../bundle/adapterLayout.js";
import { IoError, type StoredFile } from "../io/files.js";
import { pythonRepr } from "../io/pythonJson.js";
import {
  DIGEST_KEY, fileDigest, openTensors, readFloats, UNKNOWN_DIGEST, writeDigested, writeSafetensors, type StoredTensors, type WrittenTensor,
} from "../io/safetensors.js";
import { storing, withFile, type Sink, type Storage } from "../io/storage.js";
import { oneLine, some } from "../io/text.js";

const BASE_KEY = "base";
const BASE_MODEL_KEY = "base_model";
const DIGESTED = ["toolkit", BASE_MODEL_KEY, BASE_KEY]; // keys of the metadata that only a file with a digest has

/** Writes an adapter's file whole or not at all. Throws STORAGE_FULL or STORAGE_FAILED. */
export function writeAdapter(storage: Storage, name: string, layout: AdapterLayout, adapter: Float32Array): Promise<void> {
  return storing(storage.path, () => storage.replace(name, (sink) => putAdapter(sink, layout, adapter)));
}

/**
 * Writes float32 [N] under PEFT's names with the desktop's bytes (docs/adapter.md). A bundle's initial adapter, of a layout without a base,
 * states none and no digest: the manifest has both.
 */
export function putAdapter(sink: Sink, layout: AdapterLayout, adapter: Float32Array): void {
  const named = [...layout.named(adapter)].sort(([a], [b]) => (a < b ? -1 : 1));
  const tensors = new Map(named.map(([tensor, { shape, values }]): [string, WrittenTensor] => [tensor, { dtype: "F32", shape, values }]));
  const metadata = new Map([["format", "pt"], ["rank", String(layout.lora.rank)], ["alpha", pythonRepr(layout.lora.alpha)]]);
  const { base } = layout;
  if (base === null) return writeSafetensors(sink, tensors, metadata);
  for (const [key, value] of [["toolkit", base.toolkit], [BASE_MODEL_KEY, base.name], [BASE_KEY, base.digest]] as const) {
    if (value !== null) metadata.set(key, value);
  }
  writeDigested(sink, tensors, metadata.set(DIGEST_KEY, UNKNOWN_DIGEST));
}

/**
 * Reads an adapter file into all of `into`, float32 [N]. Throws ADAPTER for a file that is damaged, or of another base, as far as it says;
 * else naming every tensor that is missing, unknown or of another shape or dtype, or for NaN and infinite values; then `into` may be half
 * written.
 */
export async function readAdapter(storage: Storage, name: string, layout: AdapterLayout, into: Float32Array): Promise<void> {
  try {
    await withFile(storage, name, (file) => readAdapterFile(file, layout, into));
  } catch (error) {
    if (!(error instanceof IoError)) throw error;
    throw new LcsbError("ADAPTER", `${storage.path}/${name}: cannot be read: ${error.message}`, [name], error);
  }
}

export function readAdapterFile(file: StoredFile, layout: AdapterLayout, into: Float32Array): void {
  const stored = openTensors(file, "ADAPTER");
  checkDigest(stored);
  checkBase(stored, layout);
  const wanted = layout.named(into);
  const faults = [...wanted.keys()].filter((name) => !stored.tensors.has(name)).map((name) => `${name} is missing`);
  for (const [name, { dtype, shape }] of stored.tensors) {
    const expected = wanted.get(name)?.shape.join(", ");
    if (expected === undefined) faults.push(`${name} is unknown`);
    else if (shape.join(", ") !== expected) faults.push(`${name}: expected [${expected}], found [${shape.join(", ")}]`);
    if (dtype !== "F32") faults.push(`${name}: expected F32, found ${dtype}`);
  }
  for (const [key, expected] of [["rank", layout.lora.rank], ["alpha", layout.lora.alpha]] as const) {
    const found = stored.metadata.get(key);
    if (found !== undefined && Number(found) !== expected) faults.push(`${key}: expected ${expected}, found ${found}`);
  }
  if (faults.length > 0) throw refused(file, `does not fit the bundle's adapter: ${some(faults)}`);
  for (const [name, { values }] of wanted) readFloats(stored, name, values);
  if (!into.every(Number.isFinite)) throw refused(file, "holds NaN or infinite values");
}

/** Files of other tools, and of before there was one, state none; one whose key for it was damaged states what goes with it. */
export function checkDigest(stored: StoredTensors): void {
  const stated = stored.metadata.get(DIGEST_KEY);
  if (stated === undefined && !DIGESTED.some((key) => stored.metadata.has(key))) return;
  const found = fileDigest(stored, stated ?? "");
  if (found === stated) return;
  const expected = stated === undefined ? "one" : oneLine(stated, 12);
  throw refused(stored.file, `damaged: expected SHA-256 ${expected}, found ${found.slice(0, 12)}…; copy or write it again`);
}

function checkBase({ file, metadata }: StoredTensors, layout: AdapterLayout): void {
  const digest = layout.base?.digest;
  const stated = metadata.get(BASE_KEY);
  if (layout.base === null || digest == null || stated === undefined || stated === digest) return;
  const expected = `${oneLine(layout.base.name, 80)} (${digest.slice(0, 12)}…)`;
  const found = `${oneLine(metadata.get(BASE_MODEL_KEY) ?? "unknown", 80)} (${oneLine(stated, 12)})`;
  const remedy = "name a bundle of that base, or take it over by lcsb adapter export there and lcsb adapter import";
  throw refused(file, `was trained on another base: expected ${expected}, found ${found}; ${remedy}`);
}

function refused(file: StoredFile, what: string): LcsbError {
  return new LcsbError("ADAPTER", `${file.name}: ${what}`, [file.name]);
}
