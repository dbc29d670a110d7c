import { IoError } from "../io/files.js";
import type { Scratch } from "../io/storage.js";

const HELD = 1 << 14; // numbers that are held before they are written

/** int32 that grow in a temporary file, so that their length costs no memory. Throws IoError. */
export class Spool {
  private readonly pending = new Int32Array(HELD);
  private held = 0;
  private written = 0; // numbers

  constructor(private readonly scratch: Scratch) {}

  get length(): number {
    return this.written + this.held;
  }

  append(values: ArrayLike<number>): void {
    for (let index = 0; index < values.length; index++) {
      if (this.held === HELD) this.flush();
      this.pending[this.held++] = values[index]!;
    }
  }

  /** `count` numbers from `start` on. */
  read(start: number, count: number): Int32Array {
    if (start + count > this.written) this.flush();
    if (start + count > this.written) throw new IoError("ended while it was read");
    const values = new Int32Array(count);
    this.scratch.read(new Uint8Array(values.buffer), start * Int32Array.BYTES_PER_ELEMENT);
    return values;
  }

  close(): void {
    this.scratch.close();
  }

  private flush(): void {
    this.scratch.write(new Uint8Array(this.pending.buffer, 0, this.held * Int32Array.BYTES_PER_ELEMENT));
    this.written += this.held;
    this.held = 0;
  }
}
