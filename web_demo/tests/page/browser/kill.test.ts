import assert from "node:assert/strict";
import { test } from "node:test";
import { KILLED_BUNDLE, KILLED_STEPS, trainedWithKills, type Moment } from "./killing.js";
import { trainedOnNode } from "../tools.js";

test("killed before its first step and in the midst of it, and paused, a run goes on and learns the same", async () => {
  const expected = trainedOnNode(KILLED_BUNDLE, KILLED_STEPS);
  const moments: Moment[] = [(page) => page.says("Testing the model"), (page) => page.reaches(4), (page) => page.reaches(12)];
  const shown: string[] = [];
  const pausing: Moment = async (page) => {
    await page.click("Pause");
    await page.says("It stays paused until you resume it.");
    await page.click("Resume");
  };
  const adapter = await trainedWithKills(moments, (line) => shown.push(line), pausing);
  assert.deepEqual(
    shown.map((line) => /^Step (0|5|10|15) of 20\. The page was closed; nothing was lost\./.test(line)),
    [true, true, true],
    shown.join("\n"),
  );
  assert.deepEqual(adapter, (await expected).adapter);
});
