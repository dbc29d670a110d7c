import { readAdapterFile } from "./adapter/adapter.js";
import type { Bundle } from "./bundle.js";
import type { Batch } from "./bundle/batch.js";
import type { Dataset } from "./data/dataset.js";
import { alone } from "./data/packing.js";
import { reserveFloats, type StoredFile } from "./io/files.js";
import type { Storage } from "./io/storage.js";
import { HOLD_OUT, runOptions } from "./runOptions.js";
import { readHeldOut, RunSetup } from "./runs/runSetup.js";
import { BlockRunner } from "./runtime/blockRunner.js";
import type { Ort } from "./runtime/ort.js";
import { LEAST_EXAMPLES } from "./training/signedRanks.js";
import { checkLeast } from "./training/trainer.js";
import { judge, type Verdict } from "./verdict.js";

/**
 * What two adapters are compared on. `holdOut`, `seed`: as those of a run, of whose data the examples are compared that it holds out;
 * `holdOut` null: all examples of the file, none of which was trained on. `examples`: at most so many of them, spread evenly; each takes a
 * forward pass with each adapter. `threads` 0: the runtime's choice.
 */
export interface CompareOptions {
  readonly holdOut: number | null;
  readonly seed: number;
  readonly examples: number;
  readonly threads: number;
}

/** `lossesBefore`, `lossesAfter`: of each example, the mean over its tokens that count. */
export interface Comparison {
  readonly verdict: Verdict;
  readonly runtime: string;
  readonly runtimeVersion: string;
  readonly lossesBefore: readonly number[];
  readonly lossesAfter: readonly number[];
}

/**
 * `goOn` is awaited between two layers and while the file is read (`RunControl.rest` hears the worker's messages there), `progress` is
 * called after each example, of those of both adapters; either may throw, to cancel.
 */
export interface CompareWatch {
  readonly goOn?: () => Promise<void>;
  readonly progress?: (done: number, total: number) => void;
}

/** 64 forward passes with two adapters, some twenty steps' time; a difference shows where some 70 % of so many examples agree. */
export const COMPARED_EXAMPLES = 32;

/** With the defaults of the other languages. */
export function compareOptions(given: Partial<CompareOptions> = {}): CompareOptions {
  return { holdOut: HOLD_OUT, seed: 0, examples: COMPARED_EXAMPLES, threads: 0, ...given };
}

/**
 * Whether examples of `data` that were not trained on have a lower loss with the adapter `after` than with `before`, which is null for the
 * base model. Both are evaluated on the same examples, one after the other. `scratch`: for temporary files.
 *
 * Throws OPTION, ADAPTER (before anything is computed), DATA_…, TOKENIZER_…, CHAT_…, RUNTIME_FAILED, STORAGE_… or LOSS_NOT_FINITE.
 */
export async function compareAdapters(
  ort: Ort,
  bundle: Bundle,
  data: StoredFile,
  before: StoredFile | null,
  after: StoredFile,
  scratch: Storage,
  options: CompareOptions,
  watch: CompareWatch = {},
): Promise<Comparison> {
  const { holdOut, seed, threads, examples } = options;
  const run = runOptions({ steps: 1, seed, threads, evaluationData: holdOut === null ? data : null, holdOut: holdOut ?? HOLD_OUT });
  const setup = await RunSetup.of(run, bundle);
  const comparing = await Comparing.of(ort, setup, readerOf(bundle, before), readerOf(bundle, after), examples, watch);
  return comparing.on(data, scratch);
}

/** Fills float32 [N] with an adapter. */
export type AdapterReader = (into: Float32Array) => void | Promise<void>;

/** Of a file, or null for the bundle's own adapter, which changes nothing of the base model. */
export function readerOf(bundle: Bundle, file: StoredFile | null): AdapterReader {
  return (into) => (file === null ? bundle.readInitialAdapter(into) : readAdapterFile(file, bundle.layout, into));
}

/** Two adapters that were read once, so that what is wrong with either is said before the work. */
export class Comparing {
  private constructor(
    private readonly ort: Ort,
    private readonly setup: RunSetup,
    private readonly before: AdapterReader,
    private readonly after: AdapterReader,
    private readonly adapter: Float32Array,
    private readonly examples: number,
    private readonly watch: CompareWatch,
  ) {}

  /** `setup`: of the run whose held-out examples are compared. Throws OPTION, ADAPTER. */
  static async of(
    ort: Ort,
    setup: RunSetup,
    before: AdapterReader,
    after: AdapterReader,
    examples: number,
    watch: CompareWatch,
  ): Promise<Comparing> {
    checkLeast("examples", examples, LEAST_EXAMPLES);
    const adapter = reserveFloats(setup.bundle.layout.size);
    await after(adapter);
    await before(adapter);
    return new Comparing(ort, setup, before, after, adapter, examples, watch);
  }

  async on(data: StoredFile, scratch: Storage): Promise<Comparison> {
    const heldOut = await readHeldOut(this.setup, data, scratch, this.goOn);
    try {
      return await this.onExamples(heldOut);
    } finally {
      heldOut.close();
    }
  }

  private get goOn(): () => Promise<void> {
    return this.watch.goOn ?? (async () => {});
  }

  private async onExamples(heldOut: Dataset): Promise<Comparison> {
    const { bundle, tokenizer, options } = this.setup;
    const chosen = spread(heldOut.size, this.examples);
    const batches = chosen.map((index) => () => alone(heldOut, index, bundle.manifest.seqLen, tokenizer.padId));
    const runner = await BlockRunner.open(this.ort, bundle, { threads: options.threads, gpu: options.gpu, betweenLayers: this.goOn });
    try {
      const lossesBefore = await this.losses(runner, batches, this.before, 0);
      const lossesAfter = await this.losses(runner, batches, this.after, batches.length);
      const verdict = judge(lossesBefore, lossesAfter);
      return { verdict, runtime: runner.name, runtimeVersion: runner.version, lossesBefore, lossesAfter };
    } finally {
      await runner.close();
    }
  }

  /** Of each batch with one adapter, after `done` evaluations with another. */
  private async losses(runner: BlockRunner, batches: readonly (() => Batch)[], read: AdapterReader, done: number): Promise<number[]> {
    await read(this.adapter);
    const found: number[] = [];
    for (const batch of batches) {
      found.push(await runner.evaluate(batch(), this.adapter));
      this.watch.progress?.(done + found.length, 2 * batches.length);
    }
    return found;
  }
}

/** At most `most` of `count` numbers from 0, evenly spread, ascending. */
export function spread(count: number, most: number): number[] {
  const chosen = Math.min(count, most);
  return Array.from({ length: chosen }, (_, i) => Math.floor((i * count) / chosen));
}
