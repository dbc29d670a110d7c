import { LcsbError, type Fault } from "../faults.js";
import { IoError } from "../io/files.js";
import { JsonError, JsonReader } from "../io/jsonReader.js";
import type { Storage } from "../io/storage.js";
import { oneLine } from "../io/text.js";
import { TokenFinder } from "./addedTokens.js";
import { Encoding } from "./encoding.js";
import { NormalizedText } from "./normalizer.js";
import { byteOf } from "./tokenDecoder.js";
import { readTokenizerConfig, type TokenizerConfig } from "./tokenizerConfig.js";
import { readTokenizerFile, type TokenizerFile } from "./tokenizerFile.js";
import { DamagedTokenizer, shown, UnsupportedTokenizer } from "./tokenizerParts.js";

export const TOKENIZER_FILE = "tokenizer.json";
export const CONFIG_FILE = "tokenizer_config.json";
const KNOWN = "known are the tokenizers of Qwen2 and 3, Llama 3, SmolLM2 and Gemma 3";
const MIB = 1 << 20;

/** Token i stands for the characters `[starts[i], ends[i])` of a text, counted in UTF-16 units. All have one length. */
export interface Encoded {
  readonly ids: number[];
  readonly starts: number[];
  readonly ends: number[];
}

/** Where a bundle's files are. */
export type TokenizerFiles = Pick<Storage, "path" | "open">;

/**
 * Text to token ids and back, from `tokenizer.json` alone; the twin of lcsb_mobile/text/tokenizer.py, equal to the library tokenizers. Held
 * to one model's vocabulary: ids are from 0 to `vocabSize` - 1. What a chat template does is ChatFormat's.
 */
export class Tokenizer {
  readonly bosId: number | null;
  readonly eosId: number | null;
  readonly padId: number;
  /** Those that decoding leaves out. */
  readonly specialIds: ReadonlySet<number>;
  /** What a text or an assistant's turn ends with. Exporting a bundle finds them, as it takes the chat template's renderer. */
  readonly endIds: ReadonlySet<number>;
  private readonly addsBos: boolean;
  private readonly names: readonly (string | undefined)[]; // each token as it is written, by its number
  private readonly rawTokens: TokenFinder;
  private readonly normalizedTokens: TokenFinder;

  private constructor(
    private readonly file: TokenizerFile,
    config: TokenizerConfig,
    readonly vocabSize: number,
  ) {
    const { added } = file;
    this.names = names(file);
    this.specialIds = new Set(added.filter((token) => token.special).map((token) => token.id));
    this.rawTokens = new TokenFinder(added.filter((token) => !token.normalized).map(({ content, id }) => [content, id]));
    const normalized = added.filter((token) => token.normalized);
    this.normalizedTokens = new TokenFinder(normalized.map(({ content, id }) => [this.normalize(content, 0, content.length).text, id]));
    this.bosId = this.specialId("bos_token", config.bosToken);
    this.eosId = this.specialId("eos_token", config.eosToken);
    const pad = config.padToken === null ? null : this.id(config.padToken);
    this.padId = pad !== null && pad < vocabSize ? pad : (this.eosId ?? 0);
    this.addsBos = this.bosId !== null && (config.addBosToken ?? file.firstSpecial === this.bosId);
    this.endIds = new Set([...config.eosTokenIds, ...this.eos()]);
  }

  /** Reads TOKENIZER_FILE and CONFIG_FILE. Throws LcsbError with TOKENIZER_DAMAGED or TOKENIZER_UNSUPPORTED. */
  static async open(files: TokenizerFiles, vocabSize: number): Promise<Tokenizer> {
    const config = await read(files, CONFIG_FILE, 16 * MIB, readTokenizerConfig);
    const file = await read(files, TOKENIZER_FILE, 64 * MIB, readTokenizerFile);
    return named(files, CONFIG_FILE, async () => new Tokenizer(file, config, vocabSize));
  }

  /** The ids of `text` and nothing else. Throws LcsbError when one lies outside the model's vocabulary. */
  encode(text: string): number[] {
    return this.encoding(text, false).ids;
  }

  /**
   * As `encode`, and for each token the characters that it stands for. Tokens follow each other without gaps; those that together make up
   * one character share its range.
   */
  encodeWithOffsets(text: string): Encoded {
    const { ids, starts, ends } = this.encoding(text, true);
    return { ids, starts: starts.map((start, index) => Math.min(start, ends[index - 1] ?? 0)), ends };
  }

  /** The beginning of a document: the token of beginning, if this tokenizer adds one, and the text. */
  encodePrompt(text: string): number[] {
    const ids = this.encode(text);
    return this.addsBos ? [this.bosId!, ...ids] : ids;
  }

  /** The ids of a text that follows another: without the blank that SentencePiece puts before a text's first word. */
  encodeContinuation(text: string): number[] {
    const newline = this.encode("\n");
    const ids = this.encode(`\n${text}`);
    return newline.every((id, index) => ids[index] === id) ? ids.slice(newline.length) : this.encode(text);
  }

  /** A whole document: `encodePrompt`, then the token of end if there is one. */
  encodeDocument(text: string): number[] {
    return this.encodePrompt(text).concat(this.eos());
  }

  /** The token of end as an array of one, or of none. */
  eos(): number[] {
    return this.eosId === null ? [] : [this.eosId];
  }

  /** The text of `ids`, without special tokens unless they are asked for. Numbers without a token are passed over. */
  decode(ids: readonly number[], specialTokens = false): string {
    const kept = specialTokens ? ids : ids.filter((id) => !this.specialIds.has(id));
    return this.file.decoder(kept.map((id) => this.names[id]).filter((name) => name !== undefined)).join("");
  }

  /**
   * How many of `ids`, from the first, no token after them can give another text: all but a run of byte fallback at the end, with special
   * tokens in it, which is so many U+FFFD once a byte comes that breaks it.
   */
  settled(ids: readonly number[]): number {
    return ids.findLastIndex((id) => !this.specialIds.has(id) && !this.isByte(id)) + 1;
  }

  private isByte(id: number): boolean {
    return this.file.decodesBytes && byteOf(this.names[id] ?? "") >= 0;
  }

  /** The number of a token as the vocabulary writes it. */
  private id(token: string): number | null {
    return this.file.added.find(({ content }) => content === token)?.id ?? this.file.vocabulary.get(token) ?? null;
  }

  private specialId(name: string, token: string | null): number | null {
    if (token === null) return null;
    const id = this.id(token);
    if (id === null) throw new DamagedTokenizer(`${name} ${shown(token)} is not a token of ${TOKENIZER_FILE}`);
    if (id >= this.vocabSize) throw new DamagedTokenizer(`${name}: ${this.outside(id)}`);
    return id;
  }

  private outside(id: number): string {
    return `token ${id} (${shown(this.names[id])}) is outside the model's vocabulary of ${this.vocabSize}`;
  }

  private normalize(text: string, start: number, end: number): NormalizedText {
    return this.file.normalizer(new NormalizedText(text.slice(start, end), start));
  }

  private encoding(text: string, withOffsets: boolean): Encoding {
    const encoding = new Encoding(withOffsets);
    this.rawTokens.split(text, (start, end, id) => {
      if (id >= 0) encoding.add(id, start, end);
      else this.encodePart(this.normalize(text, start, end), encoding);
    });
    const found = encoding.ids.find((id) => id >= this.vocabSize);
    if (found !== undefined) throw new LcsbError("TOKENIZER_DAMAGED", this.outside(found));
    return encoding;
  }

  private encodePart(part: NormalizedText, encoding: Encoding): void {
    const { bpe, preTokenizer } = this.file;
    const { text } = part;
    this.normalizedTokens.split(text, (start, end, id) => {
      if (id >= 0) encoding.add(id, part.start(start), part.end(end));
      else preTokenizer(text, start, end, (from, to) => encoding.addWord(part, from, bpe.word(text.slice(from, to))));
    });
  }
}

function names(file: TokenizerFile): (string | undefined)[] {
  const found: (string | undefined)[] = [];
  for (const [token, id] of file.vocabulary) found[id] = token;
  for (const { id, content } of file.added) found[id] = content;
  return found;
}

function read<T>(files: TokenizerFiles, name: string, most: number, parse: (json: JsonReader) => T): Promise<T> {
  return named(files, name, async () => {
    const file = await files.open(name);
    try {
      if (file.size > most) throw new IoError(`${file.size} bytes, more than the ${most} that are read`);
      return parse(new JsonReader(file));
    } finally {
      file.close();
    }
  });
}

async function named<T>(files: TokenizerFiles, name: string, action: () => Promise<T>): Promise<T> {
  const refused = (fault: Fault, reason: string, cause: Error) =>
    new LcsbError(fault, `${files.path}/${name}: ${oneLine(reason)}`, [name, oneLine(reason)], cause);
  try {
    return await action();
  } catch (error) {
    if (error instanceof UnsupportedTokenizer) throw refused("TOKENIZER_UNSUPPORTED", `${error.message}: not supported; ${KNOWN}`, error);
    if (error instanceof DamagedTokenizer) throw refused("TOKENIZER_DAMAGED", error.message, error);
    if (error instanceof JsonError) throw refused("TOKENIZER_DAMAGED", `not a readable tokenizer: ${error.message}`, error);
    if (error instanceof IoError) throw refused("TOKENIZER_DAMAGED", `cannot be read: ${error.message}`, error);
    throw error;
  }
}
