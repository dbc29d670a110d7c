import { METHODS } from "../../kit/bundle/schedule.js";
import { blob, bytes, choice, count, flag, list, nullable, number, object, text, type MessageOf, type ShapeOf } from "./shapes.js";

// What the page asks of its worker, and what the worker tells. The worker owns all files and the run; the page shows what it was told.

/** What a layer is in a step: its LoRA is trained, the gradient passes through it, or it is left out. */
const role = choice("trained", "passed", "skipped");
export type Role = ShapeOf<typeof role>;

/** A model in the browser's storage. `schedule`: one cycle, by step. `learningRate`: of that schedule, if none is asked for. */
const bundleInfo = object({
  name: text,
  source: text,
  bytes: count,
  layers: count,
  seqLen: count,
  method: choice(...METHODS),
  learningRate: number,
  predictedMemory: count,
  takesChat: flag,
  forGpu: flag,
  checked: flag,
});
export type BundleInfo = ShapeOf<typeof bundleInfo>;

/** A model of which some files are here. */
const unfinished = object({ name: text, bytes: count });

/** Something that takes long, in bytes; `total` 0: unknown. */
const progress = object({ kind: choice("copying", "verifying", "reading"), name: text, done: count, total: count });
export type Progress = ShapeOf<typeof progress>;

const piece = object({ text, counted: flag });
export type Piece = ShapeOf<typeof piece>;

/** What the data comes to with the chosen model; `previews`: its first examples, as the loss sees them. */
const dataSummary = object({
  examples: count,
  tokens: count,
  counted: count,
  cut: count,
  sequences: count,
  conversations: count,
  previews: list(list(piece)),
});
export type DataSummary = ShapeOf<typeof dataSummary>;

/** `typed`: the person's own messages, where they were written here; `name`: a file's, empty for the sample messages. */
const dataInfo = object({ name: text, sample: flag, typed: nullable(list(text)), summary: nullable(dataSummary) });
export type DataInfo = ShapeOf<typeof dataInfo>;

export const PHASES = [
  "none",
  "opening",
  "testing",
  "evaluating",
  "training",
  "comparing",
  "pausing",
  "paused",
  "interrupted",
  "finished",
  "cancelled",
  "failed",
] as const;
const phase = choice(...PHASES);
export type Phase = ShapeOf<typeof phase>;

/**
 * The chosen model's run. `roles`: of the step under way. `begun`: something of it is saved. `secondsAStep`: of the last steps. `runtime`: what
 * computes it, by name and version, once that is known.
 */
const runInfo = object({
  phase,
  step: count,
  steps: count,
  roles: list(role),
  secondsAStep: nullable(number),
  begun: flag,
  runtime: nullable(text),
});
export type RunInfo = ShapeOf<typeof runInfo>;

const point = object({ step: count, loss: number });
export type Point = ShapeOf<typeof point>;

/** What the model made of the beginning of a held-out example after `step` steps. `cut`: it would have written on. */
const sample = object({ step: count, prompt: text, text, cut: flag });
export type Sample = ShapeOf<typeof sample>;

/** As kit/verdict.ts has it. `against`: the other adapter's name, null for the model as it came. */
const verdict = object({
  outcome: choice("better", "no-difference", "worse", "too-few"),
  examples: count,
  improved: count,
  against: nullable(text),
});
export type StoredVerdict = ShapeOf<typeof verdict>;

/** `made`: milliseconds since 1970. `data`: what it learned from; null: it was imported. `losses`: on the test examples, before and after. */
const adapterInfo = object({
  id: count,
  name: text,
  made: number,
  data: nullable(text),
  steps: nullable(count),
  losses: nullable(list(number)),
  verdict: nullable(verdict),
  chat: flag,
  bytes: count,
});
export type AdapterInfo = ShapeOf<typeof adapterInfo>;

/** What a run is asked for. `learningRate` null: the kit's; `method` null: the bundle's; `memoryBudget`: bytes, null: no limit. `gpu`: on it. */
export const trainOptions = object({
  steps: count,
  learningRate: nullable(number),
  method: nullable(choice(...METHODS)),
  memoryBudget: nullable(number),
  gpu: flag,
});
export type TrainOptions = ShapeOf<typeof trainOptions>;

/** What such a run takes, in bytes. */
const plan = object({ memory: count, storage: count, keep: count, learningRate: number });
export type Plan = ShapeOf<typeof plan>;

/** What went wrong: a Fault of the kit, or one of the page's own. `detail`: in English, with every figure. */
const problem = object({ fault: text, args: list(text), detail: text });
export type ToldProblem = ShapeOf<typeof problem>;

const exchange = object({ question: text, answer: text });

/** The parts of what is stored here. */
export const PARTS = ["models", "data", "learned"] as const;
export type Part = (typeof PARTS)[number];
const part = choice(...PARTS);

export const REQUESTS = {
  /** The first. `threads`: that the page may use. */
  begin: { threads: count },
  addFromServer: { name: text, path: text },
  addFiles: { name: text, files: list(object({ path: text, file: blob })) },
  addZip: { name: text, file: blob },
  cancelAdding: {},
  choose: { bundle: text },
  removeBundle: { bundle: text },
  importData: { name: text, file: blob },
  sampleData: {},
  typeMessages: { messages: list(text) },
  plan: { options: trainOptions },
  /** `dataName`: as the person sees it. */
  start: { options: trainOptions, dataName: text },
  resume: {},
  pause: {},
  finish: {},
  /** `adapter`: null for the model as it came, 0 for a paused run's. `compare`: both, side by side. */
  write: {
    prompt: text,
    chat: flag,
    system: text,
    earlier: list(exchange),
    temperature: number,
    adapter: nullable(count),
    compare: flag,
  },
  stopWriting: {},
  useAdapter: { id: nullable(count) },
  deleteAdapter: { id: count },
  exportAdapter: { id: count, form: choice("safetensors", "peft") },
  importAdapter: { name: text, files: list(object({ path: text, file: blob })) },
  measure: {},
  deleteParts: { parts: list(part) },
} as const;

export const EVENTS = {
  /** The worker has the storage to itself, and begins; until then another tab has it. */
  ready: {},
  busy: {},
  /** Whether the browser gives the worker a GPU. */
  gpu: { there: flag },
  library: { bundles: list(bundleInfo), unfinished: list(unfinished), chosen: nullable(text) },
  /** Whether all that belongs to the chosen model was read: between its parts nothing tells of progress. */
  settled: { settled: flag },
  transfer: { progress: nullable(progress) },
  reading: { progress: nullable(progress) },
  data: { data: nullable(dataInfo) },
  plan: { plan: nullable(plan) },
  run: { run: runInfo },
  /** All points so far, of a run that is shown anew. */
  history: { training: list(point), evaluation: list(point), samples: list(sample) },
  stepped: { point, secondsAStep: number, roles: list(role) },
  evaluated: { point },
  sampled: { sample },
  layer: { layer: count },
  adapters: { adapters: list(adapterInfo), inUse: nullable(count), undecided: nullable(count) },
  wrote: { piece: text, adapted: flag },
  writingEnded: { cut: list(flag), forgotten: count },
  file: { name: text, content: bytes },
  kept: { parts: list(object({ part, bytes: count })) },
  problem: { problem },
} as const;

export type Request = MessageOf<typeof REQUESTS>;
export type DeviceEvent = MessageOf<typeof EVENTS>;
export type EventOf<T extends DeviceEvent["type"]> = Extract<DeviceEvent, { readonly type: T }>;
export type RequestOf<T extends Request["type"]> = Extract<Request, { readonly type: T }>;

/** Tells the page. */
export type Tell = (event: DeviceEvent) => void;
