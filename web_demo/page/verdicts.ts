import { formatCount } from "./formats.js";
import type { PluralKey, Texts } from "./texts.js";
import type { StoredVerdict } from "./worker/protocol.js";

const SENTENCES: Readonly<Record<StoredVerdict["outcome"], PluralKey>> = {
  better: "verdict_better",
  "no-difference": "verdict_same",
  worse: "verdict_worse",
  "too-few": "verdict_few",
};

/** What a verdict says. */
export function verdictSentence(t: Texts, { outcome, examples, improved, against }: StoredVerdict): string {
  const other = against === null ? t.say("the_plain_model") : t.say("quoted", against);
  return t.plural(SENTENCES[outcome], examples, formatCount(t, improved), other);
}
