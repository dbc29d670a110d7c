import { composed } from "./composition.js";
import { units } from "./texts.js";
import { joins } from "./unicodeClasses.js";

/**
 * Text as the model's tokenizer reads it, and where it came from: character i is `origin` + i of the original where there are no `starts`
 * and `ends`, else what the original has in `[starts[i], ends[i])`. All counted in UTF-16 units.
 */
export class NormalizedText {
  constructor(
    readonly text: string,
    private readonly origin: number,
    private readonly starts?: readonly number[],
    private readonly ends?: readonly number[],
  ) {}

  start(at: number): number {
    return this.starts?.[at] ?? this.origin + at;
  }

  /** Where the original of what stands before `at` ends. */
  end(at: number): number {
    return this.ends?.[at - 1] ?? this.origin + at;
  }
}

export type Normalizer = (input: NormalizedText) => NormalizedText;

/** Gathers a normalised text piece by piece. */
class Rewriting {
  private text = "";
  private readonly starts: number[] = [];
  private readonly ends: number[] = [];

  constructor(private readonly input: NormalizedText) {}

  /** What the input has in `[start, end)`, character by character. */
  keep(start: number, end: number): void {
    this.text += this.input.text.slice(start, end);
    for (let at = start; at < end; at++) {
      this.starts.push(this.input.start(at));
      this.ends.push(this.input.end(at + 1));
    }
  }

  /** `piece` in its place. */
  replace(start: number, end: number, piece: string): void {
    if (this.input.text.slice(start, end) === piece) return this.keep(start, end);
    this.text += piece;
    for (let offset = 0; offset < piece.length; offset++) {
      this.starts.push(this.input.start(start));
      this.ends.push(this.input.end(end));
    }
  }

  result(): NormalizedText {
    return new NormalizedText(this.text, 0, this.starts, this.ends);
  }
}

/** Unicode's form C. The characters of a base with its marks share their original's range where they are changed. */
export const nfcNormalizer: Normalizer = (input) => {
  const { text } = input;
  if (!/[\u0300-\uffff]/.test(text)) return input; // nothing below is changed by what may follow it
  const result = new Rewriting(input);
  let changed = false;
  let start = 0;
  while (start < text.length) {
    const points = [text.codePointAt(start)!];
    let end = start + units(points[0]!);
    while (end < text.length && joins(text.codePointAt(end)!)) {
      points.push(text.codePointAt(end)!);
      end += units(points.at(-1)!);
    }
    if (points.length > 1 || joins(points[0]!)) {
      const piece = composed(points).map((point) => String.fromCodePoint(point)).join("");
      changed ||= piece !== text.slice(start, end);
      result.replace(start, end, piece);
    } else {
      result.keep(start, end);
    }
    start = end;
  }
  return changed ? result.result() : input;
};

/** Puts `content` in the place of every `pattern`, which is not empty. */
export function replaceNormalizer(pattern: string, content: string): Normalizer {
  return (input) => {
    const { text } = input;
    let found = text.indexOf(pattern);
    if (found < 0) return input;
    const result = new Rewriting(input);
    let at = 0;
    for (; found >= 0; found = text.indexOf(pattern, at)) {
      result.keep(at, found);
      at = found + pattern.length;
      result.replace(found, at, content);
    }
    result.keep(at, text.length);
    return result.result();
  };
}

/** Puts `prefix` before a text that is not empty; it comes from the text's first character, as that does. */
export function prependNormalizer(prefix: string): Normalizer {
  return (input) => {
    const { text } = input;
    if (text === "" || prefix === "") return input;
    const first = units(text.codePointAt(0)!);
    const result = new Rewriting(input);
    result.replace(0, first, prefix + text.slice(0, first));
    result.keep(first, text.length);
    return result.result();
  };
}
