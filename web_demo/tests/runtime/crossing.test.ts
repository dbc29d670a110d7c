import assert from "node:assert/strict";
import { test } from "node:test";
import type { Manifest } from "../../kit/bundle/manifest.js";
import { vectorOf, type HostTensor } from "../../kit/bundle/weights.js";
import { Crossing, CrossingGradients } from "../../kit/runtime/crossing.js";
import type { Values } from "../../kit/runtime/values.js";

// No bundle of the tests has values that cross: layers 0 and 1 give k and v, which 2 and 3 take, and a w that nobody takes.

const float = (name: string) => ({ name, dtype: "float32", shape: [2], meaning: "", weight: null });
const giver = (number: number) => ({ kind: "giver", number, offset: 0, reads: new Map(), takes: new Map(), gives: new Map([["k", `k${number}`]]) });
const taker = (number: number, from: string) => ({ kind: "taker", number, offset: 0, reads: new Map(), takes: new Map([["key", from]]), gives: new Map() });
const kind = (name: string, gives: string[], takes: string[]) => ({ name, gives, takes });
const manifest = {
  kinds: [kind("giver", ["k", "w"], []), kind("taker", [], ["key"])],
  layers: [giver(0), giver(1), taker(0, "k0"), taker(1, "k0")],
  graphs: new Map([
    ["giver_forward", { inputs: [], outputs: [float("h_next"), float("k"), float("w")] }],
    ["taker_forward", { inputs: [], outputs: [float("h_next")] }],
  ]),
} as unknown as Manifest;

const results = (values: Record<string, [number, number]>) =>
  new Map<string, HostTensor>(Object.entries(values).map(([name, pair]) => [name, vectorOf(Float32Array.from(pair))]));
const plain = (values: Values) => Object.fromEntries([...values].map(([name, value]) => [name, [...(value as HostTensor).data]]));

test("a value goes under its name from the layer that gives it to those that take it", () => {
  const values = new Crossing(manifest);
  assert.deepEqual(values.wanted(0), ["k"]); // what it gives under no name is not asked for
  values.put(0, results({ k: [1, 2], h_next: [0, 0] }));
  values.put(1, results({ k: [3, 4] }));
  assert.deepEqual(plain(values.taken(2)), { key: [1, 2] });
  assert.deepEqual([values.wanted(2), plain(values.taken(0))], [[], {}]);
});

test("gradients of what crossed are summed over those that took it", async () => {
  const owed = new CrossingGradients(manifest, [0, 1, 2, 3]);
  for (const [layer, d] of [[3, [1, 10]], [2, [2, 20]]] as const) {
    assert.deepEqual(owed.wanted(layer), ["d_key"]);
    await owed.put(layer, results({ d_key: [...d] }));
  }
  assert.deepEqual(plain(owed.owed(1)), { d_k: [0, 0], d_w: [0, 0] }); // nobody took it
  assert.deepEqual(plain(owed.owed(0)), { d_k: [3, 30], d_w: [0, 0] });
});

test("what a layer gave that does not run backward has no gradient", async () => {
  const owed = new CrossingGradients(manifest, [1, 2, 3]);
  assert.deepEqual(owed.wanted(3), []);
  await owed.put(3, results({}));
  assert.deepEqual(plain(owed.owed(1)), { d_k: [0, 0], d_w: [0, 0] });
});
