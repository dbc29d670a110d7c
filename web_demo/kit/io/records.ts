import { JsonReader } from "./jsonReader.js";
import { quoted } from "./text.js";
import { utf8 } from "./utf8.js";

// Our own files' JSON: every field is known and of its kind, and an object has a key once. A decoder takes a value from a reader, so nothing
// is held but what it returns. Fields are snake_case in the file and camelCase here.

export type Decoder<T> = (reader: JsonReader) => T;
export type Decoded<D> = D extends Decoder<infer T> ? T : never;

/** A field that may be absent. */
class Optional<T> {
  constructor(
    readonly decode: Decoder<T>,
    readonly absent: T,
  ) {}
}

type Field = Decoder<unknown> | Optional<unknown>;
type RecordOf<F> = { readonly [K in keyof F]: F[K] extends Optional<infer T> ? T : F[K] extends Decoder<infer T> ? T : never };

const MOST_INTEGER = 2 ** 53; // what every reader of JSON has exactly
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;

/** The whole of `text`, one value. Throws JsonError. */
export function decode<T>(text: Uint8Array, decoder: Decoder<T>): T {
  const reader = new JsonReader(text);
  const value = decoder(reader);
  reader.finish();
  return value;
}

/** What `decode` reads again: JSON with snake_case names. */
export function encode(value: unknown): Uint8Array {
  return utf8(JSON.stringify(named(value)));
}

function named(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(named);
  if (value instanceof Map) return Object.fromEntries([...value].map(([key, inner]) => [key, named(inner)]));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [snake(name), named(inner)]));
}

export function record<F extends Record<string, Field>>(fields: F): Decoder<RecordOf<F>> {
  const named = new Map(Object.entries(fields).map(([name, field]) => [snake(name), { name, field }]));
  return (reader) => {
    const found: Record<string, unknown> = {};
    members(reader, (key) => {
      const known = named.get(key) ?? reader.fail(`an unknown field ${quoted(key, 80)}`);
      found[known.name] = known.field instanceof Optional ? known.field.decode(reader) : known.field(reader);
    });
    for (const [key, { name, field }] of named) {
      if (name in found) continue;
      if (!(field instanceof Optional)) reader.fail(`the field ${quoted(key)} is missing`);
      else found[name] = field.absent;
    }
    return found as RecordOf<F>;
  };
}

/** An object whose keys are no fields. */
export function map<T>(value: Decoder<T>): Decoder<ReadonlyMap<string, T>> {
  return (reader) => {
    const found = new Map<string, T>();
    members(reader, (key) => found.set(checked(reader, key), value(reader)));
    return found;
  };
}

export function list<T>(element: Decoder<T>): Decoder<readonly T[]> {
  return (reader) => {
    const found: T[] = [];
    reader.array(() => found.push(element(reader)));
    return found;
  };
}

export function optional<T>(decoder: Decoder<T>, absent: T): Optional<T> {
  return new Optional(decoder, absent);
}

export function nullable<T>(decoder: Decoder<T>): Decoder<T | null> {
  return (reader) => {
    if (reader.kind() !== "null") return decoder(reader);
    reader.skip();
    return null;
  };
}

export function choice<T extends string>(...values: readonly T[]): Decoder<T> {
  return (reader) => {
    const found = reader.string();
    return values.find((value) => value === found) ?? reader.fail(`expected one of ${values.join(", ")}, found ${quoted(found, 80)}`);
  };
}

/** Without control characters. */
export const text: Decoder<string> = (reader) => checked(reader, reader.string());
export const flag: Decoder<boolean> = (reader) => reader.boolean();
export const int32: Decoder<number> = (reader) => reader.int();

/** A whole number of at most 2^53. */
export const integer: Decoder<number> = (reader) => {
  const written = reader.number();
  const value = Number(written);
  if (!/^-?[0-9]+$/.test(written)) reader.fail(`expected a whole number, found ${written}`);
  return Math.abs(value) <= MOST_INTEGER ? value : reader.fail(`expected a number of at most 2^53, found ${written}`);
};

export const number: Decoder<number> = (reader) => {
  const written = reader.number();
  const value = Number(written);
  return Number.isFinite(value) ? value : reader.fail(`expected a finite number, found ${written}`);
};

/** A value of which nothing is used. */
export const anything: Decoder<null> = (reader) => {
  reader.skip();
  return null;
};

function members(reader: JsonReader, member: (key: string) => void): void {
  const seen = new Set<string>();
  reader.object((key) => {
    if (seen.has(key)) reader.fail(`the key ${quoted(key, 80)} stands twice in an object`);
    seen.add(key);
    member(key);
  });
}

function checked(reader: JsonReader, value: string): string {
  return CONTROL.test(value) ? reader.fail(`expected a text without control characters, found ${quoted(value, 80)}`) : value;
}

function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
