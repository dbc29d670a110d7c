import type { Subset } from "../../kit/bundle/schedule.js";
import type { Phase as KitPhase, RunHistory, RunObserver } from "../../kit/runRecords.js";
import type { StepOutcome } from "../../kit/training/trainer.js";
import type { Phase, Role, Tell } from "./protocol.js";

const INTERVAL = 50; // milliseconds between two layers that are told

const PHASES: Readonly<Partial<Record<KitPhase, Phase>>> = {
  data: "opening",
  loading: "opening",
  "golden trace": "opening",
  evaluation: "evaluating",
  gradients: "training",
};

/** Tells the page what a run does. */
export class Reporter implements RunObserver {
  schedule: readonly Subset[] = [];
  private runtime: string | null = null;
  private step = 0;
  private shown: Phase | null = null;
  private readonly recent: number[] = []; // seconds of the last steps, of a cycle or two
  private told = 0;

  constructor(
    private readonly tell: Tell,
    private readonly layers: number,
    private readonly steps: number,
  ) {}

  /** Of the kit's phases, those that a person tells apart. */
  phase(name: KitPhase | Phase): void {
    const phase = PHASES[name as KitPhase] ?? (name === "testing" || name === "comparing" || name === "opening" ? name : null);
    if (phase === null || phase === this.shown) return;
    this.shown = phase;
    const roles = phase === "training" ? this.roles() : [];
    this.tell({
      type: "run",
      run: { phase, step: this.step, steps: this.steps, roles, secondsAStep: this.seconds(), begun: this.step > 0, runtime: this.runtime },
    });
  }

  loaded(runtime: string): void {
    this.runtime = runtime;
  }

  resumed(step: number, { outcomes, evaluations }: RunHistory): void {
    this.step = step;
    const training = outcomes.map((outcome) => ({ step: outcome.step, loss: outcome.loss }));
    this.tell({ type: "history", training, evaluation: evaluations, samples: [] });
  }

  evaluated(step: number, loss: number): void {
    this.tell({ type: "evaluated", point: { step, loss } });
  }

  stepped({ step, loss, gradientSeconds, optimizerSeconds }: StepOutcome): void {
    this.step = step;
    this.recent.push(gradientSeconds + optimizerSeconds);
    if (this.recent.length > 2 * Math.max(1, this.schedule.length)) this.recent.shift();
    this.tell({ type: "stepped", point: { step, loss }, secondsAStep: this.seconds()!, roles: this.roles() });
  }

  layer(index: number): void {
    if (performance.now() - this.told < INTERVAL) return;
    this.told = performance.now();
    this.tell({ type: "layer", layer: index });
  }

  wrote(step: number, prompt: string, text: string, whole: boolean): void {
    this.tell({ type: "sampled", sample: { step, prompt, text, cut: !whole } });
  }

  private seconds(): number | null {
    return this.recent.length === 0 ? null : this.recent.reduce((sum, seconds) => sum + seconds, 0) / this.recent.length;
  }

  /** Of the step that comes next. */
  private roles(): Role[] {
    if (this.schedule.length === 0) return [];
    const { train, propagate } = this.schedule[this.step % this.schedule.length]!;
    return Array.from({ length: this.layers }, (_, layer) =>
      train.includes(layer) ? "trained" : propagate.includes(layer) && layer > train[0]! ? "passed" : "skipped",
    );
  }
}
