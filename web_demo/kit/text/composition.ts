import { base36, combiningClass } from "./unicodeClasses.js";
import { COMPOSING, DECOMPOSING } from "./unicodeTables.js";

// Canonical decomposition, order and composition (The Unicode Standard, 3.11) of the characters that the library knows: a browser's own
// `normalize` composes what newer versions of Unicode have.

// Hangul: a syllable is a leading consonant, a vowel and perhaps a trailing consonant.
const LEADING = 0x1100;
const VOWEL = 0x1161;
const TRAILING = 0x11a7;
const SYLLABLE = 0xac00;
const LEADINGS = 19;
const VOWELS = 21;
const TRAILINGS = 28;
const SYLLABLES = LEADINGS * VOWELS * TRAILINGS;

/** Of a character that is composed, or that is never left as it is, the one or two (else 0) that it is the same as. */
const parts = new Map([...rows(COMPOSING), ...rows(DECOMPOSING)].map(([whole, first, second]) => [whole, [first, second] as const]));
const wholes = new Map(rows(COMPOSING).map(([whole, first, second]) => [key(first, second), whole]));

/** Normalisation form C of a character and those that join it. */
export function composed(points: readonly number[]): number[] {
  const result: number[] = [];
  let starter = -1; // the last character of class 0 in `result`
  let before = 0; // the class of the last character
  for (const point of ordered(points.flatMap(apart))) {
    const current = combiningClass(point);
    const whole = starter >= 0 && (before === 0 || before < current) ? wholeOf(result[starter]!, point) : undefined;
    if (whole !== undefined) {
      result[starter] = whole;
      continue;
    }
    if (current === 0) starter = result.length;
    before = current;
    result.push(point);
  }
  return result;
}

function apart(point: number): number[] {
  const known = parts.get(point);
  if (known !== undefined) return [...apart(known[0]), ...(known[1] === 0 ? [] : apart(known[1]))];
  const place = point - SYLLABLE;
  if (place < 0 || place >= SYLLABLES) return [point];
  const pair = [LEADING + Math.floor(place / (VOWELS * TRAILINGS)), VOWEL + (Math.floor(place / TRAILINGS) % VOWELS)];
  return place % TRAILINGS === 0 ? pair : [...pair, TRAILING + (place % TRAILINGS)];
}

/** With each run of marks sorted by their class, those of one class as they were. */
function ordered(points: readonly number[]): number[] {
  let run = 0;
  const keyed = points.map((point, place) => {
    const mark = combiningClass(point);
    if (mark === 0) run = place;
    return { point, run, mark };
  });
  return keyed.sort((one, other) => one.run - other.run || one.mark - other.mark).map(({ point }) => point);
}

function wholeOf(first: number, second: number): number | undefined {
  if (first >= LEADING && first < LEADING + LEADINGS && second >= VOWEL && second < VOWEL + VOWELS) {
    return SYLLABLE + ((first - LEADING) * VOWELS + second - VOWEL) * TRAILINGS;
  }
  const place = first - SYLLABLE;
  if (place >= 0 && place < SYLLABLES && place % TRAILINGS === 0 && second > TRAILING && second < TRAILING + TRAILINGS) {
    return first + second - TRAILING;
  }
  return wholes.get(key(first, second));
}

function key(first: number, second: number): number {
  return first * 0x200000 + second;
}

function rows(table: string): [whole: number, first: number, second: number][] {
  const numbers = base36(table);
  const found: [number, number, number][] = [];
  let next = 0;
  for (let place = 0; place < numbers.length; place += 3) {
    next += numbers[place]! + 1;
    found.push([next - 1, numbers[place + 1]!, numbers[place + 2]!]);
  }
  return found;
}
