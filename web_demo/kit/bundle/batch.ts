export const IGNORED_LABEL = -100; // a label that is not counted and costs nothing

/**
 * One sequence of T tokens, several packed examples in it; all arrays [T].
 *
 * `labels[t]` is the token to be predicted *at* position t (already shifted), or IGNORED_LABEL. `segmentIds` tells the packed examples apart:
 * attention stays within a segment. `positionIds` start from 0 in each segment. Padding has a segment of its own and ignored labels.
 */
export interface Batch {
  readonly inputIds: Int32Array;
  readonly labels: Int32Array;
  readonly positionIds: Int32Array;
  readonly segmentIds: Int32Array;
}

export function countedLabels(batch: Batch): number {
  return batch.labels.reduce((count, label) => count + Number(label !== IGNORED_LABEL), 0);
}

/** 1 to `seqLen` tokens and padding, nothing to predict. */
export function wholeSequence(ids: ArrayLike<number>, seqLen: number): Batch {
  const used = ids.length;
  const of = (value: (i: number) => number) => Int32Array.from({ length: seqLen }, (_, i) => value(i));
  return {
    inputIds: of((i) => (i < used ? ids[i]! : 0)),
    labels: of(() => IGNORED_LABEL),
    positionIds: of((i) => (i < used ? i : i - used)),
    segmentIds: of((i) => (i < used ? 0 : 1)),
  };
}
