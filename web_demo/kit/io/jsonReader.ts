import { strictUtf8 } from "./utf8.js";
import { IoError, type StoredFile } from "./files.js";

const MOST_TEXT = 1 << 20; // bytes of a string
const MOST_DEPTH = 32;
const MOST_NODES = 20_000; // values of a tree
const MOST_DIGITS = 400;
const CHUNK = 1 << 16;
const NUMBER = /^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$/;
const ESCAPES: Readonly<Record<string, number>> = { '"': 0x22, "\\": 0x5c, "/": 0x2f, b: 0x08, f: 0x0c, n: 0x0a, r: 0x0d, t: 0x09 };

/** What a JsonReader found wrong, without a file's name; `at` counts bytes from 0. */
export class JsonError extends Error {
  constructor(
    readonly reason: string,
    readonly at: number,
  ) {
    super(`${reason} at byte ${at}`);
    this.name = "JsonError";
  }
}

/** A value whose kind was not known before. Objects are Maps: a key such as `__proto__` is a key like any other. */
export type JsonTree = null | boolean | number | string | JsonTree[] | Map<string, JsonTree>;

/**
 * JSON read value by value, in memory bounded by the longest string: a `tokenizer.json` has 60 MB, and a stranger's may be made to need far
 * more once it is a tree. Whoever reads knows what should come: `object`, `array`, `string` …; `skip` and `tree` take what may be anything.
 *
 * Throws JsonError for what is no JSON, for another kind of value than asked for, and beyond the bounds; IoError where a file cannot be read.
 */
export class JsonReader {
  private bytes: Uint8Array;
  private at = 0;
  private end: number;
  private before = 0; // bytes that came and went
  private text = new Uint8Array(64);

  constructor(private readonly source: Uint8Array | StoredFile) {
    const whole = source instanceof Uint8Array;
    this.bytes = whole ? source : new Uint8Array(CHUNK);
    this.end = whole ? source.length : 0;
  }

  /** Reads an object; `member` must take the value of the key that it is given. */
  object(member: (key: string) => void): void {
    this.expect("{", "an object");
    if (this.take("}")) return;
    do {
      if (this.peek() !== '"') this.fail("expected a key");
      const key = this.string();
      this.expect(":", "a colon");
      member(key);
    } while (this.take(","));
    this.expect("}", "a comma or the end of the object");
  }

  /** Reads an array; `element` must take a value. */
  array(element: () => void): void {
    this.expect("[", "an array");
    if (this.take("]")) return;
    do element();
    while (this.take(","));
    this.expect("]", "a comma or the end of the array");
  }

  string(): string {
    this.expect('"', "a string");
    const length = this.readText();
    return strictUtf8(this.text.subarray(0, length)) ?? this.fail("a string that is not UTF-8");
  }

  /** A whole number below 2^31. */
  int(): number {
    const text = this.number();
    const value = Number(text);
    return /^-?[0-9]+$/.test(text) && Math.abs(value) < 2 ** 31 ? value : this.fail(`expected a whole number below 2^31, found ${text}`);
  }

  boolean(): boolean {
    const kind = this.kind();
    return kind === "true or false" ? (this.word() as boolean) : this.fail(`expected true or false, found ${kind}`);
  }

  /** A number as it is written. */
  number(): string {
    const kind = this.kind();
    return kind === "a number" ? this.digits() : this.fail(`expected a number, found ${kind}`);
  }

  /** The next value's kind in words, with its article. */
  kind(): string {
    const next = this.peek();
    if (next === "{") return "an object";
    if (next === "[") return "an array";
    if (next === '"') return "a string";
    if (next === "t" || next === "f") return "true or false";
    if (next === "n") return "null";
    if (next === "-" || (next >= "0" && next <= "9")) return "a number";
    return this.fail("expected a value");
  }

  /** A small value of any kind. `nodes`: how many values it may have in all. */
  tree(nodes = MOST_NODES): JsonTree {
    let left = nodes;
    const read = (depth: number): JsonTree => {
      if (--left < 0 || depth > MOST_DEPTH) this.fail("a value of too many parts");
      switch (this.kind()) {
        case "an object": {
          const map = new Map<string, JsonTree>();
          this.object((key) => map.set(key, read(depth + 1)));
          return map;
        }
        case "an array": {
          const list: JsonTree[] = [];
          this.array(() => list.push(read(depth + 1)));
          return list;
        }
        case "a string":
          return this.string();
        case "a number":
          return Number(this.digits());
        default:
          return this.word();
      }
    };
    return read(0);
  }

  /** Passes over a value of any kind. */
  skip(depth = 0): void {
    if (depth > MOST_DEPTH) this.fail("a value nested too deep");
    const kind = this.kind();
    if (kind === "an object") this.object(() => this.skip(depth + 1));
    else if (kind === "an array") this.array(() => this.skip(depth + 1));
    else if (kind === "a string") this.string();
    else if (kind === "a number") this.digits();
    else this.word();
  }

  /** Nothing but blanks may follow. */
  finish(): void {
    if (this.blank() >= 0) this.fail("expected the end");
  }

  peek(): string {
    const next = this.blank();
    return next < 0 ? this.fail("ends too early") : String.fromCharCode(next);
  }

  take(mark: string): boolean {
    if (this.blank() !== mark.charCodeAt(0)) return false;
    this.at++;
    return true;
  }

  expect(mark: string, what: string): void {
    if (this.take(mark)) return;
    if (this.blank() < 0) this.fail("ends too early");
    this.fail(`expected ${what}`);
  }

  fail(reason: string): never {
    throw new JsonError(reason, this.before + this.at);
  }

  private blank(): number {
    for (;;) {
      const next = this.next();
      if (next !== 0x20 && next !== 0x0a && next !== 0x0d && next !== 0x09) return next;
      this.at++;
    }
  }

  /** The byte at hand, or -1 at the end; it is not taken. */
  private next(): number {
    return this.at < this.end || this.refill() ? this.bytes[this.at]! : -1;
  }

  private refill(): boolean {
    if (this.source instanceof Uint8Array) return false;
    this.before += this.end;
    this.at = 0;
    this.end = Math.min(CHUNK, this.source.size - this.before);
    if (this.end < 0) throw new IoError("ended while it was read");
    this.source.read(this.bytes.subarray(0, this.end), this.before);
    return this.end > 0;
  }

  private word(): boolean | null {
    const first = this.peek();
    const [word, value] = first === "t" ? (["true", true] as const) : first === "f" ? (["false", false] as const) : (["null", null] as const);
    for (let i = 0; i < word.length; i++) {
      if (this.next() !== word.charCodeAt(i)) this.fail(`expected ${word}`);
      this.at++;
    }
    return value;
  }

  private digits(): string {
    let text = "";
    while (text.length < MOST_DIGITS) {
      const next = this.next();
      if (next < 0 || !"+-.0123456789eE".includes(String.fromCharCode(next))) break;
      text += String.fromCharCode(next);
      this.at++;
    }
    return NUMBER.test(text) ? text : this.fail("expected a number");
  }

  /** A string's bytes into `text`, without the quotes; returns how many. */
  private readText(): number {
    let length = 0;
    for (;;) {
      const next = this.next();
      if (next < 0) this.fail("ends within a string");
      if (next < 0x20) this.fail("a control character within a string");
      this.at++;
      if (next === 0x22) return length;
      if (length > MOST_TEXT) this.fail(`a string of more than ${MOST_TEXT} bytes`);
      if (length + 4 > this.text.length) this.grow();
      if (next === 0x5c) length = this.put(this.escape(), length);
      else this.text[length++] = next;
    }
  }

  private grow(): void {
    const text = new Uint8Array(2 * this.text.length);
    text.set(this.text);
    this.text = text;
  }

  private put(point: number, at: number): number {
    const { written } = encoder.encodeInto(String.fromCodePoint(point), this.text.subarray(at));
    return at + written;
  }

  private escape(): number {
    const letter = String.fromCharCode(this.next());
    this.at++;
    if (letter !== "u") return ESCAPES[letter] ?? this.fail("an escape that JSON does not have");
    const unit = this.hexadecimal();
    return unit >= 0xd800 && unit <= 0xdfff ? this.pair(unit) : unit;
  }

  private pair(high: number): number {
    if (high >= 0xdc00) this.fail("half a surrogate pair");
    for (const mark of "\\u") {
      if (this.next() !== mark.charCodeAt(0)) this.fail("half a surrogate pair");
      this.at++;
    }
    const low = this.hexadecimal();
    if (low < 0xdc00 || low > 0xdfff) this.fail("half a surrogate pair");
    return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
  }

  private hexadecimal(): number {
    let value = 0;
    for (let i = 0; i < 4; i++) {
      const digit = "0123456789abcdef".indexOf(String.fromCharCode(this.next()).toLowerCase());
      if (digit < 0) this.fail("an escape that JSON does not have");
      value = (value << 4) | digit;
      this.at++;
    }
    return value;
  }
}

const encoder = new TextEncoder();
