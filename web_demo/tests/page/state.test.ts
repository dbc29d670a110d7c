import assert from "node:assert/strict";
import { test } from "node:test";
import { offersGpu, optionsOf } from "../../page/asked.js";
import { smoothed, ticks } from "../../page/chart.js";
import { INITIAL, isBusy, isResumable, talks, told, triedAdapter, type State } from "../../page/state.js";
import { EVENTS, REQUESTS, type AdapterInfo, type BundleInfo, type DeviceEvent, type RunInfo } from "../../page/worker/protocol.js";
import { readMessage, ShapeError } from "../../page/worker/shapes.js";

const RUN: RunInfo = { phase: "training", step: 2, steps: 8, roles: [], secondsAStep: null, begun: true, runtime: null };
const after = (events: readonly DeviceEvent[], state: State = INITIAL) => events.reduce(told, state);
const adapter = (id: number, chat = false): AdapterInfo => ({
  id,
  name: `a${id}`,
  made: 0,
  data: "x",
  steps: 8,
  losses: null,
  verdict: null,
  chat,
  bytes: 1,
});

test("a message of another form is refused by name", () => {
  const refused = (messages: Parameters<typeof readMessage>[0], message: unknown) => {
    try {
      readMessage(messages, message);
    } catch (error) {
      assert.ok(error instanceof ShapeError);
      return error.message;
    }
    return assert.fail("it was taken");
  };
  assert.match(refused(REQUESTS, { type: "toString" }), /unknown type: toString/);
  assert.match(refused(REQUESTS, null), /unknown type/);
  assert.match(refused(REQUESTS, { type: "choose", bundle: 3 }), /choose\.bundle: expected a text, found number/);
  assert.match(refused(REQUESTS, { type: "choose", bundle: "x", more: 1 }), /unknown field 'more'/);
  assert.match(refused(REQUESTS, { type: "begin", threads: -1 }), /threads: expected a whole number from 0 on/);
  assert.match(refused(REQUESTS, { type: "deleteParts", parts: ["data", "all"] }), /parts\[1\]: expected one of/);
  assert.match(refused(EVENTS, { type: "run", run: { ...RUN, phase: "flying" } }), /run\.phase: expected one of none/);
  assert.match(refused(EVENTS, { type: "file", name: "x", content: [1] }), /content: expected bytes/);
  const message = { type: "run", run: RUN };
  assert.equal(readMessage(EVENTS, message), message);
});

test("a run's points come one by one, and steps that were taken back go", () => {
  const stepped = (step: number): DeviceEvent => ({ type: "stepped", point: { step, loss: step }, secondsAStep: 1, roles: [] });
  const state = after([{ type: "run", run: RUN }, stepped(1), stepped(2), stepped(3), stepped(2)]);
  assert.deepEqual(
    state.training.map(({ step }) => step),
    [1, 2],
  );
  assert.equal(state.run.step, 2);
});

test("who asked for a pause sees that until it has come", () => {
  const pausing: State = { ...INITIAL, run: { ...RUN, phase: "pausing" } };
  assert.equal(after([{ type: "run", run: RUN }], pausing).run.phase, "pausing");
  assert.equal(after([{ type: "run", run: { ...RUN, phase: "paused" } }], pausing).run.phase, "paused");
});

test("a run that failed can go on where something of it is saved", () => {
  const failed = (begun: boolean) => isResumable(after([{ type: "run", run: { ...RUN, phase: "failed", begun } }]));
  assert.deepEqual([failed(true), failed(false)], [true, false]);
});

test("nothing can be begun between the parts of what belongs to a model", () => {
  const reading: DeviceEvent = { type: "reading", progress: { kind: "reading", name: "x", done: 1, total: 2 } };
  const parts: DeviceEvent[] = [{ type: "transfer", progress: null }, reading, { type: "reading", progress: null }];
  const states = parts.map((_, i) => after(parts.slice(0, i + 1)));
  assert.deepEqual(states.map(isBusy), [true, true, true]);
  assert.equal(isBusy(after([{ type: "settled", settled: true }], states.at(-1))), false);
});

test("what is tried is what was chosen, else the adapter in use, else a paused run", () => {
  const adapters: DeviceEvent = { type: "adapters", adapters: [adapter(3), adapter(2)], inUse: 2, undecided: null };
  const state = after([adapters]);
  assert.equal(triedAdapter(state)!.id, 2);
  assert.equal(triedAdapter({ ...state, drafts: { ...state.drafts, adapter: 3 } })!.id, 3);
  assert.equal(triedAdapter(after([adapters, { type: "run", run: { ...RUN, phase: "paused" } }])), null);
});

test("Try it is a conversation where that was learned, and the model can", () => {
  const bundle = {
    name: "x",
    source: "",
    bytes: 1,
    layers: 2,
    seqLen: 8,
    method: "full",
    learningRate: 1,
    predictedMemory: 1,
    takesChat: true,
    forGpu: true,
    checked: true,
  } as const;
  const library: DeviceEvent = { type: "library", bundles: [bundle], unfinished: [], chosen: "x" };
  const learned = (chat: boolean): DeviceEvent => ({ type: "adapters", adapters: [adapter(1, chat)], inUse: 1, undecided: null });
  assert.deepEqual([talks(after([library, learned(true)])), talks(after([library, learned(false)]))], [true, false]);
  assert.equal(talks(after([{ ...library, bundles: [{ ...bundle, takesChat: false }] }, learned(true)])), false);
});

test("a GPU is asked for where there is one and the model's programs are for it", () => {
  const { options } = INITIAL.drafts;
  const bundle = { name: "x", forGpu: true } as BundleInfo;
  const state: State = { ...INITIAL, gpu: true, bundles: [bundle], chosen: "x", drafts: { ...INITIAL.drafts, options: { ...options, gpu: true } } };
  assert.deepEqual([offersGpu(state), optionsOf(state).gpu], [true, true]);
  assert.equal(optionsOf({ ...state, drafts: INITIAL.drafts }).gpu, false);
  for (const without of [{ ...state, gpu: false }, { ...state, bundles: [{ ...bundle, forGpu: false }] }]) {
    assert.deepEqual([offersGpu(without), optionsOf(without).gpu], [false, false]);
  }
});

test("pieces are appended to what was asked last, and to the side that wrote them", () => {
  const said = { question: "q", answer: "", adapted: null, chat: true, cut: false };
  const talking = after(
    [
      { type: "wrote", piece: "a", adapted: true },
      { type: "wrote", piece: "b", adapted: true },
      { type: "writingEnded", cut: [false], forgotten: 0 },
    ],
    { ...INITIAL, said: [said, said], writing: true },
  );
  assert.deepEqual(
    talking.said.map(({ answer }) => answer),
    ["", "ab"],
  );
  assert.equal(talking.writing, false);
  const sides: State = {
    ...INITIAL,
    drafts: { ...INITIAL.drafts, sideBySide: true },
    comparison: { prompt: "p", before: "", after: "", cut: [] },
  };
  const { comparison } = after(
    [
      { type: "wrote", piece: "x", adapted: false },
      { type: "wrote", piece: "y", adapted: true },
    ],
    sides,
  );
  assert.deepEqual([comparison!.before, comparison!.after], ["x", "y"]);
});

test("the smoothed curve begins at the first loss, and leaves out what is not finite", () => {
  const points = [2, NaN, 1, 1].map((loss, i) => ({ step: i + 1, loss }));
  const smooth = smoothed(points);
  assert.deepEqual(
    smooth.map(({ step }) => step),
    [1, 3, 4],
  );
  assert.equal(smooth[0]!.loss, 2);
  assert.ok(Math.abs(smooth[1]!.loss - (0.9 * 0.2 + 0.1) / (0.9 * 0.1 + 0.1)) < 1e-12);
});

test("the chart's marks are round numbers that enclose the losses", () => {
  for (const [low, high] of [
    [1.07, 2.57],
    [3, 3],
    [0, 0],
    [4.123, 4.124],
    [0.2, 900],
  ] as const) {
    const marks = ticks(low, high);
    assert.ok(marks[0]! <= low && marks.at(-1)! >= high - 1e-9 && marks.length >= 3 && marks.length <= 6, `${low} ${high}: ${marks}`);
  }
  assert.deepEqual(
    ticks(1.07, 2.57).map((mark) => mark.toFixed(1)),
    ["1.0", "1.5", "2.0", "2.5", "3.0"],
  );
});
