import { asked, piecesOf } from "./streams.js";
import { unreadable, type Content, type PickedFile } from "./sources.js";

// The files of a ZIP file (PKWARE's APPNOTE 6.3.9), stored or deflated, in ZIP64 too. It is read by ranges, and nothing of it is held but its list.
// An archive in which two readers could see different things is refused. Checksums are not looked at: a bundle's files are held to their SHA-256.

const END = { signature: 0x06054b50, size: 22 }; // 4.3.16
const END64 = { signature: 0x06064b50, size: 56 }; // 4.3.14
const LOCATOR64 = { signature: 0x07064b50, size: 20 }; // 4.3.15
const ENTRY = { signature: 0x02014b50, size: 46 }; // 4.3.12
const LOCAL = { signature: 0x04034b50, size: 30 }; // 4.3.7
const MOST_COMMENT = 0xffff;
const WIDE = 0xffffffff; // a number that stands in ZIP64's fields, as four bytes have no room for it
const IN_ZIP64 = [0xffff, WIDE, WIDE]; // likewise in a List
const EXTRA64 = 1;
const ENCRYPTED = 0x1 | 0x40 | 0x2000; // flags: in the old way, strongly, and its list too
const STORED = 0;
const DEFLATED = 8;
const LIST_BYTES = 4 << 20; // that are read: some 40,000 files

/** `packed`: bytes in the archive, from `offset` on, where the entry's own header is; `end`: where the next one's is, or the list. */
interface Entry {
  readonly path: string;
  readonly method: number;
  readonly size: number;
  readonly packed: number;
  readonly offset: number;
  end: number;
}

/** The files of the archive; directories are left out. Throws BUNDLE_UNREADABLE, NETWORK. */
export async function zippedFiles(archive: Blob): Promise<PickedFile[]> {
  const [count, size, start] = await listOf(archive);
  const list = await part(archive, start, size);
  const entries: Entry[] = [];
  let at = 0;
  for (let i = 0; i < count; i++) {
    const [entry, length] = entryAt(list, at);
    entries.push(entry);
    at += length;
  }
  if (at !== size) throw damaged("its list of files has another length than it says");
  checkPlaces(entries, start);
  return entries.filter(({ path }) => !path.endsWith("/")).map((entry) => ({ path: entry.path, read: (from) => content(archive, entry, from) }));
}

/** Of the list of files: how many there are, its bytes, and where they begin. */
type List = readonly [count: number, size: number, start: number];

/** The list ends where the records of the archive's end begin. */
async function listOf(archive: Blob): Promise<List> {
  const tail = await part(archive, Math.max(0, archive.size - END.size - MOST_COMMENT), Math.min(archive.size, END.size + MOST_COMMENT));
  let at = tail.byteLength - END.size;
  while (at >= 0 && !(tail.getUint32(at, true) === END.signature && at + END.size + tail.getUint16(at + 20, true) === tail.byteLength)) at--;
  if (at < 0) throw damaged("it is no ZIP file, or the end of one is missing");
  const end = archive.size - tail.byteLength + at;
  const list: List = [tail.getUint16(at + 10, true), tail.getUint32(at + 12, true), tail.getUint32(at + 16, true)];
  const locator = at >= LOCATOR64.size && tail.getUint32(at - LOCATOR64.size, true) === LOCATOR64.signature;
  if (locator) return listOf64(archive, long(tail, at - LOCATOR64.size + 8), end - LOCATOR64.size, list);
  if (list.some((value, i) => value === IN_ZIP64[i])) throw damaged("the end of a ZIP64 file is missing");
  const alone = tail.getUint16(at + 4, true) === 0 && tail.getUint16(at + 6, true) === 0 && tail.getUint16(at + 8, true) === list[0];
  return checkList(list, alone, end);
}

/** By the record at `place`, which ends at `end`. `short`: what the older record says, where its fields have room for it. */
async function listOf64(archive: Blob, place: number, end: number, short: List): Promise<List> {
  const record = place + END64.size <= end ? await part(archive, place, END64.size) : null;
  if (record?.getUint32(0, true) !== END64.signature || place + 12 + long(record, 4) !== end) throw damaged("the end of a ZIP64 file is missing");
  const list: List = [long(record, 32), long(record, 40), long(record, 48)];
  if (!short.every((value, i) => value === list[i] || value === IN_ZIP64[i])) throw damaged("its two records of its list of files differ");
  return checkList(list, record.getUint32(16, true) === 0 && record.getUint32(20, true) === 0 && long(record, 24) === list[0], place);
}

function checkList(list: List, alone: boolean, end: number): List {
  const [, size, start] = list;
  if (!alone) throw damaged("it is one part of several; choose a ZIP file in one part");
  if (start + size !== end) throw damaged("its list of files does not lie where it says; something was cut off or put before it");
  if (size > LIST_BYTES) throw damaged(`its list of files has ${size} bytes, more than the ${LIST_BYTES} that are read`);
  return list;
}

/** An entry of the list, and its length there. */
function entryAt(list: DataView, at: number): [Entry, number] {
  const fits = at + ENTRY.size <= list.byteLength && list.getUint32(at, true) === ENTRY.signature;
  const lengths = fits ? [28, 30, 32].map((field) => list.getUint16(at + field, true)) : [];
  const [name = 0, extra = 0, comment = 0] = lengths;
  const length = ENTRY.size + name + extra + comment;
  if (!fits || at + length > list.byteLength) throw damaged("its list of files breaks off");
  const path = nameOf(list, at + ENTRY.size, name);
  const [flags, method] = [8, 10].map((field) => list.getUint16(at + field, true)) as [number, number];
  if (flags & ENCRYPTED) throw damaged(`${path} is encrypted; make a ZIP file without a password`);
  if (method !== STORED && method !== DEFLATED) throw damaged(`${path} is compressed by method ${method}; expected none, or deflate`);
  const short = [24, 20, 42].map((field) => list.getUint32(at + field, true));
  const [size, packed, offset] = wide(list, at + ENTRY.size + name, extra, short) ?? missing64(path);
  if (method === STORED && size !== packed) throw damaged(`${path} is stored, and has two sizes: ${size} and ${packed} bytes`);
  return [{ path, method, size, packed, offset, end: 0 }, length];
}

/** Those of the numbers that are too large for four bytes, from the extra field (4.5.3); null where it lacks one. */
function wide(list: DataView, at: number, length: number, short: readonly number[]): [number, number, number] | null {
  const found = [...short];
  const wanted = found.flatMap((value, i) => (value === WIDE ? [i] : []));
  for (let field = at; wanted.length > 0 && field + 4 <= at + length; field += 4 + list.getUint16(field + 2, true)) {
    if (list.getUint16(field, true) !== EXTRA64) continue;
    if (list.getUint16(field + 2, true) < 8 * wanted.length || field + 4 + 8 * wanted.length > at + length) return null;
    for (const [i, number] of wanted.splice(0).entries()) found[number] = long(list, field + 4 + 8 * i);
  }
  return wanted.length === 0 ? (found as [number, number, number]) : null;
}

/** A path below the archive's top. */
function nameOf(view: DataView, at: number, length: number): string {
  const name = new TextDecoder().decode(new Uint8Array(view.buffer, view.byteOffset + at, length));
  const steps = name.replace(/\/$/, "").split("/");
  if (steps.some((step) => step === "" || step === "." || step === "..") || /[\\\0]/.test(name)) {
    throw damaged(`it has a file of the name '${name}', which leads out of it or nowhere`);
  }
  return name;
}

/** Each has a name and a place of its own, before the list. */
function checkPlaces(entries: readonly Entry[], list: number): void {
  const names = new Set<string>();
  for (const { path } of entries) {
    if (names.has(path)) throw damaged(`it has two files of the name '${path}'`);
    names.add(path);
  }
  let end = list;
  for (const entry of entries.toSorted((a, b) => b.offset - a.offset)) {
    entry.end = end;
    end = entry.offset;
    if (entry.offset + LOCAL.size + entry.packed > entry.end) throw damaged(`${entry.path} does not lie where the list of files says`);
  }
}

/** Of a stored file from `from` on, of a deflated one all. It ends with an error where there is more or less than the list says. */
async function content(archive: Blob, entry: Entry, from: number): Promise<Content> {
  const { path, method, size, packed, offset, end } = entry;
  const local = await part(archive, offset, Math.min(LOCAL.size + MOST_COMMENT, end - offset));
  const [name, extra] = [26, 28].map((field) => local.getUint16(field, true)) as [number, number];
  const start = offset + LOCAL.size + name + extra;
  const same = local.getUint32(0, true) === LOCAL.signature && local.getUint16(8, true) === method && start + packed <= end;
  if (!same || nameOf(local, LOCAL.size, name) !== path) throw damaged(`${path} is not what the list of files says`);
  if (method === STORED) return { from, pieces: piecesOf(archive.slice(start + from, start + packed).stream()) };
  const inflated = archive.slice(start, start + packed).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return { from: 0, pieces: counted(inflated, path, size) };
}

async function* counted(stream: ReadableStream<Uint8Array>, path: string, size: number): AsyncGenerator<Uint8Array> {
  let found = 0;
  try {
    for await (const piece of piecesOf(stream)) {
      found += piece.length;
      if (found > size) break;
      yield piece;
    }
  } catch (error) {
    throw damaged(`${path} cannot be unpacked: ${(error as Error).message}`);
  }
  if (found !== size) throw damaged(`${path} has ${found > size ? "more than" : "fewer than"} the ${size} bytes that the list of files says`);
}

/** Throws NETWORK where it cannot be read. */
async function part(archive: Blob, start: number, size: number): Promise<DataView> {
  return new DataView(await asked(() => archive.slice(start, start + size).arrayBuffer()));
}

/** Of eight bytes; what is beyond 2^53 lies in no file. */
function long(view: DataView, at: number): number {
  return Number(view.getBigUint64(at, true));
}

function missing64(path: string): never {
  throw damaged(`the size or place of ${path} is missing`);
}

function damaged(reason: string): Error {
  return unreadable(`the ZIP file cannot be used: ${reason}`);
}
