import { de } from "./texts/de.js";
import { en } from "./texts/en.js";

export type Plural = { readonly one: string; readonly other: string };
type Entries = typeof en;
type KeysOf<T> = { [K in keyof Entries]: Entries[K] extends T ? K : never }[keyof Entries];
export type TextKey = KeysOf<string>;
export type PluralKey = KeysOf<Plural>;
/** A language's texts: the same keys in each. */
export type Language = { readonly [K in keyof Entries]: Entries[K] extends string ? string : Plural };

export const LANGUAGES: Readonly<Record<string, Language>> = { en, de };

/** The texts in one language. `%s` or `%1$s` in a text is what is given. */
export class Texts {
  constructor(
    readonly language: string,
    private readonly texts: Language,
  ) {}

  /** In the first language of the person's that there is, else in English; with the region that the person has. */
  static of(wanted: readonly string[]): Texts {
    const found = wanted.find((tag) => Object.hasOwn(LANGUAGES, tag.slice(0, 2))) ?? "en";
    return new Texts(found, LANGUAGES[found.slice(0, 2)]!);
  }

  say(key: TextKey, ...given: readonly string[]): string {
    return filled(this.texts[key], given);
  }

  /** The first of what is filled in is the count. */
  plural(key: PluralKey, count: number, ...given: readonly string[]): string {
    const form = new Intl.PluralRules(this.language).select(count) === "one" ? "one" : "other";
    return filled(this.texts[key][form], [new Intl.NumberFormat(this.language).format(count), ...given]);
  }
}

function filled(text: string, given: readonly string[]): string {
  let next = 0;
  return text.replace(/%(?:(\d)\$)?s/g, (_, place: string | undefined) => given[place === undefined ? next++ : Number(place) - 1] ?? "");
}
