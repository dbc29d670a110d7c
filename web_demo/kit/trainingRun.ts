import { readAdapter } from "./adapter/adapter.js";
import type { Bundle } from "./bundle.js";
import { ADAPTER_FILE } from "./bundle/manifest.js";
import type { Subset } from "./bundle/schedule.js";
import { checkpointNames, type RunCheckpoint } from "./checkpoint/runCheckpoint.js";
import { RunDirectory } from "./checkpoint/runDirectory.js";
import { COMPARED_EXAMPLES, Comparing, readerOf, type CompareWatch, type Comparison } from "./compare.js";
import type { Dataset } from "./data/dataset.js";
import { countSequences } from "./data/packing.js";
import type { StoredFile } from "./io/files.js";
import { checkFreeSpace, type Storage } from "./io/storage.js";
import { planRun, type Plan } from "./planning/plan.js";
import { RunInterrupted, type RunControl, type RunOutcome } from "./runControl.js";
import type { RunOptions } from "./runOptions.js";
import type { RunObserver, RunResult } from "./runRecords.js";
import { readData, RunSetup, type RunData } from "./runs/runSetup.js";
import { Session } from "./runs/session.js";
import { MemoryWatch, PhaseClock } from "./runs/watches.js";
import { BlockRunner } from "./runtime/blockRunner.js";
import type { Ort } from "./runtime/ort.js";
import { newState } from "./training/optimizer.js";

/** What a run came to in this process, once its steps were known. */
interface Begun {
  readonly data: RunData;
  readonly session: Session;
  readonly runner: BlockRunner;
  readonly plan: Plan;
  readonly memory: MemoryWatch;
}

/** `storage`: bytes of it at once. `schedule`: the steps of one cycle. */
export interface Prediction {
  readonly plan: Plan;
  readonly storage: number;
  readonly learningRate: number;
  readonly schedule: readonly Subset[];
}

/**
 * The fine-tune, from a bundle and a data file to an adapter: begun, or gone on with from the newest checkpoint in `storage`, bit for bit.
 *
 * `storage` holds the run's checkpoints (docs/run_checkpoint.md), and ADAPTER_FILE once the run has ended. `ort`: the runtime, as whoever
 * has loaded it.
 */
export class TrainingRun {
  constructor(
    private readonly ort: Ort,
    private readonly bundle: Bundle,
    private readonly data: StoredFile,
    private readonly storage: Storage,
    private readonly options: RunOptions,
  ) {}

  /** What the run would take if it began now, with its layers on a GPU or not. Throws OPTION, CHAT_UNSUPPORTED, TOKENIZER_…, MEMORY_TOO_SMALL. */
  async predict(gpu = this.options.gpu !== null): Promise<Prediction> {
    const setup = await RunSetup.of(this.options, this.bundle);
    const { schedule, storage, train } = setup;
    return { plan: this.plan(setup, null, gpu), storage, learningRate: train.learningRate, schedule };
  }

  /**
   * Runs until the last step, or until `control` interrupts. Every check that needs no training is made before the first step.
   *
   * Throws OPTION, DATA_…, TOKENIZER_…, CHAT_…, RUN_BUSY, CHECKPOINT_DAMAGED, CHECKPOINT_OTHER_RUN, ADAPTER (of the initial one),
   * MEMORY_TOO_SMALL (it cannot fit; nothing was run), GOLDEN_TRACE, RUNTIME_FAILED, GPU_UNSUITABLE, GPU_FAILED, STORAGE_FULL, STORAGE_FAILED, LOSS_NOT_FINITE or
   * MEMORY_EXCEEDED. From the first step on, whatever ends the run leaves the last adapter that was seen to give a finite loss, and a
   * checkpoint of it.
   */
  async run(control: RunControl, observer: RunObserver = {}): Promise<RunResult> {
    const setup = await RunSetup.of(this.options, this.bundle);
    const directory = await RunDirectory.open(this.storage);
    try {
      return await this.inDirectory(setup, directory, control, observer);
    } finally {
      directory.close();
    }
  }

  /**
   * Whether the run's adapter gives the examples that the run holds out a lower loss than `before`, an adapter's file or null for the base
   * model. The run has ended, and is in no other hands. `examples`, `watch` as `compareAdapters` takes them; it throws as that does, and
   * RUN_BUSY or CHECKPOINT_DAMAGED.
   */
  async compare(before: StoredFile | null = null, examples = COMPARED_EXAMPLES, watch: CompareWatch = {}): Promise<Comparison> {
    const { ort, bundle, storage } = this;
    const setup = await RunSetup.of(this.options, bundle);
    const after = (into: Float32Array) => readAdapter(storage, ADAPTER_FILE, bundle.layout, into);
    const comparing = await Comparing.of(ort, setup, readerOf(bundle, before), after, examples, watch);
    const directory = await RunDirectory.open(storage);
    try {
      setup.date = await directory.beginning(bundle.layout.numLayers, bundle.layout.size);
      return await comparing.on(this.data, storage);
    } finally {
      directory.close();
    }
  }

  private async inDirectory(setup: RunSetup, directory: RunDirectory, control: RunControl, observer: RunObserver): Promise<RunResult> {
    const { layout } = this.bundle;
    await checkFreeSpace(this.storage, setup.storage);
    const clock = new PhaseClock(observer);
    clock.enter("data");
    setup.date = await directory.beginning(layout.numLayers, layout.size);
    let data: RunData | null = null;
    try {
      // of a run that was begun, a stop comes at the first layer, when its steps are known
      const isNew = (await checkpointNames(this.storage)).length === 0;
      data = await readData(setup, this.data, this.storage, () => (isNew ? control.check() : control.checkPaused()));
      observer.data?.(data.training.report, data.heldOut.size);
      return await this.train(setup, data, directory, clock, control, observer);
    } catch (error) {
      if (!(error instanceof RunInterrupted)) throw error;
      return this.result(setup, error.outcome, null, clock); // nothing was begun, and what there was is still there
    } finally {
      data?.close();
    }
  }

  private async train(
    setup: RunSetup,
    data: RunData,
    directory: RunDirectory,
    clock: PhaseClock,
    control: RunControl,
    observer: RunObserver,
  ): Promise<RunResult> {
    const { bundle, options } = this;
    const { layout } = bundle;
    const identity = setup.identity(data);
    const warn = (text: string) => observer.warned?.(text);
    const checkpoint = await directory.newest(layout.numLayers, layout.size, identity, options.learningRate !== null, warn);
    clock.enter("loading");
    const plan = this.plan(setup, checkpoint, options.gpu !== null);
    const memory = new MemoryWatch(options.memoryBudget, options.memory);
    let session: Session | null = null;
    const betweenLayers = async () => {
      if (session === null || session.ending) return;
      await control.rest();
      memory.look(session.outcomes.length + 1);
      if (runner.layer < layout.numLayers) observer.layer?.(runner.layer, runner.backward);
    };
    const runner = await BlockRunner.open(this.ort, bundle, { threads: options.threads, gpu: options.gpu, keep: plan.keep, betweenLayers });
    try {
      observer.loaded?.(`${runner.name} ${runner.version}`);
      const [state, kept] = [newState(layout.size), newState(layout.size)];
      await bundle.readInitialAdapter(state.adapter);
      const running = { setup, identity, data, runner, state, kept, keptLayers: plan.keep, directory, memory, clock, control, observer };
      session = new Session(running, checkpoint);
      const outcome = await session.train();
      clock.enter(null);
      return this.result(setup, outcome, { data, session, runner, plan, memory }, clock);
    } finally {
      await runner.close();
    }
  }

  /** What the run keeps. The step that is checked first counts too. */
  private plan(setup: RunSetup, checkpoint: RunCheckpoint | null, gpu: boolean): Plan {
    const { options, bundle } = this;
    const subsets = [...setup.schedule, ...bundle.golden.run.slice(0, 1).map((step) => step.subset)];
    return planRun(bundle.manifest, subsets, {
      base: options.memory() ?? 0,
      budget: options.memoryBudget,
      keep: options.keep ?? checkpoint?.place.keptLayers ?? null,
      accumulation: options.accumulation,
      samples: options.prompts.length > 0 || options.sampleHeldOut,
      gpu,
    });
  }

  private result(setup: RunSetup, outcome: RunOutcome, begun: Begun | null, clock: PhaseClock): RunResult {
    const session = begun?.session;
    const outcomes = session?.outcomes ?? [];
    const evaluations = session?.evaluations ?? [];
    const optimizer = outcomes.slice(session?.resumedFrom ?? 0).reduce((sum, step) => sum + step.optimizerSeconds, 0);
    return {
      outcome,
      runtime: begun?.runner.name ?? null,
      runtimeVersion: begun?.runner.version ?? null,
      target: this.bundle.manifest.target,
      method: setup.method,
      schedule: setup.schedule.map((subset) => subset.train),
      steps: this.options.steps,
      resumedFrom: session?.resumedFrom ?? null,
      learningRate: setup.train.learningRate,
      losses: outcomes.map((step) => step.loss),
      stepSeconds: outcomes.map((step) => step.gradientSeconds + step.optimizerSeconds),
      evaluations,
      evalLossBefore: evaluations[0]?.loss ?? null,
      evalLossAfter: evaluations.at(-1)?.loss ?? null,
      peakAnonymousBytes: begun?.memory.peak ?? null,
      predictedPeakAnonymousBytes: begun?.plan.predictedPeakBytes ?? null,
      keptLayers: begun?.plan.keep ?? 0,
      phaseSeconds: clock.seconds(optimizer),
      data: begun?.data.training.report ?? null,
      packingFill: begun === null ? null : this.packingFill(begun.data.training),
      samples: session?.samples ?? [],
      adapter: session?.wroteAdapter ? `${this.storage.path}/${ADAPTER_FILE}` : null,
      checkpoints: this.storage.path,
    };
  }

  /** The share of the first epoch's tokens that are not padding. */
  private packingFill(training: Dataset): number {
    const { seqLen } = this.bundle.manifest;
    let tokens = 0;
    for (let i = 0; i < training.size; i++) tokens += training.length(i);
    return tokens / (countSequences(training, seqLen, this.options.seed) * seqLen);
  }
}
