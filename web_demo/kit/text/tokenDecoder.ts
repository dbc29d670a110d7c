import { lossyUtf8, strictUtf8, utf8 } from "../io/utf8.js";

/** From tokens as the vocabulary writes them towards text: what is left is put together. */
export type TokenDecoder = (tokens: readonly string[]) => readonly string[];

/** The characters with which byte-level vocabularies write bytes: printable ones stand for themselves, the others follow from U+0100. */
export const byteCharacters: readonly string[] = writtenBytes();
const bytesOf = new Map(byteCharacters.map((character, byte) => [character, byte]));

function writtenBytes(): string[] {
  let next = 0x100;
  const isPrintable = (byte: number) => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : next++));
}

export const byteLevelDecoder: TokenDecoder = (tokens) => {
  const bytes = tokens.flatMap((token) => {
    const written = Array.from(token, (character) => bytesOf.get(character) ?? -1);
    return written.includes(-1) ? [...utf8(token)] : written; // an added token, as it stands
  });
  return [lossyUtf8(Uint8Array.from(bytes))];
};

/** Runs of `<0x41>` to the text of those bytes, or to as many U+FFFD when they are none. */
export const byteFallbackDecoder: TokenDecoder = (tokens) => {
  const result: string[] = [];
  let bytes: number[] = [];
  const flush = () => {
    const text = strictUtf8(Uint8Array.from(bytes));
    result.push(...(text === null ? bytes.map(() => "\ufffd") : [text]));
    bytes = [];
  };
  for (const token of tokens) {
    const byte = byteOf(token);
    if (byte >= 0) {
      bytes.push(byte);
    } else {
      flush();
      result.push(token);
    }
  }
  flush();
  return result;
};

/** The byte that a token stands for by its name, or -1. */
export function byteOf(token: string): number {
  return /^<0x[0-9a-fA-F]{2}>$/.test(token) ? Number.parseInt(token.slice(3, 5), 16) : -1;
}

export function replaceDecoder(pattern: string, content: string): TokenDecoder {
  return (tokens) => tokens.map((token) => token.replaceAll(pattern, () => content));
}

/** Takes up to `start` times `content` from each token's beginning, and up to `stop` times from its end. */
export function stripDecoder(content: string, start: number, stop: number): TokenDecoder {
  const stripped = (token: string) => {
    let [from, to] = [0, token.length];
    for (let times = 0; times < start && token.startsWith(content, from); times++) from += content.length;
    for (let times = 0; times < stop && token.slice(from, to).endsWith(content); times++) to -= content.length;
    return token.slice(from, to);
  };
  return content === "" ? (tokens) => tokens : (tokens) => tokens.map(stripped);
}

export const fuseDecoder: TokenDecoder = (tokens) => [tokens.join("")];

/** What the library does without a decoder. */
export const spaceDecoder: TokenDecoder = (tokens) => [tokens.join(" ")];
