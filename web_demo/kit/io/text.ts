// Texts for messages: one printable line each, of bounded length.

export const MOST_FAULTS = 8; // that an error names

/** As Python's str.isprintable: no control, mark of direction, surrogate, private or unassigned character; of blanks only the space. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{Zs}]/gu;

/** With escapes in place of what could change a terminal: control characters, marks that turn the direction of writing. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (character) => (character === " " ? character : escape(character.codePointAt(0)!)));
}

function escape(point: number): string {
  return point < 0x100 ? `\\x${point.toString(16).padStart(2, "0")}` : `\\u${point.toString(16).padStart(4, "0")}`;
}

/** A text as one printable line, cut to `most` characters. */
export function oneLine(text: string, most = 300): string {
  const line = printable(text.slice(0, 8 * most).trim().replace(/[ \t\n\r\v\f]+/g, " ").slice(0, most + 1));
  return line.length <= most ? line : `${line.slice(0, most)}…`;
}

/** In quotes, with escapes. */
export function quoted(text: string, most = 300): string {
  return `'${printable(text.slice(0, most).replaceAll("\\", "\\\\").replaceAll("'", "\\'"))}'`;
}

/** The first MOST_FAULTS of what is wrong, each as `oneLine`, and how many more there are. */
export function some(faults: readonly string[]): string {
  const more = faults.length > MOST_FAULTS ? ` (and ${faults.length - MOST_FAULTS} more)` : "";
  return faults.slice(0, MOST_FAULTS).map((fault) => oneLine(fault)).join("; ") + more;
}

/** Bytes as millions of them: "212.4 MB". */
export function megabytes(count: number): string {
  const tenths = Math.round(count / 1e5);
  const whole = String(Math.floor(tenths / 10)).replace(/\B(?=(\d{3})+$)/g, ",");
  return `${whole}.${tenths % 10} MB`;
}

/** What an error says, whatever was thrown. */
export function reasonOf(error: unknown): string {
  return oneLine(error instanceof Error ? error.message : String(error));
}
