import { decodeManifest } from "../../kit/bundle.js";
import { checkNames } from "../../kit/bundle/bundleFiles.js";
import { MANIFEST_FILE, type Manifest } from "../../kit/bundle/manifest.js";
import { checkManifest } from "../../kit/bundle/manifestCheck.js";
import { LcsbError } from "../../kit/faults.js";
import { IoError } from "../../kit/io/files.js";
import { OpfsFiles, type GrowingFile } from "../../kit/io/opfs.js";
import { Sha256 } from "../../kit/io/sha256.js";
import { checkFreeSpace, isFull, storing, tooLittle } from "../../kit/io/storage.js";
import { SlotStorage } from "../../kit/io/slots.js";
import { manifestOf, type BundleSource } from "./sources.js";
import type { Watch } from "./turns.js";

const CHUNK = 1 << 20;

/** Bytes that are here, of all. */
export type Progress = (done: number, total: number) => void;

/**
 * Brings a bundle's files into the directory `path`, each held to its SHA-256 in the manifest; the manifest comes last, so that a bundle with one is whole.
 *
 * What an earlier attempt left is not fetched again: a file goes on from the length that is there. What the whole comes to decides, so
 * nothing need be known of where the first part came from; a file that comes out wrong is fetched once more from its beginning. Throws
 * BUNDLE_…, STORAGE_FULL (before anything is fetched, with the bytes needed and free), STORAGE_FAILED, NETWORK; what came stays.
 */
export async function addBundle(source: BundleSource, path: string, watch: Watch, progress: Progress): Promise<void> {
  try {
    const raw = await manifestOf(source, watch.signal);
    const manifest = decodeManifest(`${path}/${MANIFEST_FILE}`, raw);
    checkManifest(manifest, path);
    checkNames(path, manifest);
    const files = await directory(path, manifest);
    await storing(path, () => bring(source, manifest, files, watch, progress));
    await storing(path, () => files.write(MANIFEST_FILE, (sink) => sink.write(raw)));
  } catch (error) {
    watch.check(); // what was cancelled broke off
    throw error;
  }
}

/** A full disk has no room for even that. */
async function directory(path: string, manifest: Manifest): Promise<OpfsFiles> {
  try {
    return await OpfsFiles.open(path);
  } catch (error) {
    if (error instanceof IoError && isFull(error)) throw tooLittle(path, totalOf(manifest), 0);
    throw error;
  }
}

const totalOf = ({ files }: Manifest) => [...files.values()].reduce((sum, { size }) => sum + size, 0);

async function bring(source: BundleSource, manifest: Manifest, files: OpfsFiles, watch: Watch, progress: Progress): Promise<void> {
  const entries = [...manifest.files];
  const total = totalOf(manifest);
  const here = await Promise.all(entries.map(([name]) => files.size(name)));
  const missing = entries.reduce((sum, [, entry], i) => sum + Math.max(0, entry.size - here[i]!), 0);
  const storage = new SlotStorage(files);
  await storage.clean();
  await checkFreeSpace(storage, missing);
  let done = 0;
  for (const [name, entry] of entries) {
    const file = await files.growing(name);
    try {
      await bringFile(source, name, entry, file, watch, (size) => progress(done + size, total));
    } finally {
      file.close();
    }
    done += entry.size;
  }
}

type Entry = Manifest["files"] extends ReadonlyMap<string, infer E> ? E : never;

async function bringFile(
  source: BundleSource,
  name: string,
  entry: Entry,
  file: GrowingFile,
  watch: Watch,
  progress: (size: number) => void,
): Promise<void> {
  if (file.size > entry.size) file.truncate();
  for (;;) {
    const begun = file.size;
    const here = digestOf(file, watch);
    const digest = begun < entry.size ? await append(source, name, entry.size, file, here, watch, progress) : here;
    if (file.size === entry.size && digest.hex() === entry.sha256) return progress(entry.size);
    file.truncate();
    if (begun > 0) continue; // what was there was of another file
    const found = `expected ${entry.size} bytes with SHA-256 ${entry.sha256.slice(0, 12)}…`;
    throw new LcsbError("BUNDLE_DAMAGED", `${name}: changed since it was exported: ${found}; copy or export it again`, [name]);
  }
}

function digestOf(file: GrowingFile, watch: Watch): Sha256 {
  const digest = new Sha256();
  const chunk = new Uint8Array(CHUNK);
  for (let at = 0; at < file.size; at += CHUNK) {
    watch.check();
    const part = chunk.subarray(0, Math.min(CHUNK, file.size - at));
    file.read(part, at);
    digest.update(part);
  }
  return digest;
}

/** Appends what is missing, to `size` bytes or beyond: then it is no such file. `here`: of what is there. Returns the digest of all. */
async function append(
  source: BundleSource,
  name: string,
  size: number,
  file: GrowingFile,
  here: Sha256,
  watch: Watch,
  progress: (size: number) => void,
): Promise<Sha256> {
  const { from, pieces } = await source.read(name, file.size, watch.signal);
  const digest = from === file.size ? here : new Sha256();
  if (from !== file.size) file.truncate();
  for await (const piece of pieces) {
    watch.check();
    file.write(piece);
    digest.update(piece);
    progress(Math.min(file.size, size));
    if (file.size > size) break;
  }
  return digest;
}
