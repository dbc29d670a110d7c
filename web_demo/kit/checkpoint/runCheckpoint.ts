import { LcsbError } from "../faults.js";
import { subset, type Subset } from "../bundle/schedule.js";
import { IoError, reserveFloats, type StoredFile } from "../io/files.js";
import { JsonError } from "../io/jsonReader.js";
import { msgspecRepr } from "../io/pythonJson.js";
import { choice, decode, int32, integer, list, nullable, number, record, text, type Decoded } from "../io/records.js";
import {
  DIGEST_KEY, fileDigest, openTensors, readFloats, UNKNOWN_DIGEST, writeDigested, type StoredTensor, type StoredTensors, type WrittenTensor,
} from "../io/safetensors.js";
import { storing, withFile, type Storage } from "../io/storage.js";
import { quoted } from "../io/text.js";
import { utf8 } from "../io/utf8.js";
import { dayOf } from "../text/localTime.js";
import { LEARNING_RATE_SCHEDULES } from "../training/learningRate.js";
import type { AdapterState } from "../training/optimizer.js";
import { checkTrainConfig } from "../training/trainer.js";

// A run's state in one file, from which it goes on bit for bit. Specification: docs/run_checkpoint.md.

const trainConfig = record({
  steps: int32,
  learningRate: number,
  lrSchedule: choice(...LEARNING_RATE_SCHEDULES),
  warmup: int32,
  accumulation: int32,
});

/** What decides a run's result, the runtime and its threads aside. `date`: a `localTime`. */
const runIdentity = record({
  bundle: text,
  data: text,
  evaluationData: nullable(text),
  tokens: text,
  evaluationTokens: nullable(text),
  date: text,
  holdOut: number,
  initialAdapter: nullable(text),
  schedule: list(subset),
  train: trainConfig,
  seed: integer,
});
export type RunIdentity = Decoded<typeof runIdentity>;

/** How far a run came. `sequences`: how many the data's endless stream has given. `runtime`, `keptLayers`: of the last step. */
const runPlace = record({ identity: runIdentity, step: int32, sequences: integer, runtime: text, keptLayers: int32 });
export type RunPlace = Decoded<typeof runPlace>;

/**
 * `updates`: AdamW's count of each layer. `steps` [step, STEP_COLUMNS] and `evaluations` [e, 2], (step, loss): the run's history.
 */
export interface RunCheckpoint {
  readonly place: RunPlace;
  readonly state: AdapterState;
  readonly updates: Float64Array;
  readonly steps: Float64Array;
  readonly evaluations: Float64Array;
}

export const STEP_COLUMNS = 6; // loss, learning rate, gradient norm, gradient seconds, optimizer seconds, anonymous bytes

const FORMAT = "lcsb_mobile.checkpoint";
const VERSION = "3";
const MOST_HISTORY_BYTES = 48 << 20; // of a million steps
const NAME = /^step-([0-9]{8,18})\.safetensors$/;

/** The name of the checkpoint after `step`. */
export function checkpointName(step: number): string {
  return `step-${String(step).padStart(8, "0")}.safetensors`;
}

/** The names of the checkpoints in a directory, the newest first. Throws CHECKPOINT_DAMAGED where it cannot be read. */
export async function checkpointNames(storage: Storage): Promise<string[]> {
  try {
    const names = (await storage.list()).filter((name) => NAME.test(name));
    return names.sort((a, b) => Number(NAME.exec(b)![1]) - Number(NAME.exec(a)![1]));
  } catch (error) {
    if (!(error instanceof IoError)) throw error;
    throw damaged(storage.path, storage.path, `cannot be read: ${error.message}`, error);
  }
}

/** Whole or not at all, and synced. Throws STORAGE_FULL or STORAGE_FAILED. */
export function writeCheckpoint(storage: Storage, { place, state, updates, steps, evaluations }: RunCheckpoint): Promise<void> {
  const flat = (values: Float32Array): WrittenTensor => ({ dtype: "F32", shape: [values.length], values });
  const tensors = new Map<string, WrittenTensor>([
    ["adapter", flat(state.adapter)],
    ["first_moment", flat(state.firstMoment)],
    ["second_moment", flat(state.secondMoment)],
    ["updates", { dtype: "I64", shape: [updates.length], values: BigInt64Array.from(Array.from(updates), BigInt) }],
    ["steps", { dtype: "F64", shape: [place.step, STEP_COLUMNS], values: steps }],
    ["evaluations", { dtype: "F64", shape: [evaluations.length / 2, 2], values: evaluations }],
  ]);
  const metadata = new Map([["format", FORMAT], ["version", VERSION], [DIGEST_KEY, UNKNOWN_DIGEST], ["run", writtenPlace(place)]]);
  return storing(storage.path, () => storage.replace(checkpointName(place.step), (sink) => writeDigested(sink, tensors, metadata)));
}

/** As the desktop writes it: the same text for the same run. */
function writtenPlace({ identity, step, sequences, runtime, keptLayers }: RunPlace): string {
  const { train } = identity;
  const string = (value: string | null) => (value === null ? "null" : JSON.stringify(value));
  const step_ = ({ train, propagate }: Subset) => `{"train":[${train.join(",")}],"propagate":[${propagate.join(",")}]}`;
  const written = [
    `"bundle":${string(identity.bundle)}`,
    `"data":${string(identity.data)}`,
    `"evaluation_data":${string(identity.evaluationData)}`,
    `"tokens":${string(identity.tokens)}`,
    `"evaluation_tokens":${string(identity.evaluationTokens)}`,
    `"date":${string(identity.date)}`,
    `"hold_out":${msgspecRepr(identity.holdOut)}`,
    `"initial_adapter":${string(identity.initialAdapter)}`,
    `"schedule":[${identity.schedule.map(step_).join(",")}]`,
    `"train":{"steps":${train.steps},"learning_rate":${msgspecRepr(train.learningRate)},"lr_schedule":"${train.lrSchedule}",` +
      `"warmup":${train.warmup},"accumulation":${train.accumulation}}`,
    `"seed":${identity.seed}`,
  ];
  return `{"identity":{${written.join(",")}},"step":${step},"sequences":${sequences},"runtime":${string(runtime)},"kept_layers":${keptLayers}}`;
}

/**
 * Checked before anything of it is used: digest, format, names, shapes, values. `layers` and `size`, of all: of the bundle's adapter. Throws
 * CHECKPOINT_DAMAGED with what is wrong.
 */
export async function readCheckpoint(storage: Storage, name: string, layers: number, size: number): Promise<RunCheckpoint> {
  try {
    return await withFile(storage, name, (file) => readFile(file, name, layers, size));
  } catch (error) {
    if (!(error instanceof IoError)) throw error;
    throw damaged(`${storage.path}/${name}`, name, `cannot be read: ${error.message}`, error);
  }
}

/** The first of `names` that can be read, and what is wrong with those before it. Throws CHECKPOINT_DAMAGED when none can. */
export async function newestGood(
  storage: Storage,
  names: readonly string[],
  layers: number,
  size: number,
): Promise<{ name: string; checkpoint: RunCheckpoint; faults: string[] }> {
  const faults: string[] = [];
  for (const name of names) {
    try {
      return { name, checkpoint: await readCheckpoint(storage, name, layers, size), faults };
    } catch (error) {
      if (!(error instanceof LcsbError)) throw error;
      faults.push(error.message);
    }
  }
  throw new LcsbError("CHECKPOINT_DAMAGED", `${faults.join("; ")}; no good checkpoint is left`, names);
}

function readFile(file: StoredFile, name: string, layers: number, size: number): RunCheckpoint {
  const refused = (what: string, cause?: unknown) => damaged(file.name, name, what, cause);
  const stored = openTensors(file, "CHECKPOINT_DAMAGED");
  const run = checkedMetadata(stored, refused);
  const data = file.size - stored.dataStart;
  if (data === 0) throw refused("holds no tensors");
  const place = decodePlace(run, refused);
  const faults = entryFaults(stored.tensors, layers, size, place.step, data);
  if (faults.length > 0) throw refused(`does not fit the bundle's adapter: ${faults.join("; ")}`);
  const checkpoint = readTensors(stored, place, layers, size, data);
  const wrong = valueFaults(checkpoint);
  if (wrong.length > 0) throw refused(wrong.join("; "));
  return checkpoint;
}

type Refusal = (what: string, cause?: unknown) => LcsbError;

/** The run's JSON, once format and digest were found right. */
function checkedMetadata(stored: StoredTensors, refused: Refusal): Uint8Array {
  const { metadata } = stored;
  const missing = ["format", "version", DIGEST_KEY, "run"].filter((key) => !metadata.has(key));
  if (missing.length > 0 || metadata.size > 4) throw refused("not a checkpoint, or a damaged one: its metadata is another");
  const [format, version] = [metadata.get("format")!, metadata.get("version")!];
  if (format !== FORMAT || version !== VERSION) {
    const found = `${quoted(format, 40)} version ${quoted(version, 10)}`;
    const remedy = "end the run with the page that began it, or begin another in another directory";
    throw refused(`expected ${FORMAT} version ${VERSION}, found ${found}; ${remedy}`);
  }
  const stated = metadata.get(DIGEST_KEY)!;
  const found = fileDigest(stored, stated);
  if (found !== stated) throw refused(`damaged: expected SHA-256 ${quoted(stated.slice(0, 12))}…, found ${found.slice(0, 12)}…`);
  return utf8(metadata.get("run")!);
}

function decodePlace(run: Uint8Array, refused: Refusal): RunPlace {
  try {
    const place = decode(run, runPlace);
    checkTrainConfig(place.identity.train);
    const { date, train } = place.identity;
    if (dayOf(date) === null) throw refused(`malformed: date: expected one as 2026-02-28T23:05:09, found ${quoted(date, 40)}`);
    const expected = place.step * train.accumulation;
    if (place.step >= 0 && place.sequences === expected) return place;
    throw refused(`malformed: step ${place.step} after ${place.sequences} sequences, expected ${expected}`);
  } catch (error) {
    if (error instanceof JsonError || (error instanceof LcsbError && error.fault === "OPTION")) throw refused(`malformed: ${error.message}`, error);
    throw error;
  }
}

/** The tensors lie one after the other in this order and fill the file: `data` bytes. There are as many evaluations as that makes. */
function entryFaults(tensors: ReadonlyMap<string, StoredTensor>, layers: number, size: number, step: number, data: number): string[] {
  const before = 12 * size + 8 * layers + 8 * step * STEP_COLUMNS;
  const evaluations = Math.floor(Math.max(0, data - before) / 16);
  const expected: readonly (readonly [string, string, number[]])[] = [
    ["adapter", "F32", [size]],
    ["first_moment", "F32", [size]],
    ["second_moment", "F32", [size]],
    ["updates", "I64", [layers]],
    ["steps", "F64", [step, STEP_COLUMNS]],
    ["evaluations", "F64", [evaluations, 2]],
  ];
  const known = expected.map(([name]) => name);
  const faults = known.filter((name) => !tensors.has(name)).map((name) => `${name} is missing`);
  for (const name of tensors.keys()) if (!known.includes(name)) faults.push(`${quoted(name, 80)} is unknown`);
  if (data - 12 * size > MOST_HISTORY_BYTES) faults.push(`expected at most ${MOST_HISTORY_BYTES} bytes of history`);
  if (faults.length > 0) return faults;
  let end = 0;
  for (const [name, dtype, shape] of expected) {
    const start = end;
    end += shape.reduce((product, length) => product * length, dtype === "F32" ? 4 : 8);
    const found = tensors.get(name)!;
    if (shown(found) === shown({ dtype, shape, dataOffsets: [start, end] })) continue;
    faults.push(`${name}: expected ${dtype} [${shape.join(", ")}] at byte ${start}, found ${shown(found)}`);
  }
  if (faults.length === 0 && end !== data) faults.push(`expected ${end} bytes of tensors, found ${data}`);
  return faults;
}

function shown({ dtype, shape, dataOffsets }: StoredTensor): string {
  return `${dtype} [${shape.join(", ")}] at bytes ${dataOffsets.join(" to ")}`.slice(0, 120);
}

function readTensors(stored: StoredTensors, place: RunPlace, layers: number, size: number, data: number): RunCheckpoint {
  const floats = (name: string) => {
    const values = reserveFloats(size);
    readFloats(stored, name, values);
    return values;
  };
  const history = new Uint8Array(data - 12 * size);
  stored.file.read(history, stored.dataStart + 12 * size);
  const steps = 8 * layers + 8 * place.step * STEP_COLUMNS;
  return {
    place,
    state: { adapter: floats("adapter"), firstMoment: floats("first_moment"), secondMoment: floats("second_moment") },
    updates: Float64Array.from(Array.from(new BigInt64Array(history.buffer, 0, layers), Number)),
    steps: new Float64Array(history.buffer.slice(8 * layers, steps)),
    evaluations: new Float64Array(history.buffer.slice(steps)),
  };
}

function valueFaults({ state, updates, steps, evaluations }: RunCheckpoint): string[] {
  const finite = (values: Float32Array | Float64Array) => values.every((value: number) => Number.isFinite(value));
  const faults = Object.entries({
    adapter: state.adapter, first_moment: state.firstMoment, second_moment: state.secondMoment, steps, evaluations,
  }).flatMap(([name, values]) => (finite(values) ? [] : [`${name} holds NaN or infinite values`]));
  if (!state.secondMoment.every((value) => !(value < 0))) faults.push("second_moment holds negative values");
  if (!updates.every((count) => count >= 0)) faults.push("updates holds negative values");
  return faults;
}

function damaged(path: string, name: string, what: string, cause?: unknown): LcsbError {
  return new LcsbError("CHECKPOINT_DAMAGED", `${path}: ${what}`, [name], cause);
}

