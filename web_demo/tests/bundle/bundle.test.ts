import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Bundle } from "../../kit/bundle.js";
import type { Fault } from "../../kit/faults.js";
import { checkExternalData } from "../../kit/bundle/onnxExternalData.js";
import { bundleNames, bundleStorage, changed, initialAdapter, openBundle, refused } from "../tools.js";
import { BUNDLES } from "../golden.js";

const storage = bundleStorage("llama");
const text = readFileSync(join(BUNDLES, "llama/manifest.json"), "utf8");

/** What opening the bundle with another manifest says. */
const opening = (content: string | Buffer, fault: Fault = "BUNDLE_UNREADABLE") =>
  refused(fault, () => Bundle.open(changed(storage, { "manifest.json": Buffer.from(content) })));

/** `field`: its parts divided by slashes; `value` undefined: without it. */
function put(field: string, value: unknown): string {
  const manifest = JSON.parse(text);
  const parts = field.split("/");
  const last = parts.pop()!;
  const place = parts.reduce((inner, part) => inner[part], manifest);
  if (value === undefined) delete place[last];
  else place[last] = value;
  return JSON.stringify(manifest);
}

test("every bundle opens, with its adapter and a batch", async () => {
  assert.ok(bundleNames.length >= 17);
  for (const name of bundleNames) {
    const read: number[] = [];
    const bundle = await Bundle.open(bundleStorage(name), (done, total) => read.push(done / total));
    assert.equal(read.at(-1), 1);
    assert.ok((await initialAdapter(bundle)).some((value) => value !== 0));
    assert.equal(bundle.sampleBatch?.inputIds.length, bundle.manifest.seqLen);
  }
});

test("a manifest's values out of range are refused by name", async () => {
  for (const [field, value, expected] of [
    ["seq_len", 0, "seq_len: expected 1 to 1048576, found 0"],
    ["seq_len", 1e18, "expected a whole number below 2^31"],
    ["seed", -1, "seed: expected 0 to 9007199254740992, found -1"],
    ["model/hidden_size", 0, "model.hidden_size: expected 1 to 262144, found 0"],
    ["model/rms_norm_eps", 2, "model.rms_norm_eps: expected 0 to 1, found 2"],
    ["model/attention_kinds/full_attention/window", 0, "model.attention_kinds: expected positive numbers"],
    ["model/tensor_prefix", "../", "model.tensor_prefix: expected words that end with dots, found '../'"],
    ["kinds", [], "kinds: expected 1 to 64, found 0"],
    ["kinds/0/name", "../x", "kinds.'../x': name: expected lower-case letters and digits"],
    ["kinds/0/reads/0", "adapter", "'adapter': expected the name of a table, a value or a state"],
    ["kinds/0/matrices/0/shape", [-4, 48], "expected positive dimensions, found [-4, 48]"],
    ["kinds/0/flops/forward", -1, "kinds.'block': flops: expected 0 or more"],
    ["layers/1/offset", -1, "layers.1: expected 0 or more, found number 1 at -1"],
    ["quantization/bits", 5, "quantization.bits: expected 4 or 8, found 5"],
    ["optimizer/betas", [1, 0.999], "optimizer.betas: expected two of 0 to less than 1"],
    ["accuracy_level", 1, "accuracy_level: expected 0 or 4, found 1"],
    ["weights/1/offset", 12290, "at byte 12290"],
    ["weights/1/dtype", "float64", "found 'float64' [131, 6]"],
    ["source", "\u001b]0;x\u0007", "expected a text without control characters, found '\\x1b]0;x\\x07'"],
    ["tools/a\nb", "1", "expected a text without control characters, found 'a\\x0ab'"],
    ["files/gemm.onnx/size", 2 ** 60, "expected a number of at most 2^53"],
    ["runtime/session_config", { "session.load_model_format": "1" }, "is none of the entries that an export writes"],
    ["identity", "x", "identity: expected a SHA-256, found 'x'"],
    ["extra", 1, "an unknown field 'extra'"],
    ["seed", undefined, "the field 'seed' is missing"],
    ["seed", "1", "expected a number, found a string"],
  ] as const) {
    const message = await opening(put(field, value));
    assert.ok(message.includes(expected) && message.includes("malformed manifest: "), `${field}: ${message}`);
  }
});

test("a manifest's tables that do not agree are refused by name", async () => {
  for (const [field, value, expected] of [
    ["model/layer_types", ["full_attention"], "model.layer_types: expected one for each of 3 layers, found 1"],
    ["model/rotary_dim", 14, "model.rotary_dim: expected an even number up to 12, found 14"],
    ["schedule", [], "schedule: expected at least one step, found none"],
    ["weights/1/dtype", "float32", "'embed_tokens.weight.scale': expected float16 [131, 6], found float32 [131, 6]"], // all or none
    ["schedule/0/train", [2, 1], "schedule: step 1: train: expected ascending layers from 0 to 2"],
    ["layers/1/number", 0, "layers.1: number: expected 1, found 0"],
    ["layers/0/kind", "other", "layers.0: expected one of the kinds block, found 'other'"],
    ["layers/0/takes", { x: "y" }, "layers.0: takes: "],
    ["kinds/0/size", 1, "kinds.block: size: expected 3072, where the last of 14 matrices ends, found 1"],
    ["kinds/0/matrices/1/offset", 0, "matrices: expected a lora_B of rank 4 at"],
    ["weights/0/offset", 4096, "overlap"],
    ["weights/0/shape", [1, 1], "weights: "],
    ["graphs/embed", undefined, "graphs: embed missing"],
    ["graphs/embed/file", "head.onnx", "graphs.embed: expected the file embed.onnx, found 'head.onnx'"],
    ["graphs/block_forward/inputs/0/shape", [1, 1], "graphs.block_forward: inputs: 'h': expected float32 [31, 48], found float32 [1, 1]"],
    ["graphs/embed/inputs/3/weight", "norm.weight", "graphs.embed: 'norm.weight' as: "],
  ] as const) {
    const message = await opening(put(field, value));
    assert.ok(message.includes(expected), `${field}: ${message}`);
  }
});

test("a manifest that is no JSON of ours, or of another time or runtime", async () => {
  assert.match(await opening("[".repeat(100_000)), /malformed manifest/);
  assert.match(await opening(text.replace("{", '{"seed": 1,')), /the key 'seed' stands twice in an object/);
  assert.match(await opening(Buffer.from(text.replace("llama", "\xff"), "latin1")), /not UTF-8/);
  assert.match(await opening(Buffer.alloc((4 << 20) + 1, " ")), /4194305 bytes, more than/);
  assert.match(await opening(put("format_version", 4), "BUNDLE_NEWER_VERSION"), /version 4 is newer than 3/);
  assert.match(await opening(put("format_version", 2), "BUNDLE_OLDER_VERSION"), /version 2 is older than 3/);
  assert.match(await opening(put("target", "coreml"), "BUNDLE_OTHER_TARGET"), /expected a bundle of target onnxruntime, found coreml/);
});

test("files that are missing, other than listed, or not listed", async () => {
  const open = (files: Record<string, Uint8Array | null>) => () => Bundle.open(changed(storage, files));
  assert.match(await refused("BUNDLE_UNREADABLE", open({ "embed.onnx": null })), /embed.onnx is missing; copy the bundle again, whole/);
  assert.match(await refused("BUNDLE_UNREADABLE", open({ "chat_template.jinja": Buffer.from("x") })), /is not listed in the manifest; remove it/);
  assert.match(await refused("BUNDLE_DAMAGED", open({ "embed.onnx": Buffer.from("x") })), /embed.onnx: expected [0-9]+ bytes, found 1/);
  const weights = readFileSync(join(BUNDLES, "llama/weights.bin"));
  weights[12345]! ^= 1;
  assert.match(await refused("BUNDLE_DAMAGED", open({ "weights.bin": weights })), /weights.bin: expected SHA-256/);
  assert.match(await opening(text.replace('"seed": 0', '"seed": 1').replace('"seed":0', '"seed":1'), "BUNDLE_DAMAGED"), /manifest.json: expected SHA-256/);
  const outside = put("files/..~1x", undefined).replace('"files":{', '"files":{"../x":{"size":1,"sha256":"a"},');
  assert.match(await opening(outside), /the manifest lists '..\/x', which is outside the bundle/);
});

test("a program may take its data from the weights alone", async () => {
  const bundle = await openBundle("tiny-int8-activations");
  const program = await bundle.read("block_forward.onnx", 1 << 24);
  const names = bundle.manifest.graphs.get("block_forward")!.initializers.map((tensor) => tensor.name);
  const size = bundle.manifest.files.get("weights.bin")!.size;
  checkExternalData("x", program, "weights.bin", size, names);
  const says = (...given: [string, number, string[]]) => refused("BUNDLE_UNREADABLE", () => checkExternalData("x", program, ...given));
  assert.match(await says("other.bin", size, names), /has its data in 'weights.bin', expected 'other.bin'/);
  assert.match(await says("weights.bin", 10, names), /expected its data within 10 bytes/);
  assert.match(await says("weights.bin", size, []), /has its data outside the program, expected no tensor to have/);
  for (const length of [10, 100, program.length - 1]) {
    const cut = program.subarray(0, length);
    await refused("BUNDLE_UNREADABLE", () => checkExternalData("x", cut, "weights.bin", size, names));
  }
});
