import type {
  AdapterInfo,
  BundleInfo,
  DataInfo,
  DeviceEvent,
  Part,
  Plan,
  Point,
  Progress,
  RunInfo,
  Sample,
  ToldProblem,
  TrainOptions,
} from "./worker/protocol.js";

// All that the screens show, and how it changes by what the worker tells.

export const SCREENS = ["model", "data", "train", "try", "share"] as const;
export type Screen = (typeof SCREENS)[number];

/** A model that the server of this page has. */
export interface Offered {
  readonly name: string;
  readonly path: string;
  readonly bytes: number;
}

/** A question and its answer, or a text's beginning and how it went on. `adapted`: by which adapter, null: the model as it came. */
export interface Said {
  readonly question: string;
  readonly answer: string;
  readonly adapted: string | null;
  readonly chat: boolean;
  readonly cut: boolean;
}

/** The same prompt with the model as it came and with what it learned. */
export interface Comparison {
  readonly prompt: string;
  readonly before: string;
  readonly after: string;
  readonly cut: readonly boolean[];
}

/** What the person is asked before it is done. */
export interface Question {
  readonly title: string;
  readonly text: string;
  readonly yes: string;
  readonly action: () => void;
}

/**
 * `rate`, `message`, `prompt`, `system`: as typed so far. On Try it `plain`: without an adapter; `adapter`: with which, null: the one in
 * use.
 */
export interface Drafts {
  readonly options: TrainOptions;
  readonly rate: string;
  readonly message: string;
  readonly prompt: string;
  readonly system: string;
  readonly temperature: number;
  readonly sideBySide: boolean;
  readonly plain: boolean;
  readonly adapter: number | null;
  readonly preview: number;
  readonly parts: readonly Part[];
}

/**
 * `worker`: whether it has the storage. `settled`: all that belongs to the chosen model was read. `gpu`: the browser gives it one. `memory`: bytes that the browser counts, where it does. `hidden`: the page was in the background
 * while the run was under way. `kept` null: nobody has asked yet.
 */
export interface State {
  readonly screen: Screen;
  readonly worker: "starting" | "waiting" | "ready";
  readonly isolated: boolean;
  readonly gpu: boolean;
  readonly offered: readonly Offered[];
  readonly bundles: readonly BundleInfo[];
  readonly unfinished: readonly { readonly name: string; readonly bytes: number }[];
  readonly chosen: string | null;
  readonly settled: boolean;
  readonly transfer: Progress | null;
  readonly reading: Progress | null;
  readonly data: DataInfo | null;
  readonly plan: Plan | null;
  readonly run: RunInfo;
  readonly layer: number;
  readonly training: readonly Point[];
  readonly evaluation: readonly Point[];
  readonly samples: readonly Sample[];
  readonly memory: number | null;
  readonly hidden: boolean;
  readonly adapters: readonly AdapterInfo[];
  readonly inUse: number | null;
  readonly undecided: number | null;
  readonly said: readonly Said[];
  readonly comparison: Comparison | null;
  readonly writing: boolean;
  readonly forgotten: number;
  readonly kept: readonly { readonly part: Part; readonly bytes: number }[] | null;
  readonly problem: ToldProblem | null;
  readonly question: Question | null;
  readonly drafts: Drafts;
}

const ACTIVE = ["opening", "testing", "evaluating", "training", "comparing", "pausing"];

const NO_RUN: RunInfo = { phase: "none", step: 0, steps: 0, roles: [], secondsAStep: null, begun: false, runtime: null };

export const INITIAL: State = {
  screen: "model",
  worker: "starting",
  isolated: true,
  gpu: false,
  offered: [],
  bundles: [],
  unfinished: [],
  chosen: null,
  settled: false,
  transfer: null,
  reading: null,
  data: null,
  plan: null,
  run: NO_RUN,
  layer: -1,
  training: [],
  evaluation: [],
  samples: [],
  memory: null,
  hidden: false,
  adapters: [],
  inUse: null,
  undecided: null,
  said: [],
  comparison: null,
  writing: false,
  forgotten: 0,
  kept: null,
  problem: null,
  question: null,
  drafts: {
    options: { steps: 100, learningRate: null, method: null, memoryBudget: null, gpu: false },
    rate: "",
    message: "",
    prompt: "",
    system: "",
    temperature: 0.8,
    sideBySide: false,
    plain: false,
    adapter: null,
    preview: 0,
    parts: [],
  },
};

export function bundleOf(state: State): BundleInfo | null {
  return state.bundles.find(({ name }) => name === state.chosen) ?? null;
}

export function isActive({ run }: State): boolean {
  return ACTIVE.includes(run.phase);
}

export function isResumable({ run }: State): boolean {
  return run.phase === "paused" || run.phase === "interrupted" || (run.phase === "failed" && run.begun);
}

export function isOver({ run }: State): boolean {
  return run.phase === "finished" || run.phase === "cancelled";
}

/** Something that must not be disturbed is under way. */
export function isBusy(state: State): boolean {
  return isActive(state) || !state.settled || state.transfer !== null || state.reading !== null;
}

/** Whether the data can be trained on, as far as it was read: one example at least is held out. */
export function suffices({ data }: State): boolean {
  return data !== null && (data.summary === null || data.summary.examples >= 2);
}

/** The adapter that is tried: the one that was chosen there, else the one in use, else the newest; null: a paused run's state, or none. */
export function triedAdapter(state: State): AdapterInfo | null {
  const { adapters, drafts, inUse } = state;
  const named = (id: number | null) => adapters.find((adapter) => adapter.id === id) ?? null;
  if (drafts.adapter !== null) return named(drafts.adapter);
  return hasPausedRun(state) ? null : (named(inUse) ?? adapters[0] ?? null);
}

export function hasPausedRun(state: State): boolean {
  return isResumable(state) && state.run.step > 0;
}

/** Whether Try it is a conversation, as what was learned was, or texts are continued. */
export function talks(state: State): boolean {
  const summary = state.data?.summary;
  const chat = triedAdapter(state)?.chat ?? (summary ? 2 * summary.conversations > summary.examples : true);
  return bundleOf(state)?.takesChat === true && chat;
}

/** What the state is once the worker has told `event`. */
export function told(state: State, event: DeviceEvent): State {
  switch (event.type) {
    case "ready":
      return { ...state, worker: "ready" };
    case "busy":
      return { ...state, worker: "waiting" };
    case "gpu":
      return { ...state, gpu: event.there };
    case "library":
      return afterLibrary(state, event);
    case "settled":
      return { ...state, settled: event.settled };
    case "transfer":
      return { ...state, transfer: event.progress };
    case "reading":
      return { ...state, reading: event.progress };
    case "data":
      return { ...state, data: event.data, drafts: { ...state.drafts, preview: 0 } };
    case "plan":
      return { ...state, plan: event.plan };
    case "run":
      return afterRun(state, event.run);
    case "history":
      return {
        ...state,
        training: event.training,
        evaluation: event.evaluation,
        samples: event.samples.length > 0 ? event.samples : state.samples,
      };
    case "stepped":
      return afterStep(state, event.point, event.secondsAStep, event.roles);
    case "evaluated":
      return { ...state, evaluation: [...state.evaluation.filter(({ step }) => step !== event.point.step), event.point] };
    case "sampled":
      return { ...state, samples: [...state.samples.filter(({ step }) => step < event.sample.step), event.sample] };
    case "layer":
      return { ...state, layer: event.layer };
    case "adapters":
      return { ...state, adapters: event.adapters, inUse: event.inUse, undecided: event.undecided };
    case "wrote":
      return afterPiece(state, event.piece, event.adapted);
    case "writingEnded":
      return afterWriting(state, event.cut, event.forgotten);
    case "kept":
      return { ...state, kept: event.parts };
    case "problem":
      return { ...state, problem: event.problem };
    case "file":
      return state;
  }
}

type Library = Extract<DeviceEvent, { readonly type: "library" }>;

/** What belongs to another model goes. */
function afterLibrary(state: State, { bundles, unfinished, chosen }: Library): State {
  const next = { ...state, bundles, unfinished, chosen };
  if (chosen === state.chosen) return next;
  const { said, comparison, samples, training, evaluation, plan } = INITIAL;
  const run = { ...state.run, secondsAStep: null };
  return { ...next, run, said, comparison, samples, training, evaluation, plan, forgotten: 0, drafts: { ...state.drafts, adapter: null } };
}

/** Somebody who asked for a pause sees that until it has come. */
function afterRun(state: State, run: RunInfo): State {
  const stays = state.run.phase === "pausing" && ACTIVE.includes(run.phase);
  const anew = run.phase === "opening" && run.step === 0;
  const known = { ...run, secondsAStep: run.secondsAStep ?? state.run.secondsAStep };
  const shown = stays ? { ...known, phase: "pausing" as const } : known;
  return { ...state, run: shown, layer: -1, samples: anew ? [] : state.samples, hidden: ACTIVE.includes(run.phase) && state.hidden };
}

function afterStep(state: State, point: Point, secondsAStep: number, roles: RunInfo["roles"]): State {
  const training = [...state.training.filter(({ step }) => step < point.step), point];
  return { ...state, training, run: { ...state.run, step: point.step, secondsAStep, roles } };
}

function afterPiece(state: State, piece: string, adapted: boolean): State {
  if (state.comparison !== null && state.drafts.sideBySide) {
    const { before, after } = state.comparison;
    return { ...state, comparison: { ...state.comparison, ...(adapted ? { after: after + piece } : { before: before + piece }) } };
  }
  return { ...state, said: changeLast(state.said, (last) => ({ ...last, answer: last.answer + piece })) };
}

function afterWriting(state: State, cut: readonly boolean[], forgotten: number): State {
  const ended = { ...state, writing: false, forgotten };
  if (state.comparison !== null && state.drafts.sideBySide) return { ...ended, comparison: { ...state.comparison, cut } };
  return { ...ended, said: changeLast(state.said, (last) => ({ ...last, cut: cut[0] ?? true })) };
}

function changeLast(said: readonly Said[], change: (last: Said) => Said): readonly Said[] {
  const last = said.at(-1);
  return last === undefined ? said : [...said.slice(0, -1), change(last)];
}
