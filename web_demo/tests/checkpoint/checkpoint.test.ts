import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { checkpointName, checkpointNames, readCheckpoint, writeCheckpoint, type RunCheckpoint, type RunIdentity } from "../../kit/checkpoint/runCheckpoint.js";
import { checkIdentity, RunDirectory } from "../../kit/checkpoint/runDirectory.js";
import { sha256 } from "../../kit/io/sha256.js";
import { SlotStorage } from "../../kit/io/slots.js";
import { withFile } from "../../kit/io/storage.js";
import { readBounded } from "../../kit/io/files.js";
import { goldenPath } from "../golden.js";
import { MemoryFiles, refused } from "../tools.js";

const LAYERS = 3;
const SIZE = 21;
const raw = readFileSync(goldenPath("run_checkpoint.safetensors"));
const headerSize = Number(raw.readBigUInt64LE());

function storageWith(files: Readonly<Record<string, Uint8Array>>): SlotStorage {
  const memory = new MemoryFiles();
  for (const [name, content] of Object.entries(files)) memory.files.set(name, content);
  return new SlotStorage(memory);
}

const read = (content: Uint8Array, size = SIZE) => readCheckpoint(storageWith({ x: content }), "x", LAYERS, size);
const damage = (content: Uint8Array) => refused("CHECKPOINT_DAMAGED", () => read(content));

/** The golden file with another header, or other data, and a digest that is right. */
function forged(old: string, next: string, data: Uint8Array = raw.subarray(8 + headerSize)): Buffer {
  const header = raw.toString("latin1", 8, 8 + headerSize);
  assert.ok(header.includes(old), old);
  const zeroed = Buffer.from(header.replace(/"sha256":"[0-9a-f]{64}/, `"sha256":"${"0".repeat(64)}`).replace(old, () => next), "latin1");
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(zeroed.length));
  const whole = Buffer.concat([length, zeroed, data]);
  return Buffer.from(whole.toString("latin1").replace("0".repeat(64), sha256(whole)), "latin1");
}

test("Python's file is read, and written again with its bytes", async () => {
  const found = await read(raw);
  assert.equal(found.place.step, 4);
  assert.equal(found.place.identity.date, "2026-02-28T23:05:09");
  assert.deepEqual([...found.updates], [4, 0, 4]);
  const storage = storageWith({});
  await writeCheckpoint(storage, found);
  assert.deepEqual(Buffer.from(await withFile(storage, checkpointName(4), (file) => readBounded(file, 1e6))), raw);
});

test("a flipped bit is noticed wherever it is, and a file cut short", async () => {
  for (let at = 0; at < raw.length; at += at < 64 ? 1 : 16) {
    const changed = Buffer.from(raw);
    changed[at]! ^= 1 << at % 8;
    await damage(changed);
  }
  for (const length of [0, 5, 8, 100, raw.length - 200, raw.length - 1]) await damage(raw.subarray(0, length));
});

test("a forgery is refused with what is wrong", async () => {
  assert.equal((await read(forged("F32", "F32"))).place.step, 4);
  for (const [old, next, reason] of [
    ["lcsb_mobile.checkpoint", "other", "expected lcsb_mobile.checkpoint version 3, found 'other' version '3'"],
    ['"version":"3"', '"version":"2"', "version '2'; end the run with the page that began it"],
    ["2026-02-28T", "2026-02-29T", "malformed: date: expected one as 2026-02-28T23:05:09, found '2026-02-29T23:05:09'"],
    ['"version":"3"', '"version":"3","more":"x"', "its metadata is another"],
    ['\\"step\\":4', '\\"step\\":5', "malformed: step 5 after 8 sequences, expected 10"],
    ['\\"step\\":4,', '\\"step\\":4,\\"next\\":5,', "an unknown field 'next'"],
    ['\\"accumulation\\":2', '\\"accumulation\\":0', "malformed: accumulation: expected a whole number of at least 1, found 0"],
    ['"updates":', '"upd4tes":', "'upd4tes' is unknown"],
    ['"adapter":{"dtype":"F32","shape":[21]', '"adapter":{"dtype":"F32","shape":[3,7]', "adapter: expected F32 [21]"],
    ['"data_offsets":[168,252]', '"data_offsets":[0,84]', "second_moment: expected F32 [21] at byte 168"],
  ] as const) {
    const message = await damage(forged(old, next));
    assert.ok(message.includes(reason), `${old}: ${message}`);
  }
  const data = raw.subarray(8 + headerSize);
  const with_ = (change: (copy: Buffer) => void) => {
    const copy = Buffer.from(data);
    change(copy);
    return damage(forged("F32", "F32", copy));
  };
  assert.match(await with_((copy) => copy.writeFloatLE(NaN, 12)), /adapter holds NaN or infinite values/);
  assert.match(await with_((copy) => copy.writeFloatLE(-1, 168)), /second_moment holds negative values/);
  assert.match(await with_((copy) => copy.writeBigInt64LE(-1n, 252)), /updates holds negative values/);
  assert.match(await damage(forged("F32", "F32", Buffer.concat([data, Buffer.alloc(7)]))), /expected 500 bytes of tensors, found 507/);
  assert.match(await refused("CHECKPOINT_DAMAGED", () => read(raw, 24)), /does not fit the bundle's adapter: adapter: expected F32 \[24\]/);
});

async function checkpointAt(step: number): Promise<RunCheckpoint> {
  const golden = await read(raw);
  const place = { ...golden.place, step, sequences: 2 * step };
  return { ...golden, place, steps: Float64Array.from({ length: 6 * step }, (_, i) => i / 3) };
}

test("the last two checkpoints are kept, a damaged one is passed over, and one run has the directory", async () => {
  const memory = new MemoryFiles();
  const storage = new SlotStorage(memory);
  const directory = await RunDirectory.open(storage);
  await refused("RUN_BUSY", () => RunDirectory.open(storage));
  for (const step of [0, 2, 4, 6]) await directory.write(await checkpointAt(step));
  assert.deepEqual(await checkpointNames(storage), [checkpointName(6), checkpointName(4)]);
  const { identity } = (await read(raw)).place;
  const warnings: string[] = [];
  const newest = (wanted: RunIdentity = identity, lower = false) => directory.newest(LAYERS, SIZE, wanted, lower, (text) => warnings.push(text));
  assert.equal((await newest())?.place.step, 6);
  const file = [...memory.files.keys()].find((name) => name.startsWith(checkpointName(6)))!;
  memory.files.get(file)![900]! ^= 1; // its slot is not good any more: the name is not there
  assert.equal((await newest())?.place.step, 4);
  assert.equal(await directory.beginning(LAYERS, SIZE), "2026-02-28T23:05:09");
  await storage.replace(checkpointName(8), (sink) => sink.write(raw.subarray(0, 500)));
  assert.equal((await newest())?.place.step, 4);
  assert.match(warnings.splice(0).join(), /step-00000008.safetensors: .*; going on from step-00000004/);
  assert.match(await refused("CHECKPOINT_OTHER_RUN", () => newest({ ...identity, seed: 6 })), /is of another run: seed: 5 then, 6 now; go on/);
  const slower = { ...identity, train: { ...identity.train, learningRate: 1e-4 } };
  await refused("CHECKPOINT_OTHER_RUN", () => newest(slower));
  assert.equal((await newest(slower, true))?.place.step, 4);
  assert.match(warnings.join(), /going on at a learning rate of 0.0001, which was 0.001 up to step 4/);
  directory.close();
  (await RunDirectory.open(storage)).close();
});

test("a run may become longer where its rate does not depend on it", async () => {
  const { identity } = (await read(raw)).place;
  const longer = { ...identity, train: { ...identity.train, steps: 50 } };
  checkIdentity("x", "x", identity, longer);
  const linear = (found: RunIdentity): RunIdentity => ({ ...found, train: { ...found.train, lrSchedule: "linear" } });
  assert.match(await refused("CHECKPOINT_OTHER_RUN", () => checkIdentity("x", "x", linear(identity), linear(longer))), /steps: 40 then, 50 now/);
});
