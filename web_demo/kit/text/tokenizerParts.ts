import type { JsonTree } from "../io/jsonReader.js";
import { quoted } from "../io/text.js";
import { nfcNormalizer, type Normalizer, prependNormalizer, replaceNormalizer } from "./normalizer.js";
import { digitsSplitter, gpt2Splitter, markSplitter, patternSplitter, type PreTokenizer } from "./preTokenizer.js";
import {
  byteFallbackDecoder, byteLevelDecoder, fuseDecoder, replaceDecoder, spaceDecoder, stripDecoder, type TokenDecoder,
} from "./tokenDecoder.js";

/** A `tokenizer.json` of a kind that the kit has no code for; the message names it. */
export class UnsupportedTokenizer extends Error {}

/** A `tokenizer.json` that contradicts itself. */
export class DamagedTokenizer extends Error {}

/** What a file says, short, for an error. */
export function shown(value: unknown): string {
  return quoted(value instanceof Map ? "an object" : String(value), 40);
}

/** A small object of `tokenizer.json`, with its `name` for errors. */
export class Part {
  private readonly values: ReadonlyMap<string, JsonTree>;

  constructor(
    private readonly name: string,
    tree: JsonTree | undefined,
  ) {
    if (!(tree instanceof Map)) throw new DamagedTokenizer(`${name}: expected an object`);
    this.values = tree;
  }

  get type(): string {
    return this.text("type") ?? this.damaged("has no type");
  }

  value(key: string): JsonTree {
    return this.values.get(key) ?? null;
  }

  text(key: string): string | null {
    const value = this.value(key);
    return value === null || typeof value === "string" ? value : this.damaged(`${key} is not a string`);
  }

  flag(key: string, absent = false): boolean {
    const value = this.value(key) ?? absent;
    return typeof value === "boolean" ? value : this.damaged(`${key} is not true or false`);
  }

  count(key: string): number {
    const value = this.value(key);
    return typeof value === "number" && Number.isInteger(value) && value >= 0 ? value : this.damaged(`${key} is not a number from 0 on`);
  }

  list(key: string): JsonTree[] {
    const value = this.value(key);
    return Array.isArray(value) ? value : this.damaged(`${key} is not a list`);
  }

  /** Throws UnsupportedTokenizer for other keys than these. */
  only(keys: readonly string[]): void {
    for (const key of this.values.keys()) if (!keys.includes(key)) throw new UnsupportedTokenizer(`${this.name} with ${shown(key)}`);
  }

  /** The text that a Replace or a Split looks for; null for a regular expression. */
  pattern(): string | null {
    return new Part(`${this.name}: pattern`, this.value("pattern")).text("String");
  }

  private damaged(what: string): never {
    throw new DamagedTokenizer(`${this.name}: ${what}`);
  }
}

/** Parts of a Sequence, at most one level deep, as the families have them; a part alone is one of one; null is none. */
function flat(name: string, tree: JsonTree, member: string): Part[] {
  if (tree === null) return [];
  const part = new Part(name, tree);
  return part.type === "Sequence" ? part.list(member).map((each) => new Part(name, each)) : [part];
}

export function normalizers(tree: JsonTree): Normalizer[] {
  return flat("normalizer", tree, "normalizers").map((part) => {
    switch (part.type) {
      case "NFC":
        return nfcNormalizer;
      case "Replace":
        return replaceNormalizer(textPattern(part, "the normalizer Replace"), part.text("content") ?? "");
      case "Prepend":
        return prependNormalizer(part.text("prepend") ?? "");
      default:
        throw new UnsupportedTokenizer(`the normalizer ${shown(part.type)}`);
    }
  });
}

function textPattern(part: Part, what: string): string {
  const pattern = part.pattern();
  if (!pattern) throw new UnsupportedTokenizer(`${what} of a regular expression`);
  return pattern;
}

/** The pre-tokenizers in order; null is ByteLevel's writing of bytes, which Bpe does. */
export function splits(tree: JsonTree): (PreTokenizer | null)[] {
  return flat("pre_tokenizer", tree, "pretokenizers").flatMap((part) => {
    switch (part.type) {
      case "Digits":
        return [digitsSplitter(part.flag("individual_digits"))];
      case "Split":
        return [splitter(part)];
      case "ByteLevel":
        if (part.flag("add_prefix_space", true)) throw new UnsupportedTokenizer("the pre-tokenizer ByteLevel with add_prefix_space");
        return part.flag("use_regex", true) ? [gpt2Splitter, null] : [null];
      default:
        throw new UnsupportedTokenizer(`the pre-tokenizer ${shown(part.type)}`);
    }
  });
}

function splitter(part: Part): PreTokenizer {
  const behavior = part.text("behavior");
  const text = part.pattern();
  if (part.flag("invert")) throw new UnsupportedTokenizer("the pre-tokenizer Split with invert");
  if (text && behavior === "MergedWithPrevious") return markSplitter(text);
  const expression = new Part("pre_tokenizer: pattern", part.value("pattern")).text("Regex");
  if (expression === null || behavior !== "Isolated") {
    throw new UnsupportedTokenizer(`the pre-tokenizer Split of the kind ${shown(behavior)}`);
  }
  const known = patternSplitter(expression);
  if (known === undefined) throw new UnsupportedTokenizer(`the pre-tokenizer Split of ${shown(expression)}`);
  return known;
}

/** The number of the first token that stands in a TemplateProcessing's `single`; null where no token is added. */
export function firstSpecial(tree: JsonTree): number | null {
  const tokens = flat("post_processor", tree, "processors").map((part) => {
    if (part.type === "ByteLevel") return null;
    if (part.type === "TemplateProcessing") return templateToken(part);
    throw new UnsupportedTokenizer(`the post-processor ${shown(part.type)}`);
  });
  return tokens.find((token) => token !== null) ?? null;
}

function templateToken(part: Part): number | null {
  const piece = part.list("single").map((each) => new Part("single", each).value("SpecialToken")).find((each) => each !== null);
  if (piece === undefined) return null;
  const name = new Part("single: SpecialToken", piece).text("id");
  const token = new Part("special_tokens", part.value("special_tokens")).value(name ?? "");
  const id = new Part(`special_tokens: ${name}`, token).list("ids")[0];
  if (typeof id !== "number") throw new DamagedTokenizer(`special_tokens: ${shown(name)} has no number`);
  return id;
}

/** Whether runs of tokens such as `<0x41>` are put together as bytes. */
export function decodesBytes(tree: JsonTree): boolean {
  return flat("decoder", tree, "decoders").some((part) => part.type === "ByteFallback");
}

export function decoder(tree: JsonTree): TokenDecoder {
  const decoders = flat("decoder", tree, "decoders").map(oneDecoder);
  if (decoders.length === 0) return spaceDecoder;
  return (tokens) => decoders.reduce((each, decode) => decode(each), tokens);
}

function oneDecoder(part: Part): TokenDecoder {
  switch (part.type) {
    case "ByteLevel":
      return byteLevelDecoder;
    case "ByteFallback":
      return byteFallbackDecoder;
    case "Fuse":
      return fuseDecoder;
    case "Strip":
      return stripDecoder(part.text("content") ?? "", part.count("start"), part.count("stop"));
    case "Replace":
      return replaceDecoder(textPattern(part, "the decoder Replace"), part.text("content") ?? "");
    default:
      throw new UnsupportedTokenizer(`the decoder ${shown(part.type)}`);
  }
}
