import * as real from "onnxruntime-web/wasm";
import type { Gpu } from "../../kit/runtime/gpu.js";
import type { Ort, OrtTensor } from "../../kit/runtime/ort.js";

// A GPU of a browser that there is none of here: its buffers are arrays, and its kernels are WebAssembly's. So what the kit does with it can be
// counted, and what comes out has to be WebAssembly's bits.

const ARRAYS = { float32: Float32Array, float16: Uint16Array, int64: BigInt64Array, int8: Int8Array, uint8: Uint8Array } as const;
const LIMITS = {
  maxBufferSize: 2 ** 28,
  maxStorageBufferBindingSize: 2 ** 27,
  maxStorageBuffersPerShaderStage: 8,
  maxComputeWorkgroupStorageSize: 16384,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupSizeX: 256,
  maxComputeWorkgroupSizeY: 256,
  maxComputeWorkgroupSizeZ: 64,
  maxComputeWorkgroupsPerDimension: 65535,
};
type Limits = Partial<typeof LIMITS>;
export type BrowserGpu = Parameters<typeof Gpu.open>[0];

class FakeBuffer {
  readonly bytes: Uint8Array<ArrayBuffer>;

  constructor(
    private readonly gpu: FakeGpu,
    size: number,
  ) {
    if (size % 4 !== 0) throw new RangeError(`a buffer of ${size} bytes`);
    if (gpu.live.size >= gpu.room) throw new RangeError("no memory for it");
    this.bytes = new Uint8Array(size);
    gpu.live.add(this);
    gpu.most = Math.max(gpu.most, gpu.live.size);
  }

  async mapAsync(): Promise<void> {}
  getMappedRange = () => this.bytes.buffer;
  unmap(): void {}

  destroy(): void {
    this.gpu.live.delete(this);
  }

  /** Throws where it was freed. */
  read(): ArrayBuffer {
    if (!this.gpu.live.has(this)) throw new Error("a buffer that was freed is read");
    return this.bytes.slice().buffer;
  }
}

/** `live`: buffers that were not freed; `most`: as many there were at once. `runs`: of programs on it; `sessions`: that are not released. `requested`: of its limits. */
export class FakeGpu {
  readonly live = new Set<FakeBuffer>();
  most = 0;
  /** After so many runs the next one throws. */
  failing = Infinity;
  runs = 0;
  sessions = 0;
  /** Buffers that there can be. */
  room = Infinity;
  requested: Limits = {};
  private gone = false;
  private readonly listeners: ((event: unknown) => void)[] = [];
  private lose!: (info: unknown) => void;
  private readonly lost = new Promise((settle) => (this.lose = settle));

  constructor(private readonly limits: Limits = {}) {}

  get browser(): BrowserGpu {
    const limits = { ...LIMITS, ...this.limits };
    const requestDevice = async ({ requiredLimits }: { requiredLimits: Limits }) => {
      this.requested = requiredLimits;
      return this.device;
    };
    return { requestAdapter: async () => ({ limits, requestDevice }) } as unknown as BrowserGpu;
  }

  private readonly device = {
    lost: this.lost,
    addEventListener: (_: string, listener: (event: unknown) => void) => this.listeners.push(listener),
    createBuffer: ({ size }: { size: number }) => new FakeBuffer(this, size),
    createCommandEncoder: () => ({
      copyBufferToBuffer: (from: FakeBuffer, start: number, into: FakeBuffer, offset: number, size: number) =>
        into.bytes.set(new Uint8Array(from.read(), start, size), offset),
      finish: () => null,
    }),
    queue: { submit: () => {} },
    destroy: () => this.live.clear(),
  };

  /** As a driver that is reset takes it away. */
  takeAway(): void {
    this.gone = true;
    this.lose({ reason: "unknown", message: "the driver\nwas reset" });
  }

  /** What a browser reports that no call of anybody's threw. */
  complain(message: string): void {
    for (const listener of this.listeners) listener({ error: new Error(message) });
  }

  /** The runtime's build for this GPU. */
  get ort(): Ort {
    const create = async (program: Uint8Array, options: real.InferenceSession.SessionOptions) => {
      const [provider] = options.executionProviders!;
      if (typeof provider === "string") return real.InferenceSession.create(program, options);
      if ((provider as { device: unknown }).device !== this.device) throw new Error("another device");
      const { disable_cpu_ep_fallback: strict, ...settings } = options.extra!["session"] as Record<string, string>;
      if (strict !== "1") throw new Error("a node might fall back to the CPU");
      const here = { ...options, executionProviders: ["wasm"], preferredOutputLocation: "cpu", extra: { session: settings } } as const;
      const session = await real.InferenceSession.create(program, here);
      const { inputMetadata, outputMetadata } = session;
      const run = (feeds: Record<string, OrtTensor>, wanted: readonly string[]) => this.run(session, feeds, wanted, options.preferredOutputLocation as any);
      this.sessions++;
      const release = () => {
        this.sessions--;
        return session.release();
      };
      return { inputMetadata, outputMetadata, run, release };
    };
    return { ...real, InferenceSession: { create } } as unknown as Ort;
  }

  private async run(
    session: real.InferenceSession,
    feeds: Record<string, OrtTensor>,
    wanted: readonly string[],
    places: Readonly<Record<string, string>>,
  ): Promise<Record<string, OrtTensor>> {
    if (this.gone) return new Promise(() => {}); // nothing comes of it
    if (++this.runs > this.failing) throw new Error("a kernel failed");
    const given = Object.entries(feeds).map(([name, tensor]) => [name, tensor.location === "gpu-buffer" ? this.here(tensor) : tensor]);
    const results = await session.run(Object.fromEntries(given), wanted);
    return Object.fromEntries(wanted.map((name) => [name, places[name] === "gpu-buffer" ? this.there(results[name]!) : results[name]!]));
  }

  private here({ type, dims, gpuBuffer }: OrtTensor): OrtTensor {
    const count = dims.reduce((product, size) => product * size, 1);
    const buffer = (gpuBuffer as unknown as FakeBuffer).read();
    return new real.Tensor(type as "float32", new ARRAYS[type as "float32"](buffer, 0, count), dims);
  }

  private there({ type, dims, data }: OrtTensor): OrtTensor {
    const { buffer, byteOffset, byteLength } = data as Float32Array;
    const made = new FakeBuffer(this, Math.ceil(byteLength / 16) * 16);
    made.bytes.set(new Uint8Array(buffer, byteOffset, byteLength));
    return real.Tensor.fromGpuBuffer(made as never, { dataType: type as "float32", dims, dispose: () => made.destroy() });
  }
}
