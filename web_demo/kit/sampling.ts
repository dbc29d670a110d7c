import { LcsbError } from "./faults.js";

/** Numbers from 0 to less than 1, by SplitMix64: a sampled text is another than Python's of the same seed. */
export class Random {
  private state: bigint;

  constructor(seed: number) {
    this.state = BigInt(seed);
  }

  next(): number {
    this.state = BigInt.asUintN(64, this.state + 0x9e3779b97f4a7c15n);
    let z = this.state;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
    return Number((z ^ (z >> 31n)) >> 11n) / 2 ** 53;
  }
}

/**
 * A token id from logits [V]: one draw of `random`, none at temperature 0. Throws RUNTIME_FAILED for NaN and infinite logits.
 */
export function sample(logits: Float32Array, { temperature, topP }: { temperature: number; topP: number }, random: Random): number {
  if (!logits.every(Number.isFinite)) {
    throw new LcsbError("RUNTIME_FAILED", "the model's logits are not finite numbers; try without the adapter, and the self-test");
  }
  let likeliest = 0; // the first of equals
  for (let id = 1; id < logits.length; id++) if (logits[id]! > logits[likeliest]!) likeliest = id;
  if (temperature === 0) return likeliest;
  const top = logits[likeliest]!;
  const weights = Float64Array.from(logits, (logit) => Math.exp((logit - top) / temperature));
  const ascending = weights.toSorted();
  const wanted = topP * weights.reduce((sum, weight) => sum + weight, 0);
  let first = ascending.length; // of the smallest set that has the wanted weight
  let mass = 0;
  do mass += ascending[--first]!;
  while (mass < wanted && first > 0);
  const least = ascending[first]!;
  let equals = ascending.length - first - weights.filter((weight) => weight > least).length; // as many of the least as are in the set, the first
  let left = random.next() * mass;
  let token = likeliest;
  for (const [id, weight] of weights.entries()) {
    if (weight < least || (weight === least && equals-- <= 0)) continue;
    token = id;
    left -= weight;
    if (left < 0) break;
  }
  return token;
}
