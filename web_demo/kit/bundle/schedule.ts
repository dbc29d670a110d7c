import { LcsbError } from "../faults.js";
import { choice, int32, integer, list, nullable, optional, record, text, type Decoded } from "../io/records.js";

/**
 * One step's layers, ascending. `train`: their LoRA gradients are computed. `propagate`: the gradient passes through their true Jacobian; it
 * contains `train`. Every other layer above min(train) is the identity; below it nothing runs.
 */
export interface Subset {
  readonly train: readonly number[];
  readonly propagate: readonly number[];
}

export const METHODS = ["lcsb-exact", "lcsb-identity", "full", "freeze"] as const;
export type Method = (typeof METHODS)[number];

export const subset = record({ train: list(int32), propagate: list(int32) });

/** How a bundle's schedule was made. `partition` null: the method's own. `order`: a shuffled one is written out in the manifest. */
export const scheduleConfig = record({
  method: optional(choice(...METHODS), "lcsb-exact"),
  subsets: optional(int32, 4),
  partition: optional(nullable(choice("contiguous", "interleaved")), null),
  order: optional(text, "cyclic"),
  seed: optional(integer, 0),
});
export type ScheduleConfig = Decoded<typeof scheduleConfig>;

/** What is wrong, as a sentence, or null. */
export function subsetFault({ train, propagate }: Subset, numLayers: number): string | null {
  for (const [name, layers] of [["train", train], ["propagate", propagate]] as const) {
    if (layers.some((layer, i) => layer < 0 || layer >= numLayers || (i > 0 && layers[i - 1]! >= layer))) {
      return `${name}: expected ascending layers from 0 to ${numLayers - 1}, found ${few(layers)}`;
    }
  }
  const passed = new Set(propagate);
  if (train.length > 0 && train.every((layer) => passed.has(layer))) return null;
  return `expected train to be non-empty and within propagate, found ${few(train)} and ${few(propagate)}`;
}

/** Throws OPTION unless the layers are ascending, within the model, and `train` is not empty and in `propagate`. */
export function checkSubset(subset: Subset, numLayers: number): void {
  const fault = subsetFault(subset, numLayers);
  if (fault !== null) throw new LcsbError("OPTION", fault);
}

/** K disjoint subsets that cover all layers; contiguous bands are listed from the top of the model down. */
export function partitionLayers(numLayers: number, subsets: number, partition: "contiguous" | "interleaved"): number[][] {
  if (partition === "interleaved") {
    return range(subsets).map((first) => range(numLayers).filter((layer) => layer % subsets === first));
  }
  const bounds = range(subsets + 1).map((i) => Math.floor((numLayers * i) / subsets));
  return range(subsets).reverse().map((i) => range(bounds[i + 1]!).slice(bounds[i]!));
}

/**
 * The steps of one cycle, in cyclic order and the method's own partition: of another method than the bundle's, whose schedule is its
 * manifest's. `full` and `freeze` have one step (all layers; the top 1/K of them). Throws OPTION when K is not from 1 to the number of layers.
 */
export function makeSchedule(method: Method, subsets: number, numLayers: number): Subset[] {
  if (subsets < 1 || subsets > numLayers) {
    throw new LcsbError("OPTION", `subsets: expected 1 to ${numLayers} (the model's layers), found ${subsets}`);
  }
  const everything = range(numLayers);
  const top = everything.slice(numLayers - Math.max(1, Math.floor(numLayers / subsets)));
  switch (method) {
    case "full":
      return [{ train: everything, propagate: everything }];
    case "freeze":
      return [{ train: top, propagate: top }];
    case "lcsb-exact":
      return partitionLayers(numLayers, subsets, "contiguous").map((train) => ({ train, propagate: everything.slice(train[0]) }));
    case "lcsb-identity":
      return partitionLayers(numLayers, subsets, "interleaved").map((train) => ({ train, propagate: train }));
  }
}

/** 0 to `count` - 1. */
export function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

/** A list as a message shows it, cut to what a line holds. */
function few(layers: readonly number[]): string {
  return `[${layers.slice(0, 100).join(", ")}${layers.length > 100 ? ", ..." : ""}]`;
}
