import { lossyUtf8 } from "../io/utf8.js";
import { strip } from "../text/texts.js";
import { FORM_KEYS, UTF16 } from "./lineRecord.js";

// Files that are not JSON lines but could be: recognised by how they begin, and answered with the one command that turns them into it, as
// the desktop answers, word for word. Specification: docs/data.md.

const SHOWN_BYTES = 4096; // of a first line that is looked at
const DELIMITERS = [[",", ""], [";", ", delimiter=';'"], ["\t", ", delimiter='\\t'"]] as const;
const CSV_KEYS = FORM_KEYS.filter(([first]) => first !== "messages" && first !== "conversations"); // a cell holds no array
const PLAIN_NAME = /^[A-Za-z0-9_@%+=:,./-]+$/;
const LINES = ", sep='\\n')";
const ARRAY = `print(*map(json.dumps, json.load(open(sys.argv[1], 'rb')))${LINES}`;

// A line that is a brace alone ends an object: within a string JSON has no line's end, and what is within an object is indented.
const PARTS = "open(sys.argv[1], encoding='utf-8-sig').read().split('\\n}')[:-1]";
const INDENTED = `print(*(json.dumps(json.loads(x + '}')) for x in ${PARTS})${LINES}`;

/**
 * What a file of this name is whose first line that is not blank is `raw`, or begins so, and the command that makes it JSON lines; null for
 * JSON lines, and for what is not known.
 */
export function otherFormat(raw: Uint8Array, name: string): string | null {
  const [source, target] = [shellQuoted(name), shellQuoted(targetOf(name))];
  const encoding = utf16(raw);
  if (encoding !== null) return `${UTF16}: iconv -f ${encoding} -t UTF-8 ${source} > ${target}`;
  const line = strip(lossyUtf8(raw.subarray(0, SHOWN_BYTES)).replace(/^\ufeff/, ""));
  const program = programFor(line);
  if (program === null) return null;
  return `${program.what}; expected one JSON object a line: python3 -c "import ${program.code}" ${source} > ${target}`;
}

function programFor(line: string): { what: string; code: string } | null {
  if (line.startsWith("[") && /^(\{|$)/.test(strip(line.slice(1)))) return { what: "a JSON array", code: `json, sys; ${ARRAY}` };
  if (line === "{") return { what: "JSON over several lines", code: `json, sys; ${INDENTED}` };
  const delimiter = delimiterOf(line);
  if (delimiter === undefined) return null;
  const table = `csv.DictReader(open(sys.argv[1], encoding='utf-8-sig', newline='')${delimiter})`;
  return { what: "CSV", code: `csv, json, sys; print(*map(json.dumps, ${table})${LINES}` };
}

/** UTF-16, or UTF-16LE or UTF-16BE without a mark, where the first two bytes are of it: JSON and CSV begin with ASCII. */
function utf16(raw: Uint8Array): string | null {
  const [first, second] = [raw[0], raw[1]];
  if (second === undefined) return null;
  if ((first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff)) return "UTF-16";
  if ((first === 0) === (second === 0)) return null;
  return first === 0 ? "UTF-16BE" : "UTF-16LE";
}

/** As an argument of the reader of a table: what parts the columns of one whose first line names those of a form. */
function delimiterOf(line: string): string | undefined {
  const isTable = (delimiter: string) => {
    const names = line.split(delimiter).map((name) => strip(name).replace(/^"+|"+$/g, ""));
    return CSV_KEYS.some((keys) => keys.every((key) => names.includes(key)));
  };
  return DELIMITERS.find(([delimiter]) => isTable(delimiter))?.[1];
}

/** Beside the file, and never the file itself. */
function targetOf(file: string): string {
  const name = file.slice(file.lastIndexOf("/") + 1);
  const stem = name.lastIndexOf(".") > 0 ? name.slice(0, name.lastIndexOf(".")) : name;
  return `${file.slice(0, file.length - name.length)}${stem}.lines.jsonl`;
}

function shellQuoted(text: string): string {
  return PLAIN_NAME.test(text) ? text : `'${text.replaceAll("'", "'\"'\"'")}'`;
}
