/** The largest p that is called a difference. */
export const SIGNIFICANCE = 0.05;

/** Of fewer examples than that no losses give a p as small: 2 / 2^n is above it. */
export const LEAST_EXAMPLES = 6;

const EXACT = 128; // differences, up to which p is counted out

/**
 * Wilcoxon's signed ranks (Biometrics Bulletin 1, 1945): the differences that are not zero, ranked by size, equal ones by the mean of their
 * ranks; `positive` and `negative` are the sums of their ranks, times two, so that they are whole.
 *
 * Differences of zero are left out, as Wilcoxon did and as R and SciPy do by default: whoever has the losses finds the same p there.
 */
export class SignedRanks {
  readonly positive: number;
  readonly negative: number;
  private readonly ranks: readonly number[];

  constructor(differences: readonly number[]) {
    const sorted = differences.filter((difference) => difference !== 0).sort((a, b) => Math.abs(a) - Math.abs(b));
    this.ranks = doubledRanks(sorted);
    this.positive = sum(this.ranks.filter((_, i) => sorted[i]! > 0));
    this.negative = sum(this.ranks) - this.positive;
  }

  /** Two-sided: the probability of sums as unequal, if each difference were as likely of the other sign. */
  p(): number {
    return Math.min(1, 2 * (this.ranks.length <= EXACT ? this.exactTail() : this.normalTail()));
  }

  /** Of all ways to sign the ranks the share whose positive ones sum to as much as the larger sum. */
  private exactTail(): number {
    const ways = new Float64Array(sum(this.ranks) + 1); // by sum: the share of the ways to sign the ranks so far
    ways[0] = 1;
    let top = 0;
    for (const rank of this.ranks) {
      top += rank;
      for (let sum = top; sum >= 0; sum--) ways[sum] = (ways[sum]! + (sum >= rank ? ways[sum - rank]! : 0)) / 2;
    }
    let tail = 0;
    for (let sum = top; sum >= Math.max(this.positive, this.negative); sum--) tail += ways[sum]!; // the smallest first
    return tail;
  }

  /**
   * The same by the normal distribution with this mean and variance, which is that of the ranks as tied; corrected for continuity by half a
   * rank.
   */
  private normalTail(): number {
    const deviation = Math.sqrt(sum(this.ranks.map((rank) => rank * rank))) / 2;
    const beyond = Math.max(0, Math.abs(this.positive - this.negative) / 2 - 1);
    return upperTail(beyond / deviation);
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Of differences by size the ranks from 1, times two: of equal ones the first and the last, added. */
function doubledRanks(sorted: readonly number[]): number[] {
  const ranks: number[] = [];
  while (ranks.length < sorted.length) {
    const first = ranks.length;
    let last = first;
    while (last + 1 < sorted.length && Math.abs(sorted[last + 1]!) === Math.abs(sorted[first]!)) last++;
    while (ranks.length <= last) ranks.push(first + last + 2);
  }
  return ranks;
}

const SERIES_UP_TO = 2.5; // from there on the continued fraction takes fewer terms
const ROOT_OF_TWO_PI = Math.sqrt(2 * Math.PI);

/** The standard normal distribution above `z`, which is not negative: by its series, or its continued fraction (DLMF 7.6.2, 7.9.1). */
export function upperTail(z: number): number {
  const density = Math.exp((-z * z) / 2) / ROOT_OF_TWO_PI;
  if (z > SERIES_UP_TO) {
    let fraction = z;
    for (let term = 200; term > 0; term--) fraction = z + term / fraction;
    return density / fraction;
  }
  let term = z;
  let series = z;
  for (let odd = 3; term > series * 1e-17; odd += 2) {
    term *= (z * z) / odd;
    series += term;
  }
  return 0.5 - density * series;
}
