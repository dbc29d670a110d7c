import { LcsbError } from "../../kit/faults.js";
import { MANIFEST_BYTES } from "../../kit/bundle/bundleFiles.js";
import { MANIFEST_FILE } from "../../kit/bundle/manifest.js";
import { PageError } from "./problems.js";
import { asked, piecesOf, wholeOf } from "./streams.js";

/** Where a bundle comes from: a server, or files that were picked. */
export interface BundleSource {
  /** A file's bytes from `from` on, or from 0 where it cannot begin later. Throws BUNDLE_UNREADABLE, NETWORK. */
  read(name: string, from: number, signal: AbortSignal): Promise<Content>;
}

/** `from`: where `pieces` begins. */
export interface Content {
  readonly from: number;
  readonly pieces: AsyncIterable<Uint8Array>;
}

/** Throws BUNDLE_UNREADABLE, NETWORK. */
export async function manifestOf(source: BundleSource, signal: AbortSignal): Promise<Uint8Array> {
  const whole = await wholeOf((await source.read(MANIFEST_FILE, 0, signal)).pieces, MANIFEST_BYTES);
  if (whole === null) throw unreadable(`${MANIFEST_FILE} has more than the ${MANIFEST_BYTES} bytes that are read`);
  return whole;
}

/** A directory on a server; `address` ends in a slash. A range is asked for where something is here already. */
export class ServerSource implements BundleSource {
  constructor(private readonly address: string) {}

  async read(name: string, from: number, signal: AbortSignal): Promise<Content> {
    const address = new URL(name, this.address).href;
    const headers = from > 0 ? { range: `bytes=${from}-` } : undefined;
    const response = await asked(() => fetch(address, { signal, cache: "no-store", ...(headers && { headers }) }));
    if (response.status === 404) throw unreadable(`${address}: the server does not have it`);
    if (!response.ok || response.body === null) throw new PageError("NETWORK", `${address}: the server answered ${response.status}`);
    const part = response.status === 206 && response.headers.get("content-range")?.startsWith(`bytes ${from}-`);
    if (response.status === 206 && !part) throw new PageError("NETWORK", `${address}: the server gave another range than was asked for`);
    return { from: part ? from : 0, pieces: piecesOf(response.body) };
  }
}

/** A file that was picked, or one in an archive that was; `read` as BundleSource's. */
export interface PickedFile {
  readonly path: string;
  read(from: number): Promise<Content>;
}

export function pickedFile(path: string, file: Blob): PickedFile {
  return { path, read: async (from) => ({ from, pieces: piecesOf(file.slice(from).stream()) }) };
}

/** Files of a folder or an archive, by their paths in it. */
export class PickedSource implements BundleSource {
  private readonly files: ReadonlyMap<string, PickedFile>;

  /** The folder that holds the manifest nearest to the top is the bundle. */
  constructor(picked: readonly PickedFile[]) {
    const manifests = picked.map(({ path }) => path).filter((path) => path === MANIFEST_FILE || path.endsWith(`/${MANIFEST_FILE}`));
    const [nearest] = manifests.sort((a, b) => a.split("/").length - b.split("/").length);
    const root = nearest?.slice(0, -MANIFEST_FILE.length) ?? "";
    this.files = new Map(picked.filter(({ path }) => path.startsWith(root)).map((file) => [file.path.slice(root.length), file]));
  }

  async read(name: string, from: number): Promise<Content> {
    const file = this.files.get(name);
    if (file !== undefined) return file.read(from);
    throw unreadable(`${name} is not among the files; choose the folder that lcsb export wrote, whole, or a ZIP file of it`);
  }
}

export function unreadable(message: string): LcsbError {
  return new LcsbError("BUNDLE_UNREADABLE", message);
}
