import { LcsbError } from "./faults.js";
import type { Bundle } from "./bundle.js";
import { quoted } from "./io/text.js";
import type { Decoder, StepRunner } from "./runtime/stepRunner.js";
import { Random, sample } from "./sampling.js";
import type { ChatFormat, Message } from "./text/chatFormat.js";
import type { Tokenizer } from "./text/tokenizer.js";
import { secondsSince } from "./training/trainer.js";

// Text from the base or the adapted model, a token at a time.

const REPLACEMENT = "\ufffd"; // what a decoder makes of bytes that are no character

/**
 * `temperature` 0 takes the likeliest token. `topP`: sample from the smallest set of that probability (nucleus sampling, arXiv 1904.09751).
 * `stop`: texts; the one that is complete first ends the text, and nothing of it is given out.
 */
export interface SamplingConfig {
  readonly temperature: number;
  readonly topP: number;
  readonly seed: number;
  readonly maxTokens: number;
  readonly stop: readonly string[];
}

export function samplingConfig(given: Partial<SamplingConfig> = {}): SamplingConfig {
  return { temperature: 0.8, topP: 0.95, seed: 0, maxTokens: 64, stop: [], ...given };
}

/** Throws OPTION. */
export function checkSampling({ temperature, topP, seed, maxTokens, stop }: SamplingConfig): void {
  const refused = (name: string, what: string) => new LcsbError("OPTION", `${name}: expected ${what}`, [name]);
  if (!(Number.isInteger(maxTokens) && maxTokens >= 1)) throw refused("max-tokens", `at least 1, found ${maxTokens}`);
  if (!(temperature >= 0)) throw refused("temperature", `0 or more, found ${temperature}`);
  if (!(topP > 0 && topP <= 1)) throw refused("top-p", `more than 0 and at most 1, found ${topP}`);
  if (!(Number.isSafeInteger(seed) && seed >= 0)) throw refused("seed", `0 or more, found ${seed}`);
  if (stop.includes("")) throw refused("stop", "a text, found an empty one");
}

/** A question of the user and what the assistant answered. */
export interface Exchange {
  readonly question: string;
  readonly answer: string;
}

/**
 * The prompt is a user's message, given to the model in the words of the chat format; `system`: an instruction before it. `earlier`: what
 * was said before it, the oldest first.
 */
export class Chat {
  constructor(
    readonly format: ChatFormat,
    readonly system: string | null = null,
    readonly earlier: readonly Exchange[] = [],
  ) {}

  /** Without the first `forgotten` of `earlier`. Throws CHAT_UNSUPPORTED when the format does not take the messages. */
  promptIds(tokenizer: Tokenizer, message: string, forgotten = 0): number[] {
    const system: Message[] = this.system === null ? [] : [{ role: "system", content: this.system }];
    const said = this.earlier.slice(forgotten).flatMap(({ question, answer }): Message[] => [
      { role: "user", content: question },
      { role: "assistant", content: answer },
    ]);
    return tokenizer.encode(this.format.render([...system, ...said, { role: "user", content: message }], true));
  }

  /** The prompt's tokens; of `earlier` the oldest are left out, no more than need be for `room` tokens of the sequence to stay free. */
  fitting(tokenizer: Tokenizer, message: string, seqLen: number, room: number): Prompt {
    for (let forgotten = 0; forgotten < this.earlier.length; forgotten++) {
      const ids = this.promptIds(tokenizer, message, forgotten);
      if (ids.length + room <= seqLen) return { ids, forgotten };
    }
    return { ids: this.promptIds(tokenizer, message, this.earlier.length), forgotten: this.earlier.length };
  }
}

/** Tokens to go on from. `forgotten`: how many of a conversation's oldest exchanges are not in them. */
export interface Prompt {
  readonly ids: readonly number[];
  readonly forgotten: number;
}

export type TextEnd = "END_TOKEN" | "STOP_TEXT" | "MAX_TOKENS" | "SEQUENCE_FULL";

/**
 * The text after `prompt`, or with `chat` the answer to it, in pieces as it is written.
 *
 * It ends at a token that ends a text or a turn (`Tokenizer.endIds`), before a stop text, after `maxTokens`, or when the sequence is full.
 * Of a conversation that leaves less than `maxTokens`, or a quarter of the sequence, the oldest exchanges are left out
 * (`Continuation.forgotten`). Every call reads the whole conversation anew: as long as an evaluation of so many tokens takes. Throws OPTION
 * when the prompt leaves no room, or for a stop text that has a special token within it; CHAT_UNSUPPORTED.
 */
export function generate(
  runner: StepRunner,
  bundle: Bundle,
  tokenizer: Tokenizer,
  adapter: Float32Array,
  prompt: string,
  config: SamplingConfig,
  chat: Chat | null = null,
): Continuation {
  const { seqLen } = bundle.manifest;
  const room = Math.min(config.maxTokens, Math.floor(seqLen / 4));
  const begun = chat?.fitting(tokenizer, prompt, seqLen, room) ?? { ids: tokenizer.encodePrompt(prompt), forgotten: 0 };
  return generateFrom(runner, bundle, tokenizer, adapter, begun, config);
}

/** The text after the tokens of `prompt`; throws as `generate` does. */
export function generateFrom(
  runner: StepRunner,
  bundle: Bundle,
  tokenizer: Tokenizer,
  adapter: Float32Array,
  prompt: Prompt,
  config: SamplingConfig,
): Continuation {
  checkSampling(config);
  const { seqLen } = bundle.manifest;
  const { ids, forgotten } = prompt;
  if (ids.length < 1 || ids.length >= seqLen) {
    throw new LcsbError("OPTION", `prompt: expected 1 to ${seqLen - 1} tokens, found ${ids.length}; give another prompt`, ["prompt"]);
  }
  return new Continuation(runner.decoder(adapter), tokenizer, ids, seqLen, config, forgotten);
}

/**
 * The pieces of a text as it is written; may be iterated once. Together they are what the tokenizer makes of all tokens at once, with
 * U+FFFD for what is no text. A piece ends where no further token changes the text so far, and where it cannot be the beginning of a stop
 * text.
 *
 * `tokens`: written so far, without the one that ended the text. `prefillSeconds`: to the first token. `decoded`, `decodeSeconds`: of the
 * tokens after it, an ending one included; what the reader of the pieces does meanwhile is not counted. `ended`: why, once it has.
 * `forgotten`: how many of a conversation's oldest exchanges did not fit.
 */
export class Continuation implements AsyncIterable<string> {
  tokens = 0;
  decoded = 0;
  prefillSeconds = 0;
  decodeSeconds = 0;
  ended: TextEnd | null = null;
  private readonly before: string[];
  private readonly most: number;
  private readonly ends: ReadonlySet<number>;
  private readonly stops: StopTexts;
  private readonly random: Random;

  constructor(
    private readonly decoder: Decoder,
    private readonly tokenizer: Tokenizer,
    private readonly prompt: readonly number[],
    seqLen: number,
    private readonly config: SamplingConfig,
    readonly forgotten: number,
  ) {
    this.before = beginnings(tokenizer, prompt);
    this.most = Math.min(config.maxTokens, seqLen - prompt.length);
    const { ends, texts } = endings(tokenizer, config.stop);
    this.ends = ends;
    this.stops = new StopTexts(texts);
    this.random = new Random(config.seed);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<string> {
    const { stops } = this;
    const written: number[] = [];
    try {
      while (this.ended === null) {
        const token = await this.next(written);
        if (this.ends.has(token)) {
          this.ended = "END_TOKEN";
          break;
        }
        this.tokens = written.push(token);
        const piece = stops.grow(this.settled(written));
        if (piece !== "") yield piece;
        if (stops.met) this.ended = "STOP_TEXT";
        else if (this.tokens === this.most) this.ended = this.most === this.config.maxTokens ? "MAX_TOKENS" : "SEQUENCE_FULL";
      }
      if (stops.met) return;
      const rest = stops.end(this.text(written));
      if (stops.met) this.ended = "STOP_TEXT";
      if (rest !== "") yield rest;
    } finally {
      await this.close();
    }
  }

  /** Of a text that is not read to its end; otherwise it happens by itself. */
  close(): Promise<void> {
    return this.decoder.close();
  }

  private async next(written: readonly number[]): Promise<number> {
    const started = performance.now();
    const logits = written.length === 0 ? await this.decoder.prefill(this.prompt) : await this.decoder.next(written.at(-1)!);
    const token = sample(logits, this.config, this.random);
    if (written.length === 0) {
      this.prefillSeconds = secondsSince(started);
    } else {
      this.decodeSeconds += secondsSince(started);
      this.decoded++;
    }
    return token;
  }

  /** What of the tokens' text stays as it is whatever follows: bytes that are no character yet are U+FFFD at its end. */
  private settled(written: readonly number[]): string {
    const count = this.tokenizer.settled([...this.prompt, ...written]) - this.prompt.length;
    return this.text(written.slice(0, Math.max(count, 0))).replace(/\ufffd+$/, "");
  }

  /** What the tokens add to the prompt's text: alone, some decoders would drop a blank before the first word. */
  private text(written: readonly number[]): string {
    const whole = this.tokenizer.decode([...this.prompt, ...written]);
    const begun = this.before.find((text) => whole.startsWith(text));
    return begun === undefined ? this.tokenizer.decode(written) : whole.slice(begun.length);
  }
}

/**
 * What a text that begins with the tokens may begin with: their text, or with U+FFFD for each byte of the run of byte fallback at their end, if
 * the bytes that follow break it.
 */
function beginnings(tokenizer: Tokenizer, ids: readonly number[]): string[] {
  const settled = tokenizer.settled(ids);
  const run = ids.slice(settled).filter((id) => !tokenizer.specialIds.has(id)).length;
  return [tokenizer.decode(ids), tokenizer.decode(ids.slice(0, settled)) + REPLACEMENT.repeat(run)];
}

/** What may be given out of a text that grows at its end. `met`: a stop text is in it; nothing comes after that. */
export class StopTexts {
  met = false;
  private given = 0; // UTF-16 units

  constructor(private readonly stop: readonly string[]) {}

  /** The next piece, perhaps empty; `text` is all that was written so far, and stays as it is. */
  grow(text: string): string {
    return this.give(text, this.begun(text));
  }

  /** The last piece: of the whole text, of which no more is to come. */
  end(text: string): string {
    return this.give(text, 0);
  }

  private give(text: string, held: number): string {
    // The one that is complete first, so that it does not matter where one token ends and the next begins.
    const found = this.stop.map((stop) => ({ at: text.indexOf(stop), end: text.indexOf(stop) + stop.length })).filter(({ at }) => at >= 0);
    const [first] = found.sort((a, b) => a.end - b.end || a.at - b.at);
    this.met = first !== undefined;
    const end = first?.at ?? text.length - held;
    if (end <= this.given) return "";
    const piece = text.slice(this.given, end);
    this.given = end;
    return piece;
  }

  /** Units at the end of `text` that may be the beginning of a stop text. */
  private begun(text: string): number {
    const longest = Math.max(1, ...this.stop.map((stop) => stop.length)) - 1;
    for (let size = Math.min(text.length, longest); size > 0; size--) {
      if (this.stop.some((stop) => stop.startsWith(text.slice(-size)))) return size;
    }
    return 0;
  }
}

/**
 * The tokens and the texts that end a text. A special token has no text: given as a stop text it is one of the former. Throws OPTION for a stop
 * text that has such a token within it, as it could not be met.
 */
function endings(tokenizer: Tokenizer, stop: readonly string[]): { ends: Set<number>; texts: string[] } {
  const ends = new Set(tokenizer.endIds);
  const texts: string[] = [];
  for (const text of stop) {
    const ids = tokenizer.encode(text);
    const special = ids.filter((id) => tokenizer.specialIds.has(id));
    if (special.length > 0 && ids.length > 1) {
      const message = `stop: expected a text or one special token, found ${quoted(text)}, which has a special token within it`;
      throw new LcsbError("OPTION", message);
    }
    if (special.length === 0) texts.push(text);
    else for (const id of special) ends.add(id);
  }
  return { ends, texts };
}
