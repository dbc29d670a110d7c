import assert from "node:assert/strict";
import { test } from "node:test";
import { peftFiles } from "../../kit/adapter/peft.js";
import { readPeft } from "../../kit/adapter/peftReader.js";
import { AdapterLayout } from "../../kit/bundle/adapterLayout.js";
import { SlotStorage } from "../../kit/io/slots.js";
import { goldenJson } from "../golden.js";
import { initialAdapter, MemoryFiles, openBundle, refused } from "../tools.js";

interface Case {
  readonly name: string;
  readonly config: string;
  readonly model: number;
  readonly adapter: string | null; // null where Python refused it
}

const golden = goldenJson("peft_imports.json");
const cases: readonly Case[] = golden.cases;
const { lora, matrices, kinds, prefix } = golden.layout;
const layout = new AdapterLayout(lora, new Map(Object.entries(matrices)), kinds, prefix, null);

function directory(files: Iterable<readonly [string, Uint8Array]>): SlotStorage {
  const memory = new MemoryFiles();
  for (const [name, content] of files) memory.files.set(name, content);
  return new SlotStorage(memory);
}

const of = ({ config, model }: Case) =>
  directory([["adapter_config.json", Buffer.from(config)], ["adapter_model.safetensors", Buffer.from(golden.models[model], "base64")]]);
const named = (name: string) => cases.find((one) => one.name === name)!;

/** As the golden's bundle begins. */
function initial(): Float32Array {
  const adapter = new Float32Array(layout.size);
  for (const [name, { values }] of layout.named(adapter)) values.fill(name.includes(".lora_A.") ? 0.25 : 0.5);
  return adapter;
}

test("a directory is read as Python reads it, or refused where Python refuses it", async () => {
  assert.ok(cases.filter(({ adapter }) => adapter !== null).length >= 8 && cases.filter(({ adapter }) => adapter === null).length >= 20);
  for (const one of cases) {
    const adapter = initial();
    if (one.adapter === null) {
      const message = await refused("ADAPTER", () => readPeft(of(one), layout, adapter));
      assert.ok(message.length < 3000);
    } else {
      await readPeft(of(one), layout, adapter);
      assert.deepEqual(Buffer.from(adapter.buffer), Buffer.from(one.adapter, "base64"), one.name);
    }
  }
});

test("it says what it read, and what it does not read", async () => {
  const partly = await readPeft(of(named("without a projection")), layout, initial());
  assert.deepEqual([[...partly.initial], partly.baseModel], [[["mlp.up_proj", [0, 1]]], "m"]);
  assert.deepEqual([...(await readPeft(of(named("mixed")), layout, initial())).dtypes], ["F16", "F32"]);
  assert.equal((await readPeft(of(named("whole")), layout, initial())).matrices, 12);
  const whole = named("whole");
  const pattern = { ...whole, config: whole.config.replace(/"target_modules": \[[^\]]*\]/, '"target_modules": "(q_proj)+"') };
  assert.match(await refused("ADAPTER", () => readPeft(of(pattern), layout, initial())), /patterns are not read here/);
  const pickled = directory([["adapter_config.json", Buffer.from(whole.config)], ["adapter_model.bin", Buffer.from("x")]]);
  assert.match(await refused("ADAPTER", () => readPeft(pickled, layout, initial())), /only pickled weights \(adapter_model.bin\)/);
});

test("what was written is read again", async () => {
  const bundle = await openBundle("lfm2");
  const adapter = Float32Array.from({ length: bundle.layout.size }, (_, i) => ((i % 1009) - 504) / 7);
  const found = await initialAdapter(bundle);
  await readPeft(directory(peftFiles(bundle.layout, adapter)), bundle.layout, found);
  assert.deepEqual(found, adapter);
});
