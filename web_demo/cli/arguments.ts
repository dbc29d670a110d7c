import { openFile } from "./nodeFiles.js";
import { compareOptions, type CompareOptions } from "../kit/compare.js";
import { METHODS } from "../kit/bundle/schedule.js";
import { LcsbError } from "../kit/faults.js";
import { samplingConfig } from "../kit/generate.js";
import { reading, type StoredFile } from "../kit/io/files.js";
import { runOptions, type RunOptions } from "../kit/runOptions.js";
import { LEARNING_RATE_SCHEDULES } from "../kit/training/learningRate.js";

/** A command line: what has no dashes, and the options, each of which may be given again. Throws OPTION. */
export class Arguments {
  readonly positional: string[] = [];
  private readonly given = new Map<string, string[]>();

  constructor(words: readonly string[], names: readonly string[], flags: readonly string[]) {
    for (let i = 0; i < words.length; i++) {
      const word = words[i]!;
      const name = word.replace(/^--/, "");
      const takesValue = names.includes(name) && i + 1 < words.length;
      if (name === word) this.positional.push(word);
      else if (flags.includes(name) || takesValue) this.given.set(name, [...this.all(name), takesValue ? words[++i]! : ""]);
      else throw bad(`${word}: expected one of ${[...names, ...flags].map((known) => `--${known}`).join(", ")}, with a value`);
    }
  }

  all(name: string): string[] {
    return this.given.get(name) ?? [];
  }

  flag(name: string): boolean {
    return this.given.has(name);
  }

  number(name: string): number | null {
    const text = this.all(name).at(-1);
    if (text === undefined) return null;
    const value = Number(text);
    if (text.trim() === "" || Number.isNaN(value)) throw bad(`${name}: expected a number, found '${text}'`);
    return value;
  }

  choice<T extends string>(name: string, values: readonly T[]): T | null {
    const text = this.all(name).at(-1);
    if (text === undefined) return null;
    const found = values.find((value) => value === text);
    if (found === undefined) throw bad(`${name}: expected one of ${values.join(", ")}, found '${text}'`);
    return found;
  }
}

export function bad(message: string): LcsbError {
  return new LcsbError("OPTION", message);
}

const TRAIN_NAMES = [
  "steps", "lr", "lr-schedule", "warmup", "accumulation", "method", "eval-data", "hold-out", "eval-every", "checkpoint-every", "memory-budget",
  "keep", "threads", "prompt", "max-tokens", "temperature", "top-p", "stop", "seed", "delay",
];

/** As those of `lcsb simulate`; sizes in bytes, layers as a number. `--delay`: milliseconds of rest before each layer. */
export function trainArguments(words: readonly string[]): Arguments {
  return new Arguments(words, TRAIN_NAMES, ["chat"]);
}

/** `memory`: bytes that the process has now. Throws OPTION, DATA_UNREADABLE. */
export function optionsOf(given: Arguments, memory: () => number | null): RunOptions {
  const steps = given.number("steps");
  if (steps === null) throw bad("--steps is missing");
  const options = runOptions({ steps });
  const sampling = samplingConfig();
  const seed = given.number("seed") ?? options.seed;
  const evaluationData = given.all("eval-data").at(-1);
  return {
    steps,
    learningRate: given.number("lr"),
    lrSchedule: given.choice("lr-schedule", LEARNING_RATE_SCHEDULES) ?? options.lrSchedule,
    warmup: given.number("warmup") ?? options.warmup,
    accumulation: given.number("accumulation") ?? options.accumulation,
    method: given.choice("method", METHODS),
    evaluationData: evaluationData === undefined ? null : openData(evaluationData),
    holdOut: given.number("hold-out") ?? options.holdOut,
    evaluateEvery: given.number("eval-every") ?? options.evaluateEvery,
    checkpointEvery: given.number("checkpoint-every") ?? options.checkpointEvery,
    memoryBudget: given.number("memory-budget"),
    keep: given.number("keep"),
    threads: given.number("threads") ?? options.threads,
    prompts: given.all("prompt"),
    sampling: {
      maxTokens: given.number("max-tokens") ?? sampling.maxTokens,
      temperature: given.number("temperature") ?? sampling.temperature,
      topP: given.number("top-p") ?? sampling.topP,
      seed,
      stop: given.all("stop"),
    },
    chat: given.flag("chat"),
    seed,
    initialAdapter: options.initialAdapter,
    sampleHeldOut: options.sampleHeldOut,
    memory,
    gpu: options.gpu,
  };
}

/** As those of `lcsb compare`. `--whole`: the data is that of `--eval-data`, all of which is held out. */
export function compareArguments(words: readonly string[]): Arguments {
  return new Arguments(words, ["before", "hold-out", "seed", "examples", "threads"], ["whole"]);
}

/** Throws OPTION. */
export function compareOptionsOf(given: Arguments): CompareOptions {
  const options = compareOptions();
  return {
    holdOut: given.flag("whole") ? null : (given.number("hold-out") ?? options.holdOut),
    seed: given.number("seed") ?? options.seed,
    examples: given.number("examples") ?? options.examples,
    threads: given.number("threads") ?? options.threads,
  };
}

/** Throws DATA_UNREADABLE. */
export function openData(path: string): StoredFile {
  return reading(path, "DATA_UNREADABLE", () => openFile(path));
}

/** Throws ADAPTER. */
export function openAdapter(path: string): StoredFile {
  return reading(path, "ADAPTER", () => openFile(path));
}
