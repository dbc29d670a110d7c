import { LcsbError } from "../faults.js";
import { IoError } from "../io/files.js";
import { digestOf } from "../io/safetensors.js";
import { sha256, Sha256 } from "../io/sha256.js";
import { withFile, type Storage } from "../io/storage.js";
import { quoted, some } from "../io/text.js";
import { utf8 } from "../io/utf8.js";
import { TRACE_BYTES } from "./golden.js";
import { ADAPTER_FILE, adapterLayout, GOLDEN_FILE, MANIFEST_FILE, WEIGHTS_FILE, type Manifest } from "./manifest.js";
import { unreadable } from "./manifestCheck.js";
import { PROGRAM_BYTES } from "./onnxExternalData.js";

// The files of a bundle against its manifest: each is inside the directory, of a size that its reader takes, and unchanged.

export const MANIFEST_BYTES = 4 << 20; // 60 kB are usual; the schedule is what grows
const MOST_FILES = 1000;
const MOST_CHARACTERS = 200;
const ENTRY_BYTES = 256; // of an adapter file's header for each tensor
const SLACK_BYTES = 4096;

// A part of a path that every file system takes as it stands, and means the same by: no blank, backslash or colon, no dot at either end.
const PART = /^[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?$/;

const ALWAYS = [WEIGHTS_FILE, ADAPTER_FILE, GOLDEN_FILE, "tokenizer.json", "tokenizer_config.json"];
const LARGEST: readonly (readonly [string, number])[] = [
  [GOLDEN_FILE, TRACE_BYTES],
  ["tokenizer.json", 64 << 20],
  ["tokenizer_config.json", 16 << 20],
  ["chat_template.jinja", 1 << 20],
  ["chat.json", 64 << 10],
];
const UNASKED = ["chat_template.jinja", "chat.json"]; // what some reader takes up wherever it lies, listed or not

export type Progress = (done: number, total: number) => void;

/**
 * Throws BUNDLE_UNREADABLE for files that are missing, outside, not listed or too large, else BUNDLE_DAMAGED for those that were changed, the
 * manifest among them, whose bytes are `raw`. `progress`: bytes read of all; it may throw.
 */
export async function checkFiles(storage: Storage, manifest: Manifest, raw: Uint8Array, progress: Progress): Promise<void> {
  let faults = nameFaults(manifest);
  if (faults.length === 0) faults = [...sizeFaults(manifest), ...(await placeFaults(storage, manifest))];
  if (faults.length > 0) throw unreadable(`${storage.path}: ${some(faults)}`);
  const changes = [...changesOfManifest(manifest, raw), ...(await changesOfFiles(storage, manifest, progress))];
  if (changes.length === 0) return;
  const message = `${storage.path}: changed since it was exported: ${some(changes)}; copy or export it again`;
  throw new LcsbError("BUNDLE_DAMAGED", message, changes.map((change) => change.split(":")[0]!));
}

/** That all files are within the bundle, and none is missing from the list. Throws BUNDLE_UNREADABLE. */
export function checkNames(path: string, manifest: Manifest): void {
  const faults = [...nameFaults(manifest), ...sizeFaults(manifest)];
  if (faults.length > 0) throw unreadable(`${path}: ${some(faults)}`);
}

function nameFaults(manifest: Manifest): string[] {
  const names = [...manifest.files.keys()];
  const faults = names
    .filter((name) => name.length > MOST_CHARACTERS || !name.split("/").every((part) => PART.test(part)))
    .map((name) => `the manifest lists ${quoted(name)}, which is outside the bundle or not a name on every system`);
  const folded = new Map<string, number>();
  for (const name of [...names, MANIFEST_FILE]) folded.set(name.toLowerCase(), (folded.get(name.toLowerCase()) ?? 0) + 1);
  for (const [name, count] of folded) {
    if (count > 1) faults.push(`the manifest lists ${quoted(name)} ${count} times for a system that does not tell upper case from lower`);
  }
  if (manifest.files.has(MANIFEST_FILE)) faults.push("the manifest lists itself");
  const needed = new Set([...ALWAYS, ...[...manifest.graphs.values()].map((graph) => graph.file)]);
  const missing = [...needed].filter((name) => !manifest.files.has(name)).sort();
  if (missing.length > 0) faults.push(`the manifest lists no ${missing.join(", ")}; export the bundle again`);
  if (names.length > MOST_FILES) faults.push(`the manifest lists ${names.length} files, more than ${MOST_FILES}`);
  return faults;
}

/** Of what is read whole, and of what an allocation goes by: then nothing larger than the files themselves is allocated. */
function sizeFaults(manifest: Manifest): string[] {
  const state = 4 * adapterLayout(manifest).size;
  const matrices = new Map(manifest.kinds.map((kind) => [kind.name, kind.matrices.length]));
  const header = manifest.layers.reduce((sum, layer) => sum + matrices.get(layer.kind)! * ENTRY_BYTES, SLACK_BYTES);
  const bounds: (readonly [string, number, number])[] = [
    ...LARGEST.map(([name, most]) => [name, 0, most] as const),
    ...[...manifest.graphs.values()].map((graph) => [graph.file, 0, PROGRAM_BYTES] as const),
    [ADAPTER_FILE, state, state + header],
  ];
  return bounds.flatMap(([name, least, most]) => {
    const size = manifest.files.get(name)?.size;
    return size === undefined || (size >= least && size <= most) ? [] : [`${name}: expected ${least} to ${most} bytes, found ${size}`];
  });
}

async function placeFaults(storage: Storage, manifest: Manifest): Promise<string[]> {
  const faults: string[] = [];
  for (const name of manifest.files.keys()) {
    try {
      (await storage.open(name)).close();
    } catch (error) {
      if (!(error instanceof IoError)) throw error;
      faults.push(error.message === "no such file" ? `${name} is missing; copy the bundle again, whole` : `${name}: ${error.message}`);
    }
  }
  const there = await storage.list();
  const unasked = UNASKED.filter((name) => !manifest.files.has(name) && there.includes(name));
  return [...faults, ...unasked.map((name) => `${name} is not listed in the manifest; remove it`)];
}

function changesOfManifest({ digest }: Manifest, raw: Uint8Array): string[] {
  if (digest === null) return [];
  const found = manifestDigest(raw, digest);
  return found === digest ? [] : [`${MANIFEST_FILE}: expected SHA-256 ${digest.slice(0, 12)}…, found ${found.slice(0, 12)}…`];
}

/** Of a manifest's bytes in which the digest that it states, where it stands last, is zeros. */
function manifestDigest(raw: Uint8Array, stated: string): string {
  const content = raw.slice();
  const sought = utf8(stated);
  for (let at = content.length - sought.length; at >= 0; at--) {
    if (!sought.every((byte, i) => content[at + i] === byte)) continue;
    content.fill(0x30, at, at + sought.length);
    break;
  }
  return sha256(content);
}

async function changesOfFiles(storage: Storage, manifest: Manifest, progress: Progress): Promise<string[]> {
  const total = [...manifest.files.values()].reduce((sum, entry) => sum + entry.size, 0);
  const changes: string[] = [];
  let done = 0;
  for (const [name, entry] of manifest.files) {
    await reading(storage, name, (file) => {
      if (file.size !== entry.size) return void changes.push(`${name}: expected ${entry.size} bytes, found ${file.size}`);
      const digest = new Sha256();
      digestOf(file, 0, digest, (count) => progress((done += count), total));
      const found = digest.hex();
      if (found !== entry.sha256) changes.push(`${name}: expected SHA-256 ${entry.sha256.slice(0, 12)}…, found ${found.slice(0, 12)}…`);
    });
  }
  return changes;
}

/** Uses a file of a bundle; throws BUNDLE_UNREADABLE where it cannot be read. */
export async function reading<T>(storage: Storage, name: string, use: Parameters<typeof withFile<T>>[2]): Promise<T> {
  try {
    return await withFile(storage, name, use);
  } catch (error) {
    if (error instanceof IoError) throw unreadable(`${storage.path}: ${name} cannot be read: ${error.message}`, error);
    throw error;
  }
}
