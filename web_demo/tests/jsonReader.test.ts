import assert from "node:assert/strict";
import { test } from "node:test";
import { fileOf } from "../kit/io/files.js";
import { JsonReader } from "../kit/io/jsonReader.js";
import { utf8 } from "../kit/io/utf8.js";

const tree = (text: string) => {
  const reader = new JsonReader(utf8(text));
  const value = reader.tree();
  reader.finish();
  return value;
};

test("values of every kind are read", () => {
  assert.deepEqual(tree(' {"a": [1, -2.5e3, "x\\u00e9\\ud83d\\ude00\\n"], "__proto__": null, "b": true} '), new Map<string, unknown>([
    ["a", [1, -2500, "xé😀\n"]],
    ["__proto__", null],
    ["b", true],
  ]));
});

test("what is no JSON is refused at its byte", () => {
  for (const [text, reason] of [
    ['{"a" 1}', "expected a colon at byte 5"],
    ["[1,]", "expected a value at byte 3"],
    ["[01]", "expected a number at byte 3"],
    ['"\\ud800"', "half a surrogate pair at byte 7"],
    ['"\\x"', "an escape that JSON does not have at byte 3"],
    ['"a\nb"', "a control character within a string at byte 2"],
    ["[1] 2", "expected the end at byte 4"],
    ["", "ends too early at byte 0"],
    ["nul", "expected null at byte 3"],
    [`${"[".repeat(40)}`, "a value of too many parts at byte 33"],
  ] as const) {
    assert.throws(() => tree(text), { message: reason }, text);
  }
});

test("a file is read in pieces, and says where its fault is", () => {
  const text = `["${"é".repeat(70_000)}", 7]`;
  const reader = new JsonReader(fileOf(utf8(text)));
  const found: unknown[] = [];
  reader.array(() => found.push(reader.kind() === "a string" ? reader.string().length : reader.int()));
  assert.deepEqual(found, [70_000, 7]);
  assert.throws(() => new JsonReader(fileOf(utf8(`${text.slice(0, -1)}}`))).tree(), { message: `expected a comma or the end of the array at byte 140006` });
  assert.throws(() => new JsonReader(utf8(`"${"x".repeat((1 << 20) + 2)}"`)).string(), { message: /a string of more than 1048576 bytes/ });
});
