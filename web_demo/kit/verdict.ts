import { LcsbError } from "./faults.js";
import { LEAST_EXAMPLES, SIGNIFICANCE, SignedRanks } from "./training/signedRanks.js";

/** What a comparison came to. `too-few`: of so few examples that no losses of them could have shown a difference. */
export type VerdictOutcome = "better" | "no-difference" | "worse" | "too-few";

/**
 * Whether `examples` that were not trained on have a lower loss after than before (docs/verdict.md). `improved`: how many of them have.
 * Losses are means over the examples, each of which counts once, however long it is. `p`: two-sided, of Wilcoxon's signed ranks; the
 * outcome is a difference where it is at most 0.05.
 */
export interface Verdict {
  readonly outcome: VerdictOutcome;
  readonly examples: number;
  readonly improved: number;
  readonly lossBefore: number;
  readonly lossAfter: number;
  readonly p: number;
}

/**
 * The verdict on the losses of the same examples, in the same order. Throws OPTION where their number differs, DATA_EMPTY where there are
 * none, LOSS_NOT_FINITE.
 */
export function judge(before: readonly number[], after: readonly number[]): Verdict {
  checkLosses(before, after);
  const ranks = new SignedRanks(before.map((loss, i) => loss - after[i]!));
  const p = ranks.p();
  return {
    outcome: outcomeOf(ranks, p, before.length),
    examples: before.length,
    improved: before.filter((loss, i) => after[i]! < loss).length,
    lossBefore: mean(before),
    lossAfter: mean(after),
    p,
  };
}

function outcomeOf(ranks: SignedRanks, p: number, examples: number): VerdictOutcome {
  if (examples < LEAST_EXAMPLES) return "too-few";
  if (p > SIGNIFICANCE) return "no-difference";
  return ranks.positive > ranks.negative ? "better" : "worse";
}

function mean(losses: readonly number[]): number {
  return losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
}

function checkLosses(before: readonly number[], after: readonly number[]): void {
  if (before.length !== after.length) {
    const found = `found ${after.length} and ${before.length}`;
    throw new LcsbError("OPTION", `losses: expected as many after as before, ${found}; compare the same examples`, ["losses"]);
  }
  if (before.length === 0) throw new LcsbError("DATA_EMPTY", "losses: expected those of at least one example, found none");
  for (const [name, losses] of [["before", before], ["after", after]] as const) {
    const bad = losses.findIndex((loss) => !Number.isFinite(loss));
    if (bad < 0) continue;
    const found = `example ${bad + 1} of ${losses.length}: its loss ${name} is ${losses[bad]}`;
    throw new LcsbError("LOSS_NOT_FINITE", `${found}; an adapter that gives such a loss is of no use`, [String(bad + 1)]);
  }
}
