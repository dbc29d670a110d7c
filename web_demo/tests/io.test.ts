import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { openFile } from "../cli/nodeFiles.js";
import { LcsbError } from "../kit/faults.js";
import { fileOf } from "../kit/io/files.js";
import { asciiJson, msgspecRepr, pythonRepr } from "../kit/io/pythonJson.js";
import { fileDigest, openTensors, readFloats, writeDigested, writeSafetensors, type WrittenTensor } from "../kit/io/safetensors.js";
import { sha256, Sha256 } from "../kit/io/sha256.js";
import { faultReason, firstFault, utf8 } from "../kit/io/utf8.js";
import { goldenJson, goldenPath } from "./golden.js";

const bytes = (length: number) => Uint8Array.from({ length }, (_, i) => (i * 131 + (i >> 8)) & 255);

test("SHA-256 is Node's, whatever the pieces", () => {
  for (const length of [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000, 100_000]) {
    const message = bytes(length);
    const expected = createHash("sha256").update(message).digest("hex");
    assert.equal(sha256(message), expected);
    for (const piece of [1, 63, 64, 65, 1000]) {
      if (length / piece > 5000) continue;
      const digest = new Sha256();
      for (let at = 0; at < length; at += piece) digest.update(message.subarray(at, at + piece));
      assert.equal(digest.hex(), expected, `${length} in pieces of ${piece}`);
    }
  }
});

test("numbers and texts are written as Python writes them", () => {
  const vectors = goldenJson("run_vectors.json");
  assert.ok(vectors.doubles.length > 10);
  for (const { value, repr, msgspec } of vectors.doubles) {
    assert.equal(pythonRepr(value), repr);
    assert.equal(msgspecRepr(value), msgspec);
  }
  for (const { text, json } of vectors.texts) assert.equal(asciiJson(text), json);
});

test("what is no UTF-8 is found at its byte, with Python's reason", () => {
  const fault = (...raw: number[]) => {
    const text = Uint8Array.from(raw);
    const at = firstFault(text);
    return at < 0 ? null : [at, faultReason(text, at)];
  };
  assert.equal(firstFault(utf8("aé€😀")), -1);
  assert.deepEqual(fault(0x61, 0xff), [1, "invalid start byte"]);
  assert.deepEqual(fault(0xe2, 0x82), [0, "unexpected end of data"]);
  assert.deepEqual(fault(0xed, 0xa0, 0x80), [0, "invalid continuation byte"]);
  assert.deepEqual(fault(0xf4, 0x90, 0x80, 0x80), [0, "invalid continuation byte"]);
});

test("the golden adapter is read, and written again with its bytes", () => {
  const path = goldenPath("adapter.safetensors");
  const stored = openTensors(openFile(path), "ADAPTER");
  const tensors = new Map<string, WrittenTensor>();
  for (const [name, { dtype, shape }] of stored.tensors) {
    const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
    readFloats(stored, name, values);
    tensors.set(name, { dtype: dtype as "F32", shape, values });
  }
  const pieces: Uint8Array[] = [];
  const metadata = new Map([...stored.metadata].map(([key, value]) => [key, key === "sha256" ? "0".repeat(64) : value]));
  const write = metadata.has("sha256") ? writeDigested : writeSafetensors;
  write({ write: (piece) => void pieces.push(piece.slice()) }, tensors, metadata);
  assert.deepEqual(Buffer.concat(pieces), readFileSync(path));
  if (metadata.has("sha256")) assert.equal(fileDigest(stored, stored.metadata.get("sha256")!), stored.metadata.get("sha256"));
});

test("a safetensors file that lies of itself is refused", () => {
  const good = readFileSync(goldenPath("adapter.safetensors"));
  const refused = (change: (raw: Buffer) => Buffer) => {
    const raw = change(Buffer.from(good));
    assert.throws(() => openTensors(fileOf(raw, "x"), "ADAPTER"), (error) => error instanceof LcsbError && error.fault === "ADAPTER");
  };
  refused((raw) => raw.subarray(0, raw.length - 4));
  refused((raw) => raw.subarray(0, 5));
  refused((raw) => (raw.writeBigUInt64LE(1n << 40n), raw));
  refused((raw) => Buffer.concat([raw.subarray(0, 8), Buffer.from("[".repeat(raw.readUInt32LE())), raw.subarray(8 + raw.readUInt32LE())]));
  const twice = Buffer.from('{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}');
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(twice.length));
  refused(() => Buffer.concat([length, twice]));
});
