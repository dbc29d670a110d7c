import { int32, list, number, optional, record, type Decoded } from "../io/records.js";
import { some } from "../io/text.js";
import { IGNORED_LABEL, type Batch } from "./batch.js";
import { first, unreadable } from "./manifestCheck.js";
import { GOLDEN_FILE, type Manifest } from "./manifest.js";
import { subset, subsetFault } from "./schedule.js";

export const TRACE_BYTES = 4 << 20; // that are read here: 7 kB are usual, half a megabyte at 8,192 tokens; Python takes 16 MiB
const WIDEST_TOLERANCE = 5e-2; // in use: of bundles whose forward rounds activations to int8

const ids = list(int32);
const goldenBatch = record({ inputIds: ids, labels: ids, positionIds: ids, segmentIds: ids });

/** `batch`: index into the trace's batches. `gradientNorms`: of the gradient of each layer in `subset.train`, in its order. */
const goldenStep = record({ subset, batch: int32, loss: number, gradientNorms: list(number) });
export type GoldenStep = Decoded<typeof goldenStep>;

/**
 * Steps that the eager reference computed at export. `steps` are single steps at the initial adapter. `run` are consecutive optimizer steps
 * from it, at `learningRate` and with the manifest's AdamW; each records loss and gradient before its update. The tolerances are relative: of
 * a step's loss and gradient norms, and of the run's losses.
 */
export const goldenTrace = record({
  batches: list(goldenBatch),
  steps: list(goldenStep),
  learningRate: number,
  run: list(goldenStep),
  stepTolerance: optional(number, 1e-4),
  runTolerance: optional(number, 1e-3),
});
export type GoldenTrace = Decoded<typeof goldenTrace>;

/** Throws BUNDLE_UNREADABLE where the trace is not of the manifest's model. */
export function checkTrace(trace: GoldenTrace, manifest: Manifest, path: string): void {
  const faults = first(traceFaults(trace, manifest));
  if (faults.length > 0) throw unreadable(`${path}/${GOLDEN_FILE}: not a golden trace of this bundle: ${some(faults)}; export the bundle again`);
}

function* traceFaults(trace: GoldenTrace, manifest: Manifest): Generator<string> {
  for (const [number, batch] of trace.batches.entries()) for (const fault of batchFaults(batch, manifest)) yield `batch ${number}: ${fault}`;
  for (const [number, step] of [...trace.steps, ...trace.run].entries()) {
    const fault = subsetFault(step.subset, manifest.model.numHiddenLayers);
    if (fault !== null) yield `step ${number}: ${fault}`;
    if (trace.batches[step.batch] === undefined) yield `step ${number}: expected one of ${trace.batches.length} batches, found ${step.batch}`;
    const norms = step.gradientNorms;
    if (norms.length !== step.subset.train.length || !norms.every((norm) => norm >= 0)) {
      yield `step ${number}: expected the norms of ${step.subset.train.length} layers, found ${norms.slice(0, 20).join(", ")}`;
    }
  }
  if (!(trace.learningRate > 0 && trace.learningRate <= 1)) yield `learning_rate: expected more than 0 and at most 1, found ${trace.learningRate}`;
  for (const [name, value] of [["step_tolerance", trace.stepTolerance], ["run_tolerance", trace.runTolerance]] as const) {
    if (!(value >= 0 && value <= WIDEST_TOLERANCE)) yield `${name}: expected 0 to ${WIDEST_TOLERANCE}, found ${value}`;
  }
}

function* batchFaults(batch: Decoded<typeof goldenBatch>, manifest: Manifest): Generator<string> {
  const { seqLen, model } = manifest;
  for (const [name, values, most] of [
    ["input_ids", batch.inputIds, model.vocabSize],
    ["labels", batch.labels, model.vocabSize],
    ["position_ids", batch.positionIds, seqLen],
    ["segment_ids", batch.segmentIds, seqLen],
  ] as const) {
    const bad = values.find((value) => !(value >= 0 && value < most) && !(name === "labels" && value === IGNORED_LABEL));
    if (values.length !== seqLen) yield `${name}: expected ${seqLen} numbers, found ${values.length}`;
    else if (bad !== undefined) yield `${name}: expected 0 to ${most - 1}, found ${bad}`;
  }
  if (batch.labels.every((label) => label === IGNORED_LABEL)) yield "labels: none is counted";
}

export function goldenBatchOf(trace: GoldenTrace, index: number): Batch {
  const { inputIds, labels, positionIds, segmentIds } = trace.batches[index]!;
  return {
    inputIds: Int32Array.from(inputIds),
    labels: Int32Array.from(labels),
    positionIds: Int32Array.from(positionIds),
    segmentIds: Int32Array.from(segmentIds),
  };
}
