import { Bundle, decodeManifest } from "../../kit/bundle.js";
import { MANIFEST_BYTES } from "../../kit/bundle/bundleFiles.js";
import { MANIFEST_FILE, type Manifest } from "../../kit/bundle/manifest.js";
import { isForGpu } from "../../kit/bundle/programs.js";
import { LcsbError } from "../../kit/faults.js";
import { readBounded } from "../../kit/io/files.js";
import { OpfsFiles } from "../../kit/io/opfs.js";
import { list, nullable, record, text } from "../../kit/io/records.js";
import { sha256 } from "../../kit/io/sha256.js";
import { SlotStorage } from "../../kit/io/slots.js";
import { withFile } from "../../kit/io/storage.js";
import { planRun } from "../../kit/planning/plan.js";
import { CHAT_FILE } from "../../kit/text/chatFormat.js";
import { Tokenizer } from "../../kit/text/tokenizer.js";
import { defaultLearningRate } from "../../kit/training/learningRate.js";
import { addBundle } from "./adding.js";
import { readRecord, writeRecord } from "./files.js";
import { ADAPTERS, bytesAt, directoriesAt, MODELS, removeAt, RUNS, SETTINGS, storageAt } from "./places.js";
import { PageError } from "./problems.js";
import type { BundleInfo, Progress, Tell } from "./protocol.js";
import type { BundleSource } from "./sources.js";
import type { Watch } from "./turns.js";

const SETTINGS_FILE = "settings.json";
const INTERVAL = 100; // milliseconds between two reports
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;

const ON_GPU = " gpu";

/** `checked`: digests of the bundles whose golden trace came out right in this browser, with ON_GPU after them on its GPU. */
const settings = record({ chosen: nullable(text), checked: list(text) });

/** The models in the browser's storage, and which of them is chosen. */
export class Library {
  chosen: string | null = null;
  private checked: readonly string[] = [];
  private readonly manifests = new Map<string, Manifest>();
  private opened: { readonly name: string; readonly bundle: Bundle } | null = null;

  constructor(private readonly tell: Tell) {}

  async begin(): Promise<void> {
    const read = await readRecord(await storageAt(SETTINGS), SETTINGS_FILE, settings);
    this.chosen = read?.chosen ?? null;
    this.checked = read?.checked ?? [];
    await this.show();
  }

  /** Tells what is there. A bundle has its manifest last, so one without is not whole. */
  async show(): Promise<void> {
    const bundles: BundleInfo[] = [];
    const unfinished: { name: string; bytes: number }[] = [];
    for (const name of await this.names()) {
      const found = await this.info(name);
      if (found === null) unfinished.push({ name, bytes: await bytesAt(MODELS, name) });
      else bundles.push(found);
    }
    if (!bundles.some(({ name }) => name === this.chosen)) this.chosen = bundles[0]?.name ?? null;
    this.tell({ type: "library", bundles, unfinished, chosen: this.chosen });
  }

  /** Of the chosen model. */
  get manifest(): Manifest | null {
    return (this.chosen !== null && this.manifests.get(this.chosen)) || null;
  }

  /** The chosen bundle, verified once in this worker's time. Throws BUNDLE_…, TOKENIZER_…. */
  async open(watch: Watch): Promise<Bundle> {
    if (this.chosen === null) throw new LcsbError("BUNDLE_UNREADABLE", "no model is chosen");
    return this.openNamed(this.chosen, watch);
  }

  private async openNamed(name: string, watch: Watch): Promise<Bundle> {
    if (this.opened?.name === name) return this.opened.bundle;
    const storage = new SlotStorage(await OpfsFiles.open(`${MODELS}/${name}`));
    try {
      const bundle = await Bundle.open(storage, this.reporter("verifying", name, watch));
      await Tokenizer.open(storage, bundle.manifest.model.vocabSize);
      this.opened = { name, bundle };
      return bundle;
    } finally {
      this.tell({ type: "transfer", progress: null });
    }
  }

  /** Adds a model, goes on with one that is not whole, and chooses it. Throws NAME_TAKEN, and what addBundle throws. */
  async add(name: string, source: BundleSource, watch: Watch): Promise<void> {
    if (!NAME.test(name))
      throw new LcsbError("BUNDLE_UNREADABLE", `a bundle's name: expected letters, digits, dots and dashes, found '${name}'`);
    if ((await this.names()).includes(name) && (await this.info(name)) !== null)
      throw new PageError("NAME_TAKEN", `${name}: a model of that name is here; remove it first`, [name]);
    try {
      await addBundle(source, `${MODELS}/${name}`, watch, this.reporter("copying", name, watch));
      await this.openNamed(name, watch);
      await this.choose(name);
    } finally {
      this.tell({ type: "transfer", progress: null });
      // what was cancelled before it began leaves nothing
      if ((await bytesAt(MODELS, name)) === 0) await removeAt(MODELS, name);
      await this.show();
    }
  }

  /** Of all models, whole or not. */
  names(): Promise<string[]> {
    return directoriesAt(MODELS);
  }

  async choose(name: string): Promise<void> {
    this.chosen = name;
    await this.write();
  }

  /** With what it learned. */
  async remove(name: string): Promise<void> {
    if (this.opened?.name === name) this.opened = null;
    for (const place of [MODELS, RUNS, ADAPTERS]) await removeAt(place, name);
    if (this.chosen === name) this.chosen = null;
    await this.show();
    await this.write();
  }

  isChecked(bundle: Bundle, gpu: boolean): boolean {
    return this.checked.includes(keyOf(bundle, gpu));
  }

  async setChecked(bundle: Bundle, gpu: boolean): Promise<void> {
    this.checked = [...this.checked, keyOf(bundle, gpu)];
    await this.write();
    await this.show();
  }

  private async write(): Promise<void> {
    await writeRecord(await storageAt(SETTINGS), SETTINGS_FILE, { chosen: this.chosen, checked: this.checked });
  }

  /** What its manifest says; null without one that this page reads. */
  private async info(name: string): Promise<BundleInfo | null> {
    const files = await OpfsFiles.open(`${MODELS}/${name}`);
    if ((await files.size(MANIFEST_FILE)) === 0) return null;
    const raw = await withFile(files, MANIFEST_FILE, (file) => readBounded(file, MANIFEST_BYTES));
    try {
      const manifest = decodeManifest(`${files.path}/${MANIFEST_FILE}`, raw);
      this.manifests.set(name, manifest);
      return infoOf(name, manifest, this.checked.includes(sha256(raw)));
    } catch (error) {
      if (error instanceof LcsbError) return null;
      throw error;
    }
  }

  private reporter(kind: Progress["kind"], name: string, watch: Watch): (done: number, total: number) => void {
    let told = 0;
    return (done, total) => {
      watch.check();
      if (performance.now() - told < INTERVAL && done < total) return;
      told = performance.now();
      this.tell({ type: "transfer", progress: { kind, name, done, total } });
    };
  }
}

function keyOf({ digest }: Bundle, gpu: boolean): string {
  return gpu ? digest + ON_GPU : digest;
}

function infoOf(name: string, manifest: Manifest, checked: boolean): BundleInfo {
  const { model, schedule, scheduleConfig, seqLen, source, files } = manifest;
  return {
    name,
    source,
    bytes: [...files.values()].reduce((sum, { size }) => sum + size, 0),
    layers: model.numHiddenLayers,
    seqLen,
    method: scheduleConfig.method,
    learningRate: defaultLearningRate(schedule, model.numHiddenLayers),
    predictedMemory: predicted(manifest),
    takesChat: files.has(CHAT_FILE),
    forGpu: isForGpu(manifest),
    checked,
  };
}

/** Of a run that keeps nothing; of one that cannot be run what it would need. */
function predicted(manifest: Manifest): number {
  const options = { base: 0, budget: null, keep: null, accumulation: 1, samples: true, gpu: false };
  try {
    return Math.ceil(planRun(manifest, manifest.schedule, options).predictedPeakBytes);
  } catch (error) {
    if (error instanceof LcsbError && error.fault === "MEMORY_TOO_SMALL") return Math.ceil(Number(error.args[0]));
    throw error;
  }
}
