import { units } from "./texts.js";
import { BLANK, classOf, isNumeric, LETTER, NUMBER, OTHER, type UnicodeClass } from "./unicodeClasses.js";

/** Splits `text[start, end)` into words, which are tokenised apart; what stands outside is not looked at. */
export type PreTokenizer = (text: string, start: number, end: number, word: (start: number, end: number) => void) => void;

/** One after the other: each splits the words of the one before. */
export function sequence(parts: readonly PreTokenizer[]): PreTokenizer {
  const [first, ...others] = parts;
  if (first === undefined) return (_, start, end, word) => word(start, end);
  if (others.length === 0) return first;
  const rest = sequence(others);
  return (text, start, end, word) => first(text, start, end, (from, to) => rest(text, from, to, word));
}

/** Numbers apart from the rest: each digit a word, or each run of them. */
export function digitsSplitter(individual: boolean): PreTokenizer {
  return (text, start, end, word) => {
    let begun = start;
    let wasNumber = false;
    for (let at = start; at < end; ) {
      const point = text.codePointAt(at)!;
      const isNumber = isNumeric(point);
      if (at > begun && (isNumber !== wasNumber || (isNumber && individual))) {
        word(begun, at);
        begun = at;
      }
      wasNumber = isNumber;
      at += units(point);
    }
    if (begun < end) word(begun, end);
  };
}

/** A word ends behind each `mark`. */
export function markSplitter(mark: string): PreTokenizer {
  return (text, start, end, word) => {
    let begun = start;
    while (begun < end) {
      const found = text.indexOf(mark, begun);
      const next = found < 0 || found + mark.length > end ? end : found + mark.length;
      word(begun, next);
      begun = next;
    }
  };
}

const WORDS = "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|";
const REST = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|";
const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** GPT-2's, which ByteLevel has built in; SmolLM2's. */
export const gpt2Splitter = splitter(gpt2);
const known = new Map([
  [`${CONTRACTIONS}${WORDS}\\p{N}${REST}`, splitter(modern(1))], // Qwen2's
  [`${CONTRACTIONS}${WORDS}\\p{N}{1,3}${REST}`, splitter(modern(3))], // Llama 3's
  [GPT2, gpt2Splitter],
]);

/** The splitter of a regular expression as it stands in a file; undefined for one that is not known. */
export function patternSplitter(pattern: string): PreTokenizer | undefined {
  return known.get(pattern);
}

/** The end of the match that begins at `at`: the first alternative that has one. */
type Match = (text: string, at: number, end: number) => number;

/**
 * The regular expressions of the families, by hand: each browser's engine knows another Unicode. Every character belongs to a match, so
 * there is nothing between the words.
 */
function splitter(match: Match): PreTokenizer {
  return (text, start, end, word) => {
    for (let at = start; at < end; ) {
      const next = match(text, at, end);
      word(at, next);
      at = next;
    }
  };
}

/** Contractions, ` ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+` */
function gpt2(text: string, at: number, end: number): number {
  const contracted = contraction(text, at, end, (letter) => letter);
  if (contracted > 0) return contracted;
  const first = text[at] === " " && at + 1 < end ? at + 1 : at;
  const kind = kindAt(text, first);
  return kind === BLANK ? blanks(text, at, end) : run(text, first, end, kind);
}

/** Contractions, `[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,most}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+` */
function modern(mostDigits: number): Match {
  return (text, at, end) => {
    const contracted = contraction(text, at, end, folded);
    if (contracted > 0) return contracted;
    const kind = kindAt(text, at);
    const second = at + sizeAt(text, at);
    if (kind === LETTER) return run(text, at, end, LETTER);
    if (kind === NUMBER) return run(text, at, end, NUMBER, mostDigits);
    if (!isNewline(text, at) && second < end && kindAt(text, second) === LETTER) return run(text, second, end, LETTER);
    if (kind === OTHER) return newlines(text, run(text, at, end, OTHER), end);
    if (text[at] === " " && second < end && kindAt(text, second) === OTHER) return newlines(text, run(text, second, end, OTHER), end);
    return lastNewline(text, at, end) ?? blanks(text, at, end);
  };
}

function run(text: string, from: number, end: number, kind: UnicodeClass, most = Infinity): number {
  let at = from;
  for (let count = 0; at < end && count < most && kindAt(text, at) === kind; count++) at += sizeAt(text, at);
  return at;
}

function newlines(text: string, from: number, end: number): number {
  let at = from;
  while (at < end && isNewline(text, at)) at++;
  return at;
}

/** Behind the last end of line in the blanks from `at` on. */
function lastNewline(text: string, at: number, end: number): number | undefined {
  for (let last = run(text, at, end, BLANK) - 1; last >= at; last--) if (isNewline(text, last)) return last + 1;
  return undefined;
}

/** All blanks but the last, which goes with what follows, unless it is alone or nothing does. */
function blanks(text: string, at: number, end: number): number {
  const stop = run(text, at, end, BLANK);
  return stop === end || stop === at + 1 ? stop : stop - 1;
}

/** `'s|'t|'re|'ve|'m|'ll|'d`: the end, or 0. */
function contraction(text: string, at: number, end: number, fold: (letter: string) => string): number {
  if (text[at] !== "'" || at + 1 >= end) return 0;
  const first = fold(text[at + 1]!);
  if ("stmd".includes(first)) return at + 2;
  if (at + 2 >= end) return 0;
  return ["ll", "re", "ve"].includes(first + fold(text[at + 2]!)) ? at + 3 : 0;
}

/** In any case: the long s is one, too. */
function folded(letter: string): string {
  if (letter >= "A" && letter <= "Z") return letter.toLowerCase();
  return letter === "\u017f" ? "s" : letter;
}

function isNewline(text: string, at: number): boolean {
  return text[at] === "\n" || text[at] === "\r";
}

function kindAt(text: string, at: number): UnicodeClass {
  return classOf(text.codePointAt(at)!);
}

function sizeAt(text: string, at: number): number {
  return units(text.codePointAt(at)!);
}
