import { quoted, some } from "../io/text.js";
import { strictUtf8 } from "../io/utf8.js";
import { unreadable } from "./manifestCheck.js";

// Which bytes outside itself an ONNX file names as its tensors' data. Every program is walked through before a session is made of it: a
// protobuf reader of the fields that lead to a tensor, which refuses what no exporter writes (a single field that stands twice, which
// parsers merge; groups; a message past its end). Field numbers are those of onnx.proto3, the wire format protobuf's.

export const PROGRAM_BYTES = 16 << 20; // that are read; 130 kB are usual: a program holds no weights
const MOST_FIELDS = 200_000; // in a file; 6,000 are usual
const MOST_DEPTH = 100; // of messages within messages, protobuf's own limit
const VARINT = 0;
const BYTES = 2;
const FIXED: Readonly<Record<number, number>> = { 1: 8, 5: 4 }; // wire types with their bytes
const NUMBER = /^[0-9]{1,15}$/;
const KEYS = ["location", "offset", "length", "checksum"];

interface Holds {
  readonly inner: string;
  readonly once: boolean;
}

const one = (inner: string): Holds => ({ inner, once: true });
const many = (inner: string): Holds => ({ inner, once: false });

/** Message -> the fields that lead to a tensor, and the message that each holds. */
const MESSAGES: Readonly<Record<string, Readonly<Record<number, Holds>>>> = {
  model: { 7: one("graph"), 20: many("training"), 25: many("function") },
  training: { 1: one("graph"), 2: one("graph") },
  function: { 7: many("node"), 11: many("attribute") },
  graph: { 1: many("node"), 5: many("tensor"), 15: many("sparse") },
  node: { 5: many("attribute") },
  attribute: { 5: one("tensor"), 6: one("graph"), 10: many("tensor"), 11: many("graph"), 22: one("sparse"), 23: many("sparse") },
  sparse: { 1: one("tensor"), 2: one("tensor") },
  tensor: { 8: one("name"), 13: many("entry"), 14: one("number") },
  entry: { 1: one("key"), 2: one("value") },
};

/** A tensor that is marked as external, or says where its data is: `entries`, each key once. */
interface ExternalTensor {
  readonly name: string;
  readonly entries: ReadonlyMap<string, string>;
}

/**
 * Throws BUNDLE_UNREADABLE for what is no ONNX file as exporters write them, and unless all external data lies within the first `dataSize`
 * bytes of `dataFile`, beside the program, and belongs to tensors of these `names`.
 */
export function checkExternalData(file: string, program: Uint8Array, dataFile: string, dataSize: number, names: readonly string[]): void {
  const faults = externalTensors(file, program).flatMap(({ name, entries }) => {
    const location = entries.get("location");
    const [offset, length] = [entries.get("offset") ?? "0", entries.get("length") ?? "0"];
    if (location !== dataFile || ![...entries.keys()].every((key) => KEYS.includes(key))) {
      return [`${quoted(name)} has its data in ${quoted(location ?? "")}, expected ${quoted(dataFile)} and no keys but ${KEYS.join(", ")}`];
    }
    if (!names.includes(name)) return [`${quoted(name)} has its data outside the program, expected ${names.join(", ") || "no tensor"} to have`];
    if (NUMBER.test(offset) && NUMBER.test(length) && Number(offset) + Number(length) <= dataSize) return [];
    return [`${quoted(name)}: expected its data within ${dataSize} bytes, found ${quoted(length)} bytes from ${quoted(offset)}`];
  });
  if (faults.length > 0) throw unreadable(`${file}: ${some(faults)}; export the bundle again`);
}

function externalTensors(file: string, program: Uint8Array): ExternalTensor[] {
  try {
    return new OnnxWalk(program).all();
  } catch (error) {
    if (!(error instanceof MalformedProgram)) throw error;
    throw unreadable(`${file}: not an ONNX file as exporters write them: ${error.message}; export the bundle again`, error);
  }
}

class MalformedProgram extends Error {}

/** A field: what it holds, and where that starts and ends; of a number its value as `first`. */
interface Field {
  readonly number: number;
  readonly wire: number;
  readonly first: number;
  readonly last: number;
}

/** One pass through a file. Its methods take where a message starts and ends, and throw MalformedProgram. */
class OnnxWalk {
  private readonly found: ExternalTensor[] = [];
  private fields = 0;
  private at = 0;

  constructor(private readonly data: Uint8Array) {}

  all(): ExternalTensor[] {
    this.message("model", 0, this.data.length, 0);
    return this.found;
  }

  private message(kind: string, start: number, end: number, depth: number): void {
    if (depth > MOST_DEPTH) throw new MalformedProgram(`more than ${MOST_DEPTH} messages within each other`);
    this.known(kind, start, end, (inner, field) => {
      if (inner === "tensor") this.tensor(field.first, field.last);
      else this.message(inner, field.first, field.last, depth + 1);
    });
  }

  private tensor(start: number, end: number): void {
    let name = "";
    let external = false;
    const entries: (readonly [string, string])[] = [];
    this.known("tensor", start, end, (inner, field) => {
      if (inner === "name") name = this.text(field);
      else if (inner === "number") external = field.first !== 0;
      else entries.push(this.entry(field));
    });
    const keyed = new Map(entries);
    if (keyed.size < entries.length) throw new MalformedProgram(`the tensor ${quoted(name)} has a key twice`);
    if (external || entries.length > 0) this.found.push({ name, entries: keyed });
  }

  private entry(place: Field): readonly [string, string] {
    const parts: { key: string; value: string } = { key: "", value: "" };
    this.known("entry", place.first, place.last, (inner, field) => {
      parts[inner as "key" | "value"] = this.text(field);
    });
    return [parts.key, parts.value];
  }

  /** The fields of MESSAGES, one after the other. */
  private known(kind: string, start: number, end: number, take: (inner: string, field: Field) => void): void {
    const seen = new Set<number>();
    for (let next = start; next < end; ) {
      const field = this.field(next, end);
      next = this.at;
      const holds = MESSAGES[kind]![field.number];
      if (holds === undefined) continue;
      if (holds.once && seen.has(field.number)) throw new MalformedProgram(`field ${field.number} of ${kind} stands twice`);
      seen.add(field.number);
      const wire = holds.inner === "number" ? VARINT : BYTES;
      if (field.wire !== wire) throw new MalformedProgram(`field ${field.number} of ${kind} is of wire type ${field.wire}`);
      take(holds.inner, field);
    }
  }

  /** The field that starts there; leaves `at` where the next one does. */
  private field(start: number, end: number): Field {
    if (++this.fields > MOST_FIELDS) throw new MalformedProgram(`more than ${MOST_FIELDS} fields`);
    this.at = start;
    const tag = this.varint(end);
    const number = Math.floor(tag / 8);
    const wire = tag % 8;
    if (number < 1 || number >= 2 ** 29) throw new MalformedProgram(`field number ${number}`);
    if (wire === VARINT) {
      const value = this.varint(end);
      return { number, wire, first: value, last: value };
    }
    const size = wire === BYTES ? this.varint(end) : FIXED[wire];
    if (size === undefined) throw new MalformedProgram(`wire type ${wire}`);
    if (size > end - this.at) throw new MalformedProgram(`a field of ${size} bytes where ${end - this.at} are left`);
    const first = this.at;
    this.at += size;
    return { number, wire, first, last: this.at };
  }

  /** The number at `at`, which it moves past. One of more than 53 bits is no tag and no size, and of no flag is it the value that counts. */
  private varint(end: number): number {
    let value = 0;
    for (let shift = 0; shift < 64 && this.at < end; shift += 7) {
      const byte = this.data[this.at++]!;
      if (shift === 63 && (byte & 0x7e) !== 0) break;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw new MalformedProgram("a number that does not end");
  }

  private text(field: Field): string {
    const text = strictUtf8(this.data.subarray(field.first, field.last));
    if (text === null) throw new MalformedProgram("not UTF-8");
    return text;
  }
}
