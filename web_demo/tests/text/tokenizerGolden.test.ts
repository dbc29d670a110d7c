import assert from "node:assert/strict";
import { test } from "node:test";
import { lossyUtf8 } from "../../kit/io/utf8.js";
import { Tokenizer } from "../../kit/text/tokenizer.js";
import { gunzip, styled } from "./tools.js";

// Every tokenizer against the library tokenizers, on what scripts/golden/write_tokenizer_golden.py wrote.

const STYLES = ["qwen2", "llama3", "smollm2", "unknown", "gemma", "llama2"];

/** In `ids` and `offsets` null is what the style before has, in `decoded` the text. */
interface Sample {
  readonly text: string;
  readonly ids: (number[] | null)[];
  readonly decoded: (string | null)[];
  readonly offsets?: (number[] | null)[];
}

interface Decoding {
  readonly decode: number[];
  readonly texts: string[];
}

const lines = lossyUtf8(gunzip("golden.jsonl")).trimEnd().split("\n").map((line) => JSON.parse(line) as Sample | Decoding);
const samples = lines.filter((line) => "text" in line);
const decodings = lines.filter((line) => "decode" in line);

const inherited = <T>(values: (T | null)[], style: number): T => values.slice(0, style + 1).findLast((value) => value !== null)!;

/** As the library and Python count characters: where code point number i begins in UTF-16. */
function places(text: string): number[] {
  const found = [0];
  for (const character of text) found.push(found.at(-1)! + character.length);
  return found;
}

test("there are ten thousand texts", () => assert.deepEqual([samples.length, decodings.length], [10_000, 400]));

for (const [style, name] of STYLES.entries()) {
  test(`${name}: ids, texts and offsets are the library's`, async () => {
    const tokenizer = await styled(name);
    for (const line of samples) {
      const ids = inherited(line.ids, style);
      assert.deepEqual(tokenizer.encode(line.text), ids, line.text);
      assert.equal(tokenizer.decode(ids), line.decoded[style] ?? line.text);
      if (line.offsets !== undefined) checkOffsets(tokenizer, name, line.text, ids, inherited(line.offsets, style));
    }
    for (const line of decodings) assert.equal(tokenizer.decode(line.decode), line.texts[style], String(line.decode));
  });
}

/**
 * Where NFC changes a text, the library gives a character's place to its base alone and the marks' to what follows; both cover the text
 * without gaps.
 */
function checkOffsets(tokenizer: Tokenizer, name: string, text: string, ids: number[], offsets: number[]): void {
  const encoded = tokenizer.encodeWithOffsets(text);
  assert.deepEqual(encoded.ids, ids);
  if (name === "qwen2" && text.normalize("NFC") !== text) {
    assert.deepEqual([encoded.starts[0], encoded.ends.at(-1)], [0, text.length]);
    encoded.starts.slice(1).forEach((start, index) => assert.ok(start <= encoded.ends[index]!));
    return;
  }
  const at = places(text);
  const found = encoded.ids.flatMap((_, index) => [encoded.starts[index]!, encoded.ends[index]!]);
  assert.deepEqual(found, offsets.map((place) => at[place]!), text);
}
