/** What Python's `str.strip` takes for blank. */
const BLANK = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
const START = new RegExp(`^${BLANK}+`);
const BLANK_UNIT = new RegExp(BLANK);

/** Python's `str.strip`. */
export function strip(text: string): string {
  let end = text.length; // by hand: a regular expression for the end may look at each blank as often as there are
  while (end > 0 && BLANK_UNIT.test(text[end - 1]!)) end--;
  return text.slice(0, end).replace(START, "");
}

/** Python's `str.strip` of ends of lines. */
export function stripNewlines(text: string): string {
  let end = text.length;
  while (end > 0 && text[end - 1] === "\n") end--;
  return stripNewlinesBefore(text.slice(0, end));
}

/** Python's `str.lstrip` of ends of lines. */
export function stripNewlinesBefore(text: string): string {
  return text.replace(/^\n+/, "");
}

/** How many UTF-16 units a code point takes. */
export function units(point: number): number {
  return point < 0x10000 ? 1 : 2;
}

/** How many bytes of UTF-8 a code point takes; half a surrogate pair as many as U+FFFD, which stands for it. */
export function utf8Size(point: number): number {
  return point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
}
