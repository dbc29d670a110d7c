import { IGNORED_LABEL } from "../bundle/batch.js";
import { LcsbError } from "../faults.js";
import { lastPart, reading } from "../io/files.js";
import { Sha256 } from "../io/sha256.js";
import type { Scratch } from "../io/storage.js";
import { FORMS } from "./lineRecord.js";
import type { Example, Form, LineExample } from "./records.js";
import { shuffled } from "./shuffling.js";
import { Spool } from "./spool.js";

const HELD_OUT_EPOCH = -1; // the order that chooses the examples to evaluate on, beside those of the epochs from 0
const MOST_KEYS = 20; // that were passed over and are counted by name; the others are counted together
const OTHER_KEYS = "…";

/**
 * What a data file came to. `tokens` and `countedLabels` are those of the `examples` that are trained on.
 *
 * `truncated` examples lost `tokensCut` tokens to the sequence length; `withoutLabels` examples were dropped because nothing to learn was
 * left of them. So lines = examples + withoutLabels = texts + completions + conversations. `uncountedTurns`: of the assistant, which are
 * not learned from because the chat template rewrites them (docs/data.md). `doubledEnds`: lines that held a token of beginning or end, and
 * got another by their form or the chat format. `duplicates`: lines that equal an earlier one.
 * `blankLines` are none of the lines. `furtherKeys`: in how many lines each key was that no form has; of a turn as `messages[].name`, those
 * beyond the first MOST_KEYS together as OTHER_KEYS. Lengths are tokens of all lines before they are cut, percentiles by nearest rank.
 */
export interface DataReport {
  readonly lines: number;
  readonly examples: number;
  readonly tokens: number;
  readonly countedLabels: number;
  readonly truncated: number;
  readonly tokensCut: number;
  readonly withoutLabels: number;
  readonly texts: number;
  readonly completions: number;
  readonly conversations: number;
  readonly uncountedTurns: number;
  readonly doubledEnds: number;
  readonly duplicates: number;
  readonly blankLines: number;
  readonly furtherKeys: ReadonlyMap<string, number>;
  readonly lengthP50: number;
  readonly lengthP90: number;
  readonly lengthP99: number;
  readonly longest: number;
}

/**
 * The examples of a data file, or of a part of it, in its order; `report`, `sha256` and `tokensSha256`, of what it was made into, are the
 * whole file's. Their tokens lie in a temporary file, which goes when any part of the dataset is closed; an example costs 12 bytes of memory.
 *
 * `lengths`: tokens of each. An example of n tokens is n + 1 of the numbers `words`, from `starts` on: number t is token t times two, plus
 * one where predicting it counts; the last is the token after the example, or 0 where none counts.
 */
export class Dataset {
  constructor(
    readonly name: string,
    readonly report: DataReport,
    readonly sha256: string,
    readonly tokensSha256: string,
    private readonly lengths: Int32Array,
    private readonly starts: Float64Array,
    private readonly words: Spool,
  ) {}

  /** Examples. */
  get size(): number {
    return this.lengths.length;
  }

  /** Tokens of an example. */
  length(index: number): number {
    return this.lengths[index]!;
  }

  /** Throws STORAGE_FAILED. */
  example(index: number): Example {
    const words = reading(this.name, "STORAGE_FAILED", () => this.words.read(this.starts[index]!, this.length(index) + 1));
    const inputIds = Array.from(words.subarray(0, -1), (word) => word >> 1);
    const labels = Array.from(words.subarray(1), (word) => ((word & 1) === 1 ? word >> 1 : IGNORED_LABEL));
    return { inputIds, labels };
  }

  /** The examples of these numbers, in that order. */
  part(numbers: Uint32Array): Dataset {
    const lengths = Int32Array.from(numbers, (number) => this.lengths[number]!);
    const starts = Float64Array.from(numbers, (number) => this.starts[number]!);
    return new Dataset(this.name, this.report, this.sha256, this.tokensSha256, lengths, starts, this.words);
  }

  close(): void {
    this.words.close();
  }
}

/** Takes examples one by one, then gives the dataset, to which `scratch` belongs from then on. Throws IoError where that is full. */
export class DatasetWriter {
  private readonly words: Spool;
  private readonly lengths: number[] = [];
  private readonly starts: number[] = [];
  private readonly lineHashes: number[] = [];
  private readonly digest = new Sha256(); // of each example its length and its words, int32, little-endian
  private readonly forms = new Map<Form, number>();
  private readonly allLengths = new Map<number, number>();
  private readonly furtherKeys = new Map<string, number>();
  private blankLines = 0;
  private tokens = 0;
  private countedLabels = 0;
  private truncated = 0;
  private tokensCut = 0;
  private uncountedTurns = 0;
  private doubledEnds = 0;

  constructor(
    private readonly seqLen: number,
    scratch: Scratch,
  ) {
    this.words = new Spool(scratch);
  }

  /** That are not blank. */
  get lines(): number {
    return this.lineHashes.length;
  }

  passOverBlank(): void {
    this.blankLines++;
  }

  /** `lineHash`: equal for equal lines. */
  add(line: LineExample, lineHash = 0): void {
    const { inputIds, labels } = line.example;
    const excess = Math.max(0, inputIds.length - this.seqLen);
    this.lineHashes.push(lineHash);
    count(this.forms, line.form);
    count(this.allLengths, inputIds.length);
    for (const key of line.furtherKeys) {
      count(this.furtherKeys, this.furtherKeys.has(key) || this.furtherKeys.size < MOST_KEYS ? key : OTHER_KEYS);
    }
    this.uncountedTurns += line.uncountedTurns;
    this.doubledEnds += Number(line.doubledEnds);
    this.truncated += Number(excess > 0);
    this.tokensCut += excess;
    this.keep(excess > 0 ? { inputIds: inputIds.slice(0, this.seqLen), labels: labels.slice(0, this.seqLen) } : line.example);
  }

  private keep({ inputIds, labels }: Example): void {
    const counted = labels.filter((label) => label !== IGNORED_LABEL).length;
    if (counted === 0) return;
    const isCounted = (token: number) => (labels[token - 1] ?? IGNORED_LABEL) !== IGNORED_LABEL;
    const words = inputIds.map((id, token) => 2 * id + Number(isCounted(token)));
    words.push(isCounted(labels.length) ? 2 * labels.at(-1)! + 1 : 0);
    this.tokens += inputIds.length;
    this.countedLabels += counted;
    this.lengths.push(inputIds.length);
    this.starts.push(this.words.length);
    this.words.append(words);
    this.digest.update(littleEndian([inputIds.length, ...words]));
  }

  /** Throws LcsbError with DATA_EMPTY when there is no example. */
  dataset(name: string, sha256: string): Dataset {
    const { lines, seqLen } = this;
    if (lines === 0) throw empty(name, `the file is empty; expected one JSON object a line: ${FORMS}`);
    if (this.lengths.length === 0) {
      const what = `none of the ${lines} lines has a counted label within ${seqLen} tokens; use longer texts or a larger sequence length`;
      throw empty(name, `nothing to train on: ${what}`);
    }
    const [lengths, starts] = [Int32Array.from(this.lengths), Float64Array.from(this.starts)];
    return new Dataset(name, this.report(), sha256, this.digest.hex(), lengths, starts, this.words);
  }

  private report(): DataReport {
    const { lines, tokens, countedLabels, truncated, tokensCut, uncountedTurns, doubledEnds, blankLines, furtherKeys } = this;
    const examples = this.lengths.length;
    const of = (form: Form) => this.forms.get(form) ?? 0;
    return {
      lines, examples, tokens, countedLabels, truncated, tokensCut,
      withoutLabels: lines - examples,
      texts: of("text"),
      completions: of("completion"),
      conversations: of("messages"),
      uncountedTurns, doubledEnds,
      duplicates: lines - new Set(this.lineHashes).size,
      blankLines, furtherKeys,
      lengthP50: this.percentile(50),
      lengthP90: this.percentile(90),
      lengthP99: this.percentile(99),
      longest: this.percentile(100),
    };
  }

  /** The smallest length that at least `percent` of a hundred lines do not exceed. */
  private percentile(percent: number): number {
    let left = Math.ceil((percent * this.lines) / 100);
    const lengths = [...this.allLengths].sort(([one], [other]) => one - other);
    return lengths.find(([, lines]) => (left -= lines) <= 0)![0];
  }
}

function count<K>(counts: Map<K, number>, key: K): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

function littleEndian(numbers: readonly number[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(4 * numbers.length));
  numbers.forEach((number, index) => view.setInt32(4 * index, number, true));
  return new Uint8Array(view.buffer);
}

function empty(name: string, reason: string): LcsbError {
  return new LcsbError("DATA_EMPTY", `${name}: ${reason}`, [lastPart(name)]);
}

/**
 * [to train on, to evaluate on]: `share` of the examples is held out, chosen by `seed`, at least one of each; both in file order.
 *
 * Throws LcsbError with OPTION unless 0 < share < 1, and with DATA_EMPTY when there are fewer than two examples.
 */
export function holdOut(dataset: Dataset, share: number, seed: number): [training: Dataset, evaluation: Dataset] {
  if (!(share > 0 && share < 1)) throw new LcsbError("OPTION", `hold-out: expected more than 0 and less than 1, found ${share}`);
  const { size } = dataset;
  if (size < 2) throw empty(dataset.name, "has one example; expected at least two, or evaluation data of its own");
  const heldOut = Math.min(Math.max(Math.floor(share * size + 0.5), 1), size - 1);
  const order = shuffled(size, BigInt(seed), HELD_OUT_EPOCH);
  return [dataset.part(order.slice(heldOut).sort()), dataset.part(order.slice(0, heldOut).sort())];
}
