import { LcsbError } from "../faults.js";
import type { Manifest } from "../bundle/manifest.js";
import { range, type Subset } from "../bundle/schedule.js";
import { megabytes } from "../io/text.js";
import { heapBytes, pageTerms, predictedPeak } from "./memory.js";

const HEAP_LIMIT = 2 ** 32; // of WebAssembly with 32-bit addresses

/**
 * `keep`: that many of the top layers keep their activations. `leastBytes`: the least that the run can do with, which is with nothing kept or,
 * in a shallow model, with everything: then no program that recomputes is needed.
 */
export interface Plan {
  readonly keep: number;
  readonly predictedPeakBytes: number;
  readonly leastBytes: number;
}

/**
 * `base`: bytes of the process before, 0 where the system does not say. `budget`: the most allowed; null: no limit. `keep` null: as many as fit.
 * `gpu`: the layers run on one; on a phone its memory is the processor's.
 */
export interface PlanOptions {
  readonly base: number;
  readonly budget: number | null;
  readonly keep: number | null;
  readonly accumulation: number;
  readonly samples: boolean;
  readonly gpu: boolean;
}

/**
 * What a run of these steps keeps: as many layers as the budget allows, none without one.
 *
 * Throws MEMORY_TOO_SMALL when the run cannot fit, with the least that it needs and what is allowed, in bytes, as arguments; OPTION.
 */
export function planRun(manifest: Manifest, subsets: readonly Subset[], options: PlanOptions): Plan {
  const { base, budget, keep, gpu } = options;
  const layers = manifest.model.numHiddenLayers;
  if (keep !== null && !(Number.isInteger(keep) && keep >= 0)) {
    throw new LcsbError("OPTION", `keep: expected 0 or more layers, found ${keep}`, ["keep"]);
  }
  checkHeap(manifest, gpu);
  const page = [...pageTerms(manifest, gpu).values()].reduce((sum, bytes) => sum + bytes, base);
  const peaks = range(layers + 1).map((kept) => predictedPeak(manifest, subsets, { ...options, keep: kept }, page));
  const least = Math.min(...peaks);
  const now = `${megabytes(base)} of it this process as it is now`;
  if (budget !== null && least > budget) {
    const remedy = `allow more, or export with a --seq-len shorter than ${manifest.seqLen} or a --rank below ${manifest.lora.rank}`;
    const message = `the run is predicted to need at least ${megabytes(least)}, ${now}; more than the ${megabytes(budget)} allowed; nothing was run`;
    throw tooSmall(`${message}; ${remedy}`, least, budget);
  }
  const fitting = peaks.findLastIndex((peak) => budget === null || peak <= budget);
  const chosen = keep !== null ? Math.min(keep, layers) : budget === null ? 0 : fitting;
  const peak = peaks[chosen]!;
  if (budget !== null && peak > budget) {
    const message = `keeping ${chosen} layers is predicted to take ${megabytes(peak)}, ${now}; more than the ${megabytes(budget)} allowed`;
    const remedy = `keeping ${fitting} fits, and the least for this run is ${megabytes(least)}; allow more, or keep that many`;
    throw tooSmall(`${message}; nothing was run; ${remedy}`, peak, budget);
  }
  return { keep: chosen, predictedPeakBytes: peak, leastBytes: least };
}

/** A program that its heap cannot hold fails in the middle of a step, and the runtime with it. */
function checkHeap(manifest: Manifest, gpu: boolean): void {
  const heap = heapBytes(manifest, gpu);
  if (heap <= HEAP_LIMIT) return;
  const message = `the largest program is predicted to take ${megabytes(heap)} of WebAssembly's memory, which has at most ${megabytes(HEAP_LIMIT)}`;
  throw tooSmall(`${message}; nothing was run; export with a --seq-len shorter than ${manifest.seqLen}`, heap, HEAP_LIMIT);
}

function tooSmall(message: string, needed: number, budget: number): LcsbError {
  return new LcsbError("MEMORY_TOO_SMALL", message, [String(needed), String(budget)]);
}
