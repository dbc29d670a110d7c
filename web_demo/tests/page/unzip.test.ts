import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { filesOfZip } from "../../page/worker/adapters.js";
import { PickedSource } from "../../page/worker/sources.js";
import { wholeOf } from "../../page/worker/streams.js";
import { zippedFiles } from "../../page/worker/unzip.js";
import { refused } from "../tools.js";

// Against archives that Python's zipfile writes, and such as nobody should.

const PYTHON = process.env["PYTHON"] ?? "python3";
const WEIGHTS = Buffer.from(Uint8Array.from({ length: 200_000 }, (_, i) => (i * i) >>> 3));
const END = 22; // bytes of the record at an archive's end, without a comment

/** What `program`, which has `z`, a ZipFile that is being written, makes of it. */
function archive(program: string): Buffer {
  const directory = mkdtempSync(join(tmpdir(), "lcsb-unzip-"));
  try {
    const file = join(directory, "bundle.zip");
    const weights = "bytes((i * i >> 3) & 255 for i in range(200000))";
    const code = `import sys, warnings, zipfile\nwarnings.simplefilter("ignore")\nweights = ${weights}\nwith zipfile.ZipFile(sys.argv[1], "w") as z:\n${program.replace(/^/gm, "    ")}\n`;
    execFileSync(PYTHON, ["-c", code, file]);
    return readFileSync(file);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

const BUNDLE = archive(`
z.mkdir("tiny") if hasattr(z, "mkdir") else z.writestr("tiny/", "")
z.writestr("tiny/manifest.json", "{}", zipfile.ZIP_DEFLATED)
z.writestr("tiny/weights.bin", weights, zipfile.ZIP_STORED)
z.writestr("tiny/programs/block.onnx", weights, zipfile.ZIP_DEFLATED)
z.comment = b"PK\\x05\\x06 says this comment"`);

const opened = (bytes: Uint8Array) => zippedFiles(new Blob([new Uint8Array(bytes)]));

async function contentOf(bytes: Uint8Array, name: string, from = 0): Promise<[number, Buffer]> {
  const { from: begun, pieces } = await new PickedSource(await opened(bytes)).read(name, from);
  return [begun, Buffer.from((await wholeOf(pieces, 1 << 20))!)];
}

/** With numbers of two or four bytes in their places; the archive's first entry in its list is at `listOf`. */
function changed(bytes: Buffer, ...changes: readonly (readonly [at: number, value: number, size?: 2 | 4])[]): Buffer {
  const copy = Buffer.from(bytes);
  for (const [at, value, size = 4] of changes) copy.writeUIntLE(value, at, size);
  return copy;
}

const listOf = (bytes: Buffer) => bytes.readUInt32LE(bytes.length - END + 16);

test("the folder in it is the bundle; a stored file goes on from anywhere, a deflated one begins anew", async () => {
  assert.deepEqual(await contentOf(BUNDLE, "manifest.json"), [0, Buffer.from("{}")]);
  assert.deepEqual(await contentOf(BUNDLE, "weights.bin"), [0, WEIGHTS]);
  assert.deepEqual(await contentOf(BUNDLE, "weights.bin", 150_000), [150_000, WEIGHTS.subarray(150_000)]);
  assert.deepEqual(await contentOf(BUNDLE, "programs/block.onnx", 150_000), [0, WEIGHTS]);
  assert.match(await refused("BUNDLE_UNREADABLE", () => contentOf(BUNDLE, "adapter.safetensors")), /is not among the files/);
});

test("ZIP64's fields are read, of the list and of an entry", async () => {
  // whoever writes to something that cannot go back says sizes in ZIP64's fields, and after the content
  const streamed = archive(`
with z.open("manifest.json", "w", force_zip64=True) as file: file.write(b"{}")
z.writestr("weights.bin", weights)`);
  assert.deepEqual(await contentOf(streamed, "weights.bin"), [0, WEIGHTS]);
  const large = archive(`
zipfile.ZIP64_LIMIT = 1000
zipfile.ZIP_FILECOUNT_LIMIT = 1
z.writestr("manifest.json", "{}")
z.writestr("weights.bin", weights)`);
  assert.deepEqual(await contentOf(large, "weights.bin"), [0, WEIGHTS]);
  const end = large.length - END;
  const full = changed(large, [end + 8, 0xffff, 2], [end + 10, 0xffff, 2], [end + 12, 0xffffffff], [end + 16, 0xffffffff]);
  assert.deepEqual(await contentOf(full, "weights.bin"), [0, WEIGHTS]);
  const place = end - 20 - 56; // of ZIP64's record
  const says = async (...change: readonly [at: number, value: number]) => refused("BUNDLE_UNREADABLE", () => opened(changed(full, change)));
  assert.match(await says(place, 0), /the end of a ZIP64 file is missing/);
  assert.match(await says(place + 4, 45), /the end of a ZIP64 file is missing/);
  assert.match(await says(end - 20 + 8, place - 1), /the end of a ZIP64 file is missing/);
  assert.match(await says(end - 20 + 12, 1), /the end of a ZIP64 file is missing/); // some 4 GB on
  assert.match(await says(end - 20, 0), /the end of a ZIP64 file is missing/);
  assert.match(await says(place + 24, 1), /one part of several/);
  assert.match(await says(place + 44, 1), /does not lie where it says/);
  assert.match(await refused("BUNDLE_UNREADABLE", () => opened(changed(large, [end + 10, 3, 2]))), /two records of its list of files differ/);
});

const ONE = archive('z.writestr("manifest.json", "{}" * 500, zipfile.ZIP_DEFLATED)');
const LIST = listOf(ONE);
const TWO = archive('z.writestr("a", "{}")\nz.writestr("b", "[]")');
const STORED = archive('z.writestr("manifest.json", "{}" * 500)');

const HOSTILE: Readonly<Record<string, readonly [bytes: Buffer, why: RegExp]>> = {
  "no archive": [WEIGHTS, /no ZIP file, or the end of one is missing/],
  "nothing at all": [Buffer.alloc(0), /no ZIP file/],
  "one whose end was cut off": [BUNDLE.subarray(0, -40), /no ZIP file, or the end of one is missing/],
  "one whose beginning was cut off": [BUNDLE.subarray(100), /does not lie where it says/],
  "one with something before it": [Buffer.concat([Buffer.from("#!/bin/sh\n"), ONE]), /does not lie where it says/],
  "one part of several": [changed(ONE, [ONE.length - END + 4, 1, 2]), /one part of several/],
  "more entries than its list has": [changed(ONE, [ONE.length - END + 8, 2, 2], [ONE.length - END + 10, 2, 2]), /list of files breaks off/],
  "fewer entries than its list has": [changed(ONE, [ONE.length - END + 8, 0, 2], [ONE.length - END + 10, 0, 2]), /another length than it says/],
  "a name that reaches beyond the list": [changed(ONE, [LIST + 28, 0x7fff, 2]), /list of files breaks off/],
  "a name that leads out": [archive('z.writestr("../manifest.json", "{}")'), /'\.\.\/manifest\.json', which leads out of it/],
  "a name from the root": [archive('z.writestr("/manifest.json", "{}")'), /'\/manifest\.json', which leads out of it/],
  "a name of another system": [archive('z.writestr("tiny\\\\manifest.json", "{}")'), /which leads out of it or nowhere/],
  "two files of a name": [archive('z.writestr("manifest.json", "{}")\nz.writestr("manifest.json", "[]")'), /two files of the name 'manifest\.json'/],
  "an encrypted file": [changed(ONE, [LIST + 8, 1, 2]), /manifest\.json is encrypted/],
  "another compression": [archive('z.writestr("manifest.json", "{}", zipfile.ZIP_BZIP2)'), /manifest\.json is compressed by method 12/],
  "two sizes of a stored file": [changed(STORED, [listOf(STORED) + 24, 999]), /is stored, and has two sizes: 999 and 1000/],
  "a place beyond the list": [changed(ONE, [LIST + 42, LIST]), /does not lie where the list of files says/],
  "a place within another file": [changed(TWO, [TWO.lastIndexOf("PK\x01\x02") + 42, 1]), /(a|b) does not lie where the list of files says/],
  "a size that reaches into the list": [changed(ONE, [LIST + 20, LIST]), /does not lie where the list of files says/],
  "a size in ZIP64's fields that has none": [changed(ONE, [LIST + 24, 0xffffffff]), /the size or place of manifest\.json is missing/],
};

for (const [name, [bytes, why]] of Object.entries(HOSTILE)) {
  test(`refused before anything is read: ${name}`, async () => {
    assert.match(await refused("BUNDLE_UNREADABLE", () => opened(bytes)), why);
  });
}

const LYING: Readonly<Record<string, readonly [bytes: Buffer, why: RegExp]>> = {
  "its own header has another name": [changed(ONE, [30, 0x4141, 2]), /manifest\.json is not what the list of files says/],
  "its own header has another method": [changed(ONE, [8, 0, 2]), /manifest\.json is not what the list of files says/],
  "its own header is none": [changed(ONE, [0, 0]), /manifest\.json is not what the list of files says/],
  "its own header reaches beyond the file": [changed(ONE, [28, 0xffff, 2]), /manifest\.json is not what the list of files says/],
  "it unpacks to more than it says": [changed(ONE, [LIST + 24, 999]), /manifest\.json has more than the 999 bytes/],
  "it unpacks to less than it says": [changed(ONE, [LIST + 24, 1001]), /manifest\.json has fewer than the 1001 bytes/],
  "what it holds is not deflated": [changed(ONE, [30 + 13, 0xffffffff]), /manifest\.json cannot be unpacked/],
  "its end is missing": [changed(ONE, [LIST + 20, ONE.readUInt32LE(LIST + 20) - 3]), /manifest\.json cannot be unpacked/],
};

for (const [name, [bytes, why]] of Object.entries(LYING)) {
  test(`refused where the file is read: ${name}`, async () => {
    assert.match(await refused("BUNDLE_UNREADABLE", () => contentOf(bytes, "manifest.json")), why);
  });
}

test("what unpacks to more than it says is not handed on", async () => {
  const bomb = archive('z.writestr("manifest.json", bytes(50_000_000), zipfile.ZIP_DEFLATED)');
  const { pieces } = await new PickedSource(await opened(changed(bomb, [listOf(bomb) + 24, 100_000]))).read("manifest.json", 0);
  let found = 0;
  await refused("BUNDLE_UNREADABLE", async () => {
    for await (const piece of pieces) found += piece.length;
  });
  assert.ok(found <= 100_000, `${found} bytes`);
});

test("of an adapter's ZIP file PEFT's two files are read, of a size that they can have, and once", async () => {
  const zipped = (program: string) => filesOfZip("mine.zip", new Blob([new Uint8Array(archive(program))]), 1000);
  const two = 'z.writestr("mine/adapter_config.json", "{}")\nz.writestr("mine/adapter_model.safetensors", "A" * 1000, zipfile.ZIP_DEFLATED)\n';
  const found = await zipped(`${two}z.writestr("mine/README.md", "B" * 2000)`);
  assert.deepEqual([...found].map(([name, { size }]) => [name, size]), [["adapter_config.json", 2], ["adapter_model.safetensors", 1000]]);
  assert.match(await refused("ADAPTER", () => zipped(`${two}z.writestr("other/adapter_config.json", "{}")`)), /more than one adapter_config\.json/);
  assert.match(await refused("ADAPTER", () => zipped('z.writestr("adapter_model.safetensors", "A" * 1001)')), /more than the 1000 bytes/);
  assert.match(await refused("ADAPTER", () => filesOfZip("mine.zip", new Blob(["no ZIP"]), 1000)), /it is no ZIP file/);
});
