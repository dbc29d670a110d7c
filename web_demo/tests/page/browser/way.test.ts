import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { TestBrowser, type TestPage } from "./driver.js";
import { SiteServer } from "./server.js";
import { folderOf, trainedOnNode, unzipped } from "../tools.js";

// The whole way in a real browser, as a person goes it.

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const SCREENS = ["model", "data", "train", "try_it", "share"] as const;
const STEPS = 8;

let server: SiteServer;
let browser: TestBrowser;
let page: TestPage;
let learned: Buffer; // the adapter of a run of STEPS steps

before(async () => {
  server = await SiteServer.start({ bundles: { llama: folderOf("llama") } });
  browser = await TestBrowser.start();
  page = await browser.open(server.address);
});
after(async () => {
  await browser.close();
  server.close();
});

/** What the rules of WCAG find, by axe-core; and whether the screen is wider than a small phone's. */
async function look(screen: string): Promise<void> {
  // by the protocol, as the page's policy lets no script in
  await page.page.evaluate(AXE);
  const violations = await page.page.evaluate(async () => {
    const { axe } = window as unknown as { axe: { run(): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> } };
    return (await axe.run()).violations.map(({ id, nodes }) => `${id}: ${nodes[0]!.html.slice(0, 200)}`);
  });
  assert.deepEqual(violations, [], screen);
  const viewport = page.page.viewport()!;
  await page.page.setViewport({ width: 360, height: 740 });
  assert.ok(await page.page.evaluate(() => document.documentElement.scrollWidth <= 360), `${screen} scrolls sideways on 360 pixels`);
  await page.page.setViewport(viewport);
}

/** Until nothing is being written: there is no button that stops it. */
const written = () => page.page.waitForFunction(() => document.querySelectorAll("form.prompt button").length === 1, { polling: 30 });

test("every screen opens, with nothing in it yet", async () => {
  for (const screen of SCREENS) {
    await page.show(screen);
    await look(screen);
    assert.equal(await page.page.evaluate(() => document.activeElement?.localName), "h1", "the focus goes with the screen");
  }
});

test("a model comes from the server, and data from the sample", async () => {
  await page.show("model");
  await page.addModel("llama");
  await page.says("Will be tested in this browser");
  await look("model");
  await page.show("data");
  await page.click("Use sample messages");
  await page.says("Ready for training.");
  await page.says("Example 1 · first 20 of 170");
  await look("data");
});

test("a run of 8 steps ends with the adapter that the kit makes on Node, to the bit, for PEFT too", async () => {
  const expected = trainedOnNode("llama", STEPS);
  await page.show("train");
  await page.chooseSteps("least");
  await page.says("8 steps on “Sample messages”");
  await page.says("Storage needed");
  await look("train");
  await page.click("Start");
  await page.says("Finished");
  await page.says("What this run learned");
  await page.says("test examples that it had not seen");
  await look("train, finished");
  await page.show("share");
  await page.says("8 steps");
  await look("share");
  const { adapter, peft } = await expected;
  learned = await browser.download(page, "Save file: Sample messages");
  assert.deepEqual(learned, adapter);
  const zip = unzipped(await browser.download(page, "Save for PEFT: Sample messages"));
  assert.deepEqual(
    new Map([...zip].map(([name, content]) => [name.split("/")[1], content])),
    new Map([...peft].map(([name, content]) => [name, Buffer.from(content)])),
  );
});

test("what it learned is tried, and compared with the model as it came", async () => {
  await page.show("try_it");
  await page.page.locator("#prompt").fill("Today I ");
  await page.page.keyboard.press("Enter");
  await page.says("Writing…");
  await page.page.waitForSelector(".answer .text");
  await written();
  await look("try it");
  await page.click("Compare");
  await page.page.locator("#prompt").fill("Thank you for ");
  await page.page.keyboard.press("Enter");
  await page.says("Writing…");
  await written();
  assert.ok((await page.page.$$eval(".pair .text", (texts) => texts.map((text) => text.textContent!).join(""))).length > 2 * "Thank you for ".length);
  await look("compare");
});

test("an adapter that was saved is read again, and one that is none is refused", async () => {
  await page.show("share");
  const saved = await browser.download(page, "Save file: Sample messages");
  const zipped = await browser.download(page, "Save for PEFT: Sample messages");
  const picker = (await page.page.$("#import-adapter"))!;
  const pick = (name: string, content: Uint8Array) =>
    page.page.evaluate(
      (input, name, content) => {
        const files = new DataTransfer();
        files.items.add(new File([Uint8Array.from(content)], name));
        (input as HTMLInputElement).files = files.files;
        input.dispatchEvent(new Event("change"));
      },
      picker,
      name,
      [...content],
    );
  await pick("mine.safetensors", saved);
  await page.says("Imported");
  assert.deepEqual(await browser.download(page, "Save file: Imported"), saved);
  await page.click("Delete: Imported");
  await page.page.locator("dialog .filled").click();
  await page.page.waitForFunction(() => !document.getElementById("page")!.innerText.includes("Imported"), { polling: 30 });
  await pick("mine.zip", zipped);
  await page.says("Imported");
  assert.deepEqual(await browser.download(page, "Save file: Imported"), saved);
  for (const cut of [saved, zipped]) {
    await pick(cut === saved ? "mine.safetensors" : "mine.zip", cut.subarray(0, 500));
    await page.says("The adapter is damaged or does not fit this model.");
    await page.click("Close");
  }
});

test("without a network the page opens, has what was there, and learns the same", async () => {
  await page.worksOffline();
  server.offline = true;
  try {
    await page.page.reload();
    await page.show("share");
    await page.says("Imported");
    await page.show("train");
    await page.says("Finished");
    await page.chooseSteps("least");
    await page.click("Train again");
    await page.says("Step 0 of 8");
    await page.says("What this run learned");
    await page.show("share");
    assert.deepEqual(await browser.download(page, "Save file: Sample messages"), learned); // of two of that name the newest is the first
  } finally {
    server.offline = false;
  }
});

test("in German", async () => {
  const german = await browser.open(`${server.address}#train`, { language: "de" });
  await german.says("Diese Seite ist schon in einem anderen Tab offen.");
  await page.close();
  await german.says("Fertig"); // the tab that waited takes over
  assert.equal(await german.page.evaluate(() => document.documentElement.lang), "de");
  await german.page.setViewport({ width: 360, height: 740 });
  for (const screen of SCREENS) await german.show(screen);
  await german.show("model");
  const lines = await german.page.$$eval(".option", (options) => options.map((option) => option.getClientRects().length));
  assert.deepEqual(lines, [1], "a command's option stays whole where a line ends");
  assert.deepEqual(german.errors, []);
});

test("the policy was kept, and nothing was complained of", () => {
  // what failed because the test took the network away
  const complaints = page.errors.filter((error) => !/ERR_EMPTY_RESPONSE|ERR_INTERNET_DISCONNECTED|ERR_CONNECTION/.test(error));
  assert.deepEqual(complaints, []);
});
