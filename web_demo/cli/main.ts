import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as ort from "onnxruntime-web"; // on Node its build that loads the same WebAssembly, and its threads, from files
import { Arguments, bad, compareArguments, compareOptionsOf, openAdapter, openData, optionsOf, trainArguments } from "./arguments.js";
import { guarded, NodeStorage } from "./nodeFiles.js";
import { readAdapterFile } from "../kit/adapter/adapter.js";
import { PEFT_CONFIG_FILE, peftFiles } from "../kit/adapter/peft.js";
import { Bundle } from "../kit/bundle.js";
import { compareAdapters } from "../kit/compare.js";
import { LcsbError, type Fault } from "../kit/faults.js";
import { encode } from "../kit/io/records.js";
import { storing } from "../kit/io/storage.js";
import { RunControl } from "../kit/runControl.js";
import type { RunObserver } from "../kit/runRecords.js";
import { verify } from "../kit/runs/verify.js";
import { BlockRunner } from "../kit/runtime/blockRunner.js";
import { TrainingRun } from "../kit/trainingRun.js";

// The kit on Node, with the command line of the other languages' programs: for comparing it with them, not for people.

const USAGE = "train BUNDLE DATA DIRECTORY --steps N [options of lcsb simulate] | compare BUNDLE DATA AFTER [options of lcsb compare] | " +
  "peft BUNDLE ADAPTER OUTPUT | verify BUNDLE [--threads N]";
const FAILURES: readonly Fault[] = [
  "MEMORY_EXCEEDED", "LOSS_NOT_FINITE", "GOLDEN_TRACE", "STORAGE_FULL", "STORAGE_FAILED", "RUNTIME_FAILED",
];

/** A line of JSON, with snake_case names. */
function line(fields: unknown): void {
  process.stdout.write(encode(fields));
  process.stdout.write("\n");
}

const observer: RunObserver = {
  phase: (phase) => line({ phase }),
  data: (report, heldOut) => line({ examples: report.examples, heldOut }),
  warned: (warning) => line({ warning }),
  resumed: (resumed) => line({ resumed }),
  evaluated: (evaluated, loss) => line({ evaluated, loss }),
  stepped: ({ step, loss, gradientSeconds, optimizerSeconds }, anonymousBytes) =>
    line({ step, loss, seconds: gradientSeconds + optimizerSeconds, anonymousBytes }),
  sampled: (prompt, text, after) => line({ prompt, text, after }),
};

async function train(given: Arguments): Promise<void> {
  const [bundle, data, directory] = given.positional;
  if (bundle === undefined || data === undefined || directory === undefined) throw bad(`expected: ${USAGE}`);
  const control = new RunControl();
  control.delayMillisBetweenLayers = given.number("delay") ?? 0;
  const opened = await Bundle.open(new NodeStorage(bundle));
  const run = new TrainingRun(ort, opened, openData(data), new NodeStorage(directory), optionsOf(given, anonymousBytes));
  line(await run.run(control, observer));
}

async function compare(given: Arguments): Promise<void> {
  const [directory, data, after] = given.positional;
  if (directory === undefined || data === undefined || after === undefined) throw bad(`expected: ${USAGE}`);
  const options = compareOptionsOf(given);
  const bundle = await Bundle.open(new NodeStorage(directory));
  const before = given.all("before").at(-1);
  const earlier = before === undefined ? null : openAdapter(before);
  line(await compareAdapters(ort, bundle, openData(data), earlier, openAdapter(after), new NodeStorage(tmpdir()), options));
}

async function peft([directory, file, output]: readonly string[]): Promise<void> {
  if (directory === undefined || file === undefined || output === undefined) throw bad(`expected: ${USAGE}`);
  const { layout } = await Bundle.open(new NodeStorage(directory));
  const adapter = new Float32Array(layout.size);
  readAdapterFile(openAdapter(file), layout, adapter);
  await storing(output, async () => {
    guarded(() => mkdirSync(output, { recursive: true, mode: 0o700 }));
    const there = readdirSync(output);
    if (there.length > 0 && !there.includes(PEFT_CONFIG_FILE)) {
      throw bad(`${output}: already exists and has no ${PEFT_CONFIG_FILE}; choose another path`);
    }
    for (const name of there) rmSync(join(output, name), { recursive: true });
    for (const [name, content] of peftFiles(layout, adapter)) guarded(() => writeFileSync(join(output, name), content, { mode: 0o600 }));
  });
  line({ directory: output });
}

async function verifyBundle(given: Arguments): Promise<void> {
  const [directory] = given.positional;
  if (directory === undefined) throw bad(`expected: ${USAGE}`);
  const bundle = await Bundle.open(new NodeStorage(directory));
  const runner = await BlockRunner.open(ort, bundle, { threads: given.number("threads") ?? 1 });
  line(await verify(bundle, runner));
}

/** What cannot be dropped and read again; null where the system does not say. */
function anonymousBytes(): number | null {
  if (process.platform !== "linux") return null;
  const found = /^Anonymous:\s+([0-9]+) kB$/m.exec(readFileSync("/proc/self/smaps_rollup", "latin1"));
  return found === null ? null : 1024 * Number(found[1]);
}

async function command([name, ...rest]: readonly string[]): Promise<void> {
  if (name === "train") return train(trainArguments(rest));
  if (name === "peft") return peft(new Arguments(rest, [], []).positional);
  if (name === "compare") return compare(compareArguments(rest));
  if (name === "verify") return verifyBundle(new Arguments(rest, ["threads"], []));
  throw bad(`expected: ${USAGE}`);
}

try {
  await command(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof LcsbError)) throw error;
  line({ fault: error.fault, error: error.message });
  process.exitCode = FAILURES.includes(error.fault) ? 1 : 2;
}
