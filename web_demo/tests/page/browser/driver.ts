import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { launch, type Browser, type Page } from "puppeteer-core";
import { Texts } from "../../../page/texts.js";

const FINDER = fileURLToPath(new URL("../../../../../scripts/web/chromium.sh", import.meta.url));
const WAIT = 120_000; // milliseconds until something that does not come is a failure

let found: string | null = null;

function executable(): string {
  return (found ??= process.env["LCSB_CHROMIUM"] ?? execFileSync(FINDER, { encoding: "utf8" }).trim());
}

/**
 * How a page is opened. `cores`: that it is told of; threads that wait for each other are slow on a busy machine. `patience`: milliseconds until
 * something that does not come is a failure.
 */
export interface PageOptions {
  readonly patience?: number;
  readonly cores?: number;
  readonly language?: string;
  readonly width?: number;
  readonly height?: number;
  readonly dark?: boolean;
}

/** A browser with a profile of its own, which outlives a kill. */
export class TestBrowser {
  readonly downloads: string;

  private constructor(
    readonly profile: string,
    private flags: readonly string[],
    private browser: Browser,
  ) {
    this.downloads = join(profile, "downloads");
  }

  /** `flags`: of Chromium's command line, beside those that every test needs. */
  static async start(...flags: readonly string[]): Promise<TestBrowser> {
    const profile = mkdtempSync(join(tmpdir(), "lcsb-page-"));
    mkdirSync(join(profile, "downloads"));
    return new TestBrowser(profile, flags, await started(profile, flags));
  }

  async open(address: string, options: PageOptions = {}): Promise<TestPage> {
    const page = await this.browser.newPage();
    const client = await page.createCDPSession();
    await client.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: this.downloads });
    return TestPage.open(page, address, options);
  }

  /** As the system ends a process: nothing is told, nothing is written. */
  async kill(): Promise<void> {
    const process = this.browser.process()!;
    const ended = new Promise((settle) => process.once("exit", settle));
    process.kill("SIGKILL");
    await ended;
    this.browser = await started(this.profile, this.flags);
  }

  /** Closed as a person closes it, and started with other flags. */
  async restart(...flags: readonly string[]): Promise<void> {
    await this.browser.close();
    this.flags = flags;
    this.browser = await started(this.profile, flags);
  }

  /** As a driver that crashes: the process that talks to the GPU ends, and what lay there is lost. */
  async killGpu(): Promise<void> {
    for (const id of await this.processes("GPU")) process.kill(id, "SIGKILL");
  }

  /** The numbers of the processes that have pages, workers or nothing yet. */
  renderers(): Promise<number[]> {
    return this.processes("renderer");
  }

  private async processes(sought: string): Promise<number[]> {
    const client = await this.browser.target().createCDPSession();
    const { processInfo } = await client.send("SystemInfo.getProcessInfo");
    await client.detach();
    return processInfo.filter(({ type }) => type === sought).map(({ id }) => id);
  }

  async close(): Promise<void> {
    await this.browser.close();
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }

  /** The content of the one file that a click on a button saves. */
  async download(page: TestPage, button: string): Promise<Buffer> {
    for (const name of readdirSync(this.downloads)) rmSync(join(this.downloads, name));
    await page.click(button);
    for (let wait = 0; wait < WAIT; wait += 50) {
      const [name] = readdirSync(this.downloads).filter((each) => !each.endsWith(".crdownload") && !each.startsWith("."));
      if (name !== undefined) return readFileSync(join(this.downloads, name));
      await new Promise((settle) => setTimeout(settle, 50));
    }
    throw new Error(`${button}: nothing was saved`);
  }
}

const NO_GPU = ["--disable-gpu"]; // a browser whose GPU process does not start ends itself
/** Flags for WebGPU on SwiftShader, which comes with Chromium: a GPU that the processor plays. */
export const SOFTWARE_GPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"];

/** No sandbox: it needs rights that a container lacks, and this browser opens the test's own page alone. */
function started(profile: string, flags: readonly string[]): Promise<Browser> {
  return launch({
    executablePath: executable(),
    headless: "shell",
    userDataDir: profile,
    args: ["--no-sandbox", "--disable-dev-shm-usage", ...(flags.includes(SOFTWARE_GPU[0]!) ? [] : NO_GPU), ...flags],
    timeout: WAIT,
    protocolTimeout: 0, // whatever waits has a limit of its own
  });
}

/** The page in a tab, used as a person does: by what is written on it. `errors`: of the console, violations of the policy among them. */
export class TestPage {
  readonly errors: string[] = [];
  readonly t: Texts;

  private constructor(
    readonly page: Page,
    language: string,
  ) {
    this.t = Texts.of([language]);
    page.on("console", (message) => void (message.type() === "error" && this.errors.push(message.text())));
    page.on("pageerror", (error) => void this.errors.push(String(error)));
  }

  static async open(
    page: Page,
    address: string,
    { patience = WAIT, cores = 1, language = "en", width = 1000, height = 800, dark = false }: PageOptions,
  ): Promise<TestPage> {
    const opened = new TestPage(page, language);
    page.setDefaultTimeout(patience);
    await page.evaluateOnNewDocument(
      (tag, count) => {
        Object.defineProperty(navigator, "languages", { get: () => [tag] });
        Object.defineProperty(navigator, "hardwareConcurrency", { get: () => count });
      },
      language,
      cores,
    );
    await page.setViewport({ width, height });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }]);
    await page.goto(address);
    return opened;
  }

  /** By its accessible name, as a screen reader finds it. */
  async click(name: string, role = "button"): Promise<void> {
    await this.page.locator(`::-p-aria([name="${name}"][role="${role}"])`).click();
  }

  async show(screen: "model" | "data" | "train" | "try_it" | "share"): Promise<void> {
    await this.click(this.t.say(screen), "link");
    await this.page.waitForFunction((title) => document.querySelector("h1")?.textContent === title, { polling: 30 }, this.t.say(screen));
  }

  /** Until the screen says so. */
  async says(text: string): Promise<void> {
    try {
      await this.page.waitForFunction((sought) => document.getElementById("page")!.innerText.includes(sought), { polling: 30 }, text);
    } catch {
      throw new Error(`expected to read '${text}', found: ${await this.text()}`);
    }
  }

  /** Until the page's storage has something of a file. */
  async keeps(...path: readonly string[]): Promise<void> {
    const sought = async (parts: readonly string[]) => {
      try {
        let directory = await navigator.storage.getDirectory();
        for (const part of parts.slice(0, -1)) directory = await directory.getDirectoryHandle(part);
        return (await (await directory.getFileHandle(parts.at(-1)!)).getFile()).size > 0;
      } catch {
        return false; // not there yet
      }
    };
    await this.page.waitForFunction(sought, { polling: 30 }, path);
  }

  /** Until the page is kept for use without a network. */
  async worksOffline(): Promise<void> {
    await this.page.evaluate(async () => void (await navigator.serviceWorker.ready));
  }

  /** Until the run has done so many steps. */
  async reaches(step: number): Promise<void> {
    const sought = (least: number) => Number(/Step (\d+) of/.exec(document.getElementById("page")!.innerText)?.[1] ?? -1) >= least;
    await this.page.waitForFunction(sought, { polling: 30 }, step);
  }

  text(): Promise<string> {
    return this.page.evaluate(() => document.getElementById("page")!.innerText);
  }

  /** A model from the server and the sample messages, so that Train is next. */
  async prepare(model: string): Promise<void> {
    await this.addModel(model);
    await this.says("Will be tested in this browser");
    await this.show("data");
    await this.click("Use sample messages");
    await this.says("Ready for training.");
    await this.show("train");
  }

  /** Adds a model that the server has. */
  async addModel(name: string): Promise<void> {
    await this.page.locator(`::-p-text(${this.t.say("add_found", name)})`).click();
  }

  /** The least number of steps there is, or the most. */
  async chooseSteps(which: "least" | "most"): Promise<void> {
    await this.page.locator("details summary ::-p-text(Options)").click();
    await this.page.focus("#steps");
    await this.page.keyboard.press(which === "least" ? "Home" : "End");
  }

  async close(): Promise<void> {
    await this.page.close();
  }
}
