import { utf8 } from "../../kit/io/utf8.js";

// A ZIP file without compression (PKWARE's APPNOTE 6.3.9, sections 4.3.7, 4.3.12, 4.3.16): an adapter's numbers do not get smaller by it.

const VERSION = 20; // that a reader needs
const UTF8_NAMES = 0x800;
const DATE = 0x21; // 1 January 1980: the same files are the same bytes

/** Of files below 4 GB in all. */
export function zipOf(files: ReadonlyMap<string, Uint8Array>): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let at = 0;
  for (const [name, content] of files) {
    const described = [VERSION, UTF8_NAMES, 0, 0, DATE];
    const sizes = [crc32(content), content.length, content.length];
    const written = utf8(name);
    const local = joined([fields([0x04034b50], described, sizes, [written.length, 0]), written]);
    directory.push(fields([0x02014b50], [VERSION, ...described], sizes, [written.length, 0, 0, 0, 0], [0, at]), written);
    parts.push(local, content);
    at += local.length + content.length;
  }
  const list = joined(directory);
  const end = fields([0x06054b50], [0, 0, files.size, files.size], [list.length, at], [0]);
  return joined([...parts, list, end]);
}

/** Little-endian numbers, in groups of four bytes and two in turn. */
function fields(...groups: readonly (readonly number[])[]): Uint8Array {
  const size = groups.reduce((sum, group, i) => sum + group.length * (i % 2 === 0 ? 4 : 2), 0);
  const view = new DataView(new ArrayBuffer(size));
  let at = 0;
  for (const [i, group] of groups.entries()) {
    for (const value of group) {
      if (i % 2 === 0) view.setUint32(at, value, true);
      else view.setUint16(at, value, true);
      at += i % 2 === 0 ? 4 : 2;
    }
  }
  return new Uint8Array(view.buffer);
}

function joined(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let remainder = byte;
  for (let bit = 0; bit < 8; bit++) remainder = remainder & 1 ? (remainder >>> 1) ^ 0xedb88320 : remainder >>> 1;
  return remainder;
});

function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ TABLE[(crc ^ byte) & 0xff]!;
  return (crc ^ 0xffffffff) >>> 0;
}
