import { LcsbError } from "../faults.js";
import { megabytes } from "../io/text.js";
import type { Phase, RunObserver } from "../runRecords.js";
import { secondsSince } from "../training/trainer.js";

const INTERVAL = 0.25; // seconds

/** The most memory that the process has had, as far as there is a way to know, against the most that is allowed. */
export class MemoryWatch {
  peak: number | null = null;
  private looked = performance.now();

  constructor(
    private readonly budget: number | null,
    private readonly memory: () => number | null,
  ) {}

  /** Bytes now, 0 where the system does not say. */
  sample(): number {
    this.looked = performance.now();
    const now = this.memory();
    if (now === null) return 0;
    this.peak = Math.max(this.peak ?? 0, now);
    return now;
  }

  /** Between two layers of step `step`: looks only now and then, as it takes some milliseconds. Throws MEMORY_EXCEEDED. */
  look(step: number): void {
    if (secondsSince(this.looked) < INTERVAL) return;
    this.sample();
    this.stopAboveBudget(step);
  }

  /** Throws MEMORY_EXCEEDED. */
  stopAboveBudget(step: number): void {
    const { peak, budget } = this;
    if (peak === null || budget === null || peak <= budget) return;
    const reached = `step ${step}: the run reached ${megabytes(peak)} of memory, more than the ${megabytes(budget)} allowed`;
    const remedy = "allow more, or export with a shorter --seq-len";
    const message = `${reached}; it was stopped and the last adapter that gave a finite loss kept; ${remedy}`;
    throw new LcsbError("MEMORY_EXCEEDED", message, [String(peak), String(budget)]);
  }
}

/** How long each phase took. */
export class PhaseClock {
  private readonly spent = new Map<string, number>();
  private phase: Phase | null = null;
  private since = 0;

  constructor(private readonly observer: RunObserver) {}

  /** From now on the run is in `next`; null: in none. */
  enter(next: Phase | null): void {
    if (this.phase !== null) this.spent.set(this.phase, (this.spent.get(this.phase) ?? 0) + secondsSince(this.since));
    this.phase = next;
    this.since = performance.now();
    if (next !== null) this.observer.phase?.(next);
  }

  /** AdamW's `optimizer` seconds are taken out of the steps that contain them. */
  seconds(optimizer: number): Map<string, number> {
    const found = new Map(this.spent);
    return found.set("gradients", (found.get("gradients") ?? 0) - optimizer).set("optimizer", optimizer);
  }
}
