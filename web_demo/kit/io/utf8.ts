// UTF-8 as Python and Rust read it. A TextDecoder says that bytes are no text, but not where or why.

/**
 * The sequence that begins at `at`: its length where it is valid; else the negative length of its longest part that could begin one, at
 * least 1, which is what a decoder replaces by one U+FFFD.
 */
export function sequenceAt(bytes: Uint8Array, at: number, end: number): number {
  const first = bytes[at]!;
  if (first < 0x80) return 1;
  const length = first >= 0xc2 && first <= 0xdf ? 2 : first >= 0xe0 && first <= 0xef ? 3 : first >= 0xf0 && first <= 0xf4 ? 4 : 0;
  if (length === 0) return -1;
  for (let offset = 1; offset < length; offset++) {
    if (at + offset >= end || !continues(first, offset, bytes[at + offset]!)) return -offset;
  }
  return length;
}

function continues(first: number, offset: number, byte: number): boolean {
  const low = offset === 1 && first === 0xe0 ? 0xa0 : offset === 1 && first === 0xf0 ? 0x90 : 0x80;
  const high = offset === 1 && first === 0xed ? 0x9f : offset === 1 && first === 0xf4 ? 0x8f : 0xbf; // no surrogates, nothing above U+10FFFF
  return byte >= low && byte <= high;
}

/** Where the first byte stands that is no UTF-8, or -1. */
export function firstFault(bytes: Uint8Array, start = 0, end = bytes.length): number {
  let at = start;
  while (at < end) {
    const length = bytes[at]! < 0x80 ? 1 : sequenceAt(bytes, at, end);
    if (length < 0) return at;
    at += length;
  }
  return -1;
}

/** Why `firstFault` stopped at `at`, in Python's words. */
export function faultReason(bytes: Uint8Array, at: number, end = bytes.length): string {
  const bad = -sequenceAt(bytes, at, end);
  if (bytes[at]! < 0xc2 || bytes[at]! > 0xf4) return "invalid start byte";
  return at + bad >= end ? "unexpected end of data" : "invalid continuation byte";
}

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const lossy = new TextDecoder("utf-8", { ignoreBOM: true });
const encoder = new TextEncoder();

/** Text that is UTF-8 throughout; null where it is not. */
export function strictUtf8(bytes: Uint8Array): string | null {
  try {
    return strict.decode(bytes);
  } catch {
    return null;
  }
}

/** The text of bytes, with one U+FFFD for each longest part of what is none. */
export function lossyUtf8(bytes: Uint8Array): string {
  return lossy.decode(bytes);
}

/** The bytes of a text; U+FFFD's for half a surrogate pair. */
export function utf8(text: string): Uint8Array {
  return encoder.encode(text);
}
