import type { Symbols } from "./bpe.js";
import type { NormalizedText } from "./normalizer.js";
import { units, utf8Size } from "./texts.js";

/** Tokens as they come, with the characters that they stand for if those are asked for. */
export class Encoding {
  readonly ids: number[] = [];
  readonly starts: number[] = [];
  readonly ends: number[] = [];

  constructor(private readonly withOffsets: boolean) {}

  add(id: number, start: number, end: number): void {
    this.ids.push(id);
    if (!this.withOffsets) return;
    this.starts.push(start);
    this.ends.push(end);
  }

  /** The tokens of a word that begins at `from`: their bytes are counted along its characters. */
  addWord(part: NormalizedText, from: number, word: Symbols): void {
    if (!this.withOffsets) {
      for (const id of word.ids) this.ids.push(id);
      return;
    }
    const { text } = part;
    const bytesAt = (at: number) => (at < text.length ? utf8Size(text.codePointAt(at)!) : 0);
    const behind = (at: number) => at + units(text.codePointAt(at)!);
    let at = from; // the character at hand, and the bytes of the word through it
    let through = bytesAt(at);
    let done = 0;
    const advance = () => {
      at = behind(at);
      through += bytesAt(at);
    };
    word.ids.forEach((id, index) => {
      while (done >= through && at < text.length) advance();
      const start = at;
      done += word.sizes[index]!;
      while (done > through && at < text.length) advance();
      this.add(id, part.start(start), part.end(behind(at)));
    });
  }
}
