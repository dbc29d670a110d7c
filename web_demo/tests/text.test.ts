import assert from "node:assert/strict";
import { test } from "node:test";
import { megabytes, oneLine, quoted, some } from "../kit/io/text.js";

test("messages are one printable line of bounded length", () => {
  assert.equal(oneLine(" a\n\tb\u202ec\u0007"), "a b\\u202ec\\x07");
  assert.equal(oneLine("x".repeat(400)), `${"x".repeat(300)}…`);
  assert.equal(quoted("it's \\"), "'it\\'s \\\\'");
  assert.equal(some(Array.from({ length: 10 }, (_, i) => `f${i}`)), "f0; f1; f2; f3; f4; f5; f6; f7 (and 2 more)");
});

test("sizes are in millions of bytes", () => {
  assert.equal(megabytes(1_234_567_890), "1,234.6 MB");
  assert.equal(megabytes(49_999), "0.0 MB");
});
