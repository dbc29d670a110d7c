import { LcsbError } from "../../kit/faults.js";
import { MANIFEST_BYTES } from "../../kit/bundle/bundleFiles.js";
import { MANIFEST_FILE } from "../../kit/bundle/manifest.js";
import { reasonOf } from "../../kit/io/text.js";
import { PageError } from "./problems.js";

/** Where a bundle comes from: a server, or files that were picked. */
export interface BundleSource {
  /** Throws BUNDLE_UNREADABLE, NETWORK. */
  manifest(signal: AbortSignal): Promise<Uint8Array>;
  /** A file's bytes from `from` on, or from 0 where it cannot begin later. Throws BUNDLE_UNREADABLE, NETWORK. */
  read(name: string, from: number, signal: AbortSignal): Promise<Content>;
}

/** `from`: where `pieces` begins. */
export interface Content {
  readonly from: number;
  readonly pieces: AsyncIterable<Uint8Array>;
}

/** A directory on a server; `address` ends in a slash. A range is asked for where something is here already. */
export class ServerSource implements BundleSource {
  constructor(private readonly address: string) {}

  async manifest(signal: AbortSignal): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    let size = 0;
    for await (const part of (await this.read(MANIFEST_FILE, 0, signal)).pieces) {
      size += part.length;
      if (size > MANIFEST_BYTES) throw unreadable(`${this.address}: ${MANIFEST_FILE} has more than ${MANIFEST_BYTES} bytes`);
      parts.push(part);
    }
    return joined(parts, size);
  }

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

/** Files of a folder, by their paths below it. */
export class PickedSource implements BundleSource {
  private readonly files: ReadonlyMap<string, Blob>;

  /** The folder that holds the manifest nearest to the top is the bundle. */
  constructor(picked: readonly { readonly path: string; readonly file: Blob }[]) {
    const manifests = picked.map(({ path }) => path).filter((path) => path === MANIFEST_FILE || path.endsWith(`/${MANIFEST_FILE}`));
    const [nearest] = manifests.sort((a, b) => a.split("/").length - b.split("/").length);
    const root = nearest?.slice(0, -MANIFEST_FILE.length) ?? "";
    this.files = new Map(picked.filter(({ path }) => path.startsWith(root)).map(({ path, file }) => [path.slice(root.length), file]));
  }

  async manifest(): Promise<Uint8Array> {
    const file = this.file(MANIFEST_FILE);
    if (file.size > MANIFEST_BYTES) throw unreadable(`${MANIFEST_FILE}: ${file.size} bytes, more than the ${MANIFEST_BYTES} that are read`);
    return new Uint8Array(await asked(() => file.arrayBuffer()));
  }

  async read(name: string, from: number): Promise<Content> {
    return { from, pieces: piecesOf(this.file(name).slice(from).stream()) };
  }

  private file(name: string): Blob {
    return this.files.get(name) ?? missing(name);
  }
}

function missing(name: string): never {
  throw unreadable(`${name} is not among the files; choose the folder that lcsb export wrote, whole`);
}

function unreadable(message: string): LcsbError {
  return new LcsbError("BUNDLE_UNREADABLE", message);
}

/** Not every browser iterates over a stream. */
async function* piecesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await asked(() => reader.read());
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** A connection that broke, or a file that can no longer be read. */
async function asked<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw new PageError("NETWORK", `what was being read broke off: ${reasonOf(error)}`);
  }
}

function joined(parts: readonly Uint8Array[], size: number): Uint8Array {
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
