// A seeded order of any number of things, the same in every language. Specification and test vectors: docs/data.md.

const GAMMA = 0x9e3779b97f4a7c15n;
const FIRST_MULTIPLIER = 0xbf58476d1ce4e5b9n;
const SECOND_MULTIPLIER = 0x94d049bb133111ebn;
const LOW = 0xffffffffn;
const unsigned = (value: bigint) => BigInt.asUintN(64, value);

/** Output number `position` (from 0) of the generator that starts at `seed` (Steele, Lea, Flood, OOPSLA 2014), as an unsigned number. */
export function splitmix64(seed: bigint, position: bigint): bigint {
  let z = unsigned(seed + (position + 1n) * GAMMA);
  z = unsigned((z ^ (z >> 30n)) * FIRST_MULTIPLIER);
  z = unsigned((z ^ (z >> 27n)) * SECOND_MULTIPLIER);
  return z ^ (z >> 31n);
}

/**
 * The numbers from 0 to `count` - 1 in the order of `epoch`. `count` is at most 2^32.
 *
 * Number i's hash is output i of the generator that starts at output `epoch` of the generator that starts at `seed`. They are ordered by
 * its upper 32 bits, then by i: a sort of 64-bit integers whose lower half is i.
 */
export function shuffled(count: number, seed: bigint, epoch: number): Uint32Array {
  const start = splitmix64(seed, BigInt(epoch));
  const keys = BigUint64Array.from({ length: count }, (_, index) => {
    const number = BigInt(index);
    return (splitmix64(start, number) & ~LOW) | number;
  });
  return Uint32Array.from(keys.sort(), (key) => Number(key & LOW));
}
