import { reasonOf } from "../../kit/io/text.js";
import { PageError } from "./problems.js";

// What is read piece by piece: a server's answer, a file that was picked.

/** Not every browser iterates over a stream. Throws NETWORK. */
export async function* piecesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await asked(() => reader.read());
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** A connection that broke, or a file that can no longer be read. */
export async function asked<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw new PageError("NETWORK", `what was being read broke off: ${reasonOf(error)}`);
  }
}

/** Null for more than `limit` bytes. */
export async function wholeOf(pieces: AsyncIterable<Uint8Array>, limit: number): Promise<Uint8Array | null> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of pieces) {
    size += part.length;
    if (size > limit) return null;
    parts.push(part);
  }
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
