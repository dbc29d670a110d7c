import { JOINING, LETTERS, MORE_NUMERIC, NUMBERS } from "./unicodeTables.js";

// What a character is to a pre-tokenizer and to normalisation. The same in every browser: see unicodeTables.ts.

export type UnicodeClass = typeof OTHER | typeof LETTER | typeof NUMBER | typeof BLANK;
export const OTHER = 0;
export const LETTER = 1;
export const NUMBER = 2;
export const BLANK = 3;

/** The numbers of a table in base 36, between blanks. */
export function base36(table: string): number[] {
  return table.trim().split(/\s+/).map((digits) => Number.parseInt(digits, 36));
}

/** Ranges of code points in order, each with a value if the table has them. */
class PointRanges {
  readonly starts: number[] = [];
  readonly ends: number[] = []; // behind the last
  readonly values: number[] = [];

  constructor(table: string, withValues = false) {
    const numbers = base36(table);
    let end = 0;
    for (let place = 0; place < numbers.length; place += withValues ? 3 : 2) {
      this.starts.push(end + numbers[place]!);
      end += numbers[place]! + numbers[place + 1]!;
      this.ends.push(end);
      if (withValues) this.values.push(numbers[place + 2]!);
    }
  }

  /** The range that has it, or -1. */
  find(point: number): number {
    let low = 0;
    let high = this.starts.length; // those before low start at the point or before it, those from high on after it
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.starts[middle]! <= point) low = middle + 1;
      else high = middle;
    }
    return low > 0 && point < this.ends[low - 1]! ? low - 1 : -1;
  }

  holds(point: number): boolean {
    return this.find(point) >= 0;
  }
}

const PLANE = 0x10000;
const FIRST_JOINING = 0x300;
const letters = new PointRanges(LETTERS);
const numbers = new PointRanges(NUMBERS);
const moreNumeric = new PointRanges(MORE_NUMERIC);
const joining = new PointRanges(JOINING, true);
const blanks = [
  // White_Space: \s of a regular expression
  [0x09, 0x0d], [0x20, 0x20], [0x85, 0x85], [0xa0, 0xa0], [0x1680, 0x1680], [0x2000, 0x200a], [0x2028, 0x2029], [0x202f, 0x202f],
  [0x205f, 0x205f], [0x3000, 0x3000],
] as const;
const plane = firstPlane();

/** Of the characters of one UTF-16 unit. */
function firstPlane(): Uint8Array {
  const kinds = new Uint8Array(PLANE);
  for (const [ranges, kind] of [[letters, LETTER], [numbers, NUMBER]] as const) {
    ranges.starts.forEach((start, index) => kinds.fill(kind, start, Math.min(ranges.ends[index]!, PLANE)));
  }
  for (const [first, last] of blanks) kinds.fill(BLANK, first, last + 1);
  return kinds;
}

export function classOf(point: number): UnicodeClass {
  if (point < PLANE) return plane[point] as UnicodeClass;
  return letters.holds(point) ? LETTER : numbers.holds(point) ? NUMBER : OTHER;
}

/** A number to the Digits pre-tokenizer, which knows a newer Unicode. */
export function isNumeric(point: number): boolean {
  return classOf(point) === NUMBER || moreNumeric.holds(point);
}

/** Whether normalisation may change it together with what stands before it. */
export function joins(point: number): boolean {
  return point >= FIRST_JOINING && joining.holds(point);
}

/** By which normalisation orders marks; 0 is no mark's. */
export function combiningClass(point: number): number {
  const range = joining.find(point);
  return range < 0 ? 0 : joining.values[range]!;
}
