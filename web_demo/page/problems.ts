import { formatBytes } from "./formats.js";
import type { TextKey, Texts } from "./texts.js";
import type { Fault } from "../kit/faults.js";
import type { PageFault } from "./worker/problems.js";
import type { ToldProblem } from "./worker/protocol.js";

/** A cause's sentences begin with `fault_` and its name in small letters, and `…_todo` says what to do. */
type Sentences = `fault_${Lowercase<Fault | PageFault>}`;
const known = (fault: string) => `fault_${fault.toLowerCase()}` as Sentences;

/** What went wrong, in the person's language. Arguments that are numbers count bytes, but for a line's. */
export function whatHappened(t: Texts, { fault, args }: ToldProblem): string {
  const sizes = args.length >= 2 && args.slice(0, 2).every((arg) => Number.isFinite(Number(arg)));
  const bytes = args.slice(0, 2).map((arg) => formatBytes(t, Number(arg)));
  if (fault === "STORAGE_FULL" && sizes) return t.say("fault_storage_full_sizes", ...bytes);
  if (fault === "MEMORY_TOO_SMALL" && sizes) return t.say("fault_memory_too_small_sizes", ...bytes);
  if (fault === "DATA_LINE" && args.length >= 2) return t.say("fault_data_line_number", args[1]!);
  return t.say(known(fault), ...args);
}

export function whatToDo(t: Texts, { fault }: ToldProblem): string {
  return t.say(`${known(fault)}_todo` satisfies TextKey);
}
