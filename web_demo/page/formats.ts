import type { Texts } from "./texts.js";

// Figures as the language of the texts writes them.

/** As it would be read aloud: 1,234. */
export function formatCount(t: Texts, value: number): string {
  return new Intl.NumberFormat(t.language, { maximumFractionDigits: 0 }).format(value);
}

export function formatDecimal(t: Texts, value: number, digits: number): string {
  if (!Number.isFinite(value)) return "–";
  return new Intl.NumberFormat(t.language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

/** 1 MB is 1,000,000 bytes. */
export function formatBytes(t: Texts, bytes: number): string {
  if (bytes < 1e6) return t.say("kilobytes", formatCount(t, Math.ceil(bytes / 1000)));
  if (bytes < 1e7) return t.say("megabytes", formatDecimal(t, bytes / 1e6, 1));
  if (bytes < 1e9) return t.say("megabytes", formatCount(t, Math.floor(bytes / 1e6)));
  return t.say("gigabytes", formatDecimal(t, bytes / 1e9, 1));
}

export function formatSeconds(t: Texts, seconds: number): string {
  return t.say("seconds", formatDecimal(t, seconds, seconds < 1 ? 2 : 1));
}

/** A time for a figure: "≈ 4 min". */
export function formatRoughly(t: Texts, seconds: number): string {
  const minutes = Math.round(seconds / 60);
  if (minutes < 1) return t.say("roughly", t.say("seconds", formatCount(t, Math.ceil(seconds))));
  return t.say(
    "roughly",
    minutes < 90 ? t.say("minutes_short", formatCount(t, minutes)) : t.say("hours_short", formatCount(t, minutes / 60)),
  );
}

/** A time to wait, rounded to what a person plans with. */
export function formatDuration(t: Texts, seconds: number): string {
  const minutes = Math.round(seconds / 60);
  if (minutes < 1) return t.say("under_a_minute");
  return minutes < 90 ? t.plural("minutes", minutes) : t.plural("hours", Math.round(minutes / 60));
}

/** Small as learning rates are, with no more digits than it has: 0.0008. */
export function formatRate(t: Texts, rate: number): string {
  return new Intl.NumberFormat(t.language, { maximumSignificantDigits: 3, maximumFractionDigits: 8 }).format(rate);
}

/** A rate as it was typed, with the language's own point; null for what is none above 0 and up to 1. */
export function parseRate(typed: string): number | null {
  const value = Number(typed.trim().replace(",", "."));
  return typed.trim() !== "" && value > 0 && value <= 1 ? value : null;
}

export function formatDay(t: Texts, millis: number): string {
  return new Intl.DateTimeFormat(t.language, { dateStyle: "medium" }).format(millis);
}

/** What training did to the loss on examples that the model had not seen: "3.40 → 1.42". */
export function lossChange(t: Texts, before: number, after: number): string {
  return t.say("loss_change", formatDecimal(t, before, 2), formatDecimal(t, after, 2));
}

/**
 * What that means. exp(-loss) is the probability of the right next token, in the geometric mean; a gain that the figure does not show is
 * none.
 */
export function lossChangeInWords(t: Texts, before: number, after: number): string {
  if (!(after < before) || formatDecimal(t, before, 2) === formatDecimal(t, after, 2)) return t.say("loss_no_better");
  return t.say("loss_better", formatChance(t, Math.exp(-before)), formatChance(t, Math.exp(-after)));
}

function formatChance(t: Texts, chance: number): string {
  return new Intl.NumberFormat(t.language, { style: "percent", maximumFractionDigits: chance < 0.1 ? 1 : 0 }).format(chance);
}

/** Layer numbers from 0 as people count them: 1–3, 5. */
export function formatLayers(layers: readonly number[]): string {
  const runs: [number, number][] = [];
  for (const layer of layers) {
    const last = runs.at(-1);
    if (last !== undefined && last[1] === layer - 1) last[1] = layer;
    else runs.push([layer, layer]);
  }
  return runs.map(([from, to]) => (from === to ? `${from + 1}` : `${from + 1}–${to + 1}`)).join(", ");
}
