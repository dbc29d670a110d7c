/** How a call of `TrainingRun.run` ended. */
export type RunOutcome = "FINISHED" | "PAUSED" | "CANCELLED";

/** Somebody asked for it: no failure. */
export class RunInterrupted extends Error {
  constructor(readonly outcome: "PAUSED" | "CANCELLED") {
    super(outcome);
    this.name = "RunInterrupted";
  }
}

/**
 * Pauses, stops or slows a run. It takes effect between two layers: the step under way is dropped, and redone when the run is resumed. Between
 * layers the worker hears its messages, so that one of them may ask. One object serves one call of `TrainingRun.run`.
 */
export class RunControl {
  /** How long the run rests before each layer: a cooler phone for a slower run. */
  delayMillisBetweenLayers = 0;
  private wanted: "PAUSED" | "CANCELLED" | null = null;
  private wake = () => {};

  /** The run's state is saved and `TrainingRun.run` returns PAUSED. */
  pause(): void {
    this.ask("PAUSED");
  }

  /** Likewise, and the adapter's file is written: CANCELLED. */
  stop(): void {
    this.ask("CANCELLED");
  }

  private ask(outcome: "PAUSED" | "CANCELLED"): void {
    if (this.wanted !== "CANCELLED") this.wanted = outcome;
    this.wake();
  }

  /** Called where the run may be interrupted. */
  check(): void {
    if (this.wanted !== null) throw new RunInterrupted(this.wanted);
  }

  /** Likewise, where a stop would come too early: its result is to say what was saved, which is not read yet. */
  checkPaused(): void {
    if (this.wanted === "PAUSED") this.check();
  }

  /** Awaited between two layers: rests, unless it is interrupted. */
  async rest(): Promise<void> {
    await heard();
    if (this.wanted === null && this.delayMillisBetweenLayers > 0) await this.asked(this.delayMillisBetweenLayers);
    this.check();
  }

  private asked(most: number): Promise<void> {
    return new Promise((settle) => {
      const timer = setTimeout(settle, most);
      this.wake = () => {
        clearTimeout(timer);
        settle();
      };
    });
  }
}

/** Until the messages that wait were heard. A timer would be slower: browsers make repeated ones wait for four milliseconds. */
function heard(): Promise<void> {
  return new Promise((settle) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      settle();
    };
    port2.postMessage(null);
  });
}
