const FREE = -1;

/** Which two tokens make which, by rank: an open hash table that grows, as a map of pairs would take five times the memory. */
export class Merges {
  private lefts = new Int32Array(1 << 10).fill(FREE);
  private rights = new Int32Array(1 << 10);
  private ranks = new Int32Array(1 << 10);
  private results = new Int32Array(1 << 9);
  private count = 0;

  get size(): number {
    return this.count;
  }

  /** A pair that is there already gets the later rank, as in the library. */
  add(left: number, right: number, result: number): void {
    if (this.count === this.results.length) this.grow();
    this.put(left, right, this.count);
    this.results[this.count++] = result;
  }

  /** The rank of a pair, or -1. */
  rank(left: number, right: number): number {
    const slot = this.slot(left, right);
    return this.lefts[slot] === FREE ? -1 : this.ranks[slot]!;
  }

  result(rank: number): number {
    return this.results[rank]!;
  }

  private grow(): void {
    const { lefts, rights, ranks, results } = this;
    const size = 2 * lefts.length;
    this.lefts = new Int32Array(size).fill(FREE);
    this.rights = new Int32Array(size);
    this.ranks = new Int32Array(size);
    this.results = new Int32Array(size / 2);
    this.results.set(results);
    lefts.forEach((left, slot) => {
      if (left !== FREE) this.put(left, rights[slot]!, ranks[slot]!);
    });
  }

  private put(left: number, right: number, rank: number): void {
    const slot = this.slot(left, right);
    this.lefts[slot] = left;
    this.rights[slot] = right;
    this.ranks[slot] = rank;
  }

  private slot(left: number, right: number): number {
    const mask = this.lefts.length - 1;
    // Odd numbers, of the golden ratio and of MurmurHash3: they spread neighbouring pairs.
    const mixed = Math.imul(Math.imul(left, 0x9e3779b1) ^ right, 0x85ebca6b);
    let slot = (mixed ^ (mixed >>> 15)) & mask;
    while (this.lefts[slot] !== FREE && (this.lefts[slot] !== left || this.rights[slot] !== right)) slot = (slot + 1) & mask;
    return slot;
  }
}
