import { IGNORED_LABEL } from "../bundle/batch.js";
import { LcsbError } from "../faults.js";
import { CHAT_FILE, type ChatFormat, ChatRefusal, type Message, type RenderedChat } from "../text/chatFormat.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { decodeLine, type Line, LineFault } from "./lineRecord.js";

// One line of a data file to one example: tokens, and which of them count for the loss. Specification: docs/data.md.
//
// A label stands at the position that predicts it: `labels[t]` is the token after t. What a label counts for depends on the form of the
// line: all of a `text`, the completion of a `prompt`, the assistant's turns of a conversation.

export type Form = Line["form"];

/**
 * Two arrays of one length. `labels[t]` is the token after position t where it is counted, else -100. The last label is ignored, unless the
 * example was truncated: then the token after the last position is known.
 */
export interface Example {
  readonly inputIds: readonly number[];
  readonly labels: readonly number[];
}

/**
 * One line's example, not truncated. `uncountedTurns`: those of the assistant that its chat format does not let be found.
 * `doubledEnds`: as `hasDoubledEnds`. `furtherKeys`: those of the line that were passed over.
 */
export interface LineExample {
  readonly example: Example;
  readonly form: Form;
  readonly uncountedTurns: number;
  readonly doubledEnds: boolean;
  readonly furtherKeys: readonly string[];
}

/** Tokenises one line. Throws LineFault, or LcsbError of the tokenizer or the chat format, without a file's name. */
export function readLine(raw: Uint8Array, tokenizer: Tokenizer, chat: ChatFormat | null): LineExample {
  const { line, furtherKeys } = decodeLine(raw);
  const { example, uncountedTurns } = read(line, tokenizer, chat);
  const doubledEnds = hasDoubledEnds(example.inputIds, tokenizer.bosId, tokenizer.eosId);
  return { example, form: line.form, uncountedTurns, doubledEnds, furtherKeys };
}

/** Whether an example begins with two tokens of beginning, or two of end stand together in it: its text held one, and got another. */
export function hasDoubledEnds(ids: readonly number[], bosId: number | null, eosId: number | null): boolean {
  const begins = bosId !== null && ids[0] === bosId && ids[1] === bosId;
  return begins || (eosId !== null && ids.some((id, index) => id === eosId && ids[index + 1] === eosId));
}

interface Read {
  readonly example: Example;
  readonly uncountedTurns: number;
}

function read(line: Line, tokenizer: Tokenizer, chat: ChatFormat | null): Read {
  if (line.form === "messages") return chatExample(line.messages, tokenizer, chat ?? refuseWithoutChat());
  if (line.form === "text") return { example: exampleOf(tokenizer.encodeDocument(line.text), () => true), uncountedTurns: 0 };
  // Apart, not as one text: a prompt's tokens must be those that generating from the prompt will give the model.
  const prompt = tokenizer.encodePrompt(line.prompt);
  const ids = prompt.concat(tokenizer.encodeContinuation(line.completion), tokenizer.eos());
  return { example: exampleOf(ids, (token) => token >= prompt.length), uncountedTurns: 0 };
}

function refuseWithoutChat(): never {
  const what = `the bundle has no chat format (${CHAT_FILE})`;
  throw new LcsbError("CHAT_UNSUPPORTED", `${what}, so messages cannot be used; give them as prompt and completion`);
}

/** `counted`: whether predicting token t counts. */
function exampleOf(inputIds: readonly number[], counted: (token: number) => boolean): Example {
  const labels = inputIds.map((_, t) => (t + 1 < inputIds.length && counted(t + 1) ? inputIds[t + 1]! : IGNORED_LABEL));
  return { inputIds, labels };
}

/**
 * The conversation through the assistant's last turn, rendered and tokenised once. A token counts when any of its characters is in a turn
 * that counts.
 */
function chatExample(messages: readonly Message[], tokenizer: Tokenizer, chat: ChatFormat): Read {
  const rendered = conversation(messages, chat);
  const tokens = tokenizer.encodeWithOffsets(rendered.text);
  const before = new Uint32Array(rendered.text.length + 1); // how many characters that count stand before each
  for (const [start, end] of rendered.counted) before.fill(1, start + 1, end + 1);
  for (let place = 0; place < rendered.text.length; place++) before[place + 1]! += before[place]!;
  const example = exampleOf(tokens.ids, (token) => before[tokens.ends[token]!]! > before[tokens.starts[token]!]!);
  return { example, uncountedTurns: rendered.uncountedTurns };
}

function conversation(messages: readonly Message[], chat: ChatFormat): RenderedChat {
  try {
    return chat.conversation(messages);
  } catch (error) {
    if (error instanceof ChatRefusal) throw new LineFault(error.message);
    throw error;
  }
}
