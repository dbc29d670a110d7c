import { floatsOf, type HostTensor } from "../bundle/weights.js";
import type { Gpu } from "./gpu.js";
import { hostTensor, type OrtTensor } from "./ort.js";

/**
 * A program's result in a run on a GPU. It lies in one memory, and moves when a program takes it that runs elsewhere. Whoever asked for it
 * drops it, or its room on the GPU stays taken.
 */
export class GpuTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  private here: HostTensor | null = null;
  private there: OrtTensor | null = null;

  /** `result`: as the runtime returned it, wherever it lies. */
  constructor(
    private readonly gpu: Gpu,
    result: OrtTensor,
  ) {
    this.dtype = result.type;
    this.shape = result.dims;
    if (result.location === "gpu-buffer") this.there = result;
    else this.here = hostTensor(result);
  }

  /** Brought to the host. Throws GPU_FAILED. */
  async host(): Promise<HostTensor> {
    if (this.here !== null) return this.here;
    const found = await this.gpu.download(this.there!);
    this.drop();
    return (this.here = found);
  }

  /** Brought to the GPU. */
  device(): OrtTensor {
    this.there ??= this.gpu.upload(this.here!);
    this.here = null;
    return this.there;
  }

  /** Writes the elements of `part`, which are float32, over its own, from element `place` on. */
  async write(place: number, part: GpuTensor): Promise<void> {
    if (this.here !== null) floatsOf(this.here).set(floatsOf(await part.host()), place);
    else this.gpu.copy(part.device(), this.there!, place * Float32Array.BYTES_PER_ELEMENT);
  }

  drop(): void {
    this.there?.dispose();
    this.there = null;
    this.here = null;
  }
}
