import { createInterface } from "node:readline";
import { TestBrowser, type TestPage } from "./driver.js";

// The page as benchmarks/web.py measures it: `measured.js ADDRESS MODEL DATA CORES`. It says which processes the browser has, with an empty page
// and with this one, and then does what each line asks: `add` copies the model and reads the data, `train METHOD` runs 20 steps, the slider's
// second notch. Each is answered by a line of JSON.

const PATIENCE = 3_600_000; // milliseconds
const STEPS = 20;
const STEP_COLUMNS = 6; // of docs/run_checkpoint.md

interface Measured {
  readonly losses: readonly number[];
  readonly seconds: readonly number[];
  readonly evaluations: readonly (readonly number[])[];
}

const [address, model, data, cores] = process.argv.slice(2) as [string, string, string, string];
const answer = (value: unknown) => console.log(JSON.stringify(value));

const browser = await TestBrowser.start();
try {
  const empty = await browser.open("about:blank"); // a browser that has just started may have none yet
  answer({ renderers: await browser.renderers() });
  await empty.close();
  const page = await browser.open(address, { cores: Number(cores), patience: PATIENCE });
  await page.says(page.t.say("add_title"));
  answer({ renderers: await browser.renderers(), isolated: await page.page.evaluate(() => crossOriginIsolated) });
  for await (const line of createInterface(process.stdin)) {
    const [command, method] = line.split(" ") as [string, string];
    answer(command === "add" ? await add(page) : await train(page, method));
  }
} finally {
  await browser.close();
}

async function add(page: TestPage): Promise<object> {
  await page.addModel(model);
  await comes(page, "Will be tested in this browser");
  await page.show("data");
  await (await page.page.$("input#import-data"))!.uploadFile(data);
  await comes(page, "Ready for training.");
  return {};
}

/** Until the screen says so, however long it takes; throws where it tells of a problem instead. */
async function comes(page: TestPage, text: string): Promise<void> {
  const sought = (words: string) =>
    document.getElementById("page")!.innerText.includes(words) || document.querySelector("[role=alert]") !== null;
  await page.page.waitForFunction(sought, { polling: 100 }, text);
  const problem = await page.page.$("[role=alert]");
  if (problem !== null) throw new Error(await problem.evaluate((card) => (card as HTMLElement).innerText));
}

/** The whole run, its evaluations, samples and comparison among it. */
async function train(page: TestPage, method: string): Promise<Measured> {
  await page.show("train");
  await page.chooseSteps("least");
  await page.page.keyboard.press("ArrowRight");
  await page.says(`${STEPS} steps`);
  await page.page.select("#method", method);
  await page.page.locator("::-p-xpath(//button[.='Start' or .='Train again'])").click();
  await comes(page, `Step 0 of ${STEPS}`);
  await comes(page, "What this run learned");
  const [steps, evaluations] = await page.page.evaluate(record, model);
  const rows = Array.from({ length: steps!.length / STEP_COLUMNS }, (_, i) => steps!.slice(i * STEP_COLUMNS, (i + 1) * STEP_COLUMNS));
  return {
    losses: rows.map((row) => row[0]!),
    seconds: rows.map((row) => row[3]! + row[4]!),
    evaluations: Array.from({ length: evaluations!.length / 2 }, (_, i) => evaluations!.slice(2 * i, 2 * i + 2)),
  };
}

/** In the page: the tensors `steps` and `evaluations` of the newest checkpoint that it keeps, without reading the rest of the file. */
async function record(model: string): Promise<number[][]> {
  let directory = await navigator.storage.getDirectory();
  for (const part of ["runs", model, "state"]) directory = await directory.getDirectoryHandle(part);
  const files = [];
  for await (const handle of directory.values()) {
    if (handle.kind === "file" && handle.name.startsWith("step-")) files.push(await handle.getFile());
  }
  const newest = files.sort((a, b) => b.name.localeCompare(a.name))[0]!;
  const length = Number(new DataView(await newest.slice(0, 8).arrayBuffer()).getBigUint64(0, true));
  const header = JSON.parse(await newest.slice(8, 8 + length).text()) as Record<string, { data_offsets: [number, number] }>;
  const tensors = ["steps", "evaluations"].map((name) => header[name]!.data_offsets.map((offset) => 8 + length + offset));
  return Promise.all(tensors.map(async ([from, to]) => [...new Float64Array(await newest.slice(from, to).arrayBuffer())]));
}
