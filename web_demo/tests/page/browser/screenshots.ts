import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { TestBrowser, type PageOptions, type TestPage } from "./driver.js";
import { SiteServer } from "./server.js";

// Pictures of the screens, of a run of the tiny model (scripts/web/screenshots): those of the documentation, or all.

const NOTCHES = 4; // of the slider from its least: 100 steps
const PATIENCE = 900_000; // milliseconds, for a run on a busy machine
const PHONE = { width: 360, height: 780 };
const DESKTOP = { width: 1100, height: 760 };
const SCREENS = ["model", "data", "train", "try_it", "share"] as const;

const DOCUMENTED = [
  "data_light_en",
  "train_light_en",
  "try_it_dark_de",
  "share_dark_de",
  "model_desktop_dark_de",
  "train_desktop_light_en",
];

const [TINY, directory, which] = process.argv.slice(2) as [string, string, string];
mkdirSync(directory, { recursive: true });
const server = await SiteServer.start({ bundles: { tiny: TINY } });
const browser = await TestBrowser.start();
try {
  await train(await browser.open(server.address, { ...DESKTOP, patience: PATIENCE }));
  await pictures("light_en", { ...PHONE });
  await pictures("dark_de", { ...PHONE, dark: true, language: "de" });
  await pictures("desktop_light_en", { ...DESKTOP });
  await pictures("desktop_dark_de", { ...DESKTOP, dark: true, language: "de" });
} finally {
  await browser.close();
  server.close();
}

async function train(page: TestPage): Promise<void> {
  await page.says("Add tiny");
  await picture(page, "empty_model");
  await page.addModel("tiny");
  await page.says("Will be tested");
  await page.show("data");
  await page.click("Use sample messages");
  await page.says("Ready for training.");
  await page.show("train");
  await page.chooseSteps("least");
  for (let i = 0; i < NOTCHES; i++) await page.page.keyboard.press("ArrowRight");
  await page.says("Storage needed");
  await picture(page, "options");
  await page.click("Start");
  await page.reaches(25);
  await page.page.locator("details summary ::-p-text(Layers in this step)").click();
  await picture(page, "training");
  await page.page.setViewport(PHONE);
  await picture(page, "training_phone");
  await page.says("What this run learned");
  await page.close();
}

/** Every screen, once the model has learned. */
async function pictures(name: string, options: PageOptions): Promise<void> {
  const page = await browser.open(server.address, { ...options, patience: PATIENCE });
  await page.says(page.t.say("add_title"));
  for (const screen of SCREENS) {
    await page.show(screen);
    if (screen === "try_it") await compare(page);
    await picture(page, `${screen}_${name}`);
  }
  await page.close();
}

async function compare(page: TestPage): Promise<void> {
  await page.click(page.t.say("mode_compare"));
  await page.page.locator("#prompt").fill("ok so");
  await page.page.keyboard.press("Enter");
  await page.page.waitForFunction((text) => !document.body.innerText.includes(text), { polling: 100 }, page.t.say("try_writing"));
}

async function picture(page: TestPage, name: string): Promise<void> {
  if (which === "documented" && !DOCUMENTED.includes(name)) return;
  await new Promise((settle) => setTimeout(settle, 300)); // what moves has come to rest
  await page.page.screenshot({ path: join(directory, `web_${name}.png`) });
}
