// What a message may be, checked field by field: a page and a worker of two releases may meet while a service worker takes over.

/** Returns `value` where it has the shape; else throws ShapeError, which names the place. */
export type Shape<T> = (value: unknown, at: string) => T;
export type ShapeOf<S> = S extends Shape<infer T> ? T : never;

export class ShapeError extends Error {}

function shape<T>(what: string, is: (value: unknown) => boolean): Shape<T> {
  return (value, at) => {
    if (!is(value)) throw new ShapeError(`${at}: expected ${what}, found ${value === null ? "null" : typeof value}`);
    return value as T;
  };
}

export const text = shape<string>("a text", (value) => typeof value === "string");
export const flag = shape<boolean>("true or false", (value) => typeof value === "boolean");
export const count = shape<number>("a whole number from 0 on", (value) => Number.isSafeInteger(value) && (value as number) >= 0);
/** A loss may be NaN. */
export const number = shape<number>("a number", (value) => typeof value === "number");
export const bytes = shape<Uint8Array<ArrayBuffer>>("bytes", (value) => value instanceof Uint8Array);
export const blob = shape<Blob>("a file", (value) => value instanceof Blob);

export function choice<T extends string>(...values: readonly T[]): Shape<T> {
  return shape<T>(`one of ${values.join(", ")}`, (value) => values.includes(value as T));
}

export function list<T>(element: Shape<T>): Shape<readonly T[]> {
  return (value, at) => {
    if (!Array.isArray(value)) throw new ShapeError(`${at}: expected a list, found ${typeof value}`);
    value.forEach((each, i) => element(each, `${at}[${i}]`));
    return value as readonly T[];
  };
}

export function nullable<T>(inner: Shape<T>): Shape<T | null> {
  return (value, at) => (value === null ? null : inner(value, at));
}

type Fields = Record<string, Shape<unknown>>;
export type Fielded<F extends Fields> = { readonly [K in keyof F]: ShapeOf<F[K]> };

/** With these fields and no others. */
export function object<F extends Fields>(fields: F): Shape<Fielded<F>> {
  return (value, at) => {
    if (typeof value !== "object" || value === null) throw new ShapeError(`${at}: expected an object, found ${typeof value}`);
    const unknown = Object.keys(value).find((key) => !Object.hasOwn(fields, key));
    if (unknown !== undefined) throw new ShapeError(`${at}: an unknown field '${unknown}'`);
    for (const [key, field] of Object.entries(fields)) field((value as Record<string, unknown>)[key], `${at}.${key}`);
    return value as Fielded<F>;
  };
}

export type Messages = Readonly<Record<string, Fields>>;
/** One of the messages, by its `type`. */
export type MessageOf<M extends Messages> = { [K in keyof M & string]: { readonly type: K } & Fielded<M[K]> }[keyof M & string];

/** Throws ShapeError. */
export function readMessage<M extends Messages>(messages: M, value: unknown): MessageOf<M> {
  const type = (value as { readonly type?: unknown } | null)?.type;
  if (typeof type !== "string" || !Object.hasOwn(messages, type)) throw new ShapeError(`a message of an unknown type: ${String(type)}`);
  return object({ type: text, ...messages[type] })(value, type) as unknown as MessageOf<M>;
}
