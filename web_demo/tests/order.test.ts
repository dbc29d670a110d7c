import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const KIT = fileURLToPath(new URL("../../kit/", import.meta.url));

// In the order of the data flow, as the other languages' cores: each uses only what stands before it. With .ts, a file beside the folders.
const ORDER = [
  "faults.ts", "io", "text", "bundle", "adapter", "bundle.ts", "data", "runtime", "training", "verdict.ts", "planning", "checkpoint",
  "sampling.ts", "generate.ts", "runOptions.ts", "runControl.ts", "runRecords.ts", "runs", "compare.ts", "trainingRun.ts",
];

test("the kit's folders stand in one order", () => {
  const files = readdirSync(KIT, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".ts"));
  const part = (path: string) => ORDER.indexOf(path.split("/")[0]!);
  assert.deepEqual(new Set(files.map(part)), new Set(ORDER.keys()));
  const faults: string[] = [];
  for (const file of files) {
    for (const [, name] of readFileSync(join(KIT, file), "utf8").matchAll(/ from "(\.[^"]+)\.js"/g)) {
      const other = relative(KIT, join(KIT, dirname(file), `${name}.ts`));
      if (part(other) > part(file)) faults.push(`${file} uses ${other}`);
    }
  }
  assert.deepEqual(faults, []);
});
