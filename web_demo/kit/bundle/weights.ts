import { reading, reserveBytes, type StoredFile } from "../io/files.js";
import { isPerLayer, tensorBytes, type WeightTensor } from "./manifest.js";

/** A tensor in memory: elements of `dtype`, row-major; float16 as its bits. */
export interface HostTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data: TensorData;
}

export type TensorData = Float32Array | BigInt64Array | Uint8Array | Int8Array | Uint16Array;

type Maker = new (buffer: ArrayBuffer, offset: number, length: number) => TensorData;
const VIEWS: Readonly<Record<string, Maker>> = {
  float32: Float32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  int8: Int8Array,
  float16: Uint16Array,
  bool: Uint8Array,
};

/**
 * `weights.bin`, of which a tensor's bytes are read when a program is to be fed. Each tensor has one buffer, which the next layer's take over:
 * the runtime copies what it is fed. So the file, which may be larger than a browser gives at once, is never in memory as a whole.
 */
export class Weights {
  private readonly tensors: ReadonlyMap<string, WeightTensor>;
  private readonly buffers = new Map<string, { buffer: Uint8Array; number: number }>();

  constructor(
    private readonly file: StoredFile,
    table: readonly WeightTensor[],
  ) {
    this.tensors = new Map(table.map((tensor) => [tensor.name, tensor]));
  }

  /** Of `layers.…` the slice of the layer that is `number` of its kind; good until the next call for another layer. Throws BUNDLE_UNREADABLE. */
  tensor(name: string, number: number): HostTensor {
    const { dtype, shape } = this.tensors.get(name)!;
    const own = isPerLayer(name) ? shape.slice(1) : shape;
    const bytes = this.bytes(name, isPerLayer(name) ? number : 0, tensorBytes(dtype, own));
    const item = bytes.length / elements(own);
    return { dtype, shape: own, data: new VIEWS[dtype]!(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.length / item) };
  }

  /** The bytes that a program names by their place in the file, as the same of another layer. Throws BUNDLE_UNREADABLE. */
  replaced(offset: number, length: number, number: number): Uint8Array {
    for (const { name, dtype, shape, offset: start } of this.tensors.values()) {
      const slice = tensorBytes(dtype, isPerLayer(name) ? shape.slice(1) : shape);
      const size = isPerLayer(name) ? slice * shape[0]! : slice;
      if (offset < start || offset + length > start + size) continue;
      const bytes = new Uint8Array(length);
      const from = isPerLayer(name) ? start + ((offset - start) % slice) + number * slice : offset;
      reading(this.file.name, "BUNDLE_UNREADABLE", () => this.file.read(bytes, from));
      return bytes;
    }
    throw new RangeError(`no tensor of ${this.file.name} has ${length} bytes at ${offset}`);
  }

  close(): void {
    this.file.close();
    this.buffers.clear();
  }

  private bytes(name: string, number: number, size: number): Uint8Array {
    const held = this.buffers.get(name);
    if (held?.number === number) return held.buffer;
    const buffer = held?.buffer ?? reserveBytes(size);
    this.buffers.delete(name); // while it is half read
    reading(this.file.name, "BUNDLE_UNREADABLE", () => this.file.read(buffer, this.tensors.get(name)!.offset + number * size));
    this.buffers.set(name, { buffer, number });
    return buffer;
  }
}

/** Elements of zeros in memory of their own. */
export function zeros(dtype: string, shape: readonly number[]): HostTensor {
  return tensorOf(dtype, shape, reserveBytes(tensorBytes(dtype, shape)).buffer as ArrayBuffer);
}

/** Over the beginning of `buffer`. */
export function tensorOf(dtype: string, shape: readonly number[], buffer: ArrayBuffer): HostTensor {
  return { dtype, shape, data: new VIEWS[dtype]!(buffer, 0, elements(shape)) };
}

export function elements(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** A vector as it is. */
export function vectorOf(data: Float32Array): HostTensor {
  return { dtype: "float32", shape: [data.length], data };
}

export function floatsOf(tensor: HostTensor): Float32Array {
  if (!(tensor.data instanceof Float32Array)) throw new TypeError(`expected float32, found ${tensor.dtype}`);
  return tensor.data;
}
