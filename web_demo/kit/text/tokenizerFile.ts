import type { JsonReader, JsonTree } from "../io/jsonReader.js";
import type { AddedToken } from "./addedTokens.js";
import { Bpe } from "./bpe.js";
import { Merges } from "./merges.js";
import type { Normalizer } from "./normalizer.js";
import { type PreTokenizer, sequence } from "./preTokenizer.js";
import type { TokenDecoder } from "./tokenDecoder.js";
import {
  DamagedTokenizer, decoder, decodesBytes, firstSpecial, normalizers, Part, shown, splits, UnsupportedTokenizer,
} from "./tokenizerParts.js";

const MODEL_KEYS = [
  "type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges",
];
const ADDED_KEYS = ["id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"];
const MOST_TOKENS = 1 << 19; // Gemma 3 has 262,144
const MOST_MERGES = 1 << 20; // and 514,906 merges

/** What a `tokenizer.json` says, of the kinds that are known. `firstSpecial`: the first token that its post-processor adds to a text. */
export interface TokenizerFile {
  readonly added: readonly AddedToken[];
  readonly normalizer: Normalizer;
  readonly preTokenizer: PreTokenizer;
  readonly firstSpecial: number | null;
  readonly decoder: TokenDecoder;
  readonly decodesBytes: boolean;
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly bpe: Bpe;
}

/**
 * Reads a `tokenizer.json` (the library tokenizers', version 1.0) of byte-pair encoding. Parts of a kind that Qwen2 and 3, Llama 3, SmolLM2
 * or Gemma 3 do not use are refused, as is an option of a known part that would change what it does.
 *
 * Throws JsonError, UnsupportedTokenizer, DamagedTokenizer.
 */
export function readTokenizerFile(json: JsonReader): TokenizerFile {
  return new TokenizerFileReader(json).read();
}

class TokenizerFileReader {
  private readonly parts = new Map<string, JsonTree>(); // of the file, but the model
  private readonly added: AddedToken[] = [];
  private readonly settings = new Map<string, JsonTree>(); // of the model, but vocabulary and merges
  private readonly vocabulary = new Map<string, number>();
  private merges: Merges | null = null;

  constructor(private readonly json: JsonReader) {}

  read(): TokenizerFile {
    const { json } = this;
    json.object((key) => {
      switch (key) {
        case "added_tokens":
          return json.array(() => this.added.push(addedToken(new Part("added_tokens", json.tree()))));
        case "model":
          return this.readModel();
        case "normalizer":
        case "pre_tokenizer":
        case "post_processor":
        case "decoder":
          return void this.parts.set(key, json.tree());
        case "version":
        case "truncation":
        case "padding":
          return json.skip(); // the trainer's own settings
        default:
          throw new UnsupportedTokenizer(`the part ${shown(key)}`);
      }
    });
    json.finish();
    return this.build();
  }

  private build(): TokenizerFile {
    const preTokenizers = splits(this.part("pre_tokenizer"));
    const byteLevel = preTokenizers.includes(null);
    if (byteLevel && preTokenizers.at(-1) !== null) throw new UnsupportedTokenizer("a pre-tokenizer behind ByteLevel");
    const model = new Part("model", this.settings);
    const options = {
      unknown: this.unknown(model),
      fuseUnknown: model.flag("fuse_unk"),
      byteFallback: model.flag("byte_fallback"),
      ignoreMerges: model.flag("ignore_merges"),
    };
    if (byteLevel && options.byteFallback) throw new UnsupportedTokenizer("byte_fallback with ByteLevel");
    this.checkIds();
    if (this.merges === null) throw new DamagedTokenizer("the model has no merges");
    const parts = normalizers(this.part("normalizer"));
    return {
      added: this.added,
      normalizer: (input) => parts.reduce((text, normalize) => normalize(text), input),
      preTokenizer: sequence(preTokenizers.filter((each) => each !== null)),
      firstSpecial: firstSpecial(this.part("post_processor")),
      decoder: decoder(this.part("decoder")),
      decodesBytes: decodesBytes(this.part("decoder")),
      vocabulary: this.vocabulary,
      bpe: new Bpe(this.vocabulary, this.merges, options, byteLevel),
    };
  }

  private part(name: string): JsonTree {
    return this.parts.get(name) ?? null;
  }

  private readModel(): void {
    const { json } = this;
    json.object((key) => {
      if (key === "merges") return this.readMerges();
      if (key !== "vocab") return void this.settings.set(key, json.tree());
      if (json.peek() !== "{") throw new UnsupportedTokenizer("a model that is not BPE");
      this.readVocabulary();
    });
  }

  private readVocabulary(): void {
    const { json, vocabulary } = this;
    const type = this.settings.get("type") ?? "BPE";
    if (type !== "BPE") throw new UnsupportedTokenizer(`a model of the type ${shown(type)}`);
    json.object((token) => {
      const id = json.int();
      if (id < 0 || id >= MOST_TOKENS) json.fail(`token ${shown(token)} has the number ${id}, outside 0 to ${MOST_TOKENS - 1},`);
      vocabulary.set(token, id);
      if (vocabulary.size > MOST_TOKENS) json.fail(`more than ${MOST_TOKENS} tokens`);
    });
  }

  private readMerges(): void {
    const { json } = this;
    if (this.vocabulary.size === 0) throw new UnsupportedTokenizer("merges that stand before the vocabulary");
    const merges = new Merges();
    json.array(() => {
      const [left, right, ...more] = json.peek() === '"' ? json.string().split(" ", 3) : this.strings();
      if (left === undefined || right === undefined || more.length > 0) json.fail("a merge that does not have two parts");
      if (merges.size === MOST_MERGES) json.fail(`more than ${MOST_MERGES} merges`);
      merges.add(this.id(left), this.id(right), this.id(left + right));
    });
    this.merges = merges;
  }

  /** Of a list of strings, no more than three. */
  private strings(): string[] {
    const found: string[] = [];
    this.json.array(() => (found.length < 3 ? found.push(this.json.string()) : this.json.fail("a merge that does not have two parts")));
    return found;
  }

  private id(token: string): number {
    return this.vocabulary.get(token) ?? this.json.fail(`a merge with ${shown(token)}, which is not in the vocabulary,`);
  }

  /** The number of the unknown token, once it is sure that the model's settings are known ones. */
  private unknown(model: Part): number | null {
    const type = model.text("type") ?? "BPE";
    if (type !== "BPE") throw new UnsupportedTokenizer(`a model of the type ${shown(type)}`);
    if ((model.value("dropout") ?? 0) !== 0) throw new UnsupportedTokenizer("dropout");
    for (const name of ["continuing_subword_prefix", "end_of_word_suffix"]) if (model.text(name)) throw new UnsupportedTokenizer(name);
    model.only(MODEL_KEYS);
    const token = model.text("unk_token");
    if (token === null) return null;
    const id = this.vocabulary.get(token);
    if (id === undefined) throw new DamagedTokenizer(`unk_token ${shown(token)} is not in the vocabulary`);
    return id;
  }

  /** One number a token, and one token a number: else decoding would not be encoding's inverse. */
  private checkIds(): void {
    const names = new Map<number, string>();
    for (const [token, id] of this.vocabulary) {
      const other = names.get(id);
      if (other !== undefined) throw new DamagedTokenizer(`${shown(other)} and ${shown(token)} have the number ${id}`);
      names.set(id, token);
    }
    for (const { id, content } of this.added) {
      if ((this.vocabulary.get(content) ?? id) !== id || (names.get(id) ?? content) !== content) {
        throw new DamagedTokenizer(`added token ${shown(content)} has the number ${id}, the vocabulary another`);
      }
      names.set(id, content);
    }
  }
}

function addedToken(part: Part): AddedToken {
  part.only(ADDED_KEYS);
  for (const option of ["single_word", "lstrip", "rstrip"]) {
    if (part.flag(option)) throw new UnsupportedTokenizer(`added token ${shown(part.text("content"))} with ${option}`);
  }
  const id = part.value("id");
  if (typeof id !== "number") throw new DamagedTokenizer("an added token without a number");
  if (!Number.isInteger(id) || id < 0 || id >= MOST_TOKENS) throw new DamagedTokenizer(`an added token of the number ${id}`);
  const content = part.text("content");
  if (content === null) throw new DamagedTokenizer(`added token ${id} without content`);
  const special = part.flag("special");
  return { id, content, special, normalized: part.flag("normalized", !special) };
}
