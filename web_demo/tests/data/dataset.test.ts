import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, test, type TestContext } from "node:test";
import { NodeStorage } from "../../cli/nodeFiles.js";
import type { Fault } from "../../kit/faults.js";
import type { Dataset } from "../../kit/data/dataset.js";
import { readDataset } from "../../kit/data/datasetReader.js";
import { heldOutPrompt } from "../../kit/data/heldOutPrompt.js";
import { FORMS, LineFault } from "../../kit/data/lineRecord.js";
import { type LineExample, readLine } from "../../kit/data/records.js";
import { reportTokens } from "../../kit/data/tokenReport.js";
import { fileOf, IoError, readBounded, type StoredFile } from "../../kit/io/files.js";
import { utf8 } from "../../kit/io/utf8.js";
import { ChatFormat } from "../../kit/text/chatFormat.js";
import { Tokenizer } from "../../kit/text/tokenizer.js";
import { goldenJson } from "../golden.js";
import { bundle, files, refusal } from "../text/tools.js";
import { directory, lines, memory, pieces } from "./tools.js";

let tokenizer: Tokenizer; // a token for each byte
let chat: ChatFormat;
before(async () => {
  tokenizer = await Tokenizer.open(bundle("tiny"), 259);
  const turn = (role: string) => ({ before: `<|im_start|>${role}\n`, after: "<|im_end|>\n", trimmed: false });
  const fields = {
    format_version: 1, empty: "", opening: "", system: turn("system"), system_in_next: false, later_system: turn("system"),
    user: turn("user"), assistant: turn("assistant"), generation_prompt: "<|im_start|>assistant\n", alternates: false, thoughts: null,
    date_format: null,
  };
  chat = await ChatFormat.open(files({ "chat.json": JSON.stringify(fields) }));
});

const storage = { path: "data", scratch: async () => memory() };
const read = (file: StoredFile, seqLen = 64, format: ChatFormat | null = chat): Promise<Dataset> =>
  readDataset(file, { tokenizer, chat: format, seqLen }, storage);
const file = (...bytes: (string | readonly number[])[]) =>
  fileOf(Uint8Array.from(bytes.flatMap((part) => (typeof part === "string" ? [...utf8(part)] : part))), "folder/data.jsonl");

test("what each form counts", async () => {
  const conversation = '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}';
  const data = await read(lines('{"text": "ab"}', '{"prompt": "a", "completion": "bc"}', conversation));
  assert.deepEqual(pieces(data, 0, tokenizer), [["a", false], ["b<|endoftext|>", true]]);
  assert.deepEqual(pieces(data, 1, tokenizer), [["a", false], ["bc<|endoftext|>", true]]);
  const begun = "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n";
  assert.deepEqual(pieces(data, 2, tokenizer), [[begun, false], ["y<|im_end|>\n", true]]);
  const { lines: count, texts, completions, conversations } = data.report;
  assert.deepEqual([count, texts, completions, conversations], [3, 1, 1, 1]);
});

test("what the model is given of the first held-out example", async () => {
  const conversation = (...contents: string[]) =>
    JSON.stringify({ messages: contents.map((content, i) => ({ role: i % 2 === 0 ? "user" : "assistant", content })) });
  const given = async (line: string, format: ChatFormat | null = chat) => {
    const { ids, shown } = heldOutPrompt(await read(lines(line), 256, format), tokenizer, format);
    return [tokenizer.decode(ids, true), shown];
  };
  assert.deepEqual(await given('{"text": "a text of many letters, of which the first are given"}'), ["a text of ma", "a text of ma"]);
  assert.deepEqual(await given('{"text": "abcdefgh"}'), ["abc", "abc"]); // a third, with the end
  assert.deepEqual(await given('{"text": "ab"}'), ["a", "a"]);
  assert.deepEqual(await given('{"prompt": "a?", "completion": " yes"}', null), ["a?", "a?"]);
  const long = "a longer prompt than a text";
  assert.deepEqual(await given(`{"prompt": "${long}", "completion": "x"}`), [long, long]);
  const begun = "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n";
  assert.deepEqual(await given(conversation("one", "two", "three", "four")), [begun, "one"]); // all of its turns count, from the first
});

test("labels are those of the chat templates", async () => {
  interface Labels {
    readonly messages: { role: string; content: string }[];
    readonly tokens: number;
    readonly counted: [number, number][] | null;
    readonly uncounted_turns: number;
  }
  const golden = goldenJson("chat_formats.json") as { tokenizer: object; formats: Record<string, { chat: object; labels: Labels[] }> };
  const contents = { "tokenizer.json": JSON.stringify(golden.tokenizer), "tokenizer_config.json": '{"bos_token": "<s>"}' };
  const characters = await Tokenizer.open(files(contents), 1 << 20);
  for (const [name, { chat: fields, labels }] of Object.entries(golden.formats)) {
    const format = await ChatFormat.open(files({ "chat.json": JSON.stringify(fields) }));
    const kept = labels.filter(({ counted }) => counted !== null && counted.length > 0);
    assert.ok(kept.length > 20 || name === "llama3.2", name);
    for (const { messages, tokens, counted, uncounted_turns } of labels) {
      const line = lineOf(messages, characters, format);
      if (line === null) {
        assert.ok(counted === null || messages.slice(1).some(({ role }) => role === "system"), name);
        continue;
      }
      const { inputIds, labels: found } = line.example;
      const places = found.flatMap((label, place) => (label === -100 ? [] : [place]));
      assert.deepEqual(places, counted?.flatMap(([start, count]) => Array.from({ length: count }, (_, index) => start + index)), name);
      assert.deepEqual([inputIds.length, line.uncountedTurns], [tokens, uncounted_turns]);
      for (const place of places) assert.equal(found[place], inputIds[place + 1]);
    }
  }
});

function lineOf(messages: object[], characters: Tokenizer, format: ChatFormat): LineExample | null {
  try {
    return readLine(utf8(JSON.stringify({ messages })), characters, format);
  } catch (error) {
    if (error instanceof LineFault) return null;
    throw error;
  }
}

test("a report", async () => {
  const twice = '{"text": "ab"}';
  const written = lines('{"text": "abcdefgh"}', twice, `${twice}\r`, '{"prompt": "abcdefgh", "completion": "i"}');
  const report = await reportTokens(written, { tokenizer, chat: null, seqLen: 6 }, { accumulation: 1, examples: 1 }, storage);
  // 9, 3, 3 and 10 tokens; the last line's completion is cut off.
  assert.deepEqual(report.data, {
    lines: 4, examples: 3, tokens: 12, countedLabels: 10, truncated: 2, tokensCut: 7, withoutLabels: 1, texts: 3, completions: 1,
    conversations: 0, uncountedTurns: 0, doubledEnds: 0, duplicates: 1, blankLines: 0, furtherKeys: new Map(), lengthP50: 3,
    lengthP90: 10, lengthP99: 10, longest: 10,
  });
  assert.deepEqual([report.sequences, report.fill, report.steps, report.seqLenToCutNone], [2, 1, 2, 10]);
  assert.equal(report.preview[0]!.map(({ text }) => text).join(""), "abcdef");
  assert.equal(report.sha256, createHash("sha256").update(readBounded(written, 1000)).digest("hex"));
  const none = reportTokens(written, { tokenizer, chat: null, seqLen: 6 }, { accumulation: 0, examples: 1 }, storage);
  await assert.rejects(none, refusal("OPTION", "accumulation: expected at least 1, found 0"));
});

async function refused(fault: Fault, part: string, content: StoredFile): Promise<void> {
  await assert.rejects(read(content), (error: Error & { args: string[] }) => {
    assert.ok(error.message.includes(`:${error.args[1]}: `) && error.args[0] === "data.jsonl", error.message);
    return refusal(fault, part)(error);
  });
}

test("lines that are refused", async () => {
  const line = (part: string, text: string) => refused("DATA_LINE", part, file('{"text": "ok"}\n', text));
  await line(":2: not JSON: ends within a string at byte 11", '{"text": "a');
  await line(":2: not JSON: half a surrogate pair", '{"text": "\\ud800"}');
  await line(":2: not JSON: half a surrogate pair", '{"text": "\\udc00\\ud800"}');
  await line(":2: not JSON: a control character", '{"text": "a\tb"}');
  await line(":2: not JSON: expected the end", '{"text": "a"} {"text": "b"}');
  await line(":2: not JSON: expected an object", "[1]");
  await line(":2: not JSON: a value nested too deep", `{"x": ${"[".repeat(100_000)}`);
  await line(":2: not JSON: expected a number", '{"x": 01}');
  await line(`:2: expected the keys of ${FORMS}, found 'label'`, '{"label": 1}');
  await line("found '__proto__'", '{"__proto__": 1}');
  await line("text: expected a string, found a number", '{"text": -1.5e3}');
  await line("messages[1]: expected an object, found null", '{"messages": [{"role": "user", "content": "x"}, null]}');
  await line("messages[0].role: expected a string, found true or false", '{"messages": [{"role": true, "content": "x"}]}');
  await line("at least one with the role 'assistant'", '{"messages": [{"role": "user", "content": "x"}]}');
  const tool = '{"messages": [{"role": "tool", "content": "x"}, {"role": "assistant", "content": "x"}]}';
  await line("the role 'tool'", tool);
  await line(":2: a line of more than 1048576 bytes", `{"text": "${"a".repeat(1 << 20)}"}\n`);
});

test("what is taken", async () => {
  const text = '{"text": "no", "text": "\\u0041\\ud83d\\ude42\\n\\/"}';
  const again = ' {"messages": 1, "messages": [{"role": "assistant", "content": "é"}]} ';
  const data = await read(lines(`\ufeff${text}`, again));
  assert.equal(pieces(data, 0, tokenizer).map(([piece]) => piece).join(""), "A🙂\n/<|endoftext|>");
  assert.equal(data.size, 2);
  assert.equal((await read(file('{"text": "a"}'))).size, 1); // without an end of line
  const long = JSON.stringify({ text: "é".repeat(500_000) });
  assert.equal((await read(lines('{"text": "a"}', long, long))).report.longest, 1_000_001);
});

test("what is passed over", async () => {
  const turns = '{"role": "user", "content": "x", "name": {}}, {"role": "assistant", "content": "y", "name": 1}';
  const ab = '{"text": "ab", "id": 1}';
  const { report } = await read(lines("", ab, " \t\r", ab, `{"messages": [${turns}], "id": 2, "tools": []}`, "\u2003", "\ufeff"), 200);
  assert.deepEqual([report.lines, report.blankLines, report.duplicates], [3, 4, 1]);
  assert.deepEqual(report.furtherKeys, new Map([["id", 3], ["tools", 1], ["messages[].name", 1]]));
  await assert.rejects(read(lines("", " ")), refusal("DATA_EMPTY", "the file is empty"));
  await refused("DATA_LINE", ":3: not JSON", file(`${ab}\n\nx`));
  const keys = (line: number) => Array.from({ length: 40 }, (_, key) => `"${line} ${key}": 1`).join(", ");
  const many = await read(lines(...[0, 1, 2].map((line) => `{"text": "ab", ${keys(line)}}`)));
  assert.deepEqual([many.report.furtherKeys.size, many.report.furtherKeys.get("…")], [21, 100]);
});

test("other formats", async () => {
  const other = (part: string, content: string) => refused("DATA_LINE", part, file(content));
  await other(":2: a JSON array; expected one JSON object a line: python3 -c ", '\n[\n{"text": "a"}\n]');
  await other(":1: a JSON array", `[{"text": "${"a".repeat(1 << 20)}"}]`);
  await other(":1: JSON over several lines; ", '{\n  "text": "a"\n}');
  await other(":1: CSV; ", "id,text\n1,a\n");
  await other(":2: not JSON", '{"text": "a"}\n{\n');
});

test("other encodings", async () => {
  const encoding = (part: string, ...bytes: (string | readonly number[])[]) => refused("DATA_ENCODING", part, file(...bytes));
  const line = '{"text": "é"}\n';
  const little = [...Buffer.from(line, "utf16le")];
  const big = little.map((_, index) => little[index ^ 1]!);
  await encoding(":1: not UTF-8 but, by its zero bytes, UTF-16; save the file as UTF-8: iconv -f UTF-16 ", [0xfe, 0xff], big);
  await encoding(":1: not UTF-8 but", little);
  await encoding(":1: not UTF-8 but", big);
  const latin1 = '{"text": "ok"}\n{"text": "';
  await encoding(":2: not UTF-8: invalid continuation byte at byte 10; save the file as UTF-8", latin1, [0xe9], '"}\n');
  await encoding("invalid start byte at byte 1", '"', [0x80, 0x41]);
  await encoding("unexpected end of data at byte 1", '"', [0xe2, 0x82]);
});

test("files that are refused", async (context) => {
  await assert.rejects(read(file("")), refusal("DATA_EMPTY", "the file is empty; expected one JSON object a line"));
  const cut = lines('{"prompt": "ab", "completion": "c"}');
  await assert.rejects(read(cut, 1), refusal("DATA_EMPTY", "none of the 1 lines has a counted label within 1 tokens"));
  const messages = lines('{"messages": [{"role": "assistant", "content": "x"}]}');
  await assert.rejects(read(messages, 64, null), refusal("CHAT_UNSUPPORTED", ":1: the bundle has no chat format (chat.json)"));
  const small = await Tokenizer.open(bundle("tiny"), 257);
  const outside = readDataset(lines('{"text": "<|im_end|>"}'), { tokenizer: small, chat: null, seqLen: 8 }, storage);
  await assert.rejects(outside, refusal("TOKENIZER_DAMAGED", ":1: token 258 ('<|im_end|>') is outside the model's vocabulary of 257"));
  const gone = { ...lines("x"), read: () => { throw new IoError("ended while it was read"); } };
  await assert.rejects(read(gone), refusal("DATA_UNREADABLE", "data.jsonl: cannot be read: ended while it was read"));
  const { path } = directory(context);
  writeFileSync(join(path, "file"), "");
  const blocked = readDataset(cut, { tokenizer, chat, seqLen: 8 }, new NodeStorage(join(path, "file")));
  await assert.rejects(blocked, refusal("STORAGE_FAILED", "cannot be written"));
  const full = { path: "data", scratch: async () => ({ ...memory(), write: () => { throw new IoError("no space left"); } }) };
  const long = lines(JSON.stringify({ text: "a".repeat(20_000) }));
  await assert.rejects(readDataset(long, { tokenizer, chat, seqLen: 1 << 20 }, full), refusal("STORAGE_FULL", "no space left"));
});

test("tokens lie in a file without a name, and parts of a dataset share it", async (context) => {
  const storage = directory(context);
  const texts = Array.from({ length: 50 }, (_, index) => JSON.stringify({ text: `${index} ${"ab".repeat(index * 20)}` }));
  const data = await readDataset(lines(...texts), { tokenizer, chat, seqLen: 1 << 12 }, storage);
  assert.deepEqual(readdirSync(storage.path), []);
  const part = data.part(Uint32Array.of(49, 7));
  for (const [index, number] of [49, 7].entries()) {
    assert.equal(tokenizer.decode(part.example(index).inputIds), JSON.parse(texts[number]!).text);
  }
  data.close();
  assert.throws(() => part.example(0), refusal("STORAGE_FAILED", "data.jsonl: cannot be read: "));
});

test("progress may cancel", async (context: TestContext) => {
  const storage = directory(context);
  const written = lines(...Array.from({ length: 1000 }, () => `{"text": "${"a".repeat(1000)}"}`));
  const how = { tokenizer, chat: null, seqLen: 8 };
  const seen: [number, number][] = [];
  const data = await readDataset(written, how, storage, (done, total) => void seen.push([done, total]));
  data.close();
  assert.equal(seen.length, 3);
  assert.ok(seen.every(([done, total]) => total === written.size && done <= total));
  const stop = new Error("stop");
  let closed = 0;
  const counted = { path: "data", scratch: async () => ({ ...memory(), close: () => void closed++ }) };
  await assert.rejects(readDataset(written, how, counted, async () => { throw stop; }), stop);
  assert.equal(closed, 1);
});
