import assert from "node:assert/strict";
import { test } from "node:test";
import { TestBrowser } from "./driver.js";
import { SiteServer } from "./server.js";
import { folderOf, trainedOnNode } from "../tools.js";

// The browser is killed in mid-run, as a system does that wants the memory; the run goes on, and ends with the bits of an unbroken one.

test("killed at three moments, a run goes on from its newest checkpoint and learns the same", async () => {
  const server = await SiteServer.start({ bundles: { tiny: folderOf("tiny") } });
  const browser = await TestBrowser.start();
  try {
    const expected = trainedOnNode("tiny", 20);
    let page = await browser.open(server.address);
    await page.addModel("tiny");
    await page.says("Will be tested in this browser");
    await page.show("data");
    await page.click("Use sample messages");
    await page.says("Ready for training.");
    await page.show("train");
    await page.leastSteps();
    await page.page.keyboard.press("ArrowRight");
    await page.says("20 steps on");
    await page.click("Start");
    for (const step of [0, 4, 12]) {
      await (step === 0 ? page.says("Testing the model") : page.reaches(step));
      await browser.kill();
      page = await browser.open(`${server.address}#train`);
      await page.says("The page was closed; nothing was lost.");
      await page.click("Resume");
    }
    await page.says("What this run learned");
    await page.show("share");
    assert.deepEqual(await browser.download(page, "Save file: Sample messages"), (await expected).adapter);
  } finally {
    await browser.close();
    server.close();
  }
});
