/**
 * A token that is cut out of a text before anything else. `special`: it is left out when tokens are decoded. `normalized`: it is looked for
 * in the normalised text.
 */
export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  readonly normalized: boolean;
}

interface Node {
  id: number;
  readonly next: Map<string, Node>;
}

/** Finds tokens in a text: the leftmost, of those the longest, then on behind it. */
export class TokenFinder {
  private readonly root: Node = { id: -1, next: new Map() };

  constructor(tokens: Iterable<readonly [content: string, id: number]>) {
    for (const [content, id] of tokens) {
      let node = this.root;
      for (let at = 0; at < content.length; at++) {
        let next = node.next.get(content[at]!);
        if (next === undefined) node.next.set(content[at]!, (next = { id: -1, next: new Map() }));
        node = next;
      }
      if (node !== this.root) node.id = id;
    }
  }

  /** `piece` gets all of `text` in order: the ranges of tokens with their ids, and what lies between with -1. */
  split(text: string, piece: (start: number, end: number, id: number) => void): void {
    let begun = 0;
    for (let at = 0; at < text.length; ) {
      const [end, id] = this.longest(text, at);
      if (id < 0) {
        at++;
        continue;
      }
      if (begun < at) piece(begun, at, -1);
      piece(at, end, id);
      at = end;
      begun = end;
    }
    if (begun < text.length) piece(begun, text.length, -1);
  }

  private longest(text: string, start: number): readonly [end: number, id: number] {
    let found = NONE;
    let node = this.root.next.get(text[start]!);
    for (let at = start + 1; node !== undefined; at++) {
      if (node.id >= 0) found = [at, node.id];
      node = node.next.get(text[at] ?? "");
    }
    return found;
  }
}

const NONE: readonly [number, number] = [0, -1];
