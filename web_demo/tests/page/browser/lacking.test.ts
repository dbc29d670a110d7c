import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { whatHappened, whatToDo } from "../../../page/problems.js";
import type { PageFault } from "../../../page/worker/problems.js";
import { TestBrowser, type TestPage } from "./driver.js";
import { SiteServer } from "./server.js";
import { folderOf } from "../tools.js";

// Browsers that lack what the page needs: it says so as soon as it opens, in the person's language, and goes on as far as it can.

const ELSEWHERE = "page.test"; // a name for this machine that is neither localhost nor https, as an address in the network

let server: SiteServer;
let browser: TestBrowser; // without WebAssembly

before(async () => {
  server = await SiteServer.start({ bundles: { llama: folderOf("llama") } });
  browser = await TestBrowser.start("--js-flags=--jitless", `--host-resolver-rules=MAP ${ELSEWHERE} 127.0.0.1`);
});
after(async () => {
  await browser.close();
  server.close();
});

async function isTold(page: TestPage, fault: PageFault): Promise<void> {
  const problem = { fault, args: [], detail: "" };
  await page.says(whatHappened(page.t, problem));
  await page.says(whatToDo(page.t, problem));
}

async function cannotCompute(page: TestPage): Promise<void> {
  await isTold(page, "NO_SIMD");
  await page.click(page.t.say("dismiss"));
  await page.says(page.t.say("add_title")); // what is stored can be seen
}

test(
  "without vectors in WebAssembly",
  { skip: process.arch !== "x64" && "of the processors that V8 runs on only x86 may lack vectors" },
  async () => {
    const old = await TestBrowser.start("--js-flags=--no-enable-sse4-1");
    try {
      await cannotCompute(await old.open(server.address));
    } finally {
      await old.close();
    }
  },
);

test("without WebAssembly, as in some modes for more security, in German", async () => {
  await cannotCompute(await browser.open(server.address, { language: "de" }));
});

test("without storage, as by http from another machine, whichever screen is opened", async () => {
  const page = await browser.open(server.address.replace("127.0.0.1", ELSEWHERE));
  await isTold(page, "NO_STORAGE");
  await page.show("train");
  await isTold(page, "NO_STORAGE");
  assert.ok(!(await page.text()).includes(page.t.say("starting")), "it does not say that it begins");
});
