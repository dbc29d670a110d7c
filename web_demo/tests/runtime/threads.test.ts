import assert from "node:assert/strict";
import { test } from "node:test";
import * as ort from "onnxruntime-web";
import { verify } from "../../kit/runs/verify.js";
import { BlockRunner } from "../../kit/runtime/blockRunner.js";
import { openBundle } from "../tools.js";

// Alone in its process: the first session decides for all of them how many threads there are.

test("with several threads the runtime reproduces the golden trace", async () => {
  let workers = 0;
  process.on("worker", () => workers++);
  const bundle = await openBundle("llama");
  const runner = await BlockRunner.open(ort, bundle, { threads: 3 });
  const { difference, stepTolerance } = await verify(bundle, runner);
  assert.ok(difference.steps > 0 && difference.stepLoss < stepTolerance / 100, JSON.stringify(difference));
  assert.equal(workers, 2); // and the one that asked
  await runner.close();
});
