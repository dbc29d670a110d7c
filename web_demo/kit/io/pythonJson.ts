// JSON in the bytes that the desktop writes: a checkpoint or an adapter is the same file whoever wrote it.

const SHORT: Readonly<Record<string, string>> = { '"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f" };

/** A string as Python's json.dumps writes it: whatever is not ASCII is escaped. */
export function asciiJson(text: string): string {
  const escape = (unit: string) => SHORT[unit] ?? `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return `"${text.replace(/["\\]|[^ -~]/g, escape)}"`;
}

/** A finite double in the fewest digits that give it back, as Python's `repr`: 16.0, 0.0001, 1e-05. */
export function pythonRepr(value: number): string {
  return shortest(value, -4, (power) => (power < 0 ? `e-${String(-power).padStart(2, "0")}` : `e+${power}`));
}

/** The same as msgspec writes it: 0.00001, 1e-6, 1e16. */
export function msgspecRepr(value: number): string {
  return shortest(value, -5, (power) => `e${power}`);
}

/** Plain from 10^least to below 10^16, else with the text that `exponent` gives. A number's own text has the fewest digits. */
function shortest(value: number, least: number, exponent: (power: number) => string): string {
  if (!Number.isFinite(value)) throw new RangeError(`JSON has no ${value}`);
  if (value === 0) return Object.is(value, -0) ? "-0.0" : "0.0";
  const [mantissa, written] = Math.abs(value).toExponential().split("e") as [string, string];
  const digits = mantissa.replace(".", "");
  const power = Number(written); // of the first digit
  const sign = value < 0 ? "-" : "";
  if (power < least || power >= 16) return `${sign}${mantissa}${exponent(power)}`;
  if (power < 0) return `${sign}0.${"0".repeat(-power - 1)}${digits}`;
  if (digits.length <= power + 1) return `${sign}${digits.padEnd(power + 1, "0")}.0`;
  return `${sign}${digits.slice(0, power + 1)}.${digits.slice(power + 1)}`;
}
