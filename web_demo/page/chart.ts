import { h, type Child, type Tree } from "./dom.js";
import { formatCount, formatDecimal } from "./formats.js";
import type { Texts } from "./texts.js";
import type { Point } from "./worker/protocol.js";

// The loss, over the run's steps: each step's, faint; the same smoothed; and on the test examples, with dots. It is said in words too.

const KEPT = 0.9; // of the average, at each step
const [WIDTH, HEIGHT, TOP, RIGHT] = [330, 190, 8, 322];
const [BOTTOM, FONT] = [HEIGHT - 22, 12];
const DIGIT = 7; // about the width of one

/** The exponential moving average, without what it would have of a zero before the first; points that are not finite left out. */
export function smoothed(points: readonly Point[]): Point[] {
  let [sum, weight] = [0, 0];
  return points
    .filter(({ loss }) => Number.isFinite(loss))
    .map(({ step, loss }) => {
      sum = KEPT * sum + (1 - KEPT) * loss;
      weight = KEPT * weight + (1 - KEPT);
      return { step, loss: sum / weight };
    });
}

/** Three to six round numbers that enclose `low` and `high`, in equal steps. */
export function ticks(low: number, high: number): number[] {
  const span = Math.max(high - low, Math.max(Math.abs(high), 1e-3) * 0.02);
  const rough = span / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999)! * power;
  const first = Math.floor(low / step);
  const last = Math.max(Math.ceil(high / step), first + 2);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

export function lossChart(t: Texts, training: readonly Point[], evaluation: readonly Point[], steps: number): Tree {
  const losses = [...training, ...evaluation].map(({ loss }) => loss).filter(Number.isFinite);
  const smooth = smoothed(training);
  const legend = h(
    "div",
    { class: "legend", "aria-hidden": "true" },
    entry("trained", labelled(t, t.say("legend_training"), smooth.at(-1))),
    entry("evaluated", labelled(t, t.say("legend_evaluation"), evaluation.at(-1))),
  );
  if (losses.length === 0) return h("div", { class: "chart" }, legend, h("p", { class: "muted empty" }, t.say("chart_empty")));
  const drawn = drawing(t, { training, smooth, evaluation }, ticks(Math.min(...losses), Math.max(...losses)), Math.max(steps, 1));
  const attributes = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": inWords(t, smooth, evaluation) };
  return h("div", { class: "chart" }, legend, h("svg", attributes, ...drawn));
}

function labelled(t: Texts, name: string, last: Point | undefined): string {
  return last === undefined ? name : t.say("labelled", name, formatDecimal(t, last.loss, 2));
}

function entry(line: string, text: string): Tree {
  const sample = h("svg", { viewBox: "0 0 24 12", class: "sample" }, h("line", { x1: 1, y1: 6, x2: 23, y2: 6, class: line }));
  return h("span", {}, sample, text);
}

interface Lines {
  readonly training: readonly Point[];
  readonly smooth: readonly Point[];
  readonly evaluation: readonly Point[];
}

function drawing(t: Texts, { training, smooth, evaluation }: Lines, marks: readonly number[], steps: number): Child[] {
  const [low, high] = [marks[0]!, marks.at(-1)!];
  const digits = Math.max(0, -Math.floor(Math.log10(marks[1]! - low) + 1e-9));
  const labels = marks.map((mark) => formatDecimal(t, mark, digits));
  const left = Math.max(...labels.map((label) => label.length)) * DIGIT + 8;
  const x = (step: number) => left + ((RIGHT - left) * step) / steps;
  const y = (loss: number) => BOTTOM - ((BOTTOM - TOP) * (loss - low)) / (high - low);
  const curve = (points: readonly Point[], line: string) => {
    const places = points
      .filter(({ loss }) => Number.isFinite(loss))
      .map(({ step, loss }) => `${x(step).toFixed(1)},${y(loss).toFixed(1)}`);
    return h("polyline", { points: places.join(" "), class: line });
  };
  const grid = marks.flatMap((mark, i) => [
    h("line", { x1: left, y1: y(mark), x2: RIGHT, y2: y(mark), class: "grid" }),
    h("text", { x: left - 6, y: y(mark) + FONT / 3, "text-anchor": "end" }, labels[i]!),
  ]);
  const below = [...new Set([0, Math.floor(steps / 2), steps])].map((step) => {
    const anchor = step === steps ? "end" : step === 0 ? "start" : "middle";
    return h("text", { x: x(step), y: HEIGHT - 4, "text-anchor": anchor }, formatCount(t, step));
  });
  const dots = evaluation
    .filter(({ loss }) => Number.isFinite(loss))
    .map(({ step, loss }) => h("circle", { cx: x(step), cy: y(loss), r: 3.5, class: "dot" }));
  return [...grid, ...below, curve(training, "each"), curve(smooth, "trained"), curve(evaluation, "evaluated"), ...dots];
}

function inWords(t: Texts, smooth: readonly Point[], evaluation: readonly Point[]): string {
  const [first, last] = [smooth[0], smooth.at(-1)];
  const three = (value: number) => formatDecimal(t, value, 3);
  const training =
    first && last ? t.say("chart_training", formatCount(t, last.step), three(first.loss), three(last.loss)) : t.say("chart_empty");
  const [before, after] = [evaluation[0], evaluation.at(-1)];
  return before && after ? `${training} ${t.say("chart_evaluation", three(before.loss), three(after.loss))}` : training;
}
