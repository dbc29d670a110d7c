import { IGNORED_LABEL } from "../bundle/batch.js";
import type { ChatFormat } from "../text/chatFormat.js";
import type { Tokenizer } from "../text/tokenizer.js";
import type { Dataset } from "./dataset.js";

const MOST_BEGUN = 12; // tokens of a text that the model is given
const BEGUN_SHARE = 3; // and of a short one a third

/** What the model is given, and how that is shown: a conversation's last question, or the text. */
export interface HeldOutPrompt {
  readonly ids: readonly number[];
  readonly shown: string;
}

/** Of the first of `heldOut`: of a text its beginning, else all that stands before what the model is to write. */
export function heldOutPrompt(heldOut: Dataset, tokenizer: Tokenizer, chat: ChatFormat | null): HeldOutPrompt {
  const { inputIds, labels } = heldOut.example(0);
  const given = labels.findIndex((label) => label !== IGNORED_LABEL) + 1;
  const isText = given === 1 || inputIds.slice(0, given).every((id) => tokenizer.specialIds.has(id)); // every token counts
  if (isText) {
    const count = Math.max(given, Math.min(MOST_BEGUN, Math.floor(inputIds.length / BEGUN_SHARE)));
    const ids = inputIds.slice(0, count);
    return { ids, shown: tokenizer.decode(ids) };
  }
  const ids = inputIds.slice(0, given);
  return { ids, shown: chat?.lastQuestion(tokenizer.decode(ids, true)) ?? tokenizer.decode(ids) };
}
