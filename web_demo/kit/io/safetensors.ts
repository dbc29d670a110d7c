import { LcsbError, type Fault } from "../faults.js";
import { reading, type StoredFile } from "./files.js";
import { JsonError } from "./jsonReader.js";
import { asciiJson } from "./pythonJson.js";
import { decode, integer, list, map, record, text, type Decoder } from "./records.js";
import { Sha256 } from "./sha256.js";
import type { Sink } from "./storage.js";
import { quoted } from "./text.js";
import { utf8 } from "./utf8.js";

// A safetensors file: an 8-byte little-endian length, a JSON header of that length, the tensors. A file may state a SHA-256 of the whole of
// it, header included, in its metadata; the digest's own 64 characters count as zeros.

export const DIGEST_KEY = "sha256";
export const UNKNOWN_DIGEST = "0".repeat(64);
const METADATA = "__metadata__";
const MOST_HEADER_BYTES = 4 << 20; // 80 kB are usual: five hundred tensors
const CHUNK = 1 << 18;
const STORED_BYTES: Readonly<Record<string, number>> = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, U8: 1, I8: 1, BOOL: 1 };

/** `dataOffsets`: where the bytes begin and end, from the end of the header. */
export interface StoredTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly dataOffsets: readonly number[];
}

/** A file whose header was read. Every tensor lies within it and is as long as its shape and dtype say; nothing else of it is believed. */
export interface StoredTensors {
  readonly file: StoredFile;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly metadata: ReadonlyMap<string, string>;
  readonly dataStart: number;
}

const entry = record({ dtype: text, shape: list(integer), dataOffsets: list(integer) });

/** The header, in the order of the file. */
const header: Decoder<{ metadata: ReadonlyMap<string, string>; tensors: Map<string, StoredTensor> }> = (reader) => {
  let metadata: ReadonlyMap<string, string> = new Map();
  const tensors = new Map<string, StoredTensor>();
  const seen = new Set<string>();
  const texts = map((inner) => inner.string());
  reader.object((key) => {
    if (seen.has(key)) reader.fail(`the key ${quoted(key, 80)} stands twice in an object`);
    seen.add(key);
    if (key === METADATA) metadata = texts(reader);
    else tensors.set(key, entry(reader));
  });
  return { metadata, tensors };
};

/** Reads and checks the header. Throws `fault` for what is no safetensors file, or a damaged one, or has a header of more than 4 MiB. */
export function openTensors(file: StoredFile, fault: Fault): StoredTensors {
  const refused = (what: string, cause?: unknown) => new LcsbError(fault, `${file.name}: ${what}`, [file.name], cause);
  const raw = reading(file.name, fault, () => readHeader(file));
  if (typeof raw === "string") throw refused(`not a safetensors file, or a truncated one: ${raw}`);
  const dataStart = 8 + raw.length;
  try {
    const { metadata, tensors } = decode(raw, header);
    const outside = [...tensors].filter(([, tensor]) => !liesWithin(tensor, file.size - dataStart)).map(([name]) => quoted(name, 80));
    if (outside.length === 0) return { file, tensors, metadata, dataStart };
    const more = outside.length > 3 ? ` and ${outside.length - 3} more` : "";
    throw refused(`damaged or truncated: not within the file as its header says: ${outside.slice(0, 3).join(", ")}${more}`);
  } catch (error) {
    if (error instanceof JsonError) throw refused(`not a safetensors file, or a damaged one: ${error.message}`, error);
    throw error;
  }
}

/** The header's bytes, or what is wrong. */
function readHeader(file: StoredFile): Uint8Array | string {
  const start = new Uint8Array(8);
  if (file.size >= 8) file.read(start, 0);
  const length = new DataView(start.buffer).getBigUint64(0, true);
  if (length < 2n || length > BigInt(Math.min(Math.max(file.size - 8, 0), MOST_HEADER_BYTES))) {
    return `of ${file.size} bytes its header is said to have ${length}`;
  }
  const header = new Uint8Array(Number(length));
  file.read(header, 8);
  return header;
}

function liesWithin(tensor: StoredTensor, size: number): boolean {
  const [start, end] = tensor.dataOffsets;
  if (tensor.dataOffsets.length !== 2 || tensor.shape.length > 8 || tensor.shape.some((count) => count < 0)) return false;
  if (start === undefined || end === undefined || start < 0 || start > end || end > size) return false;
  const item = STORED_BYTES[tensor.dtype];
  return item === undefined || tensor.shape.reduce((product, count) => product * count, item) === end - start;
}

export const FLOATS = ["F32", "F16", "BF16"];

/** The elements of a tensor of one of FLOATS into all of `into`: float32 has every value of the others. */
export function readFloats(stored: StoredTensors, name: string, into: Float32Array): void {
  const { dtype, dataOffsets } = stored.tensors.get(name)!;
  const at = stored.dataStart + dataOffsets[0]!;
  if (dtype === "F32") return stored.file.read(new Uint8Array(into.buffer, into.byteOffset, into.byteLength), at);
  const halves = new Uint16Array(into.length);
  stored.file.read(new Uint8Array(halves.buffer), at);
  if (dtype === "F16") return into.forEach((_, i) => (into[i] = float16(halves[i]!)));
  const bits = new Uint32Array(into.buffer, into.byteOffset, into.length);
  halves.forEach((half, i) => (bits[i] = half << 16)); // the upper half of a float32
}

/** Of its bits: IEEE 754's binary16. */
function float16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** Of the whole file; `stated` counts as zeros where it stands first in the header. */
export function fileDigest(stored: StoredTensors, stated: string): string {
  const start = new Uint8Array(stored.dataStart);
  stored.file.read(start, 0);
  const at = indexOf(start, utf8(stated));
  if (stated.length === 64 && at >= 0) start.fill(0x30, at, at + 64);
  const digest = new Sha256().update(start);
  digestOf(stored.file, stored.dataStart, digest);
  return digest.hex();
}

/** Adds the bytes of a file from `start` on. `progress`: how many more were read; it may throw. */
export function digestOf(file: StoredFile, start: number, digest: Sha256, progress: (count: number) => void = () => {}): void {
  const chunk = new Uint8Array(CHUNK);
  for (let at = start; at < file.size; at += CHUNK) {
    const piece = chunk.subarray(0, Math.min(CHUNK, file.size - at));
    file.read(piece, at);
    digest.update(piece);
    progress(piece.length);
  }
}

function indexOf(bytes: Uint8Array, sought: Uint8Array): number {
  for (let at = bytes.indexOf(sought[0] ?? 0); at >= 0; at = bytes.indexOf(sought[0] ?? 0, at + 1)) {
    if (sought.every((byte, i) => bytes[at + i] === byte)) return at;
  }
  return -1;
}

/** A tensor to write: safetensors' name of its dtype, its shape, and its elements in native order, which is little-endian. */
export interface WrittenTensor {
  readonly dtype: "F32" | "F64" | "I64";
  readonly shape: readonly number[];
  readonly values: Float32Array | Float64Array | BigInt64Array;
}

/** Writes tensors in their order, with the header that Python's json.dumps gives, so that both write the same file. */
export function writeSafetensors(sink: Sink, tensors: ReadonlyMap<string, WrittenTensor>, metadata: ReadonlyMap<string, string>): void {
  sink.write(written(tensors, metadata));
  for (const { values } of tensors.values()) sink.write(bytesOf(values));
}

/** Likewise; the digest stands where `metadata` has UNKNOWN_DIGEST. */
export function writeDigested(sink: Sink, tensors: ReadonlyMap<string, WrittenTensor>, metadata: ReadonlyMap<string, string>): void {
  const start = written(tensors, metadata);
  const digest = new Sha256().update(start);
  for (const { values } of tensors.values()) digest.update(bytesOf(values));
  const field = `"${DIGEST_KEY}":"`;
  start.set(utf8(digest.hex()), indexOf(start, utf8(field + UNKNOWN_DIGEST)) + field.length);
  sink.write(start);
  for (const { values } of tensors.values()) sink.write(bytesOf(values));
}

function bytesOf(values: WrittenTensor["values"]): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

function written(tensors: ReadonlyMap<string, WrittenTensor>, metadata: ReadonlyMap<string, string>): Uint8Array {
  const texts = [...metadata].map(([key, value]) => `${asciiJson(key)}:${asciiJson(value)}`);
  const fields = [`"${METADATA}":{${texts.join(",")}}`];
  let offset = 0;
  for (const [name, { dtype, shape, values }] of tensors) {
    const end = offset + values.byteLength;
    fields.push(`${asciiJson(name)}:{"dtype":"${dtype}","shape":[${shape.join(",")}],"data_offsets":[${offset},${end}]}`);
    offset = end;
  }
  const text = `{${fields.join(",")}}`;
  const header = utf8(text.padEnd(Math.ceil(text.length / 8) * 8));
  const start = new Uint8Array(8 + header.length);
  new DataView(start.buffer).setBigUint64(0, BigInt(header.length), true);
  start.set(header, 8);
  return start;
}
