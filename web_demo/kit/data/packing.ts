import { type Batch, IGNORED_LABEL } from "../bundle/batch.js";
import type { Dataset } from "./dataset.js";
import { shuffled } from "./shuffling.js";

// Examples to packed sequences: first fit over a few open sequences. Specification: docs/data.md; figures: benchmarks/packing.py.

export const OPEN_SEQUENCES = 16;

/**
 * Sequences of `seqLen` tokens with the examples in file order, as far as packing keeps it.
 *
 * Each example is a segment (numbered from 0, positions from 0); what is left of a sequence is padding, the last segment.
 * Throws RangeError for an example that is longer than `seqLen`.
 */
export function* pack(dataset: Dataset, seqLen: number, padId: number): Generator<Batch> {
  const fileOrder = { *[Symbol.iterator]() { for (let index = 0; index < dataset.size; index++) yield index; } };
  for (const indices of assign(fileOrder, (index) => dataset.length(index), seqLen)) yield sequenceOf(dataset, indices, seqLen, padId);
}

/**
 * Packed sequences without end: every epoch holds each example once, in an order of its own, which depends on `seed` alone.
 *
 * `start` passes over that many sequences without building them: how many a run that resumes has had. Throws as `pack` does.
 */
export function* epochs(dataset: Dataset, seqLen: number, padId: number, seed: number, start = 0): Generator<Batch> {
  let left = start;
  for (let epoch = 0; ; epoch++) {
    for (const indices of epochOf(dataset, seqLen, seed, epoch)) {
      if (left > 0) left--;
      else yield sequenceOf(dataset, indices, seqLen, padId);
    }
  }
}

/** The example as a sequence of its own, and padding. */
export function alone(dataset: Dataset, index: number, seqLen: number, padId: number): Batch {
  return sequenceOf(dataset, [index], seqLen, padId);
}

/** How many sequences an epoch has; none is built. */
export function countSequences(dataset: Dataset, seqLen: number, seed: number, epoch = 0): number {
  let count = 0;
  for (const _ of epochOf(dataset, seqLen, seed, epoch)) count++;
  return count;
}

function epochOf(dataset: Dataset, seqLen: number, seed: number, epoch: number): Iterable<readonly number[]> {
  return assign(shuffled(dataset.size, BigInt(seed), epoch), (index) => dataset.length(index), seqLen);
}

/**
 * Which examples make up each sequence, from their numbers and `size` in tokens.
 *
 * An example goes to the first open sequence that has room, or opens one. When that makes more than `open`, the oldest is closed; at the
 * end all are, the oldest first. With one it is next fit, with no bound first fit.
 */
export function* assign(
  examples: Iterable<number>,
  size: (index: number) => number,
  seqLen: number,
  open = OPEN_SEQUENCES,
): Generator<readonly number[]> {
  const sequences: { room: number; readonly members: number[] }[] = [];
  for (const index of examples) {
    const tokens = size(index);
    const fit = sequences.find(({ room }) => tokens <= room);
    if (fit !== undefined) {
      fit.room -= tokens;
      fit.members.push(index);
      continue;
    }
    if (tokens > seqLen) throw new RangeError(`expected an example of at most ${seqLen} tokens, found ${tokens}`);
    sequences.push({ room: seqLen - tokens, members: [index] });
    if (sequences.length > open) yield sequences.shift()!.members;
  }
  for (const { members } of sequences) yield members;
}

/** One batch of `seqLen` tokens; the examples fit. */
function sequenceOf(dataset: Dataset, indices: readonly number[], seqLen: number, padId: number): Batch {
  const inputIds = new Int32Array(seqLen).fill(padId);
  const labels = new Int32Array(seqLen).fill(IGNORED_LABEL);
  const positionIds = new Int32Array(seqLen);
  const segmentIds = new Int32Array(seqLen).fill(indices.length);
  let start = 0;
  for (const [segment, index] of indices.entries()) {
    const example = dataset.example(index);
    const end = start + example.inputIds.length;
    inputIds.set(example.inputIds, start);
    labels.set(example.labels, start);
    segmentIds.fill(segment, start, end);
    for (let place = start; place < end; place++) positionIds[place] = place - start;
    start = end;
  }
  for (let place = start; place < seqLen; place++) positionIds[place] = place - start;
  return { inputIds, labels, positionIds, segmentIds };
}
