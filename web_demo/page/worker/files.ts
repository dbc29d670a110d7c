import { IoError, readBounded, type StoredFile } from "../../kit/io/files.js";
import { JsonError } from "../../kit/io/jsonReader.js";
import { decode, encode, type Decoder } from "../../kit/io/records.js";
import { storing, withFile, type Sink, type Storage } from "../../kit/io/storage.js";
import { reasonOf } from "../../kit/io/text.js";

const MOST_RECORD_BYTES = 1 << 20;
const CHUNK = 1 << 18;

/** A picked file, read where it lies. */
export function fileOfBlob(blob: Blob, name: string): StoredFile {
  const reader = new FileReaderSync();
  return {
    name,
    size: blob.size,
    read(into, at) {
      if (at + into.length > blob.size) throw new IoError("ended while it was read");
      try {
        into.set(new Uint8Array(reader.readAsArrayBuffer(blob.slice(at, at + into.length))));
      } catch (error) {
        throw new IoError(reasonOf(error), error); // it was changed, or taken away
      }
    },
    close() {},
  };
}

/** The content of one file into another. `check` is called now and then: it may throw. */
export function pour(file: StoredFile, sink: Sink, check: (done: number) => void = () => {}): void {
  const chunk = new Uint8Array(CHUNK);
  for (let at = 0; at < file.size; at += CHUNK) {
    const part = chunk.subarray(0, Math.min(CHUNK, file.size - at));
    file.read(part, at);
    sink.write(part);
    check(at + part.length);
  }
}

/** A record that the page wrote; null where there is none, or it is of another release. */
export async function readRecord<T>(storage: Storage, name: string, decoder: Decoder<T>): Promise<T | null> {
  try {
    return decode(await withFile(storage, name, (file) => readBounded(file, MOST_RECORD_BYTES)), decoder);
  } catch (error) {
    if (error instanceof IoError || error instanceof JsonError) return null;
    throw error;
  }
}

/** Throws STORAGE_FULL, STORAGE_FAILED. */
export function writeRecord(storage: Storage, name: string, value: unknown): Promise<void> {
  return storing(storage.path, () => storage.replace(name, (sink) => sink.write(encode(value))));
}
