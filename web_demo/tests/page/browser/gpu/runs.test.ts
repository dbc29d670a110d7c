import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { SOFTWARE_GPU, TestBrowser, type TestPage } from "../driver.js";
import { SiteServer } from "../server.js";
import { fewExamples, folderOf, trainedOnNode } from "../../tools.js";

// Whole runs of the page on a GPU that the processor plays (SwiftShader), which takes minutes: a part of its own (docs/testing.md).

const BUNDLE = "llama-20-steps"; // its programs are for a GPU
const STEPS = 8;
const PATIENCE = 600_000; // milliseconds
const UNSUITABLE = "This device’s graphics processor cannot train this model.";
const BY_GPU = /Computed by onnxruntime web [0-9.]+ \(webgpu\)\n/;
const BY_WASM = /Computed by onnxruntime web [0-9.]+\n/;

const folder = mkdtempSync(join(tmpdir(), "lcsb-gpu-"));
const data = fewExamples(folder);

let server: SiteServer;
let browser: TestBrowser;
let page: TestPage;

before(async () => {
  server = await SiteServer.start({ bundles: { [BUNDLE]: folderOf(BUNDLE) } });
  browser = await TestBrowser.start(...SOFTWARE_GPU);
  page = await browser.open(server.address, { patience: PATIENCE });
});
after(async () => {
  await browser.close();
  server.close();
  rmSync(folder, { recursive: true });
});

/**
 * How far an adapter is from another, relative to its length. Not by the element that is off the most: AdamW divides a gradient by its own size, so
 * one that is nothing but rounding moves its parameter by any share of the learning rate (web_demo/README.md).
 */
function distance(found: Buffer, expected: Buffer): number {
  const [a, b] = [found, expected].map((file) => {
    const begin = 8 + Number(file.readBigUInt64LE()); // safetensors: its header's size comes first
    return new Float32Array(Uint8Array.from(file.subarray(begin)).buffer);
  }) as [Float32Array, Float32Array];
  assert.equal(a.length, b.length);
  return Math.hypot(...b.map((value, i) => value - a[i]!)) / Math.hypot(...b);
}

/** Begins a run on the GPU, and waits until it is under way. */
async function begin(button: string): Promise<void> {
  await page.show("train");
  await page.chooseSteps("least");
  await page.page.select("#gpu", "gpu");
  await page.click(button);
  await page.says(`Step 0 of ${STEPS}`);
}

test("the golden trace is tested first, and a run of 8 steps learns what WebAssembly learns on Node", async () => {
  await page.addModel(BUNDLE);
  await page.says("Will be tested in this browser");
  await page.show("data");
  await (await page.page.$("input#import-data"))!.uploadFile(data);
  await page.says("Ready for training.");
  await page.worksOffline();
  await begin("Start");
  await page.says("Testing the model on this device");
  await page.says("What this run learned");
  assert.match(await page.text(), BY_GPU);
  await page.show("share");
  const learned = await browser.download(page, "Save file: few.jsonl");
  const expected = (await trainedOnNode(BUNDLE, STEPS, data)).adapter;
  const off = distance(learned, expected);
  assert.ok(off > 0 && off < 1e-5, `the adapter is off by ${off} of its length`);
});

test("offline a run on it goes on by the processor when the GPU is lost", async () => {
  server.offline = true; // what the first run fetched is kept
  await page.page.reload();
  await begin("Train again");
  await page.reaches(1);
  await browser.killGpu();
  await page.says("The graphics processor failed.");
  await page.says("Nothing saved was lost.");
  await page.click("Resume");
  await page.says("What this run learned");
  assert.match(await page.text(), BY_WASM);
  assert.doesNotMatch(await page.text(), BY_GPU);
  server.offline = false;
});

test("a run that was begun on a GPU goes on in a browser that gives none, and says so", async () => {
  await browser.close();
  browser = await TestBrowser.start(...SOFTWARE_GPU); // a new one: not every version gives a GPU again once its process was killed
  page = await browser.open(server.address, { patience: PATIENCE });
  await page.prepare(BUNDLE);
  await begin("Start");
  await page.reaches(1);
  await page.click("Pause");
  await page.says("Paused");
  assert.match(await page.text(), BY_GPU);
  await browser.restart();
  page = await browser.open(`${server.address}#train`, { patience: PATIENCE });
  await page.says("Paused");
  assert.equal(await page.page.$("#gpu"), null);
  await page.click("Resume");
  await page.says(UNSUITABLE);
  await page.says("What this run learned");
  assert.match(await page.text(), BY_WASM);
});
