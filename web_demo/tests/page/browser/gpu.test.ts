import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { SOFTWARE_GPU, TestBrowser, type TestPage } from "./driver.js";
import { SiteServer } from "./server.js";
import { fewExamples, folderOf, trainedOnNode } from "../tools.js";

// On a GPU that the processor plays (SwiftShader), through the kit and through the page. Its speed says nothing.

const BUNDLE = "llama-20-steps"; // its programs are for a GPU
const OTHER = "llama"; // and this one's are not
const STEPS = 8;

const folder = mkdtempSync(join(tmpdir(), "lcsb-gpu-"));
const data = fewExamples(folder);

let server: SiteServer;
let browser: TestBrowser;
let page: TestPage;

before(async () => {
  server = await SiteServer.start({ bundles: { [BUNDLE]: folderOf(BUNDLE), [OTHER]: folderOf(OTHER) } });
  browser = await TestBrowser.start(...SOFTWARE_GPU);
});
after(async () => {
  await browser.close();
  server.close();
  rmSync(folder, { recursive: true });
});

/**
 * What the kit finds in the browser: how far golden steps are off, and so many of the golden run; bytes on the GPU; and what it says of a program
 * that is none for it.
 */
async function triedInBrowser(base: string, steps: number) {
  const load = (name: string) => import(new URL(name, base).href);
  const [{ Bundle }, { fileOf }, { verify }, { BlockRunner }] = await Promise.all(
    ["kit/bundle.js", "kit/io/files.js", "kit/runs/verify.js", "kit/runtime/blockRunner.js"].map(load),
  );
  const [{ openSession }, { Gpu }, { pageTerms }, ort] = await Promise.all(
    ["kit/runtime/sessions.js", "kit/runtime/gpu.js", "kit/planning/memory.js", "ort/ort.webgpu.bundle.min.mjs"].map(load),
  );
  const { bundles } = await (await fetch(new URL("bundles.json", base))).json();
  const [bundle, other] = await Promise.all(bundles.map(async ({ name: path, path: folder, files }: any) => {
    const bytes = async (name: string) => new Uint8Array(await (await fetch(new URL(folder + name, base))).arrayBuffer());
    const contents = new Map<string, Uint8Array>(await Promise.all(files.map(async ({ name }: any) => [name, await bytes(name)])));
    return Bundle.open({ path, list: async () => [...contents.keys()], open: async (name: string) => fileOf(contents.get(name), name) });
  }));

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
  const golden = { ...bundle.golden, run: bundle.golden.run.slice(0, steps) };
  const { difference } = await verify(Object.create(bundle, { golden: { value: golden } }), runner);
  await runner.close();
  const terms = pageTerms(bundle.manifest, true);
  const predicted = terms.get("weights on the GPU") + terms.get("working sets on the GPU");

  const head = openSession(ort, "", other, other.manifest.graphs.get("head"), null, 0, gpu.device); // it has a loop
  const refusal: string = await head.then(() => "", (error: Error) => error.message);
  await gpu.close();
  return { difference, most, predicted, refusal };
}

test("in the kit golden steps and a run of 8 are right to 1e-6, and a program with a node for the CPU would be refused", async () => {
  page = await browser.open(`${server.address}style.css`);
  const { difference, most, predicted, refusal } = await page.page.evaluate(triedInBrowser, server.address, STEPS);
  assert.equal(difference.steps, 3 + STEPS);
  assert.ok(Math.max(difference.stepLoss, difference.stepGradientNorm, difference.runLoss) < 1e-6, JSON.stringify(difference));
  assert.ok(most > predicted / 3 && most <= predicted, `${most} bytes at most on the GPU, ${predicted} predicted`);
  assert.match(refusal, /graph nodes that are assigned to the default CPU EP/);
  await page.close();
});

test("in the page a run that was to be on it goes by WebAssembly where that cannot be, and says so", async () => {
  page = await browser.open(server.address);
  await page.addModel(BUNDLE);
  await page.says("Will be tested in this browser");
  await page.show("data");
  await (await page.page.$("input#import-data"))!.uploadFile(data);
  await page.says("Ready for training.");
  await page.show("train");
  await page.chooseSteps("least");
  await page.page.select("#gpu", "gpu");
  await page.worksOffline();
  server.offline = true; // so that the runtime's build for it is not to be had
  await page.click("Start");
  await page.says("This device’s graphics processor cannot train this model.");
  await page.says("Finished");
  assert.match(await page.text(), /Computed by onnxruntime web [0-9.]+\n/);
  server.offline = false;
  await page.show("share");
  assert.deepEqual(await browser.download(page, "Save file: few.jsonl"), (await trainedOnNode(BUNDLE, STEPS, data)).adapter);
});
