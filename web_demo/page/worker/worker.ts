import type { Bundle } from "../../kit/bundle.js";
import { Adapters } from "./adapters.js";
import { Library } from "./library.js";
import { ADAPTERS, bytesAt, DATA, MODELS, removeAt, RUNS } from "./places.js";
import { PageError, problemOf } from "./problems.js";
import { PARTS, REQUESTS, type DeviceEvent, type Part, type Request, type RequestOf } from "./protocol.js";
import { Runs } from "./runs.js";
import { checkComputing, hasGpu, Runtimes } from "./runtimes.js";
import { readMessage } from "./shapes.js";
import { Shelf } from "./shelf.js";
import { pickedFile, PickedSource, ServerSource, type BundleSource } from "./sources.js";
import { Trial } from "./trial.js";
import { Turns, type Watch } from "./turns.js";
import { zippedFiles } from "./unzip.js";

// The worker: it has the files, the runtime and the run, and does what the page asks, one thing at a time.

const LOCK = "lcsb page";
const SAMPLE = new URL("../../sample.jsonl", import.meta.url).href;
const QUIET: readonly Request["type"][] = ["plan", "useAdapter", "deleteAdapter", "exportAdapter"]; // they wait for what is under way
const SAMPLE_FILE = "sample.jsonl";
const PLACES: Readonly<Record<Part, readonly string[]>> = { models: [MODELS], data: [DATA], learned: [RUNS, ADAPTERS] };

const tell = (event: DeviceEvent) => postMessage(event);
const failed = (error: unknown) => tell({ type: "problem", problem: problemOf(error) });
const turns = new Turns(failed);
let device: Device | null = null;

type AddRequest = RequestOf<"addFromServer"> | RequestOf<"addFiles"> | RequestOf<"addZip">;

/** Throws BUNDLE_UNREADABLE, NETWORK. */
async function sourceOf(request: AddRequest): Promise<BundleSource> {
  if (request.type === "addFromServer") return new ServerSource(request.path);
  const zipped = request.type === "addZip";
  return new PickedSource(zipped ? await zippedFiles(request.file) : request.files.map(({ path, file }) => pickedFile(path, file)));
}

class Device {
  readonly library = new Library(tell);
  readonly shelf = new Shelf(tell);
  readonly adapters = new Adapters(tell);
  readonly runs: Runs;
  readonly trial: Trial;

  constructor(threads: number) {
    const runtimes = new Runtimes();
    this.runs = new Runs(runtimes, threads, this.library, this.shelf, this.adapters, tell);
    this.trial = new Trial(runtimes, threads, this.library, this.adapters, tell);
  }

  async begin(watch: Watch): Promise<void> {
    await this.library.begin();
    await this.shelf.begin();
    tell({ type: "ready" });
    void hasGpu().then((there) => tell({ type: "gpu", there })); // a browser may take a second for it
    await this.showChosen(watch);
  }

  /** All that belongs to the chosen model. Its data is shown even where the model cannot be opened. */
  showChosen(watch: Watch): Promise<void> {
    return this.settle(async () => {
      await this.adapters.show(this.library.chosen);
      await this.runs.show();
      let bundle: Bundle | null = null;
      try {
        bundle = await this.chosen(watch);
      } finally {
        await this.shelf.show(bundle, watch);
      }
    });
  }

  /** Or a button could be pressed at the moment in which it is about to be disabled. */
  private async settle(work: () => Promise<void>): Promise<void> {
    tell({ type: "settled", settled: false });
    try {
      await work();
    } finally {
      tell({ type: "settled", settled: true });
    }
  }

  async chosen(watch: Watch): Promise<Bundle | null> {
    return this.library.chosen === null ? null : this.library.open(watch);
  }

  addFrom(request: AddRequest, watch: Watch): Promise<void> {
    return this.settle(async () => {
      await this.library.add(request.name, await sourceOf(request), watch);
      await this.showChosen(watch);
    });
  }

  async importSample(watch: Watch): Promise<void> {
    const response = await fetch(SAMPLE);
    if (!response.ok) throw new PageError("NETWORK", `${SAMPLE}: the server answered ${response.status}`);
    await this.shelf.import(SAMPLE_FILE, await response.blob(), true, await this.chosen(watch), watch);
  }

  async exportAdapter({ id, form }: RequestOf<"exportAdapter">, watch: Watch): Promise<void> {
    tell({ type: "file", ...(await this.adapters.export(id, form, await this.library.open(watch))) });
  }

  async measure(): Promise<void> {
    const sizes = await Promise.all(PARTS.map(async (part) => ({ part, bytes: await sizeOf(part) })));
    tell({ type: "kept", parts: sizes });
  }

  async deleteParts(parts: readonly Part[], watch: Watch): Promise<void> {
    if (parts.includes("models")) for (const name of await this.library.names()) await this.library.remove(name);
    if (parts.includes("data")) await this.shelf.clear();
    if (parts.includes("learned")) for (const place of PLACES.learned) await removeAt(place);
    await this.showChosen(watch);
    await this.measure();
  }
}

async function sizeOf(part: Part): Promise<number> {
  const sizes = await Promise.all(PLACES[part].map((place) => bytesAt(place)));
  return sizes.reduce((sum, bytes) => sum + bytes, 0);
}

/**
 * One tab at a time has the storage: its files can be open once only. Another waits, and says so. Where nothing can be computed, that is said
 * before anybody fetches a model; what is stored can still be seen and saved. Throws NO_STORAGE.
 */
async function begin(threads: number): Promise<void> {
  await checkStorage();
  try {
    checkComputing();
  } catch (error) {
    failed(error);
  }
  await navigator.locks.request(LOCK, { ifAvailable: true }, (lock) => (lock === null ? null : serve(threads)));
  tell({ type: "busy" });
  await navigator.locks.request(LOCK, () => serve(threads));
}

/** Private windows of some browsers have none, and pages that did not come by https. */
async function checkStorage(): Promise<void> {
  try {
    await navigator.storage.getDirectory();
    if (!("createSyncAccessHandle" in FileSystemFileHandle.prototype)) throw new Error("no synchronous access");
  } catch (error) {
    throw new PageError("NO_STORAGE", `the origin has no private file system: ${String(error)}`);
  }
}

/** Holds the lock as long as the worker lives. */
function serve(threads: number): Promise<never> {
  const own = new Device(threads);
  device = own;
  turns.start((watch) => own.begin(watch));
  return new Promise(() => {});
}

/** What is done in its turn. */
function work(own: Device, request: Request): ((watch: Watch) => Promise<void>) | null {
  const { library, shelf, adapters, runs, trial } = own;
  switch (request.type) {
    case "addFromServer":
    case "addFiles":
    case "addZip":
      return (watch) => own.addFrom(request, watch);
    case "choose":
      return async (watch) => {
        await library.choose(request.bundle);
        await library.show();
        await own.showChosen(watch);
      };
    case "removeBundle":
      return async (watch) => {
        await library.remove(request.bundle);
        await own.showChosen(watch);
      };
    case "importData":
      return async (watch) => shelf.import(request.name, request.file, false, await own.chosen(watch), watch);
    case "sampleData":
      return (watch) => own.importSample(watch);
    case "typeMessages":
      return async (watch) => shelf.type(request.messages, await own.chosen(watch), watch);
    case "plan":
      return async (watch) => tell({ type: "plan", plan: await runs.plan(request.options, watch) });
    case "start":
      return (watch) => runs.start(request.options, request.dataName, watch);
    case "resume":
      return (watch) => runs.go(watch);
    case "write":
      return (watch) => trial.write(request, watch);
    case "useAdapter":
      return () => adapters.use(request.id);
    case "deleteAdapter":
      return () => adapters.remove(request.id);
    case "exportAdapter":
      return (watch) => own.exportAdapter(request, watch);
    case "importAdapter":
      return async (watch) => adapters.import(request.name, request.files, await library.open(watch));
    case "deleteParts":
      return (watch) => own.deleteParts(request.parts, watch);
    default:
      return null;
  }
}

/** What is heard at once, while something else is done. */
function heard(own: Device, request: Request): void {
  if (request.type === "pause" || request.type === "cancelAdding" || request.type === "stopWriting") turns.pause();
  if (request.type === "measure") own.measure().catch(failed);
  if (request.type !== "finish") return;
  if (own.runs.active) turns.finish();
  else turns.start((watch) => own.runs.go(watch, true)); // a run that was paused
}

addEventListener("message", ({ data }: MessageEvent<unknown>) => {
  try {
    const request = readMessage(REQUESTS, data);
    if (request.type === "begin") begin(request.threads).catch(failed);
    if (device === null) return;
    const turn = work(device, request);
    if (turn === null) heard(device, request);
    else turns.start(turn, !QUIET.includes(request.type));
  } catch (error) {
    failed(error);
  }
});
