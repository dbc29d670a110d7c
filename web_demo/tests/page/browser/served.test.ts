import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { TestBrowser } from "./driver.js";
import { folderOf, trainedOnNode } from "../tools.js";

// What `lcsb web` serves: the page, its headers and a model's files as a browser asks for them.

const STEPS = 8;
const ROOT = fileURLToPath(new URL("../../../../../", import.meta.url));
const PYTHON = process.env["LCSB_PYTHON"] ?? `${ROOT}.venv/bin/python`;

/** `lcsb web` on a free port, and the address that it prints. */
async function served(bundle: string): Promise<{ server: ChildProcess; address: string }> {
  const site = `${ROOT}web_demo/build/site`;
  const server = spawn(PYTHON, ["-m", "lcsb_mobile", "web", folderOf(bundle), "--site", site, "--port", "0", "--json"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(server, "spawn"); // or throws: there is no such Python
  let printed = "";
  for await (const piece of server.stdout!.setEncoding("utf8").iterator({ destroyOnReturn: false })) {
    printed += piece;
    if (printed.includes("\n")) return { server, address: (JSON.parse(printed) as { address: string }).address };
  }
  throw new Error(`lcsb web ended before it listened; it printed: ${printed}`);
}

test("from lcsb web a model is copied and trained with two threads, to the bit as on Node; Ctrl-C ends it", async () => {
  const { server, address } = await served("llama");
  const ended = once(server, "exit");
  try {
    const browser = await TestBrowser.start();
    try {
      const page = await browser.open(address, { cores: 2 });
      assert.equal(await page.page.evaluate(() => crossOriginIsolated), true);
      await page.prepare("llama");
      await page.chooseSteps("least");
      await page.click("Start");
      await page.says("What this run learned");
      await page.show("share");
      assert.deepEqual(await browser.download(page, "Save file: Sample messages"), (await trainedOnNode("llama", STEPS)).adapter);
      assert.deepEqual(page.errors, []);
    } finally {
      await browser.close();
    }
  } finally {
    server.kill("SIGINT");
  }
  assert.deepEqual(await ended, [130, null]);
});
