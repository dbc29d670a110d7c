import { LcsbError } from "../faults.js";
import { tensorBytes, type Manifest } from "../bundle/manifest.js";
import { isForGpu } from "../bundle/programs.js";
import { tensorOf, type HostTensor, type Weights } from "../bundle/weights.js";
import { megabytes, oneLine, reasonOf } from "../io/text.js";
import { checkLimits, unsuitable } from "./gpuLimits.js";
import type { Ort, OrtSession, OrtTensor } from "./ort.js";

// GPUBufferUsage and GPUMapMode, by the standard's numbers, as they are nowhere but in a browser.
const MAP_READ = 0x01;
const COPY_SRC = 0x04;
const COPY_DST = 0x08;
const STORAGE = 0x80;
const MAP_MODE_READ = 0x01;
const ALIGNMENT = 16; // of a buffer's size, as ONNX Runtime copies

/** Those that ONNX Runtime's kernels are made for, as large as the GPU has them. */
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupSizeZ",
  "maxComputeWorkgroupsPerDimension",
] as const;

/**
 * One bundle on a GPU: the device, the programs' sessions and the weights, which any number of runners use one after the other, as a GPU takes
 * seconds to prepare a program. Whoever opens it closes it, and what lies there is gone.
 */
export class Gpu {
  /** By program, and layer where its weights are constants. */
  readonly sessions: Map<string, OrtSession> = new Map();
  private failure: LcsbError | null = null;
  private readonly lost: Promise<never>;
  private readonly weights = new Map<string, OrtTensor>();

  private constructor(
    readonly ort: Ort,
    readonly device: GPUDevice,
  ) {
    this.lost = device.lost.then(({ reason, message }) => {
      throw (this.failure ??= failed(`the GPU was lost (${reason}): ${oneLine(message)}`));
    });
    this.lost.catch(() => {}); // it is said where something is waited for
    // what a program did wrong, or memory that was not to be had: the results would be zeros
    device.addEventListener("uncapturederror", ({ error }) => (this.failure ??= failed(reasonOf(error))));
  }

  /** `browser`: its `navigator.gpu`. Throws GPU_UNSUITABLE. */
  static async open(browser: GPU, ort: Ort, manifest: Manifest): Promise<Gpu> {
    if (!isForGpu(manifest)) throw unsuitable("they are for the processor; export with --programs gpu");
    const adapter = await browser.requestAdapter({ powerPreference: "high-performance" });
    if (adapter === null) throw unsuitable("the browser gives this page no GPU");
    checkLimits(manifest, adapter.limits);
    const requiredLimits = Object.fromEntries(LIMITS.map((name) => [name, adapter.limits[name]]));
    try {
      return new Gpu(ort, await adapter.requestDevice({ requiredLimits }));
    } catch (error) {
      throw unsuitable(`the browser gives this page no GPU: ${reasonOf(error)}`, error);
    }
  }

  /** Throws GPU_FAILED once it has: a runner of which a part is gone computes nothing more. */
  check(): void {
    if (this.failure !== null) throw this.failure;
  }

  /** A weight, which is brought here once. */
  weight(weights: Weights, name: string, number: number): OrtTensor {
    const key = `${name} ${number}`;
    const tensor = this.weights.get(key) ?? this.upload(weights.tensor(name, number));
    this.weights.set(key, tensor);
    return tensor;
  }

  /** In a buffer of its own, which `dispose` frees. Throws GPU_FAILED. */
  upload({ dtype, shape, data }: HostTensor): OrtTensor {
    const buffer = this.mapped(aligned(data.byteLength));
    new Uint8Array(buffer.getMappedRange()).set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    buffer.unmap();
    return this.ort.Tensor.fromGpuBuffer(buffer, { dataType: dtype as "float32", dims: shape, dispose: () => buffer.destroy() });
  }

  private mapped(size: number): GPUBuffer {
    try {
      return this.device.createBuffer({ size, usage: STORAGE | COPY_SRC | COPY_DST, mappedAtCreation: true });
    } catch (error) {
      throw failed(`a buffer of ${megabytes(size)} was not to be had: ${reasonOf(error)}`, error);
    }
  }

  /** Throws GPU_FAILED. */
  async download({ type, dims, gpuBuffer }: OrtTensor): Promise<HostTensor> {
    const bytes = aligned(tensorBytes(type, dims));
    const buffer = this.device.createBuffer({ size: bytes, usage: MAP_READ | COPY_DST });
    try {
      this.copyBytes(gpuBuffer as GPUBuffer, bytes, buffer, 0);
      await this.guarded(buffer.mapAsync(MAP_MODE_READ));
      return tensorOf(type, dims, buffer.getMappedRange().slice(0));
    } finally {
      buffer.destroy();
    }
  }

  /** The elements of one tensor over those of another, from byte `offset` of it on. */
  copy(from: OrtTensor, into: OrtTensor, offset: number): void {
    this.copyBytes(from.gpuBuffer as GPUBuffer, tensorBytes(from.type, from.dims), into.gpuBuffer as GPUBuffer, offset);
  }

  private copyBytes(from: GPUBuffer, bytes: number, into: GPUBuffer, offset: number): void {
    const encoder = this.device.createCommandEncoder();
    encoder.copyBufferToBuffer(from, 0, into, offset, bytes);
    this.device.queue.submit([encoder.finish()]);
  }

  /** What `work` comes to, unless the GPU fails. Throws GPU_FAILED. */
  async guarded<T>(work: Promise<T>): Promise<T> {
    try {
      const result = await Promise.race([work, this.lost]);
      this.check();
      return result;
    } catch (error) {
      throw error instanceof LcsbError ? error : failed(reasonOf(error), error);
    }
  }

  /** Sessions that wait for a GPU that is lost would be waited for for ever. */
  async close(): Promise<void> {
    if (this.failure === null) for (const session of this.sessions.values()) await session.release();
    this.sessions.clear();
    this.weights.clear();
    this.device.destroy();
  }
}

/** A buffer's size for so many bytes. */
function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

function failed(reason: string, cause?: unknown): LcsbError {
  return new LcsbError("GPU_FAILED", `the GPU failed: ${reason}`, [], cause);
}
