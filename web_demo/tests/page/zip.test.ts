import assert from "node:assert/strict";
import { test } from "node:test";
import { zipOf } from "../../page/worker/zip.js";
import { unzipped } from "./tools.js";

test("Python reads the ZIP file, names in UTF-8 and empty files too", () => {
  const files = new Map([
    ["größe/a.json", Buffer.from("{}")],
    ["größe/b.bin", Buffer.from(Uint8Array.from({ length: 70_000 }, (_, i) => (i * i) & 255))],
    ["empty", Buffer.alloc(0)],
  ]);
  assert.deepEqual(unzipped(zipOf(files)), files);
});

test("the same files are the same bytes", () => {
  const files = new Map([["a", Uint8Array.of(1, 2, 3)]]);
  assert.deepEqual(zipOf(files), zipOf(files));
});
