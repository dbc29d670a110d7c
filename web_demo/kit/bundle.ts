import { LcsbError } from "./faults.js";
import { readAdapter } from "./adapter/adapter.js";
import type { AdapterLayout } from "./bundle/adapterLayout.js";
import type { Batch } from "./bundle/batch.js";
import { checkFiles, MANIFEST_BYTES, reading, type Progress } from "./bundle/bundleFiles.js";
import { checkTrace, goldenBatchOf, goldenTrace, TRACE_BYTES, type GoldenTrace } from "./bundle/golden.js";
import {
  ADAPTER_FILE, adapterLayout, FORMAT_VERSION, GOLDEN_FILE, manifest as manifestDecoder, MANIFEST_FILE, TARGET, WEIGHTS_FILE, type Manifest,
} from "./bundle/manifest.js";
import { checkManifest, unreadable } from "./bundle/manifestCheck.js";
import { Weights } from "./bundle/weights.js";
import { IoError, readBounded } from "./io/files.js";
import { JsonError, JsonReader } from "./io/jsonReader.js";
import { decode, type Decoder } from "./io/records.js";
import { sha256 } from "./io/sha256.js";
import { withFile, type Storage } from "./io/storage.js";
import { oneLine } from "./io/text.js";

/**
 * The TrainingBundle: a directory that holds all that a device needs, verified when it is opened. Specification: docs/bundle.md.
 *
 * Nothing is held but the manifest and the golden trace. `digest`: SHA-256 of manifest.json, hex.
 */
export class Bundle {
  readonly layout: AdapterLayout;

  private constructor(
    readonly storage: Storage,
    readonly manifest: Manifest,
    readonly golden: GoldenTrace,
    readonly digest: string,
  ) {
    this.layout = adapterLayout(manifest);
  }

  /**
   * Reads the manifest, checks it, and every file against it: place, size and SHA-256; and that the golden trace is of its model.
   *
   * The bundle may come from anywhere (docs/hostile_input.md). `progress`: bytes verified of all; it may throw, to cancel. Throws
   * BUNDLE_UNREADABLE, BUNDLE_OTHER_TARGET, BUNDLE_NEWER_VERSION, BUNDLE_OLDER_VERSION or BUNDLE_DAMAGED.
   */
  static async open(storage: Storage, progress: Progress = () => {}): Promise<Bundle> {
    const path = `${storage.path}/${MANIFEST_FILE}`;
    const raw = await readManifest(storage);
    const manifest = decodeManifest(path, raw);
    checkManifest(manifest, path);
    await checkFiles(storage, manifest, raw, progress);
    const trace = await readTrace(storage);
    checkTrace(trace, manifest, storage.path);
    return new Bundle(storage, manifest, trace, sha256(raw));
  }

  /** A batch that the bundle brings, to time a step on. */
  get sampleBatch(): Batch | null {
    return this.golden.batches.length > 0 ? goldenBatchOf(this.golden, 0) : null;
  }

  /** Whoever asks for them closes them. Throws BUNDLE_UNREADABLE. */
  async openWeights(): Promise<Weights> {
    try {
      return new Weights(await this.storage.open(WEIGHTS_FILE), this.manifest.weights);
    } catch (error) {
      if (error instanceof IoError) throw unreadable(`${this.storage.path}: ${WEIGHTS_FILE} cannot be read: ${error.message}`, error);
      throw error;
    }
  }

  /** Of at most `limit` bytes. Throws BUNDLE_UNREADABLE. */
  read(name: string, limit: number): Promise<Uint8Array> {
    return reading(this.storage, name, (file) => readBounded(file, limit));
  }

  /** Into all of `into`, float32 [N]. Throws ADAPTER. */
  readInitialAdapter(into: Float32Array): Promise<void> {
    return readAdapter(this.storage, ADAPTER_FILE, this.layout, into);
  }
}

async function readManifest(storage: Storage): Promise<Uint8Array> {
  try {
    return await withFile(storage, MANIFEST_FILE, (file) => readBounded(file, MANIFEST_BYTES));
  } catch (error) {
    if (!(error instanceof IoError)) throw error;
    throw unreadable(`${storage.path}: not a bundle: ${MANIFEST_FILE} cannot be read (${error.message}); write one with lcsb export`, error);
  }
}

async function readTrace(storage: Storage): Promise<GoldenTrace> {
  const raw = await reading(storage, GOLDEN_FILE, (file) => readBounded(file, TRACE_BYTES));
  try {
    return decode(raw, goldenTrace);
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    throw unreadable(`${storage.path}/${GOLDEN_FILE}: not a readable golden trace (${error.message}); export the bundle again`, error);
  }
}

/** What a bundle says of itself before anything else of it is read. */
const version: Decoder<{ formatVersion: number; target: string }> = (reader: JsonReader) => {
  const found = { formatVersion: -1, target: "" };
  reader.object((key) => {
    if (key === "format_version") found.formatVersion = Number(reader.number());
    else if (key === "target") found.target = reader.string();
    else reader.skip();
  });
  return found.formatVersion >= 0 ? found : reader.fail("the field 'format_version' is missing");
};

/**
 * Of manifest.json's bytes, not checked yet but for their form; `path`: for messages. Throws BUNDLE_UNREADABLE, BUNDLE_OTHER_TARGET,
 * BUNDLE_NEWER_VERSION or BUNDLE_OLDER_VERSION.
 */
export function decodeManifest(path: string, raw: Uint8Array): Manifest {
  try {
    const { formatVersion, target } = decode(raw, version);
    if (formatVersion > FORMAT_VERSION) {
      const message = `${path}: format version ${formatVersion} is newer than ${FORMAT_VERSION}, the newest known; update the page`;
      throw new LcsbError("BUNDLE_NEWER_VERSION", message);
    }
    if (formatVersion < FORMAT_VERSION) {
      const message = `${path}: format version ${formatVersion} is older than ${FORMAT_VERSION}; export the bundle again`;
      throw new LcsbError("BUNDLE_OLDER_VERSION", message);
    }
    if (target !== TARGET) {
      const found = oneLine(target, 40);
      const message = `${path}: expected a bundle of target ${TARGET}, found ${found}; export one with --target ${TARGET}`;
      throw new LcsbError("BUNDLE_OTHER_TARGET", message, [found]);
    }
    return decode(raw, manifestDecoder);
  } catch (error) {
    if (error instanceof JsonError) throw unreadable(`${path}: malformed manifest: ${error.message}; export the bundle again`, error);
    throw error;
  }
}
