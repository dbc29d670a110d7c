import { JsonError, JsonReader, type JsonTree } from "../io/jsonReader.js";
import { oneLine, quoted } from "../io/text.js";
import { faultReason, firstFault, lossyUtf8 } from "../io/utf8.js";
import type { Message } from "../text/chatFormat.js";
import { strip } from "../text/texts.js";

/** What is wrong with one line, without a file's name; `encoding`: its bytes are no text of UTF-8. */
export class LineFault extends Error {
  constructor(
    readonly reason: string,
    readonly encoding = false,
  ) {
    super(reason);
    this.name = "LineFault";
  }
}

/**
 * What one line of a data file says. ShareGPT's and Alpaca's forms are conversations by other names (docs/data.md).
 *
 * Of a text every token is counted, the end token too; the first has nothing before it that could predict it. Of a completion, it and the
 * end token. Of a conversation the assistant's turns, with the tokens that end them; what follows the last of them is dropped.
 */
export type Line =
  | { readonly form: "text"; readonly text: string }
  | { readonly form: "completion"; readonly prompt: string; readonly completion: string }
  | { readonly form: "messages"; readonly messages: readonly Message[] };

/** `furtherKeys`: those that were passed over, in their order, each once; of a turn as `messages[].name`. */
export interface DecodedLine {
  readonly line: Line;
  readonly furtherKeys: readonly string[];
}

export const FORMS = '{"text"}, {"prompt", "completion"}, {"messages"}, {"conversations"} or {"instruction", "output"}';
const TURN_FORMS = '{"role", "content"} or {"from", "value"}';
const SHOWN_CHARACTERS = 200; // of what a stranger's file says, in an error
const KEY_CHARACTERS = 40; // of a key that is passed over, in the report
export const UTF16 = "not UTF-8 but, by its zero bytes, UTF-16; save the file as UTF-8";
const TEXT = ["text"];
const COMPLETION = ["prompt", "completion"];
const ALPACA = ["instruction", "output"];

/** What each form must have, and what it may have beside that. */
export const FORM_KEYS: readonly (readonly string[])[] = [TEXT, COMPLETION, ["messages"], ["conversations"], ALPACA];
const OPTIONAL = new Map([
  ["messages", ["system"]],
  ["conversations", ["system"]],
  ["instruction", ["input", "system", "history"]],
]);
const KNOWN_KEYS = new Set([...FORM_KEYS.flat(), ...[...OPTIONAL.values()].flat()]);
const TURN_KEYS = [["role", "content"], ["from", "value"]] as const;

/** `from` of ShareGPT. Tools' calls and results are refused: each template has a way of its own. */
const SHAREGPT_ROLES = new Map([
  ["system", "system"], ["human", "user"], ["user", "user"], ["gpt", "assistant"], ["assistant", "assistant"],
]);

/** Whether `raw` is a line without text. */
export function isBlankLine(raw: Uint8Array): boolean {
  const text = withoutMark(raw);
  const first = text.find((byte) => byte !== 0x20 && byte !== 0x09 && byte !== 0x0a && byte !== 0x0d);
  return first !== 0x7b && strip(lossyUtf8(text)) === "";
}

/** The record of a line, its end included. Throws LineFault with what was expected and found. */
export function decodeLine(raw: Uint8Array): DecodedLine {
  const text = checkedText(raw);
  if (isBlankLine(raw)) throw new LineFault(`a blank line; expected ${FORMS}`);
  const fields = new Map<string, JsonTree>();
  try {
    const json = new JsonReader(text);
    json.object((key) => {
      if (KNOWN_KEYS.has(key)) return void fields.set(key, json.tree());
      json.skip();
      fields.set(key, null);
    });
    json.finish();
  } catch (error) {
    if (error instanceof JsonError) throw new LineFault(`not JSON: ${error.message}`);
    throw error;
  }
  return new RecordReader(fields).read();
}

/** Without the byte order mark that editors on Windows put before the first line. */
function withoutMark(raw: Uint8Array): Uint8Array {
  return raw[0] === 0xef && raw[1] === 0xbb && raw[2] === 0xbf ? raw.subarray(3) : raw;
}

/** The text of a line, without a byte order mark. Throws LineFault for what is not UTF-8. */
export function checkedText(raw: Uint8Array): Uint8Array {
  const [first, second] = [raw[0], raw[1]];
  const isMarked = (first === 0xff && second === 0xfe) || (first === 0xfe && second === 0xff && raw.length > 2);
  if (isMarked || (second !== undefined && (first === 0 || second === 0))) throw new LineFault(UTF16, true);
  const text = withoutMark(raw);
  const fault = firstFault(text);
  if (fault < 0) return text;
  throw new LineFault(`not UTF-8: ${faultReason(text, fault)} at byte ${fault}; save the file as UTF-8`, true);
}

/** Makes a line's record of its fields, and gathers the keys that are passed over. Each part throws LineFault. */
class RecordReader {
  private readonly further: string[] = [];

  constructor(private readonly fields: ReadonlyMap<string, JsonTree>) {}

  read(): DecodedLine {
    const form = this.form();
    const known = new Set([...form, ...(OPTIONAL.get(form[0]!) ?? [])]);
    this.further.push(...[...this.fields.keys()].filter((key) => !known.has(key)));
    const line = this.line(form);
    if (line.form === "messages" && line.messages.every(({ content }) => content === "")) {
      throw new LineFault(`${form[0]}: expected text, found an empty string`);
    }
    return { line, furtherKeys: [...new Set(this.further.map(shownKey))] };
  }

  private line(form: readonly string[]): Line {
    if (form === TEXT) return { form: "text", text: this.nonempty("text") };
    if (form === COMPLETION) return { form: "completion", prompt: this.nonempty("prompt"), completion: this.nonempty("completion") };
    return { form: "messages", messages: this.withSystem(form === ALPACA ? this.alpaca() : this.turns(form[0]!)) };
  }

  private form(): readonly string[] {
    const [form, ...others] = FORM_KEYS.filter((keys) => keys.every((key) => this.fields.has(key)));
    if (form === undefined) throw new LineFault(`expected the keys of ${FORMS}, found ${names(this.fields.keys())}`);
    if (others.length === 0) return form;
    throw new LineFault(`more than one form: expected the keys of one of ${FORMS}, found ${names([form, ...others].flat())}`);
  }

  /** The conversation of `messages` or `conversations`. */
  private turns(name: string): Message[] {
    const turns = this.field(name);
    if (!Array.isArray(turns)) throw new LineFault(`${name}: expected an array, found ${kind(turns)}`);
    if (turns.length === 0) throw new LineFault(`${name}: expected at least one turn, found an empty array`);
    return turns.map((turn, index) => this.turn(`${name}[${index}]`, turn, name));
  }

  private turn(place: string, turn: JsonTree, name: string): Message {
    if (!(turn instanceof Map)) throw new LineFault(`${place}: expected an object, found ${kind(turn)}`);
    const [form, other] = TURN_KEYS.filter((keys) => keys.every((key) => turn.has(key)));
    if (form === undefined || other !== undefined) {
      throw new LineFault(`${place}: expected the keys of ${TURN_FORMS}, found ${names(turn.keys())}`);
    }
    const [role, content] = form.map((key) => string(`${place}.${key}`, turn.get(key)!)) as [string, string];
    if (role === "") throw new LineFault(`${place}.${form[0]}: expected text, found an empty string`);
    const ours = form[0] === "role" ? role : SHAREGPT_ROLES.get(role);
    if (ours === undefined) throw new LineFault(`${place}.from: expected system, human or gpt, found ${names([role])}`);
    for (const key of turn.keys()) if (key !== form[0] && key !== form[1]) this.further.push(`${name}[].${key}`);
    return { role: ours, content };
  }

  /** The pairs of `history`, then instruction and input, a line each, as the user's turn, and the output as the assistant's. */
  private alpaca(): Message[] {
    const history = this.field("history") ?? [];
    if (!Array.isArray(history)) throw new LineFault(`history: expected an array, found ${kind(history)}`);
    const turns = history.flatMap((pair, index) => {
      if (!Array.isArray(pair) || pair.length !== 2) throw new LineFault(`history[${index}]: expected an array of two strings`);
      const [question, answer] = pair.map((text, place) => string(`history[${index}][${place}]`, text)) as [string, string];
      return exchange(question, answer);
    });
    const [instruction, output] = ALPACA.map((name) => string(name, this.field(name))) as [string, string];
    const question = [instruction, this.optional("input")].filter((text) => text !== "").join("\n");
    return [...turns, ...exchange(question, output)];
  }

  /** With the text of `system` before it, unless the conversation begins with such a turn: then that one counts. */
  private withSystem(turns: Message[]): Message[] {
    const system = this.optional("system");
    if (system === "") return turns;
    if (turns[0]!.role !== "system") return [{ role: "system", content: system }, ...turns];
    this.further.push("system");
    return turns;
  }

  private nonempty(name: string): string {
    const text = string(name, this.field(name));
    if (text === "") throw new LineFault(`${name}: expected text, found an empty string`);
    return text;
  }

  /** Libraries write null for what a record does not have. */
  private optional(name: string): string {
    const value = this.field(name);
    return value === null ? "" : string(name, value);
  }

  private field(name: string): JsonTree {
    return this.fields.get(name) ?? null;
  }
}

function exchange(question: string, answer: string): Message[] {
  return [{ role: "user", content: question }, { role: "assistant", content: answer }];
}

function string(name: string, value: JsonTree): string {
  if (typeof value !== "string") throw new LineFault(`${name}: expected a string, found ${kind(value)}`);
  return value;
}

/** A value's kind in words, with its article, as JsonReader's. */
function kind(value: JsonTree): string {
  if (value === null) return "null";
  if (typeof value === "boolean") return "true or false";
  if (typeof value === "number") return "a number";
  if (typeof value === "string") return "a string";
  return Array.isArray(value) ? "an array" : "an object";
}

function names(keys: Iterable<string>): string {
  const found = [...keys].sort().map((key) => quoted(key, SHOWN_CHARACTERS)).join(", ");
  return oneLine(found || "none", SHOWN_CHARACTERS);
}

function shownKey(key: string): string {
  const characters = Array.from(key);
  return characters.length <= KEY_CHARACTERS ? key : `${characters.slice(0, KEY_CHARACTERS).join("")}…`;
}
