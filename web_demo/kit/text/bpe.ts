import { byteCharacters } from "./tokenDecoder.js";
import { units, utf8Size } from "./texts.js";
import { utf8 } from "../io/utf8.js";
import { Joining } from "./joining.js";
import type { Merges } from "./merges.js";

const LONGEST_KNOWN = 40; // characters
const MOST_KNOWN = 1 << 14;

/** How a vocabulary of BPE treats what it has no token for. */
export interface BpeOptions {
  readonly unknown: number | null;
  readonly fuseUnknown: boolean;
  readonly byteFallback: boolean;
  readonly ignoreMerges: boolean;
}

/** A word's tokens in order: ids, and how many bytes of the word each stands for. */
export interface Symbols {
  readonly ids: number[];
  readonly sizes: number[];
}

/**
 * Byte-pair encoding of words (Sennrich, Haddow, Birch 2016): of all neighbours that make a token those of the lowest rank are joined
 * first, the leftmost of them first.
 *
 * `byteLevel`: the vocabulary writes bytes by `byteCharacters`. `tokens`: token to id.
 */
export class Bpe {
  private readonly bytes: readonly number[]; // each byte's token, or -1
  private readonly known = new Map<string, Symbols>(); // of words met before; most texts are made of few

  constructor(
    private readonly tokens: ReadonlyMap<string, number>,
    private readonly merges: Merges,
    private readonly options: BpeOptions,
    private readonly byteLevel: boolean,
  ) {
    const written = (byte: number) => (byteLevel ? byteCharacters[byte]! : `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
    this.bytes = Array.from({ length: 256 }, (_, byte) => tokens.get(written(byte)) ?? -1);
  }

  /** The tokens of a word. They must not be changed. */
  word(word: string): Symbols {
    if (word.length > LONGEST_KNOWN) return this.encode(word);
    const before = this.known.get(word);
    if (before !== undefined) return before;
    const symbols = this.encode(word);
    if (this.known.size >= MOST_KNOWN) this.known.clear();
    this.known.set(copied(word), symbols);
    return symbols;
  }

  private encode(word: string): Symbols {
    const whole = this.options.ignoreMerges ? this.whole(word) : null;
    if (whole !== null) return whole;
    const symbols: Symbols = { ids: [], sizes: [] };
    this.addCharacters(word, symbols);
    return symbols.ids.length > 1 ? new Joining(symbols, this.merges).join() : symbols;
  }

  private whole(word: string): Symbols | null {
    const bytes = utf8(word);
    const id = this.tokens.get(this.byteLevel ? Array.from(bytes, (byte) => byteCharacters[byte]).join("") : word);
    return id === undefined ? null : { ids: [id], sizes: [bytes.length] };
  }

  private addCharacters(word: string, symbols: Symbols): void {
    const gathering = new Gathering(symbols, this.options);
    for (let at = 0; at < word.length; ) {
      const point = word.codePointAt(at)!;
      const character = word.slice(at, at + units(point));
      const id = this.byteLevel ? undefined : this.tokens.get(character);
      if (id !== undefined) gathering.add(id, utf8Size(point));
      else this.addBytes(character, symbols, gathering);
      at += character.length;
    }
    gathering.flush();
  }

  private addBytes(character: string, symbols: Symbols, gathering: Gathering): void {
    const point = character.codePointAt(0)!;
    const ids = point < 0x80 ? [this.bytes[point]!] : Array.from(utf8(character), (byte) => this.bytes[byte]!);
    if (this.byteLevel) for (const id of ids) gathering.add(id, 1);
    // Before what is not added yet, as in the library.
    else if (this.options.byteFallback && ids.every((id) => id >= 0)) for (const id of ids) push(symbols, id, 1);
    else gathering.add(-1, ids.length);
  }
}

/** The same text in memory of its own: engines keep a text whole for as long as any part of it is known. */
function copied(word: string): string {
  return String.fromCharCode(...Array.from({ length: word.length }, (_, at) => word.charCodeAt(at)));
}

function push(symbols: Symbols, id: number, size: number): void {
  symbols.ids.push(id);
  symbols.sizes.push(size);
}

/** Adds symbols and, in the place of what has none, the unknown token: one for each, or for a run of them. Without one they are dropped. */
class Gathering {
  private unknown = 0; // bytes that are not added yet

  constructor(
    private readonly symbols: Symbols,
    private readonly options: BpeOptions,
  ) {}

  add(id: number, size: number): void {
    if (id >= 0 || !this.options.fuseUnknown) this.flush();
    if (id >= 0) push(this.symbols, id, size);
    else this.unknown += size;
  }

  flush(): void {
    if (this.unknown > 0 && this.options.unknown !== null) push(this.symbols, this.options.unknown, this.unknown);
    this.unknown = 0;
  }
}
