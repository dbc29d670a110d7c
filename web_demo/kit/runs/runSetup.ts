import { LcsbError } from "../faults.js";
import type { Bundle } from "../bundle.js";
import type { Batch } from "../bundle/batch.js";
import { makeSchedule, type Method, type Subset } from "../bundle/schedule.js";
import { STEP_COLUMNS, type RunIdentity } from "../checkpoint/runCheckpoint.js";
import { holdOut, type Dataset } from "../data/dataset.js";
import { readDataset } from "../data/datasetReader.js";
import { pack } from "../data/packing.js";
import { checkSampling, type Chat } from "../generate.js";
import type { StoredFile } from "../io/files.js";
import type { Storage } from "../io/storage.js";
import type { RunOptions } from "../runOptions.js";
import { CHAT_FILE, ChatFormat } from "../text/chatFormat.js";
import { Tokenizer } from "../text/tokenizer.js";
import { defaultLearningRate } from "../training/learningRate.js";
import { checkLeast, checkTrainConfig, type TrainConfig } from "../training/trainer.js";

const EVALUATION_SEQUENCES = 16; // at most that many are evaluated
const SPARE_BYTES = 1 << 16; // of a checkpoint: its header

/** What a run needs, from what it was asked for. Nothing is trained here. */
export class RunSetup {
  /** The local time at which the run began: of one that goes on it is its checkpoint's. */
  date = "";

  private constructor(
    readonly options: RunOptions,
    readonly bundle: Bundle,
    readonly tokenizer: Tokenizer,
    private readonly format: ChatFormat | null,
    readonly method: Method,
    readonly schedule: readonly Subset[],
    readonly train: TrainConfig,
  ) {}

  /** Throws OPTION, CHAT_UNSUPPORTED, TOKENIZER_…. */
  static async of(options: RunOptions, bundle: Bundle): Promise<RunSetup> {
    checkSampling(options.sampling);
    const { manifest, storage } = bundle;
    const layers = manifest.model.numHiddenLayers;
    const own = manifest.scheduleConfig.method;
    const method = options.method ?? own;
    const schedule = method === own ? manifest.schedule : makeSchedule(method, manifest.scheduleConfig.subsets, layers);
    const { steps, lrSchedule, warmup, accumulation } = options;
    const train = { steps, learningRate: options.learningRate ?? defaultLearningRate(schedule, layers), lrSchedule, warmup, accumulation };
    checkTrainConfig(train);
    checkLeast("checkpoint-every", options.checkpointEvery, 1);
    checkLeast("evaluate-every", options.evaluateEvery, 0);
    checkLeast("threads", options.threads, 0);
    checkLeast("seed", options.seed, 0);
    const format = manifest.files.has(CHAT_FILE) ? await ChatFormat.open(storage) : null;
    if (options.chat && format === null) {
      const remedy = "give the prompts as they are, or export it again";
      throw new LcsbError("CHAT_UNSUPPORTED", `chat: the bundle says nothing of how messages become text; ${remedy}`);
    }
    const tokenizer = await Tokenizer.open(storage, manifest.model.vocabSize);
    return new RunSetup(options, bundle, tokenizer, format, method, schedule, train);
  }

  /** As the run's day has it. */
  get chatFormat(): ChatFormat | null {
    return this.format?.at(this.date) ?? null;
  }

  get chat(): Chat | null {
    const format = this.options.chat ? this.chatFormat : null;
    return format === null ? null : { format };
  }

  /** Bytes of storage that the run takes at once: three checkpoints (one is being written) and the adapter. */
  get storage(): number {
    const adapter = 4 * this.bundle.layout.size;
    return 3 * 3 * adapter + adapter + 3 * this.options.steps * STEP_COLUMNS * 8 + 3 * SPARE_BYTES;
  }

  identity({ training, heldOut }: RunData): RunIdentity {
    const other = this.options.evaluationData !== null;
    return {
      bundle: this.bundle.manifest.identity ?? this.bundle.digest,
      data: training.sha256,
      evaluationData: other ? heldOut.sha256 : null,
      tokens: training.tokensSha256,
      evaluationTokens: other ? heldOut.tokensSha256 : null,
      date: this.date,
      holdOut: this.options.holdOut,
      initialAdapter: null,
      schedule: this.schedule,
      train: this.train,
      seed: this.options.seed,
    };
  }
}

/** `evaluation`: the first sequences of `heldOut`, packed in file order. */
export interface RunData {
  readonly training: Dataset;
  readonly heldOut: Dataset;
  readonly evaluation: readonly Batch[];
  /** Of its temporary files. */
  close(): void;
}

/** `check` is called now and then: it may throw. Throws DATA_…, TOKENIZER_…, CHAT_…, OPTION, STORAGE_…. */
export async function readData(setup: RunSetup, data: StoredFile, storage: Storage, check: () => void | Promise<void>): Promise<RunData> {
  const { options, tokenizer, chatFormat: chat } = setup;
  const { seqLen } = setup.bundle.manifest;
  const opened: Dataset[] = [];
  const close = () => opened.forEach((dataset) => dataset.close());
  const read = async (file: StoredFile) => {
    const dataset = await readDataset(file, { tokenizer, chat, seqLen }, storage, check);
    opened.push(dataset);
    return dataset;
  };
  try {
    const examples = await read(data);
    const [training, heldOut] =
      options.evaluationData === null ? holdOut(examples, options.holdOut, options.seed) : [examples, await read(options.evaluationData)];
    const evaluation: Batch[] = [];
    for (const batch of pack(heldOut, seqLen, tokenizer.padId)) if (evaluation.push(batch) === EVALUATION_SEQUENCES) break;
    return { training, heldOut, evaluation, close };
  } catch (error) {
    close();
    throw error;
  }
}
