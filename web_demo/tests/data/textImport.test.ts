import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test, type TestContext } from "node:test";
import { eachLine } from "../../kit/data/datasetReader.js";
import { textToJsonl } from "../../kit/data/textImport.js";
import { fileOf } from "../../kit/io/files.js";
import { utf8 } from "../../kit/io/utf8.js";
import { refusal } from "../text/tools.js";
import { directory, textOfLine } from "./tools.js";

const OUTPUT = "data.jsonl";

async function imported(context: TestContext, content: string | Uint8Array): Promise<string[]> {
  const storage = directory(context);
  const input = fileOf(typeof content === "string" ? utf8(content) : content, "notes.txt");
  try {
    const count = await textToJsonl(input, storage, OUTPUT);
    const file = await storage.open(OUTPUT);
    const texts = Array.from(eachLine(file), ({ raw }) => textOfLine(raw));
    file.close();
    assert.equal(texts.length, count);
    return texts;
  } catch (error) {
    assert.deepEqual(readdirSync(storage.path), []);
    throw error;
  }
}

test("lines are documents without paragraphs", async (context) => {
  assert.deepEqual(await imported(context, '\ufeffa\r\n b\t"\\\né\u0001\n\n'), ["a", ' b\t"\\', "é\u0001"]);
  assert.deepEqual(await imported(context, "\n\na\nb\n\n"), ["a", "b"]);
});

test("paragraphs are documents where blank lines part them", async (context) => {
  assert.deepEqual(await imported(context, "\n\na\r\nb\r\n \r\n\nc"), ["a\nb", "c"]);
});

test("what is too long is parted", async (context) => {
  const line = "é🙂".repeat(100_000); // 600,000 bytes
  const parts = await imported(context, `${line}\nnext`);
  assert.deepEqual([parts.slice(0, -1).join(""), parts.at(-1)], [line, "next"]);
  assert.ok(parts.every((part) => utf8(part).length <= 1 << 17));
  const paragraph = Array.from({ length: 20 }, () => "\u0001".repeat(30_000));
  const texts = await imported(context, `${paragraph.join("\n")}\n\nx`);
  assert.deepEqual(texts.slice(0, -1).flatMap((text) => text.split("\n")), paragraph);
});

test("each line can stop it", async (context) => {
  const input = fileOf(utf8("a\nb\n\nc\n"), "notes.txt");
  const storage = directory(context);
  let calls = 0;
  for (let stop = 1; stop <= 8; stop++) {
    calls = 0;
    const counting = () => {
      if (++calls === stop) throw new RangeError("stop");
    };
    await assert.rejects(textToJsonl(input, storage, OUTPUT, counting), RangeError);
    assert.deepEqual(readdirSync(storage.path), []);
  }
  calls = 0;
  await textToJsonl(input, storage, OUTPUT, () => void calls++);
  assert.equal(calls, 8);
});

test("files that are refused", async (context) => {
  await assert.rejects(imported(context, " \n\n"), refusal("DATA_EMPTY", "notes.txt: the file is empty; expected text"));
  const latin1 = imported(context, Buffer.from("a\né\n", "latin1"));
  await assert.rejects(latin1, refusal("DATA_ENCODING", ":2: not UTF-8: invalid continuation byte at byte 0"));
  const wide = imported(context, Buffer.from("\ufeffab\n", "utf16le"));
  await assert.rejects(wide, refusal("DATA_ENCODING", ":1: not UTF-8 but, by its zero bytes, UTF-16"));
  const array = imported(context, '\n[\n{"text": "a"}]');
  await assert.rejects(array, refusal("DATA_LINE", ": a JSON array; expected one JSON object a line: python3 -c "));
  await assert.rejects(imported(context, "id;text\n1;a\n"), refusal("DATA_LINE", ": CSV; expected one JSON object a line"));
  assert.deepEqual(await imported(context, "[Verse 1]\nla, text"), ["[Verse 1]", "la, text"]);
  assert.deepEqual(await imported(context, "text\na"), ["text", "a"]);
});
