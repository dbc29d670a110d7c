import type { Symbols } from "./bpe.js";
import type { Merges } from "./merges.js";

const PLACES = 2 ** 32;

/** Joins the symbols of one word, by a queue of the pairs that make a token, so that a word of a million characters takes a second. */
export class Joining {
  private readonly ids: number[];
  private readonly sizes: number[]; // 0: joined to the one before
  private readonly next: Int32Array;
  private readonly previous: Int32Array;
  private readonly queue: number[] = []; // a heap of rank * 2^32 + place, which a double holds

  constructor(
    symbols: Symbols,
    private readonly merges: Merges,
  ) {
    this.ids = [...symbols.ids];
    this.sizes = [...symbols.sizes];
    this.next = Int32Array.from(this.ids, (_, place) => place + 1);
    this.previous = Int32Array.from(this.ids, (_, place) => place - 1);
  }

  join(): Symbols {
    for (let place = 0; place + 1 < this.ids.length; place++) this.push(place);
    while (this.queue.length > 0) {
      const top = this.pop();
      this.merge(Math.floor(top / PLACES), top % PLACES);
    }
    const left = this.ids.map((_, place) => place).filter((place) => this.sizes[place] !== 0);
    return { ids: left.map((place) => this.ids[place]!), sizes: left.map((place) => this.sizes[place]!) };
  }

  private merge(rank: number, place: number): void {
    const { ids, sizes, next, previous, merges } = this;
    const right = next[place]!;
    if (sizes[place] === 0 || right >= ids.length) return;
    const current = merges.rank(ids[place]!, ids[right]!);
    if (current < 0 || merges.result(current) !== merges.result(rank)) return; // one of the two was joined to another since
    ids[place] = merges.result(rank);
    sizes[place]! += sizes[right]!;
    sizes[right] = 0;
    next[place] = next[right]!;
    if (next[place]! < ids.length) previous[next[place]!] = place;
    if (previous[place]! >= 0) this.push(previous[place]!);
    this.push(place);
  }

  /** The pair that begins at `place`, if it makes a token. */
  private push(place: number): void {
    const right = this.next[place]!;
    if (right >= this.ids.length) return;
    const rank = this.merges.rank(this.ids[place]!, this.ids[right]!);
    if (rank < 0) return;
    const { queue } = this;
    const entry = rank * PLACES + place;
    let at = queue.push(entry) - 1;
    while (at > 0 && queue[(at - 1) >> 1]! > entry) {
      queue[at] = queue[(at - 1) >> 1]!;
      at = (at - 1) >> 1;
    }
    queue[at] = entry;
  }

  private pop(): number {
    const { queue } = this;
    const top = queue[0]!;
    const last = queue.pop()!;
    if (queue.length === 0) return top;
    let at = 0;
    while (2 * at + 1 < queue.length) {
      const child = 2 * at + 2 < queue.length && queue[2 * at + 2]! < queue[2 * at + 1]! ? 2 * at + 2 : 2 * at + 1;
      if (queue[child]! >= last) break;
      queue[at] = queue[child]!;
      at = child;
    }
    queue[at] = last;
    return top;
  }
}
