import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { putAdapter, readAdapterFile } from "../../kit/adapter/adapter.js";
import { PEFT_CONFIG_FILE, PEFT_MODEL_FILE, peftConfig, peftFiles } from "../../kit/adapter/peft.js";
import { AdapterLayout, type Base } from "../../kit/bundle/adapterLayout.js";
import { fileOf } from "../../kit/io/files.js";
import { BUNDLES, goldenJson, goldenPath } from "../golden.js";
import { initialAdapter, openBundle, refused } from "../tools.js";

const cases = goldenJson("run_vectors.json").peft_configs;
const golden = readFileSync(goldenPath("adapter.safetensors"));
const BASE = { name: 'Größe "x"', digest: "ab".repeat(32), toolkit: "0.1.0" };

const layoutOf = ({ lora, matrices, kinds, prefix = "model." }: any, base: Base | null) =>
  new AdapterLayout(lora, new Map(Object.entries(matrices)), kinds, prefix, base);
const trained = (base: Base = BASE) => layoutOf(cases.at(-1).layout, base);

function written(layout: AdapterLayout, adapter: Float32Array): Buffer {
  const pieces: Uint8Array[] = [];
  putAdapter({ write: (bytes) => void pieces.push(bytes.slice()) }, layout, adapter);
  return Buffer.concat(pieces);
}

function read(content: Uint8Array, layout = trained()): Float32Array {
  const adapter = new Float32Array(layout.size);
  readAdapterFile(fileOf(content, "x"), layout, adapter);
  return adapter;
}

test("an adapter is written with Python's bytes, of a bundle's own too", async () => {
  const adapter = read(golden);
  assert.ok(adapter.every((value, i) => value === (((i * 7919) % 256) - 128) / 128));
  assert.deepEqual(written(trained(), adapter), golden);
  for (const name of ["llama", "lfm2", "qwen3_5"]) {
    const bundle = await openBundle(name);
    const { lora, model, kinds, layers } = bundle.manifest;
    const matrices = Object.fromEntries(kinds.map((kind) => [kind.name, kind.matrices]));
    const ofNone = layoutOf({ lora, matrices, kinds: layers.map((layer) => layer.kind), prefix: model.tensorPrefix }, null);
    assert.deepEqual(written(ofNone, await initialAdapter(bundle)), readFileSync(join(BUNDLES, name, "adapter.safetensors")));
  }
});

test("a damaged adapter and one of another base are refused", async () => {
  for (let at = 0; at < golden.length; at += 7) {
    const changed = Buffer.from(golden);
    changed[at]! ^= 1;
    await refused("ADAPTER", () => read(changed));
  }
  const other = trained({ name: "another", digest: "cd".repeat(32), toolkit: null });
  assert.match(await refused("ADAPTER", () => read(golden, other)), /expected another \(cdcd.*found Größe/);
  read(golden, trained({ name: "of before", digest: null, toolkit: null }));
  const { layout } = await openBundle("llama");
  assert.match(await refused("ADAPTER", () => read(golden, layout)), /was trained on another base/);
});

test("PEFT's configuration is Python's", () => {
  for (const { layout, base, text } of cases) assert.equal(peftConfig(layoutOf(layout, null), base), text);
  const files = peftFiles(trained(), read(golden));
  assert.deepEqual([...files.keys()].sort(), [PEFT_CONFIG_FILE, PEFT_MODEL_FILE]);
  assert.deepEqual(Buffer.from(files.get(PEFT_MODEL_FILE)!), golden);
});
