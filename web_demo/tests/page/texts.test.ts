import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Fault } from "../../kit/faults.js";
import { formatBytes, formatDuration, formatLayers, formatRate, lossChangeInWords, parseRate } from "../../page/formats.js";
import { whatHappened, whatToDo } from "../../page/problems.js";
import { LANGUAGES, Texts, type Plural } from "../../page/texts.js";
import { verdictSentence } from "../../page/verdicts.js";
import { PAGE_FAULTS } from "../../page/worker/problems.js";

const FAULTS: Readonly<Record<Fault, true>> = {
  BUNDLE_UNREADABLE: true,
  BUNDLE_OTHER_TARGET: true,
  BUNDLE_NEWER_VERSION: true,
  BUNDLE_OLDER_VERSION: true,
  BUNDLE_DAMAGED: true,
  GOLDEN_TRACE: true,
  RUNTIME_FAILED: true,
  GPU_UNSUITABLE: true,
  GPU_FAILED: true,
  TOKENIZER_UNSUPPORTED: true,
  TOKENIZER_DAMAGED: true,
  CHAT_UNSUPPORTED: true,
  DATA_UNREADABLE: true,
  DATA_ENCODING: true,
  DATA_LINE: true,
  DATA_EMPTY: true,
  OPTION: true,
  MEMORY_TOO_SMALL: true,
  MEMORY_EXCEEDED: true,
  STORAGE_FULL: true,
  STORAGE_FAILED: true,
  RUN_BUSY: true,
  CHECKPOINT_DAMAGED: true,
  CHECKPOINT_OTHER_RUN: true,
  ADAPTER: true,
  LOSS_NOT_FINITE: true,
};
const [en, de] = ["en", "de"].map((language) => Texts.of([language])) as [Texts, Texts];

// What means something else in a page than in an app on a phone, in its texts' names.
const OWN = new RegExp(
  "^(model_(intro|private|takes)|bundle_(un)?checked|remove_text|phase_testing|interrupted_text|phone_title|chat_ready|" +
    "delete_(data_none|chosen|data_text)|privacy_.*|fault_.*)$",
);
const RESOURCES = fileURLToPath(new URL("../../../../android_demo/app/src/main/res/", import.meta.url));

/** The texts of the Android app, by name. */
function appTexts(folder: string): Map<string, string | Plural> {
  const xml = ["strings", "strings_adapters"].map((name) => readFileSync(`${RESOURCES}${folder}/${name}.xml`, "utf8")).join("");
  const plain = (text: string) =>
    text.replace(/\\u([0-9A-F]{4})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 16))).replaceAll("&amp;", "&");
  const texts = [...xml.matchAll(/<string name="(\w+)">([^<]*)</g)].map(([, name, text]): [string, string] => [name!, plain(text!)]);
  const plurals = [...xml.matchAll(/<plurals name="(\w+)">(.*?)<\/plurals>/gs)].map(([, name, items]): [string, Plural] => {
    const forms = [...items!.matchAll(/quantity="(\w+)">([^<]*)</g)].map(([, form, text]) => [form!, plain(text!)]);
    return [name!, Object.fromEntries(forms) as Plural];
  });
  return new Map<string, string | Plural>([...texts, ...plurals]);
}

/** What is to be filled in, in any order. */
const places = (text: string) => (text.match(/%(?:\d\$)?s/g) ?? []).sort();

test("both languages have the same texts, with the same to fill in", () => {
  const [english, german] = [LANGUAGES["en"], LANGUAGES["de"]] as unknown as Readonly<Record<string, string | Plural>>[];
  assert.deepEqual(Object.keys(german!).sort(), Object.keys(english!).sort());
  for (const [key, text] of Object.entries(english!)) {
    const other = german![key]!;
    if (typeof text === "string") assert.deepEqual(places(other as string), places(text), key);
    else for (const form of ["one", "other"] as const) assert.deepEqual(places((other as Plural)[form]), places(text[form]), key);
  }
});

test("what means the same in the Android app is said in the same words", () => {
  for (const [language, folder] of [
    ["en", "values"],
    ["de", "values-de"],
  ] as const) {
    const app = appTexts(folder);
    const shared = Object.entries(LANGUAGES[language]!).filter(([name]) => app.has(name) && !OWN.test(name));
    assert.ok(shared.length > 100, String(shared.length));
    for (const [name, text] of shared) assert.deepEqual(text, app.get(name), name);
  }
});

test("every fault has its sentences in both languages", () => {
  for (const fault of [...Object.keys(FAULTS), ...PAGE_FAULTS]) {
    const sentences = [en, de].map((t) => [
      whatHappened(t, { fault, args: ["x"], detail: "" }),
      whatToDo(t, { fault, args: ["x"], detail: "" }),
    ]);
    for (const sentence of sentences.flat()) assert.match(sentence, /^\p{Lu}.*\.$/u, fault);
    assert.notDeepEqual(sentences[0], sentences[1], fault);
  }
});

test("a problem's sentence has its figures", () => {
  const full = { fault: "STORAGE_FULL", args: ["101600000", "2500000"], detail: "" };
  assert.equal(whatHappened(en, full), "This needs 101 MB of storage, but only 2.5 MB are free for this page.");
  assert.equal(whatHappened(de, full), "Dafür werden 101 MB Speicherplatz gebraucht, aber für diese Seite sind nur 2,5 MB frei.");
  assert.equal(
    whatHappened(en, { fault: "DATA_LINE", args: ["a.jsonl", "7", "why"], detail: "" }),
    "Line 7 of the file is not a usable example.",
  );
  assert.equal(whatHappened(en, { fault: "STORAGE_FULL", args: ["models/tiny"], detail: "" }), "There is not enough free storage.");
});

test("figures are written as the language writes them", () => {
  assert.deepEqual([formatBytes(en, 999), formatBytes(de, 1_234_567), formatBytes(en, 2e9)], ["1 kB", "1,2 MB", "2.0 GB"]);
  assert.deepEqual(
    [formatDuration(en, 20), formatDuration(en, 61), formatDuration(de, 7200)],
    ["less than a minute", "1 minute", "2 Stunden"],
  );
  assert.deepEqual([formatRate(en, 8e-4), formatRate(de, 8e-4)], ["0.0008", "0,0008"]);
  assert.deepEqual(["0,0004", " 1 ", "0", "1.1", "x", ""].map(parseRate), [0.0004, 1, null, null, null, null]);
  assert.equal(formatLayers([0, 1, 2, 4]), "1–3, 5");
});

test("what training did is said in words, and no gain where the figure shows none", () => {
  assert.match(lossChangeInWords(en, 2.46, 1.42), /of 8.5% before training, and of 24% after/);
  for (const after of [2.46, 2.463, 3, NaN]) assert.equal(lossChangeInWords(en, 2.4601, after), en.say("loss_no_better"));
});

test("a verdict is the app's sentence", () => {
  const verdict = { outcome: "better", examples: 17, improved: 16, against: null } as const;
  const words =
    "On 17 test examples that it had not seen, it does better than the model without an adapter on 16. That is a clear improvement.";
  assert.equal(verdictSentence(en, verdict), words);
  assert.equal(
    verdictSentence(de, { ...verdict, outcome: "too-few", examples: 1, against: "x" }),
    "Nur 1 Testbeispiel: zu wenig, um zu sagen, ob er besser ist als „x“.",
  );
});

test("the person's first language that there is decides, with its region", () => {
  assert.deepEqual(
    [["fr", "de-AT", "en"], ["fr"], []].map((wanted) => Texts.of(wanted).language),
    ["de-AT", "en", "en"],
  );
});
