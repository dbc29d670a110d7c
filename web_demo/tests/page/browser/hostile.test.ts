import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { TestBrowser, type TestPage } from "./driver.js";
import { SiteServer } from "./server.js";
import { folderOf } from "../tools.js";

// What goes wrong is said in a sentence, and nothing is lost by it.

const folder = mkdtempSync(join(tmpdir(), "lcsb-hostile-"));
const copy = (name: string, change: (content: Buffer) => Buffer, file: string) => {
  const target = join(folder, name);
  cpSync(folderOf("llama"), target, { recursive: true });
  writeFileSync(join(target, file), change(readFileSync(join(target, file))));
  return target;
};
const flipped = (content: Buffer) => {
  content[content.length >> 1]! ^= 1;
  return content;
};
const restated = (field: RegExp, value: string) => (content: Buffer) => Buffer.from(content.toString().replace(field, value));

let server: SiteServer;
let browser: TestBrowser;
let page: TestPage;

before(async () => {
  const damaged = copy("damaged", flipped, "weights.bin");
  const other = copy("other", restated(/"target": *"onnxruntime"/, '"target": "coreml"'), "manifest.json");
  const newer = copy("newer", restated(/"format_version": *\d+/, '"format_version": 99'), "manifest.json");
  const large = copy("large", restated(/("weights.bin": *\{\s*"size": *)\d+/, "$12000000000"), "manifest.json");
  server = await SiteServer.start({ bundles: { llama: folderOf("llama"), damaged, other, newer, large }, isolated: false });
  browser = await TestBrowser.start();
});
after(async () => {
  await browser.close();
  server.close();
  rmSync(folder, { recursive: true });
});
beforeEach(async () => {
  await page?.close();
  page = await browser.open(server.address);
  await page.says("Add a model");
});

test("a damaged file, another target and a newer version are refused by name", async () => {
  for (const [name, sentence] of [
    ["damaged", "A file of the model is damaged."],
    ["other", "This model was not exported for this page."],
    ["newer", "This model needs a newer version of the page."],
  ] as const) {
    await page.addModel(name);
    await page.says(sentence);
    await page.click("Close");
  }
});

test("too small a quota is refused with the figures, before anything is fetched", async () => {
  const client = await page.page.createCDPSession();
  const { origin } = new URL(server.address);
  await page.worksOffline(); // what is kept for that takes storage too; and what the browser compiles, some megabytes more
  const { usage } = await client.send("Storage.getUsageAndQuota", { origin });
  const before = server.sent.length;
  for (const [free, sentence] of [
    [1e9, /^This needs 2.0 GB of storage, but only [89]\d\d MB are free for this page\./m],
    [-100e3, /^This needs 2.0 GB of storage, but only 0 kB are free for this page\./m], // as where another page took what was free
  ] as const) {
    await client.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: usage + free });
    await page.addModel("large");
    await page.says("are free for this page.");
    assert.match(await page.text(), sentence);
    await page.click("Close");
  }
  assert.deepEqual(new Set(server.sent.slice(before)), new Set(["bundles/large/manifest.json"]));
  await client.send("Storage.overrideQuotaForOrigin", { origin });
});

test("a connection that breaks off leaves what came, and a reloaded page goes on from there", async () => {
  server.cut = { name: "weights.bin", after: 100_000 };
  await page.addModel("llama");
  await page.keeps("models", "llama", "weights.bin"); // what a browser has not handed on is lost with the connection
  server.breakOff();
  await page.says("The connection broke off.");
  await page.page.reload();
  await page.says("Only a part of this model is here");
  await page.click("Add llama");
  await page.says("Will be tested in this browser");
  assert.deepEqual(
    server.ranges.filter((range) => range.startsWith("weights.bin")).map((range) => Number(range.split(" ")[1]) > 0),
    [true],
  );
});

test("without isolation the page says that one core works; a second tab says that it waits, and takes over", async () => {
  await page.show("train");
  await page.says("one processor core does all the work");
  const second = await browser.open(server.address);
  await second.says("This page is open in another tab.");
  await page.close();
  page = second;
  await second.says("Choose the model to train.");
});

test("a line that is no example is named, and the data before stays", async () => {
  await page.show("data");
  await page.click("Use sample messages");
  await page.says("Ready for training.");
  const file = join(folder, "bad.jsonl");
  writeFileSync(file, '{"text": "one"}\n{"texts": 2}\n');
  await (await page.page.$("input#import-data"))!.uploadFile(file);
  await page.says("Line 2 of the file is not a usable example.");
  await page.says("Sample messages");
});

test("options that are changed before the page is drawn again are all kept", async () => {
  await page.show("train");
  await page.page.locator("details summary ::-p-text(Options)").click();
  await page.page.evaluate(() => {
    const change = (id: string, value: string, event: string) => {
      const field = document.getElementById(id) as HTMLInputElement;
      field.value = value;
      field.dispatchEvent(new Event(event, { bubbles: true }));
    };
    change("steps", "0", "input");
    change("budget", "1000000000", "change");
    change("method", "full", "change");
  });
  await page.says("8 steps · 1.0 GB");
  assert.equal(await page.page.$eval("#method", (field) => (field as HTMLSelectElement).value), "full");
});

test("storage that is taken away in mid-run ends the run with a sentence; it goes on when there is some", async () => {
  const client = await page.page.createCDPSession();
  const { origin } = new URL(server.address);
  await page.show("train");
  await page.chooseSteps("most"); // not so few that it ends before the clicks
  await page.click("Start");
  await page.reaches(2);
  await client.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 1 });
  await page.says("There is not enough free storage.");
  await client.send("Storage.overrideQuotaForOrigin", { origin });
  await page.click("Resume");
  await page.reaches(6);
  await page.click("Finish early");
  await page.says("The model keeps what it has learned so far.");
  await page.page.locator("dialog .filled").click();
  await page.says("Finished early");
  await page.says("What this run learned");
});

test("a ZIP file of a model is taken, whatever folder is in it; one that was cut off is refused", async () => {
  const [whole, cut] = ["my model.zip", "cut.zip"].map((name) => join(folder, name)) as [string, string];
  execFileSync(process.env["PYTHON"] ?? "python3", ["-m", "zipfile", "-c", whole, folderOf("llama")]);
  writeFileSync(cut, readFileSync(whole).subarray(0, -30));
  const picker = (await page.page.$("input#add-zip"))!;
  await picker.uploadFile(cut);
  await page.says("The model could not be read.");
  await page.page.locator("details summary ::-p-text(Details)").click();
  await page.says("it is no ZIP file, or the end of one is missing");
  await page.click("Close");
  await picker.uploadFile(whole);
  await page.page.waitForSelector("#bundle-my-model"); // it is among the models, which are whole
});
