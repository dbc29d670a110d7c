import { IGNORED_LABEL } from "../bundle/batch.js";
import { LcsbError } from "../faults.js";
import type { StoredFile } from "../io/files.js";
import type { Storage } from "../io/storage.js";
import type { Tokenizer } from "../text/tokenizer.js";
import type { DataReport, Dataset } from "./dataset.js";
import { type Progress, readDataset, type Reading } from "./datasetReader.js";
import { countSequences } from "./packing.js";

/** Neighbouring tokens that all count for the loss, or none of them; as text. */
export interface PreviewPiece {
  readonly text: string;
  readonly counted: boolean;
}

/**
 * What a data file comes to. `sequences`, their `fill` (0 to 1) and `steps` are those of seed 0's first epoch, nothing held out.
 *
 * `seqLenToCut1Percent`, `seqLenToCutNone`: the least that cut at most 1 % of the lines, and none. `preview`: the first examples.
 */
export interface TokenReport {
  readonly sha256: string;
  readonly data: DataReport;
  readonly sequences: number;
  readonly fill: number;
  readonly steps: number;
  readonly seqLenToCut1Percent: number;
  readonly seqLenToCutNone: number;
  readonly preview: readonly (readonly PreviewPiece[])[];
}

/** `accumulation`: sequences a step; `examples`: how many to show. */
export interface ReportOptions {
  readonly accumulation: number;
  readonly examples: number;
}

/** Reads the file as a run would. Throws as `readDataset` does, and OPTION. */
export async function reportTokens(
  file: StoredFile,
  how: Reading,
  { accumulation, examples }: ReportOptions,
  storage: Pick<Storage, "path" | "scratch">,
  progress?: Progress,
): Promise<TokenReport> {
  for (const [name, value, least] of [["seq-len", how.seqLen, 1], ["accumulation", accumulation, 1], ["preview", examples, 0]] as const) {
    if (!(value >= least)) throw new LcsbError("OPTION", `${name}: expected at least ${least}, found ${value}`);
  }
  const dataset = await readDataset(file, how, storage, progress);
  try {
    const { report: data, sha256 } = dataset;
    const sequences = countSequences(dataset, how.seqLen, 0);
    return {
      sha256,
      data,
      sequences,
      fill: data.tokens / (sequences * how.seqLen),
      steps: Math.ceil(sequences / accumulation),
      seqLenToCut1Percent: data.lengthP99,
      seqLenToCutNone: data.longest,
      preview: Array.from({ length: Math.min(examples, dataset.size) }, (_, index) => preview(dataset, index, how.tokenizer)),
    };
  } finally {
    dataset.close();
  }
}

/**
 * What the loss sees of an example, in pieces. Decoded from its beginning each time: some tokenizers write a first token otherwise than a
 * later one.
 */
export function preview(dataset: Dataset, index: number, tokenizer: Tokenizer): PreviewPiece[] {
  const { inputIds, labels } = dataset.example(index);
  const counted = inputIds.map((_, token) => token > 0 && labels[token - 1] !== IGNORED_LABEL);
  const edges = counted.flatMap((now, token) => (token > 0 && now !== counted[token - 1] ? [token] : []));
  let before = 0;
  return [...edges, inputIds.length].map((edge) => {
    const text = tokenizer.decode(inputIds.slice(0, edge), true);
    const piece = { text: text.slice(before), counted: counted[edge - 1]! };
    before = text.length;
    return piece;
  });
}
