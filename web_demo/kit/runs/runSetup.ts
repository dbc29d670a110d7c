import { LcsbError } from "../faults.js";
import type { Bundle } from "../bundle.js";
import type { Batch } from "../bundle/batch.js";
import { makeSchedule, type Method, type Subset } from "../bundle/schedule.js";
import { STEP_COLUMNS, type RunIdentity } from "../checkpoint/runCheckpoint.js";
import { holdOut, type Dataset } from "../data/dataset.js";
import { readDataset } from "../data/datasetReader.js";
import { pack } from "../data/packing.js";
import { Chat, checkSampling } from "../generate.js";
import { reading, type StoredFile } from "../io/files.js";
import { digestOf } from "../io/safetensors.js";
import { Sha256 } from "../io/sha256.js";
import type { Storage } from "../io/storage.js";
import type { RunOptions } from "../runOptions.js";
import { CHAT_FILE, ChatFormat } from "../text/chatFormat.js";
import { localTime } from "../text/localTime.js";
import { Tokenizer } from "../text/tokenizer.js";
import { defaultLearningRate } from "../training/learningRate.js";
import { checkLeast, checkTrainConfig, type TrainConfig } from "../training/trainer.js";

const EVALUATION_SEQUENCES = 16; // at most that many are evaluated
const SPARE_BYTES = 1 << 16; // of a checkpoint: its header

/** What a run needs, from what it was asked for. Nothing is trained here. */
export class RunSetup {
  /** The local time at which the run began: of one that goes on it is its checkpoint's. */
  date = localTime();

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
    return format === null ? null : new Chat(format);
  }

  /** Bytes of storage that the run takes at once: three checkpoints (one is being written) and the adapter. */
  get storage(): number {
    const adapter = 4 * this.bundle.layout.size;
    return 3 * 3 * adapter + adapter + 3 * this.options.steps * STEP_COLUMNS * 8 + 3 * SPARE_BYTES;
  }

  /** Throws ADAPTER for an initial adapter that cannot be read. */
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
      initialAdapter: this.options.initialAdapter === null ? null : digestOfAdapter(this.options.initialAdapter),
      schedule: this.schedule,
      train: this.train,
      seed: this.options.seed,
    };
  }
}

/** SHA-256, hex. Throws ADAPTER. */
function digestOfAdapter(file: StoredFile): string {
  const digest = new Sha256();
  reading(file.name, "ADAPTER", () => digestOf(file, 0, digest));
  return digest.hex();
}

/** `evaluation`: the first sequences of `heldOut`, packed in file order. */
export interface RunData {
  readonly training: Dataset;
  readonly heldOut: Dataset;
  readonly evaluation: readonly Batch[];
  /** Of its temporary files. */
  close(): void;
}

type Check = () => void | Promise<void>;

/** `check` is called now and then: it may throw. Throws DATA_…, TOKENIZER_…, CHAT_…, OPTION, STORAGE_…. */
export async function readData(setup: RunSetup, data: StoredFile, storage: Storage, check: Check): Promise<RunData> {
  const { options, tokenizer } = setup;
  const opened: Dataset[] = [];
  const close = () => opened.forEach((dataset) => dataset.close());
  const read = async (file: StoredFile) => {
    const dataset = await readExamples(setup, file, storage, check);
    opened.push(dataset);
    return dataset;
  };
  try {
    const examples = await read(data);
    const [training, heldOut] =
      options.evaluationData === null ? holdOut(examples, options.holdOut, options.seed) : [examples, await read(options.evaluationData)];
    const evaluation: Batch[] = [];
    const { seqLen } = setup.bundle.manifest;
    for (const batch of pack(heldOut, seqLen, tokenizer.padId)) if (evaluation.push(batch) === EVALUATION_SEQUENCES) break;
    return { training, heldOut, evaluation, close };
  } catch (error) {
    close();
    throw error;
  }
}

/** The held-out examples of `readData` alone; whoever asks for them closes them. */
export async function readHeldOut(setup: RunSetup, data: StoredFile, storage: Storage, check: Check): Promise<Dataset> {
  const { evaluationData, holdOut: share, seed } = setup.options;
  if (evaluationData !== null) return readExamples(setup, evaluationData, storage, check);
  const examples = await readExamples(setup, data, storage, check);
  try {
    return holdOut(examples, share, seed)[1];
  } catch (error) {
    examples.close();
    throw error;
  }
}

function readExamples(setup: RunSetup, file: StoredFile, storage: Storage, check: Check): Promise<Dataset> {
  const { tokenizer, chatFormat: chat } = setup;
  return readDataset(file, { tokenizer, chat, seqLen: setup.bundle.manifest.seqLen }, storage, check);
}
