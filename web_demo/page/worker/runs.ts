import type { Bundle } from "../../kit/bundle.js";
import { ADAPTER_FILE, adapterLayout } from "../../kit/bundle/manifest.js";
import { METHODS } from "../../kit/bundle/schedule.js";
import { checkpointNames, newestGood, STEP_COLUMNS, type RunPlace } from "../../kit/checkpoint/runCheckpoint.js";
import { COMPARED_EXAMPLES } from "../../kit/compare.js";
import { LcsbError } from "../../kit/faults.js";
import { samplingConfig } from "../../kit/generate.js";
import { IoError, type StoredFile } from "../../kit/io/files.js";
import { choice, flag, int32, nullable, number, optional, record, text } from "../../kit/io/records.js";
import { storing, withFile } from "../../kit/io/storage.js";
import { RunInterrupted } from "../../kit/runControl.js";
import { runOptions, type RunOptions } from "../../kit/runOptions.js";
import type { RunResult } from "../../kit/runRecords.js";
import { verify } from "../../kit/runs/verify.js";
import { BlockRunner } from "../../kit/runtime/blockRunner.js";
import type { Gpu } from "../../kit/runtime/gpu.js";
import { TrainingRun } from "../../kit/trainingRun.js";
import type { Adapters } from "./adapters.js";
import { pour, readRecord, writeRecord } from "./files.js";
import type { Library } from "./library.js";
import { removeAt, RUNS, storageAt } from "./places.js";
import type { Phase, Plan, RunInfo, StoredVerdict, Tell, TrainOptions } from "./protocol.js";
import { problemOf } from "./problems.js";
import { Reporter } from "./reporter.js";
import type { Processor, Runtimes } from "./runtimes.js";
import type { Shelf } from "./shelf.js";
import type { Watch } from "./turns.js";

const RECORD_FILE = "run.json";
const DATA_FILE = "data.jsonl";
export const STATE = "state"; // the directory of the checkpoints
const EVALUATE_EVERY = 20; // steps at least: an evaluation takes as long as some five
const SAMPLE_TOKENS = 24; // of what is written at each evaluation
const CHECKPOINT_EVERY = 5; // steps: what is lost at most when the tab is closed

const WANTED = ["running", "paused", "finished", "cancelled", "failed"] as const;
/** A run as it was asked for, and what is to become of it: one that is `running` and is not was interrupted. */
const runRecord = record({
  steps: int32,
  learningRate: nullable(number),
  method: nullable(choice(...METHODS)),
  memoryBudget: nullable(number),
  gpu: optional(flag, false),
  data: text,
  chat: flag,
  wanted: choice(...WANTED),
});
interface RunRecord extends TrainOptions {
  readonly data: string;
  readonly chat: boolean;
  readonly wanted: (typeof WANTED)[number];
}

const NO_RUN: RunInfo = { phase: "none", step: 0, steps: 0, roles: [], secondsAStep: null, begun: false, runtime: null };
const WANTED_AFTER = { FINISHED: "finished", CANCELLED: "cancelled", PAUSED: "paused" } as const;
const SHOWN: Readonly<Record<RunRecord["wanted"], Phase>> = {
  running: "interrupted",
  paused: "paused",
  finished: "finished",
  cancelled: "cancelled",
  failed: "failed",
};

/** The chosen model's run: one at a time, with the data that it was begun with. */
export class Runs {
  constructor(
    private readonly runtimes: Runtimes,
    private readonly threads: number,
    private readonly library: Library,
    private readonly shelf: Shelf,
    private readonly adapters: Adapters,
    private readonly tell: Tell,
  ) {}

  /** Whether one is under way. */
  active = false;

  /** The chosen model's, as it was left. */
  async show(): Promise<void> {
    const { chosen, manifest } = this.library;
    const record = chosen === null ? null : await this.read(chosen);
    if (chosen === null || manifest === null || record === null) {
      this.tell({ type: "history", training: [], evaluation: [], samples: [] });
      return this.tell({ type: "run", run: NO_RUN });
    }
    const place = await this.showHistory(chosen, manifest.model.numHiddenLayers, adapterLayout(manifest).size);
    const { step, runtime } = place ?? { step: 0, runtime: null };
    this.tell({ type: "run", run: { ...NO_RUN, phase: SHOWN[record.wanted], step, steps: record.steps, begun: place !== null, runtime } });
  }

  /** Where its newest checkpoint is; null where nothing is saved, or all is damaged, which going on will say. */
  private async showHistory(name: string, layers: number, size: number): Promise<RunPlace | null> {
    const state = await storageAt(RUNS, name, STATE);
    try {
      const names = await checkpointNames(state);
      if (names.length === 0) return null;
      const { place, steps, evaluations } = (await newestGood(state, names, layers, size)).checkpoint;
      const training = Array.from({ length: place.step }, (_, i) => ({ step: i + 1, loss: steps[i * STEP_COLUMNS]! }));
      const points = Array.from({ length: evaluations.length / 2 }, (_, i) => ({
        step: evaluations[2 * i]!,
        loss: evaluations[2 * i + 1]!,
      }));
      this.tell({ type: "history", training, evaluation: points, samples: [] });
      return place;
    } catch (error) {
      if (error instanceof LcsbError) return null;
      throw error;
    }
  }

  /** What a run would take. Throws as TrainingRun.predict. */
  async plan(options: TrainOptions, watch: Watch): Promise<Plan> {
    const bundle = await this.library.open(watch);
    const data = NO_DATA;
    const { ort } = await this.runtimes.wasm();
    const run = new TrainingRun(ort, bundle, data, await storageAt(RUNS, this.library.chosen!, STATE), this.options(options, null));
    const { plan, storage, learningRate } = await run.predict(options.gpu);
    return { memory: Math.ceil(plan.predictedPeakBytes), storage, keep: plan.keep, learningRate };
  }

  /** In place of the run before, whose adapter is kept. `dataName`: as the person sees it. */
  async start(options: TrainOptions, dataName: string, watch: Watch): Promise<void> {
    this.tell({ type: "history", training: [], evaluation: [], samples: [] });
    this.tell({ type: "run", run: { ...NO_RUN, phase: "opening", steps: options.steps } });
    await this.whole(async (name) => {
      await this.library.open(watch);
      const data = await this.shelf.open();
      try {
        await removeAt(RUNS, name);
        const storage = await storageAt(RUNS, name);
        await storing(storage.path, () => storage.replace(DATA_FILE, (sink) => pour(data, sink)));
      } finally {
        data.close();
      }
      await this.write(name, { ...options, data: dataName, chat: this.shelf.talks, wanted: "running" });
      await this.goOn(name, watch, false);
    });
  }

  /** Goes on with the run that is there, or with `finish` ends it where it is. */
  go(watch: Watch, finish = false): Promise<void> {
    return this.whole((name) => this.goOn(name, watch, finish));
  }

  /** Whatever it comes to is shown. */
  private async whole(work: (name: string) => Promise<void>): Promise<void> {
    this.active = true;
    try {
      await work(this.library.chosen!);
    } finally {
      this.active = false;
      await this.show();
    }
  }

  private async goOn(name: string, watch: Watch, finish: boolean): Promise<void> {
    const record = await this.read(name);
    if (record === null) throw new LcsbError("CHECKPOINT_DAMAGED", "what the run was begun with cannot be read");
    const bundle = await this.library.open(watch);
    if (finish) watch.control.stop();
    else await this.change(name, { wanted: "running" });
    const data = await this.openData(name);
    try {
      await this.train(name, bundle, record, data, watch, finish);
    } catch (error) {
      const stopped = error instanceof RunInterrupted && error.outcome === "CANCELLED";
      const wanted = stopped ? "cancelled" : error instanceof RunInterrupted ? "paused" : "failed";
      await this.change(name, { wanted, ...(isOfGpu(error) && { gpu: false }) }); // it goes on by WebAssembly
      throw error;
    } finally {
      data.close();
    }
  }

  private async train(name: string, bundle: Bundle, record: RunRecord, data: StoredFile, watch: Watch, finish: boolean): Promise<void> {
    const reporter = new Reporter(this.tell, bundle.manifest.model.numHiddenLayers, record.steps);
    reporter.phase("opening");
    const { ort, gpu } = finish ? await this.runtimes.wasm() : await this.processor(name, bundle, record, reporter, watch);
    try {
      const run = new TrainingRun(ort, bundle, data, await storageAt(RUNS, name, STATE), this.options(record, gpu));
      reporter.schedule = (await run.predict()).schedule;
      const result = await run.run(watch.control, reporter);
      await this.change(name, { wanted: WANTED_AFTER[result.outcome] });
      if (result.outcome === "PAUSED" || result.adapter === null || result.losses.length === 0) return;
      await this.judge(run, await this.keep(name, record, result), reporter, watch);
    } finally {
      await gpu?.close();
    }
  }

  /** What computes the run, seen to do so rightly. Where that is not the GPU that was asked for, it is said, and remembered of the run. */
  private async processor(name: string, bundle: Bundle, asked: RunRecord, reporter: Reporter, watch: Watch): Promise<Processor> {
    if (asked.gpu) {
      try {
        return await this.checked(await this.runtimes.webgpu(bundle), bundle, reporter, watch);
      } catch (error) {
        if (!(error instanceof LcsbError)) throw error;
        this.tell({ type: "problem", problem: problemOf(new LcsbError("GPU_UNSUITABLE", error.message, [], error)) });
        await this.change(name, { gpu: false });
      }
    }
    return this.checked(await this.runtimes.wasm(), bundle, reporter, watch);
  }

  /** Once a bundle and browser: whether it computes what the golden trace says. Throws GOLDEN_TRACE, GPU_FAILED. */
  private async checked(processor: Processor, bundle: Bundle, reporter: Reporter, watch: Watch): Promise<Processor> {
    const { ort, gpu } = processor;
    if (this.library.isChecked(bundle, gpu !== null)) return processor;
    reporter.phase("testing");
    const runner = await BlockRunner.open(ort, bundle, { threads: this.threads, gpu, betweenLayers: () => watch.control.rest() });
    try {
      await verify(bundle, runner);
      await this.library.setChecked(bundle, gpu !== null);
      return processor;
    } catch (error) {
      await gpu?.close();
      throw error;
    } finally {
      await runner.close();
    }
  }

  private async keep(name: string, record: RunRecord, result: RunResult): Promise<number> {
    const { evalLossBefore, evalLossAfter } = result;
    const losses = evalLossBefore === null || evalLossAfter === null ? null : [evalLossBefore, evalLossAfter];
    const made = { name: record.data, data: record.data, steps: result.losses.length, losses, chat: record.chat };
    return withFile(await storageAt(RUNS, name, STATE), ADAPTER_FILE, (file) => this.adapters.keep(file, made));
  }

  /** Beside the adapter in use, or the model as it came. Whoever asks for anything ends that only. */
  private async judge(run: TrainingRun, id: number, reporter: Reporter, watch: Watch): Promise<void> {
    reporter.phase("comparing");
    watch.renew(); // what ended the run does not end this
    const against = this.adapters.inUse;
    const before = against === null ? null : await this.adapters.open(against.id);
    let verdict: StoredVerdict | null = null;
    try {
      const { outcome, examples, improved } = (await run.compare(before, COMPARED_EXAMPLES, { goOn: () => watch.control.rest() })).verdict;
      verdict = { outcome, examples, improved, against: against?.name ?? null };
    } catch (error) {
      if (!(error instanceof RunInterrupted)) throw error;
    } finally {
      before?.close();
      await this.adapters.judged(id, verdict);
    }
  }

  private options({ steps, learningRate, method, memoryBudget }: TrainOptions, gpu: Gpu | null): RunOptions {
    return runOptions({
      steps,
      learningRate,
      method,
      memoryBudget,
      evaluateEvery: Math.max(Math.floor(steps / 4), EVALUATE_EVERY),
      checkpointEvery: CHECKPOINT_EVERY,
      threads: this.threads,
      sampleHeldOut: true,
      sampling: samplingConfig({ temperature: 0, maxTokens: SAMPLE_TOKENS }),
      gpu,
    });
  }

  private async read(name: string): Promise<RunRecord | null> {
    return readRecord(await storageAt(RUNS, name), RECORD_FILE, runRecord);
  }

  private async write(name: string, record: RunRecord): Promise<void> {
    await writeRecord(await storageAt(RUNS, name), RECORD_FILE, record);
  }

  private async change(name: string, changes: Partial<RunRecord>): Promise<void> {
    const record = await this.read(name);
    if (record !== null) await this.write(name, { ...record, ...changes });
  }

  private async openData(name: string): Promise<StoredFile> {
    try {
      return await (await storageAt(RUNS, name)).open(DATA_FILE);
    } catch (error) {
      if (error instanceof IoError) throw new LcsbError("DATA_UNREADABLE", `the run's data cannot be read: ${error.message}`, [], error);
      throw error;
    }
  }
}

function isOfGpu(error: unknown): boolean {
  return error instanceof LcsbError && (error.fault === "GPU_UNSUITABLE" || error.fault === "GPU_FAILED");
}

/** To plan, no data is read. */
const NO_DATA: StoredFile = { name: "none", size: 0, read: () => {}, close: () => {} };
