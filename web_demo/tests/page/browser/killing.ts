import { TestBrowser, type TestPage } from "./driver.js";
import { SiteServer } from "./server.js";
import { folderOf } from "../tools.js";

export const KILLED_BUNDLE = "tiny";
export const KILLED_STEPS = 20;

/** When the browser is killed next; the page was told to begin or go on. */
export type Moment = (page: TestPage) => Promise<void>;

/**
 * A run of the tiny model in a browser that is killed at each of the moments, as a system does that wants the memory, and started again:
 * its adapter's file. `told`: what the page showed when it came back. `atLast` is done once it goes on after the last kill.
 */
export async function trainedWithKills(
  moments: readonly Moment[],
  told: (shown: string) => void,
  atLast: Moment = async () => {},
): Promise<Buffer> {
  const server = await SiteServer.start({ bundles: { [KILLED_BUNDLE]: folderOf(KILLED_BUNDLE) }, isolated: false });
  const browser = await TestBrowser.start();
  try {
    let page = await begun(browser, server);
    for (const moment of moments) {
      await moment(page);
      await browser.kill();
      page = await browser.open(`${server.address}#train`);
      await page.says("Step ");
      const shown = (await page.text()).split("\n").find((line) => line.startsWith("Step "))!;
      told(shown);
      if (!shown.includes("The page was closed; nothing was lost.")) break; // it had ended
      await page.click("Resume");
      if (moment === moments.at(-1)) await atLast(page);
    }
    await page.says("What this run learned");
    await page.show("share");
    return await browser.download(page, "Save file: Sample messages");
  } finally {
    await browser.close();
    server.close();
  }
}

async function begun(browser: TestBrowser, server: SiteServer): Promise<TestPage> {
  const page = await browser.open(server.address);
  await page.prepare(KILLED_BUNDLE);
  await page.chooseSteps("least");
  await page.page.keyboard.press("ArrowRight");
  await page.says(`${KILLED_STEPS} steps on`);
  await page.click("Start");
  return page;
}
