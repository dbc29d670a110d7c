import { LcsbError } from "../faults.js";
import { IoError, readBounded } from "../io/files.js";
import { JsonError, type JsonReader } from "../io/jsonReader.js";
import { decode, type Decoded, flag, int32, nullable, record } from "../io/records.js";
import { oneLine, quoted } from "../io/text.js";
import { type Day, dayOf, localTime } from "./localTime.js";
import { strip, stripNewlines, stripNewlinesBefore } from "./texts.js";
import type { TokenizerFiles } from "./tokenizer.js";

export const CHAT_FILE = "chat.json";
export const CHAT_FILE_BYTES = 1 << 16;
const FORMAT_VERSION = 1;
const MOST_MESSAGES = 1000; // of a line: each of the assistant's turns is found by rendering the conversation up to it
const DATE_MARK = "\ue000";
const ROLES = ["system", "user", "assistant"];

/** One message of a conversation; `role`: system, user or assistant. */
export interface Message {
  readonly role: string;
  readonly content: string;
}

const text = (reader: JsonReader) => reader.string();

/** How a role's message is written. `trimmed`: its content without blanks at both ends. */
const turn = record({ before: text, after: text, trimmed: flag });
type ChatTurn = Decoded<typeof turn>;

/**
 * A thought stands in an assistant's content between the marks that `open` and `close` hold. It is written, between them, in turns after
 * the last question: in the conversation's last turn even where it is empty, in others where there is one. Elsewhere it is left out.
 *
 * `withoutQuestion`: a conversation without a user's turn is all after the last question. `strips`: where a thought is written, the answer
 * loses the ends of lines before it even if it came without a thought.
 */
const thoughts = record({ open: text, close: text, withoutQuestion: flag, strips: flag });
type ChatThoughts = Decoded<typeof thoughts>;

/** `chat.json`: field by field lcsb_mobile/text/chat_format.py's ChatFormat, which says what each means. */
const chatFields = record({
  formatVersion: int32,
  empty: nullable(text),
  opening: text,
  system: nullable(turn),
  systemInNext: flag,
  laterSystem: nullable(turn),
  user: turn,
  assistant: turn,
  generationPrompt: text,
  alternates: flag,
  thoughts: nullable(thoughts),
  dateFormat: nullable(text),
});
export type ChatFields = Decoded<typeof chatFields>;

/** A conversation's text, the ranges `[start, end)` of it that count for the loss, and how many of the assistant's turns are not in it. */
export interface RenderedChat {
  readonly text: string;
  readonly counted: readonly (readonly [start: number, end: number])[];
  readonly uncountedTurns: number;
}

/** Messages that a chat format does not take. */
export class ChatRefusal extends Error {}

/** A model's chat template as data: exporting a bundle proves that it writes the same. The twin of export/chat_format.py's `render`. */
export class ChatFormat {
  /** `day`: that a template writes; without one that on which it is asked. */
  constructor(
    private readonly fields: ChatFields,
    private readonly day: Day | null = null,
  ) {}

  /** Reads CHAT_FILE. Throws LcsbError with BUNDLE_DAMAGED, or CHAT_UNSUPPORTED for what a newer export wrote. */
  static async open(files: TokenizerFiles): Promise<ChatFormat> {
    const path = `${files.path}/${CHAT_FILE}`;
    const fields = await readFields(files, path);
    const unknown = fields.dateFormat?.match(DIRECTIVE)?.find((directive) => !DIRECTIVES.has(directive));
    if (fields.formatVersion === FORMAT_VERSION && unknown === undefined) return new ChatFormat(fields);
    const version = `version ${fields.formatVersion}, this app reads ${FORMAT_VERSION}`;
    const what = unknown === undefined ? version : `a date with ${quoted(unknown, 8)}`;
    throw new LcsbError("CHAT_UNSUPPORTED", `${path}: ${what}; use an app as new as the export`, [CHAT_FILE]);
  }

  /** As on the day of `time`, a `localTime`, whatever day it is. */
  at(time: string): ChatFormat {
    return new ChatFormat(this.fields, dayOf(time));
  }

  /**
   * The conversation as the model reads it; it writes its own special tokens, the one of beginning too. Throws LcsbError with
   * CHAT_UNSUPPORTED for messages that the model's template does not take, or whose roles it knows nothing of.
   */
  render(messages: readonly Message[], addGenerationPrompt = false): string {
    try {
      return this.text(messages, addGenerationPrompt);
    } catch (error) {
      if (!(error instanceof ChatRefusal)) throw error;
      throw new LcsbError("CHAT_UNSUPPORTED", error.message, [error.message], error);
    }
  }

  /**
   * The conversation through the assistant's last turn, and which of its turns count (docs/data.md). Throws ChatRefusal, also where that
   * turn cannot be found.
   */
  conversation(messages: readonly Message[]): RenderedChat {
    const assistant = messages.flatMap(({ role }, index) => (role === "assistant" ? [index] : []));
    const last = assistant.pop();
    if (last === undefined) throw new ChatRefusal("messages: expected at least one with the role 'assistant', found none");
    if (messages.length > MOST_MESSAGES) {
      const found = `found ${messages.length}; give the conversation in parts, a line each`;
      throw new ChatRefusal(`messages: expected at most ${MOST_MESSAGES}, ${found}`);
    }
    const turns = messages.slice(0, last + 1);
    const text = this.text(turns, false);
    const earlier = assistant.map((index) => this.earlierTurn(turns.slice(0, index + 1), text)).filter((range) => range !== null);
    return { text, counted: [...earlier, this.lastTurn(turns, text)], uncountedTurns: assistant.length - earlier.length };
  }

  /** Where the last turn stands in `text`, the conversation: what the model is to write after the generation prompt. */
  private lastTurn(turns: readonly Message[], text: string): readonly [number, number] {
    const before = this.text(turns.slice(0, -1), true);
    if (text.startsWith(before)) return [before.length, text.length];
    const place = `messages[${turns.length - 1}], so that turn cannot be found`;
    throw new ChatRefusal(`the chat template rewrites earlier text at ${place}; give it as prompt and completion`);
  }

  /**
   * Where the last of `turns` stands in `text`, which goes on after it. Null when it is not there as the model writes it: some templates
   * shorten a turn once others follow it, and to count the short form would teach the model to write that.
   */
  private earlierTurn(turns: readonly Message[], text: string): readonly [number, number] | null {
    try {
      const through = this.text(turns, false);
      return text.startsWith(through) ? this.lastTurn(turns, through) : null;
    } catch (error) {
      if (error instanceof ChatRefusal) return null; // some refuse a conversation that ends there
      throw error;
    }
  }

  private text(messages: readonly Message[], addGenerationPrompt: boolean): string {
    const written = messages.length === 0 ? (this.fields.empty ?? refuse("a conversation without messages")) : this.written(messages);
    return addGenerationPrompt ? written + this.fields.generationPrompt : written;
  }

  private written(messages: readonly Message[]): string {
    const { fields } = this;
    const stranger = messages.find(({ role }) => !ROLES.includes(role));
    if (stranger !== undefined) refuse(`the role ${quoted(stranger.role, 40)}; expected ${ROLES.join(", ")}`);
    if (fields.thoughts !== null && messages.some(isTools)) refuse("a user's message that its template takes for a tool's");
    const first = messages[0]!.role === "system" ? 1 : 0;
    let text = this.dated(fields.opening);
    let inNext = ""; // the system's text that stands in the next turn
    if (first === 1) {
      const system = fields.system ?? refuse("a system's message");
      const content = contentOf(system, messages[0]!) + system.after;
      text = this.dated(system.before) + (fields.systemInNext ? "" : content);
      inNext = fields.systemInNext ? content : "";
    }
    const question = messages.findLastIndex(({ role }) => role === "user");
    for (let index = first; index < messages.length; index++) {
      text += this.writtenTurn(messages, index, index - first, question, index === first ? inNext : "");
    }
    return text;
  }

  private writtenTurn(messages: readonly Message[], index: number, place: number, question: number, inNext: string): string {
    const { fields } = this;
    const message = messages[index]!;
    if (fields.alternates && message.role !== (place % 2 === 0 ? "user" : "assistant")) refuse("user and assistant must take turns");
    const turn = this.turnOf(message.role);
    let content = contentOf(turn, message);
    if (fields.thoughts !== null && message.role === "assistant") {
      const after = question < 0 ? fields.thoughts.withoutQuestion : index > question;
      content = withThought(fields.thoughts, message.content, after, index === messages.length - 1);
    }
    return turn.before + inNext + content + turn.after;
  }

  /** The user's last message in `rendered`, a conversation up to where the model is to write; null where it cannot be found. */
  lastQuestion(rendered: string): string | null {
    const { before, after } = this.fields.user;
    const start = before === "" ? -1 : rendered.lastIndexOf(before);
    if (start < 0) return null;
    const question = rendered.slice(start + before.length);
    const end = after === "" ? -1 : question.indexOf(after);
    const { generationPrompt } = this.fields;
    if (end >= 0) return question.slice(0, end);
    return question.endsWith(generationPrompt) ? question.slice(0, question.length - generationPrompt.length) : question;
  }

  private turnOf(role: string): ChatTurn {
    if (role === "system") return this.fields.laterSystem ?? refuse("a system's message that is not the first");
    return role === "user" ? this.fields.user : this.fields.assistant;
  }

  private dated(text: string): string {
    const format = this.fields.dateFormat;
    if (format === null) return text;
    const day = this.day ?? dayOf(localTime())!;
    return text.replaceAll(DATE_MARK, () => format.replace(DIRECTIVE, (directive) => DIRECTIVES.get(directive)!(day)));
  }
}

function refuse(what: string): never {
  throw new ChatRefusal(`the chat template refused the messages: ${what}`);
}

/** Qwen3's template takes such a turn of the user not for a question, so that thoughts before it stay. */
function isTools({ role, content }: Message): boolean {
  return role === "user" && content.startsWith("<tool_response>") && content.endsWith("</tool_response>");
}

function contentOf(turn: ChatTurn, { content }: Message): string {
  return turn.trimmed ? strip(content) : content;
}

/** An assistant's content with its thought written or left out. `after`: the last question; `last`: it is the conversation's last turn. */
function withThought({ open, close, strips }: ChatThoughts, content: string, after: boolean, last: boolean): string {
  const [opening, closing] = [stripNewlines(open), stripNewlines(close)];
  let thought = "";
  let answer = content;
  if (content.includes(closing)) {
    const before = content.slice(0, content.indexOf(closing));
    const opened = before.lastIndexOf(opening);
    thought = stripNewlines(opened < 0 ? before : before.slice(opened + opening.length));
    answer = stripNewlinesBefore(content.slice(content.lastIndexOf(closing) + closing.length));
  }
  if (!after || !(last || thought !== "")) return answer;
  return open + thought + close + (strips ? stripNewlinesBefore(answer) : answer);
}

async function readFields(files: TokenizerFiles, path: string): Promise<ChatFields> {
  const damaged = (reason: string, cause: Error) => new LcsbError("BUNDLE_DAMAGED", `${path}: ${reason}`, [CHAT_FILE], cause);
  try {
    const file = await files.open(CHAT_FILE);
    try {
      return decode(readBounded(file, CHAT_FILE_BYTES), chatFields);
    } finally {
      file.close();
    }
  } catch (error) {
    if (error instanceof IoError) throw damaged(`cannot be read: ${error.message}; copy the bundle again, whole`, error);
    if (error instanceof JsonError) throw damaged(`not a chat format: ${oneLine(error.message)}; export the bundle again`, error);
    throw error;
  }
}

const MONTHS = [
  "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
];
const DIRECTIVE = /%.?/gsu;
/** As C's strftime writes a day in English. */
const DIRECTIVES: ReadonlyMap<string, (day: Day) => string> = new Map([
  ["%d", ({ date }: Day) => String(date).padStart(2, "0")],
  ["%m", ({ month }: Day) => String(month).padStart(2, "0")],
  ["%Y", ({ year }: Day) => String(year)],
  ["%b", ({ month }: Day) => MONTHS[month - 1]!.slice(0, 3)],
  ["%B", ({ month }: Day) => MONTHS[month - 1]!],
]);
