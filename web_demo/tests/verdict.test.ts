import assert from "node:assert/strict";
import { test } from "node:test";
import { spread } from "../kit/compare.js";
import { upperTail } from "../kit/training/signedRanks.js";
import { judge, type Verdict } from "../kit/verdict.js";
import { goldenJson } from "./golden.js";
import { refused } from "./tools.js";

// The verdict against what scripts/golden/write_verdict_vectors.py wrote.

interface Judged {
  readonly name: string;
  readonly before: number[];
  readonly after: number[];
  readonly verdict: { outcome: string; examples: number; improved: number; loss_before: number; loss_after: number; p: number };
}

const { verdicts, spreads } = goldenJson("verdicts.json") as {
  verdicts: Judged[];
  spreads: { count: number; most: number; chosen: number[] }[];
};

/** At most `tolerance`, relative to what is expected. */
function near(found: number, expected: number, tolerance: number, what: string): void {
  assert.ok(Math.abs(found / expected - 1) <= tolerance, `${what}: expected ${expected}, found ${found}`);
}

test("the verdicts are the desktop's", () => {
  const outcomes = new Set(verdicts.map(({ verdict }) => verdict.outcome));
  assert.deepEqual(outcomes, new Set(["better", "no-difference", "worse", "too-few"] satisfies Verdict["outcome"][]));
  for (const { name, before, after, verdict: expected } of verdicts) {
    const found = judge(before, after);
    assert.deepEqual([found.outcome, found.examples, found.improved], [expected.outcome, expected.examples, expected.improved], name);
    // sums in another order
    near(found.lossBefore, expected.loss_before, 1e-12, name);
    near(found.lossAfter, expected.loss_after, 1e-12, name);
    near(found.p, expected.p, 1e-12, name);
  }
});

test("the examples are the desktop's", () => {
  for (const { count, most, chosen } of spreads) assert.deepEqual(spread(count, most), chosen);
});

test("the tail of the normal distribution", () => {
  // 1 - Φ(z), by Python's `math.erfc(z / math.sqrt(2)) / 2`.
  const expected = [
    [0, 0.5],
    [0.5, 0.3085375387259869],
    [1.959963984540054, 0.02500000000000002],
    [2.5, 0.006209665325776139],
    [2.5000001, 0.0062096635729463135],
    [3, 0.0013498980316300957],
    [8, 6.220960574271819e-16],
    [30, 4.906713927148764e-198],
  ] as const;
  // Python rounds z / √2, and the tail has that z² times over.
  for (const [z, tail] of expected) near(upperTail(z), tail, 1e-13 + z * z * 2.2e-16, String(z));
  assert.equal(upperTail(1e3), 0);
});

test("losses that are none are refused", async () => {
  assert.match(await refused("OPTION", () => judge([1, 2], [1])), /expected as many after as before, found 1 and 2/);
  assert.match(await refused("DATA_EMPTY", () => judge([], [])), /at least one example/);
  assert.match(await refused("LOSS_NOT_FINITE", () => judge([1, NaN], [1, 1])), /^example 2 of 2: its loss before is NaN/);
  assert.match(await refused("LOSS_NOT_FINITE", () => judge([1, 1], [Infinity, 1])), /^example 1 of 2: its loss after is Infinity/);
});
