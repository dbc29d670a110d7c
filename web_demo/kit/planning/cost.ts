import { kindOf, type Kind, type Manifest } from "../bundle/manifest.js";
import { checkSubset, range, type Subset } from "../bundle/schedule.js";

// What a step costs, from the manifest alone: floating-point operations, bytes decompressed, time by proportion. Nothing is run. FLOPs are
// those of the matrix products, 2 m k n each; the embedding, the norms, the softmax and the optimizer are left out: together under 1 %.

// What decompressing one byte of float weights costs, in floating-point operations that a matrix product makes in the same time. Measured on
// a desktop (lcsb_mobile/planning/cost.py).
const FLOPS_PER_DECOMPRESSED_BYTE = 2.4e-3 / 17.4e6 / (4.6e-3 / 2.23e9);

/** One step. FLOPs of the matrix products; bytes of float32 weights decompressed (written, not read). */
export interface StepCost {
  readonly flops: number;
  readonly decompressedBytes: number;
}

/** The layers that run backward: those that recompute, and those among the `keep` top ones, which need not. Throws OPTION. */
export function backwardLayers(manifest: Manifest, subset: Subset, keep: number): { recomputed: number[]; kept: number[] } {
  const layers = manifest.model.numHiddenLayers;
  checkSubset(subset, layers);
  const firstKept = layers - Math.min(keep, layers);
  const run = subset.propagate.filter((layer) => layer >= subset.train[0]!);
  return { recomputed: run.filter((layer) => layer < firstKept), kept: run.filter((layer) => layer >= firstKept) };
}

/**
 * A training step, all labels counted. `keep`: that many of the top layers keep their activations.
 *
 * Every layer runs forward; those of `propagate` from min(train) up run backward, which recomputes them unless they were kept; the others,
 * identities, cost nothing. A forward on int8 activations reads the packed weights as they are. The head visits its rows once, with two
 * products for each label. Throws OPTION when the subset is not of this model.
 */
export function stepCost(manifest: Manifest, subset: Subset, keep = 0): StepCost {
  const layers = range(manifest.model.numHiddenLayers);
  const { recomputed, kept } = backwardLayers(manifest, subset, keep);
  const head = manifest.model.vocabSize * manifest.model.hiddenSize;
  const decompressing = manifest.accuracyLevel !== 0 ? kept : layers; // of the forward's layers
  const sum = (of: readonly number[], work: (kind: Kind) => number) => of.reduce((total, layer) => total + work(kindOf(manifest, layer)), 0);
  return {
    flops:
      sum(layers, (kind) => kind.flops.forward) +
      2 * 2 * manifest.seqLen * head +
      sum(recomputed, (kind) => kind.flops.backward) +
      sum(kept, (kind) => kind.flops.backwardKept),
    decompressedBytes:
      sum(decompressing, (kind) => kind.decompressedBytes.forward) +
      4 * head +
      sum(recomputed, (kind) => kind.decompressedBytes.backward) +
      sum(kept, (kind) => kind.decompressedBytes.backwardKept),
  };
}

/** Predicted time of a step relative to a full one that keeps nothing. It promises a partial step too little (lcsb_mobile/planning/cost.py). */
export function timeShare(manifest: Manifest, subset: Subset, keep = 0): number {
  const everything = range(manifest.model.numHiddenLayers);
  return timeUnits(stepCost(manifest, subset, keep)) / timeUnits(stepCost(manifest, { train: everything, propagate: everything }));
}

/** Predicted time in FLOPs: what the step does, and its decompression at FLOPS_PER_DECOMPRESSED_BYTE. */
function timeUnits({ flops, decompressedBytes }: StepCost): number {
  return flops + FLOPS_PER_DECOMPRESSED_BYTE * decompressedBytes;
}
