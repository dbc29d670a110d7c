import { RunControl, RunInterrupted } from "../../kit/runControl.js";

/** How a turn hears that it is to end. */
export interface Watch {
  /** Its `rest` is awaited between two layers. */
  readonly control: RunControl;
  readonly signal: AbortSignal;
  /** Throws RunInterrupted. */
  check(): void;
  /** What was asked so far was heard; what is asked from now on is for what comes next. */
  renew(): void;
}

class Turn implements Watch {
  control = new RunControl();
  private readonly aborted = new AbortController();

  get signal(): AbortSignal {
    return this.aborted.signal;
  }

  check(): void {
    this.control.check();
  }

  renew(): void {
    this.control = new RunControl();
  }

  pause(): void {
    this.control.pause();
    this.aborted.abort();
  }
}

/** One thing at a time: a file can be open once only, and two that compute would share the memory. */
export class Turns {
  private last: Promise<void> = Promise.resolve();
  private current: Turn | null = null;

  /** `failed` is told of what was thrown, but for interruptions. */
  constructor(private readonly failed: (error: unknown) => void) {}

  /** Waits for what is under way, which `interrupts` asks to end, and works. */
  start(work: (watch: Watch) => Promise<void>, interrupts = true): void {
    if (interrupts) this.pause();
    this.last = this.last.then(async () => {
      const turn = new Turn();
      this.current = turn;
      try {
        await work(turn);
      } catch (error) {
        if (!(error instanceof RunInterrupted)) this.failed(error);
      } finally {
        this.current = null;
      }
    });
  }

  /** What is under way ends soon; a run can go on later. */
  pause(): void {
    this.current?.pause();
  }

  /** A run that is under way ends where it is. */
  finish(): void {
    this.current?.control.stop();
  }
}
