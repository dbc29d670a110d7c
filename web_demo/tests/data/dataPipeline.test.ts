import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { type Batch, IGNORED_LABEL } from "../../kit/bundle/batch.js";
import { type Dataset, holdOut } from "../../kit/data/dataset.js";
import { decodeLine, type Line, LineFault } from "../../kit/data/lineRecord.js";
import { otherFormat } from "../../kit/data/otherFormats.js";
import { assign, countSequences, epochs, pack } from "../../kit/data/packing.js";
import { type Example, hasDoubledEnds } from "../../kit/data/records.js";
import { shuffled, splitmix64 } from "../../kit/data/shuffling.js";
import { utf8 } from "../../kit/io/utf8.js";
import { goldenPath } from "../golden.js";
import { refusal } from "../text/tools.js";
import { dataset } from "./tools.js";

// docs/data.md's lines and files' beginnings, and all from *Order* on, against tests/golden/data_pipeline.json.

interface Vectors {
  readonly records: {
    line: string; reason?: string; text?: string; prompt?: string; completion?: string; turns?: string[][]; further_keys?: string[];
  }[];
  readonly file_starts: { file: string; start: string; answer: string | null }[];
  readonly doubled_ends: { ids: number[]; bos: number | null; eos: number | null; doubled: boolean }[];
  readonly splitmix64: { seed: string; outputs: string[] }[];
  readonly orders: { seed: string; epoch: number; count: number; order: number[] }[];
  readonly held_out: { seed: string; count: number; share: number; held_out: number[] }[];
  readonly packing: { seq_len: number; open_sequences: number; sizes: number[]; sequences: number[][] }[];
  readonly epochs: { seq_len: number; seed: string; sizes: number[]; start: number; sequences: number[][] }[];
  readonly sequences: {
    seq_len: number; pad_id: number; tokens_sha256: string; examples: { input_ids: number[]; labels: number[] }[];
    batches: Record<"input_ids" | "labels" | "position_ids" | "segment_ids", number[]>[];
  }[];
}

/** Seeds of 64 bits, which no number holds, as texts. */
const written = readFileSync(goldenPath("data_pipeline.json"), "utf8").replace(/"seed": (-?\d+)/g, '"seed": "$1"');
const vectors = JSON.parse(written) as Vectors;

/** As scripts/golden/write_data_vectors.py: example e of n tokens is 100 e + t; the first third is not counted. */
function counting(sizes: readonly number[], seqLen: number): Dataset {
  const example = (length: number, number: number): Example => {
    const inputIds = Array.from({ length }, (_, token) => 100 * number + token);
    const isCounted = (token: number) => token >= Math.floor(length / 3) && token < length - 1;
    return { inputIds, labels: inputIds.map((id, token) => (isCounted(token) ? id + 1 : IGNORED_LABEL)) };
  };
  return dataset(sizes.map(example), seqLen);
}

/** Which examples a sequence holds. */
function members({ inputIds, positionIds, segmentIds, labels }: Batch): number[] {
  const firsts = [...inputIds].filter((_, place) => positionIds[place] === 0).map((id) => Math.floor(id / 100));
  const isPadding = labels.every((label, place) => segmentIds[place] !== segmentIds.at(-1) || label === IGNORED_LABEL);
  return isPadding ? firsts.slice(0, -1) : firsts;
}

function take<T>(values: Iterable<T>, count: number): T[] {
  const taken: T[] = [];
  for (const value of values) if (taken.push(value) === count) break;
  return taken;
}

function said(line: Line): unknown {
  if (line.form === "text") return line.text;
  return line.form === "completion" ? [line.prompt, line.completion] : line.messages.map(({ role, content }) => [role, content]);
}

test("lines", () => {
  for (const { line, reason, text, prompt, completion, turns, further_keys } of vectors.records) {
    if (reason !== undefined) {
      assert.throws(() => decodeLine(utf8(line)), new LineFault(reason), line);
      continue;
    }
    const decoded = decodeLine(utf8(line));
    assert.deepEqual(said(decoded.line), text ?? turns ?? [prompt, completion], line);
    assert.deepEqual(decoded.furtherKeys, further_keys, line);
  }
});

test("beginnings of files", () => {
  for (const { file, start, answer } of vectors.file_starts) {
    assert.equal(otherFormat(Buffer.from(start, "hex"), file), answer);
  }
});

test("which ends are doubled", () => {
  for (const { ids, bos, eos, doubled } of vectors.doubled_ends) assert.equal(hasDoubledEnds(ids, bos, eos), doubled, String(ids));
});

test("the generator", () => {
  for (const { seed, outputs } of vectors.splitmix64) {
    const found = outputs.map((_, position) => splitmix64(BigInt(seed), BigInt(position)).toString(16).padStart(16, "0"));
    assert.deepEqual(found, outputs);
  }
});

test("orders", () => {
  for (const { seed, epoch, count, order } of vectors.orders) assert.deepEqual([...shuffled(count, BigInt(seed), epoch)], order);
});

test("held out parts", () => {
  for (const { seed, count, share, held_out } of vectors.held_out) {
    const [training, evaluation] = holdOut(counting(Array(count).fill(4), 4), share, Number(seed));
    const numbers = (part: Dataset) => Array.from({ length: part.size }, (_, index) => part.example(index).inputIds[0]! / 100);
    assert.deepEqual(numbers(evaluation), held_out);
    assert.deepEqual(numbers(training), [...Array(count).keys()].filter((number) => !held_out.includes(number)));
  }
  const one = counting([4], 4);
  assert.throws(() => holdOut(one, 0.5, 0), refusal("DATA_EMPTY", "has one example; expected at least two"));
  assert.throws(() => holdOut(one, 1, 0), refusal("OPTION", "hold-out: expected more than 0 and less than 1, found 1"));
  assert.throws(() => holdOut(one, NaN, 0), refusal("OPTION", "found NaN"));
});

test("packing", () => {
  for (const { seq_len, open_sequences, sizes, sequences } of vectors.packing) {
    assert.deepEqual([...assign(sizes.keys(), (index) => sizes[index]!, seq_len, open_sequences)], sequences);
  }
  assert.throws(() => [...pack(counting([9], 9), 8, 0)], new RangeError("expected an example of at most 8 tokens, found 9"));
});

test("streams with a cursor", () => {
  for (const { seq_len, seed, sizes, start, sequences } of vectors.epochs) {
    const batches = epochs(counting(sizes, seq_len), seq_len, 0, Number(seed), start);
    assert.deepEqual(take(batches, sequences.length).map(members), sequences);
  }
});

test("whole sequences", () => {
  for (const { seq_len, pad_id, tokens_sha256, examples, batches } of vectors.sequences) {
    const given = examples.map(({ input_ids, labels }) => ({ inputIds: input_ids, labels }));
    const data = dataset(given, seq_len);
    assert.equal(data.tokensSha256, tokens_sha256);
    // What was cut when the vectors were written has the token after the cut for its last label.
    assert.deepEqual(given.map((_, index) => data.example(index)), given);
    const found = [...pack(data, seq_len, pad_id)].map(({ inputIds, labels, positionIds, segmentIds }) => ({
      input_ids: [...inputIds], labels: [...labels], position_ids: [...positionIds], segment_ids: [...segmentIds],
    }));
    assert.deepEqual(found, batches);
  }
});

test("counted sequences are those of an epoch", () => {
  const data = counting(Array.from({ length: 60 }, (_, index) => 2 + ((index * index) % 19)), 20);
  const seen = take(epochs(data, 20, 0, 4), countSequences(data, 20, 4)).flatMap(members);
  assert.deepEqual(seen.sort((one, other) => one - other), [...Array(60).keys()]);
});
