import { LcsbError } from "../faults.js";
import { readAdapterFile, writeAdapter } from "../adapter/adapter.js";
import { ADAPTER_FILE } from "../bundle/manifest.js";
import { STEP_COLUMNS, type RunCheckpoint, type RunIdentity } from "../checkpoint/runCheckpoint.js";
import type { RunDirectory } from "../checkpoint/runDirectory.js";
import { heldOutPrompt } from "../data/heldOutPrompt.js";
import { epochs } from "../data/packing.js";
import { generate, generateFrom, type Continuation } from "../generate.js";
import { RunInterrupted, type RunControl, type RunOutcome } from "../runControl.js";
import type { Evaluation, RunObserver, Sample } from "../runRecords.js";
import type { StepRunner } from "../runtime/stepRunner.js";
import { AdamW, copyState, type AdapterState } from "../training/optimizer.js";
import { evaluate, Trainer, type StepOutcome } from "../training/trainer.js";
import type { RunData, RunSetup } from "./runSetup.js";
import { checkFirstStep, checkUpdate } from "./verify.js";
import type { MemoryWatch, PhaseClock } from "./watches.js";

/** What a run in this process works with. `kept`: room for the state that was last seen to give a finite loss, when `state` is a later one. */
export interface Running {
  readonly setup: RunSetup;
  readonly identity: RunIdentity;
  readonly data: RunData;
  readonly runner: StepRunner;
  readonly state: AdapterState;
  readonly kept: AdapterState;
  readonly keptLayers: number;
  readonly directory: RunDirectory;
  readonly memory: MemoryWatch;
  readonly clock: PhaseClock;
  readonly control: RunControl;
  readonly observer: RunObserver;
}

/**
 * The part of a run that this process makes. What is kept was seen to give a finite loss: the state before an update is known to, by the loss
 * that the update was computed from, so it is copied before the update is made, and checkpoints are written then. Where steps are taken back, so
 * are the records of them.
 */
export class Session {
  readonly outcomes: StepOutcome[] = [];
  readonly memory: number[] = [];
  evaluations: Evaluation[] = [];
  samples: Sample[] = [];
  resumedFrom: number | null = null;
  wroteAdapter = false;
  /** The run was interrupted or has failed: what is computed now is not to be interrupted again. */
  ending = false;
  private readonly optimizer: AdamW;
  private readonly trainer: Trainer;
  private readonly keptUpdates: Float64Array;
  private begun = false; // what the run begins with is there, and was evaluated
  private seen = true; // the state has given a finite loss
  private keptStep: number | null = null; // of `running.kept`, once there is one
  private saved: number | null = null; // the step of the newest checkpoint

  constructor(
    private readonly running: Running,
    private readonly checkpoint: RunCheckpoint | null,
  ) {
    const { setup, state, runner } = running;
    this.optimizer = new AdamW(state, setup.bundle.layout, setup.bundle.manifest.optimizer, runner);
    this.trainer = new Trainer(runner, setup.schedule, this.optimizer, setup.train, () => this.accept());
    this.keptUpdates = new Float64Array(this.optimizer.updates.length);
  }

  private get options() {
    return this.running.setup.options;
  }

  /** From the checkpoint, or the beginning, to the last step and the adapter's file, or until it is interrupted. */
  async train(): Promise<RunOutcome> {
    try {
      await this.wholeRun();
      return "FINISHED";
    } catch (error) {
      this.ending = true;
      if (error instanceof RunInterrupted) {
        await this.look();
        await this.keep(error.outcome === "CANCELLED");
        return error.outcome;
      }
      if (this.begun) await this.keep(true).catch((lost: unknown) => this.running.observer.warned?.(`what was learnt was not saved: ${lost}`));
      throw error; // whatever it is, what was learnt is worth more
    }
  }

  private async wholeRun(): Promise<void> {
    const { runner, setup, state, clock } = this.running;
    const { bundle } = setup;
    clock.enter("golden trace");
    await checkFirstStep(runner, bundle.golden, state.adapter);
    await checkUpdate(runner, bundle.layout, bundle.manifest.optimizer);
    const { initialAdapter } = this.options;
    if (initialAdapter !== null) readAdapterFile(initialAdapter, bundle.layout, state.adapter);
    const before = await this.continuePrompts(false);
    this.restore();
    this.begun = this.resumedFrom !== null;
    await this.evaluateIfDue();
    this.begun = true;
    await this.save();
    await this.steps();
    await this.writeAdapter();
    const after = await this.continuePrompts(true);
    this.samples = this.options.prompts.map((prompt, i) => ({ prompt, before: before[i]!, after: after[i]! }));
  }

  /** Whoever was interrupted has the time for one more look at the newest state. */
  private async look(): Promise<void> {
    if (this.seen) return;
    try {
      const { runner, data, state } = this.running;
      this.seen = Number.isFinite(await evaluate(runner, data.evaluation.slice(0, 1), state.adapter));
    } catch (error) {
      if (!(error instanceof LcsbError)) throw error;
    }
  }

  /** The last state that was seen to give a finite loss. */
  private async keep(adapter: boolean): Promise<void> {
    this.restore();
    if (!this.seen) this.goBack();
    if (adapter && this.outcomes.length > 0) await this.writeAdapter();
    await this.save();
  }

  /** Before an update: the state has given a finite loss, and is kept as it is. */
  private async accept(): Promise<void> {
    this.seen = true;
    await this.saveIfDue();
    copyState(this.running.state, this.running.kept);
    this.keptUpdates.set(this.optimizer.updates);
    this.keptStep = this.outcomes.length;
    this.seen = false;
  }

  /** To the state before the last update. A run that has made none stays where it began. */
  private goBack(): void {
    const step = this.keptStep;
    if (step === null) return;
    copyState(this.running.kept, this.running.state);
    this.optimizer.updates.set(this.keptUpdates);
    this.outcomes.splice(step);
    this.memory.splice(step);
    this.evaluations = this.evaluations.filter((evaluation) => evaluation.step <= step);
    this.seen = true;
  }

  private async steps(): Promise<void> {
    const { setup, data, clock, control, memory, observer } = this.running;
    const { accumulation, seed } = this.options;
    const batches = epochs(data.training, setup.bundle.manifest.seqLen, setup.tokenizer.padId, seed, this.outcomes.length * accumulation);
    const next = () => batches.next().value!; // there is no end of them
    for (let number = this.outcomes.length; number < this.options.steps; number++) {
      clock.enter("gradients");
      control.check();
      const outcome = await this.trainer.step(number, Array.from({ length: accumulation }, next));
      this.outcomes.push(outcome);
      this.memory.push(memory.sample());
      observer.stepped?.(outcome, this.memory.at(-1)!);
      memory.stopAboveBudget(outcome.step);
      await this.evaluateIfDue();
      if (this.seen) await this.saveIfDue();
    }
  }

  /** Before the first step, after the last, and every `evaluateEvery`; a run that was interrupted within an evaluation makes up for it. */
  private async evaluateIfDue(): Promise<void> {
    const { clock, runner, data, state, observer } = this.running;
    const { steps, evaluateEvery } = this.options;
    const step = this.outcomes.length;
    const due = step === 0 || step === steps || (evaluateEvery > 0 && step % evaluateEvery === 0);
    if (!due || this.evaluations.some((evaluation) => evaluation.step === step)) return;
    clock.enter("evaluation");
    const loss = await evaluate(runner, data.evaluation, state.adapter);
    this.seen = Number.isFinite(loss);
    if (!this.seen) {
      const what = step > 0 ? "try a lower learning rate" : "nothing can be trained from there";
      throw new LcsbError("LOSS_NOT_FINITE", `step ${step}: the loss of the evaluation after it is ${loss}; ${what}`, [String(step)]);
    }
    this.evaluations.push({ step, loss });
    this.saved = null;
    observer.evaluated?.(step, loss);
    if (this.options.sampleHeldOut) await this.writeHeldOut(step);
  }

  private async writeHeldOut(step: number): Promise<void> {
    const { runner, setup, data, state, clock, observer } = this.running;
    clock.enter("text samples");
    const { ids, shown } = heldOutPrompt(data.heldOut, setup.tokenizer, setup.chatFormat);
    const pieces = generateFrom(runner, setup.bundle, setup.tokenizer, state.adapter, { ids, forgotten: 0 }, this.options.sampling);
    const text = await this.writeOut(pieces);
    observer.wrote?.(step, shown, text, pieces.ended === "END_TOKEN" || pieces.ended === "STOP_TEXT");
  }

  private async writeOut(pieces: Continuation): Promise<string> {
    let text = "";
    for await (const piece of pieces) {
      this.running.control.check();
      text += piece;
    }
    return text;
  }

  private async continuePrompts(after: boolean): Promise<string[]> {
    const { runner, setup, state, clock, observer } = this.running;
    const texts: string[] = [];
    for (const prompt of this.options.prompts) {
      clock.enter("text samples");
      const { sampling } = this.options;
      const text = await this.writeOut(generate(runner, setup.bundle, setup.tokenizer, state.adapter, prompt, sampling, setup.chat));
      texts.push(text);
      observer.sampled?.(prompt, text, after);
    }
    return texts;
  }

  private async writeAdapter(): Promise<void> {
    const { directory, setup, state } = this.running;
    await writeAdapter(directory.storage, ADAPTER_FILE, setup.bundle.layout, state.adapter);
    this.wroteAdapter = true;
  }

  private async saveIfDue(): Promise<void> {
    const step = this.outcomes.length;
    if (step === this.options.steps || step % this.options.checkpointEvery === 0) await this.save();
  }

  /** A checkpoint of the last whole step, unless there is one. Before the first evaluation there is nothing to save. */
  private async save(): Promise<void> {
    const step = this.outcomes.length;
    if (this.saved === step || this.evaluations.length === 0) return;
    const { clock, runner, identity, state, keptLayers, directory } = this.running;
    clock.enter("checkpoints");
    const sequences = step * this.options.accumulation;
    const row = (outcome: StepOutcome, i: number) => [
      outcome.loss, outcome.learningRate, outcome.gradientNorm, outcome.gradientSeconds, outcome.optimizerSeconds, this.memory[i]!,
    ];
    await directory.write({
      place: { identity, step, sequences, runtime: `${runner.name} ${runner.version}`, keptLayers },
      state,
      updates: this.optimizer.updates,
      steps: Float64Array.from(this.outcomes.flatMap(row)),
      evaluations: Float64Array.from(this.evaluations.flatMap((evaluation) => [evaluation.step, evaluation.loss])),
    });
    this.saved = step;
  }

  /** The state of the checkpoint, if there is one, in place of the initial one; once. */
  private restore(): void {
    const { checkpoint } = this;
    if (checkpoint === null || this.resumedFrom !== null) return;
    const { step } = checkpoint.place;
    const { schedule } = this.running.setup;
    copyState(checkpoint.state, this.running.state);
    this.optimizer.updates.set(checkpoint.updates);
    for (let number = 0; number < step; number++) {
      const [loss, learningRate, gradientNorm, gradientSeconds, optimizerSeconds, memory] = checkpoint.steps.subarray(number * STEP_COLUMNS) as
        unknown as [number, number, number, number, number, number];
      const subset = schedule[number % schedule.length]!;
      this.outcomes.push({ step: number + 1, subset, loss, learningRate, gradientNorm, gradientSeconds, optimizerSeconds });
      this.memory.push(memory);
    }
    for (let i = 0; i < checkpoint.evaluations.length; i += 2) {
      this.evaluations.push({ step: checkpoint.evaluations[i]!, loss: checkpoint.evaluations[i + 1]! });
    }
    this.resumedFrom = step;
    this.saved = step;
    const history = { outcomes: [...this.outcomes], memory: [...this.memory], evaluations: [...this.evaluations] };
    this.running.observer.resumed?.(step, history);
  }
}
