import { LcsbError } from "../faults.js";
import { storing, type Storage } from "../io/storage.js";
import { localTime } from "../text/localTime.js";
import { checkpointNames, newestGood, writeCheckpoint, type RunCheckpoint, type RunIdentity } from "./runCheckpoint.js";

const KEPT = 2; // checkpoints

/**
 * A directory of a run's checkpoints: one run at a time, the last two kept, the newest good one found. Specification: docs/run_checkpoint.md.
 * Locked from its making to `close`, or the end of the process, whatever ends it.
 */
export class RunDirectory {
  private constructor(
    readonly storage: Storage,
    private readonly release: () => void,
  ) {}

  /** Throws RUN_BUSY when another run holds it; STORAGE_FULL, STORAGE_FAILED. Removes what a process left that was killed while it wrote. */
  static async open(storage: Storage): Promise<RunDirectory> {
    const release = await storing(storage.path, () => storage.lock());
    if (release === null) {
      const message = `${storage.path}: another run uses these checkpoints; wait for it, or choose another directory`;
      throw new LcsbError("RUN_BUSY", message, [storage.path]);
    }
    try {
      await storing(storage.path, () => storage.clean());
    } catch (error) {
      release();
      throw error;
    }
    return new RunDirectory(storage, release);
  }

  close(): void {
    this.release();
  }

  /**
   * The newest good checkpoint, or null when there is none at all. `warn` is told of damaged ones that were passed over, and of a learning rate
   * that is lower from here on. Throws CHECKPOINT_DAMAGED when all are (none is removed), CHECKPOINT_OTHER_RUN when the newest good one is of
   * another run.
   */
  async newest(
    layers: number,
    size: number,
    identity: RunIdentity,
    lowerRate: boolean,
    warn: (text: string) => void,
  ): Promise<RunCheckpoint | null> {
    const names = await checkpointNames(this.storage);
    if (names.length === 0) return null;
    const { name, checkpoint, faults } = await newestGood(this.storage, names, layers, size);
    checkIdentity(`${this.storage.path}/${name}`, name, checkpoint.place.identity, identity, lowerRate);
    for (const fault of faults) warn(`${fault}; going on from ${name}`);
    const [then, now] = [checkpoint.place.identity.train.learningRate, identity.train.learningRate];
    if (then !== now) warn(`going on at a learning rate of ${now}, which was ${then} up to step ${checkpoint.place.step}`);
    if (names.slice(0, KEPT).includes(name)) await this.remove(names.slice(KEPT)); // a process was killed after it had written and before it removed
    return checkpoint;
  }

  /**
   * The local time at which the run began: what a chat format writes of it stays the same when the run goes on, on another day or in another
   * time zone. Throws CHECKPOINT_DAMAGED where no checkpoint is good.
   */
  async beginning(layers: number, size: number): Promise<string> {
    const names = await checkpointNames(this.storage);
    if (names.length === 0) return localTime();
    return (await newestGood(this.storage, names, layers, size)).checkpoint.place.identity.date;
  }

  /** Then removes those older than the last two. Throws STORAGE_FULL, STORAGE_FAILED; what was there before then still is. */
  async write(checkpoint: RunCheckpoint): Promise<void> {
    await writeCheckpoint(this.storage, checkpoint);
    await this.remove((await checkpointNames(this.storage)).slice(KEPT));
  }

  private async remove(names: readonly string[]): Promise<void> {
    for (const name of names) await storing(this.storage.path, () => this.storage.remove(name));
  }
}

/**
 * Throws CHECKPOINT_OTHER_RUN naming what differs. Where the rate does not depend on it, a run may become longer or shorter; with `lowerRate` it
 * may go on at a lower one, as after a loss that was not finite.
 */
export function checkIdentity(path: string, name: string, found: RunIdentity, wanted: RunIdentity, lowerRate = false): void {
  const faults: string[] = [];
  const compare = (what: string, then: unknown, now: unknown, show: (value: unknown) => string = String) => {
    if (then !== now) faults.push(`${what}: ${show(then)} then, ${show(now)} now`);
  };
  compare("bundle", found.bundle, wanted.bundle, short);
  compare("data", found.data, wanted.data, short);
  compare("evaluation data", found.evaluationData, wanted.evaluationData, short);
  compare("tokens", found.tokens, wanted.tokens, short);
  compare("evaluation tokens", found.evaluationTokens, wanted.evaluationTokens, short);
  compare("date", found.date, wanted.date);
  compare("hold out", found.holdOut, wanted.holdOut);
  compare("initial adapter", found.initialAdapter, wanted.initialAdapter, short);
  compare("schedule", JSON.stringify(found.schedule), JSON.stringify(wanted.schedule), () => "another schedule");
  const [then, now] = [found.train, wanted.train];
  if (now.lrSchedule !== "constant") compare("steps", then.steps, now.steps);
  if (!(lowerRate && now.learningRate < then.learningRate)) compare("learning_rate", then.learningRate, now.learningRate);
  compare("lr_schedule", then.lrSchedule, now.lrSchedule);
  compare("warmup", then.warmup, now.warmup);
  compare("accumulation", then.accumulation, now.accumulation);
  compare("seed", found.seed, wanted.seed);
  if (faults.length === 0) return;
  const remedy = "go on with what it was begun with, or choose another directory";
  throw new LcsbError("CHECKPOINT_OTHER_RUN", `${path}: is of another run: ${faults.join("; ")}; ${remedy}`, [name]);
}

function short(digest: unknown): string {
  return typeof digest === "string" ? `${digest.slice(0, 12)}…` : "none";
}
