import { LcsbError, type Fault } from "../../kit/faults.js";
import { IoError } from "../../kit/io/files.js";
import { isFull } from "../../kit/io/storage.js";
import { oneLine, reasonOf } from "../../kit/io/text.js";
import type { ToldProblem } from "./protocol.js";

/** What can go wrong beside the kit's faults. */
export const PAGE_FAULTS = ["NETWORK", "NO_SIMD", "NO_STORAGE", "NAME_TAKEN", "UNEXPECTED"] as const;
export type PageFault = (typeof PAGE_FAULTS)[number];

/** `message` as LcsbError's. */
export class PageError extends Error {
  constructor(
    readonly fault: PageFault,
    message: string,
    readonly args: readonly string[] = [],
  ) {
    super(message);
  }
}

/** Whatever was thrown, as the page is told of it. */
export function problemOf(error: unknown): ToldProblem {
  const told = (fault: Fault | PageFault, args: readonly string[] = []) => ({ fault, args, detail: reasonOf(error) });
  if (error instanceof LcsbError || error instanceof PageError) return told(error.fault, error.args);
  if (error instanceof IoError) return told(isFull(error) ? "STORAGE_FULL" : "STORAGE_FAILED");
  const name = error instanceof Error ? error.name : "";
  if (name === "QuotaExceededError") return told("STORAGE_FULL");
  if (name === "RangeError" && /memory|allocation|array buffer/i.test((error as Error).message)) return told("MEMORY_TOO_SMALL");
  // what a browser throws where its files were taken away meanwhile
  if (["NotFoundError", "InvalidStateError", "NotAllowedError", "NoModificationAllowedError"].includes(name)) return told("STORAGE_FAILED");
  return { fault: "UNEXPECTED", args: [], detail: oneLine(error instanceof Error ? `${error.name}: ${error.message}` : String(error)) };
}
