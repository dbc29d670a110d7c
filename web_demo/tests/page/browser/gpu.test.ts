import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { TestBrowser, type TestPage } from "./driver.js";
import { SiteServer } from "./server.js";
import { folderOf, SAMPLE, trainedOnNode } from "../tools.js";

// Layers on a GPU that the processor plays (SwiftShader), through the kit and through the page. Its speed says nothing.

const BUNDLE = "llama-20-steps"; // its programs are for a GPU
const STEPS = 8;
const UNSUITABLE = "This device’s graphics processor cannot train this model.";
const ON_GPU = /Computed by onnxruntime web [0-9.]+ \(webgpu\)/;

const folder = mkdtempSync(join(tmpdir(), "lcsb-gpu-"));
const data = join(folder, "few.jsonl"); // few examples, as each evaluation takes long
writeFileSync(data, readFileSync(SAMPLE, "utf8").split("\n").slice(0, 12).join("\n"));

let server: SiteServer;
let browser: TestBrowser;
let page: TestPage;

before(async () => {
  server = await SiteServer.start({ bundles: { [BUNDLE]: folderOf(BUNDLE) } });
  browser = await TestBrowser.start(true);
});
after(async () => {
  await browser.close();
  server.close();
  rmSync(folder, { recursive: true });
});

/** The largest difference between two adapters' elements, of the largest element. */
function farthest(found: Buffer, expected: Buffer): number {
  const [a, b] = [found, expected].map((file) => {
    const begin = 8 + Number(file.readBigUInt64LE()); // safetensors: its header's size comes first
    return new Float32Array(Uint8Array.from(file.subarray(begin)).buffer);
  }) as [Float32Array, Float32Array];
  assert.equal(a.length, b.length);
  return b.reduce((most, value, i) => Math.max(most, Math.abs(value - a[i]!)), 0) / Math.max(...b.map(Math.abs));
}

/** What the kit finds in the browser: how far golden steps are off, bytes on the GPU, and what it says of a program that is none for it. */
async function triedInBrowser(base: string) {
  const load = (name: string) => import(new URL(name, base).href);
  const [{ Bundle }, { fileOf }, { verify }, { BlockRunner }] = await Promise.all(
    ["kit/bundle.js", "kit/io/files.js", "kit/runs/verify.js", "kit/runtime/blockRunner.js"].map(load),
  );
  const [{ openSession }, { Gpu }, { pageTerms }, ort] = await Promise.all(
    ["kit/runtime/sessions.js", "kit/runtime/gpu.js", "kit/planning/memory.js", "ort/ort.webgpu.bundle.min.mjs"].map(load),
  );
  const [listed] = (await (await fetch(new URL("bundles.json", base))).json()).bundles;
  const contents = new Map<string, Uint8Array>();
  for (const { name } of listed.files) contents.set(name, new Uint8Array(await (await fetch(new URL(listed.path + name, base))).arrayBuffer()));
  const bundle = await Bundle.open({ path: listed.name, list: async () => [...contents.keys()], open: async (name: string) => fileOf(contents.get(name), name) });

  let [live, most] = [0, 0]; // bytes on the GPU, the runtime's own buffers too
  const { createBuffer } = GPUDevice.prototype;
  const { destroy } = GPUBuffer.prototype;
  GPUDevice.prototype.createBuffer = function (wanted) {
    live += wanted.size;
    most = Math.max(most, live);
    return createBuffer.call(this, wanted);
  };
  GPUBuffer.prototype.destroy = function () {
    live -= this.size;
    return destroy.call(this);
  };

  const gpu = await Gpu.open(navigator.gpu, ort, bundle.manifest);
  const runner = await BlockRunner.open(ort, bundle, { threads: 1, gpu });
  const golden = { ...bundle.golden, run: bundle.golden.run.slice(0, 1) };
  const { difference } = await verify(Object.create(bundle, { golden: { value: golden } }), runner);
  await runner.close();
  const terms = pageTerms(bundle.manifest, true);
  const predicted = terms.get("weights on the GPU") + terms.get("working sets on the GPU");

  const head = openSession(ort, "", bundle, bundle.manifest.graphs.get("head"), null, 0, gpu.device);
  const refusal: string = await head.then(() => "", (error: Error) => error.message);
  await gpu.close();
  return { difference, most, predicted, refusal };
}

test("in the kit golden steps are right to 1e-6, and a program with a node for the CPU would be refused", async () => {
  page = await browser.open(`${server.address}style.css`);
  const { difference, most, predicted, refusal } = await page.page.evaluate(triedInBrowser, server.address);
  assert.equal(difference.steps, 4);
  assert.ok(Math.max(difference.stepLoss, difference.stepGradientNorm, difference.runLoss) < 1e-6, JSON.stringify(difference));
  assert.ok(most > predicted / 3 && most <= predicted, `${most} bytes at most on the GPU, ${predicted} predicted`);
  assert.match(refusal, /graph nodes that are assigned to the default CPU EP/);
  await page.close();
});

test("in the page it is tested first, and a run of 8 steps learns what WebAssembly learns", async () => {
  page = await browser.open(server.address);
  await page.addModel(BUNDLE);
  await page.says("Will be tested in this browser");
  await page.show("data");
  await (await page.page.$("input#import-data"))!.uploadFile(data);
  await page.says("Ready for training.");
  await page.show("train");
  await page.chooseSteps("least");
  await page.page.select("#gpu", "gpu");
  await page.click("Start");
  await page.says("Testing the model on this device");
  await page.says("Finished");
  assert.match(await page.text(), ON_GPU);
  await page.show("share");
  const learned = await browser.download(page, "Save file: few.jsonl");
  const expected = (await trainedOnNode(BUNDLE, STEPS, data)).adapter;
  assert.ok(farthest(learned, expected) < 1e-4, `an element of the adapter is off by ${farthest(learned, expected)} of the largest`);
});

test("offline a run on it goes on by the processor when the GPU is lost", async () => {
  await page.page.evaluate(async () => void (await navigator.serviceWorker.ready));
  server.offline = true;
  await page.page.reload();
  await page.show("train");
  await page.chooseSteps("least");
  await page.page.select("#gpu", "gpu");
  await page.click("Train again");
  await page.reaches(1);
  await browser.killGpu();
  await page.says("The graphics processor failed.");
  await page.click("Resume");
  await page.says("Finished");
  assert.doesNotMatch(await page.text(), ON_GPU);
  server.offline = false;
});

test("a run that was begun on a GPU goes on in a browser that gives none, and says so", async () => {
  await page.page.select("#gpu", "gpu");
  await page.click("Train again");
  await page.reaches(1);
  await page.click("Pause");
  await page.says("Paused");
  assert.match(await page.text(), ON_GPU);
  await browser.restart(false);
  page = await browser.open(`${server.address}#train`);
  await page.says("Paused");
  await page.click("Resume");
  await page.says(UNSUITABLE);
  await page.says("Finished");
  assert.equal(await page.page.$("#gpu"), null);
});
