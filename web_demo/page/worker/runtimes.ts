import type { Bundle } from "../../kit/bundle.js";
import { LcsbError } from "../../kit/faults.js";
import { reasonOf } from "../../kit/io/text.js";
import { Gpu } from "../../kit/runtime/gpu.js";
import type { Ort } from "../../kit/runtime/ort.js";
import { PageError } from "./problems.js";

// As the site's folder has them.
const WASM = new URL("../../ort/ort.wasm.bundle.min.mjs", import.meta.url).href;
const WEBGPU = new URL("../../ort/ort.webgpu.bundle.min.mjs", import.meta.url).href;
// (module (func (result v128) i32.const 0 i8x16.splat))
const SIMD = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11);

/** What computes a run: the runtime, and the GPU that has the bundle, which whoever asked for it closes. */
export interface Processor {
  readonly ort: Ort;
  readonly gpu: Gpu | null;
}

/** The builds of ONNX Runtime Web, each loaded when it is wanted first: the one for GPUs is twice as large. */
export class Runtimes {
  private readonly loaded = new Map<string, Promise<Ort>>();

  /** Throws NO_SIMD, RUNTIME_FAILED. */
  async wasm(): Promise<Processor> {
    return { ort: await this.load(WASM), gpu: null };
  }

  /** Likewise, and GPU_UNSUITABLE. */
  async webgpu({ manifest }: Bundle): Promise<Processor> {
    const { gpu } = navigator;
    if (gpu === undefined) throw new LcsbError("GPU_UNSUITABLE", "this browser has no WebGPU");
    const ort = await this.load(WEBGPU);
    return { ort, gpu: await Gpu.open(gpu, ort, manifest) };
  }

  private async load(address: string): Promise<Ort> {
    checkComputing();
    const loading = this.loaded.get(address) ?? (import(address) as Promise<Ort>);
    this.loaded.set(address, loading);
    try {
      return await loading;
    } catch (error) {
      this.loaded.delete(address);
      throw new LcsbError("RUNTIME_FAILED", `ONNX Runtime could not be loaded: ${String(error)}`, [], error);
    }
  }
}

/** Some modes for more security leave WebAssembly out; a policy may forbid it. Throws NO_SIMD. */
export function checkComputing(): void {
  try {
    new WebAssembly.Module(SIMD);
  } catch (error) {
    throw new PageError("NO_SIMD", `this browser runs no WebAssembly with 128-bit vectors (SIMD): ${reasonOf(error)}`);
  }
}

/** Whether the browser gives this worker a GPU. */
export async function hasGpu(): Promise<boolean> {
  try {
    return ((await navigator.gpu?.requestAdapter()) ?? null) !== null;
  } catch {
    return false;
  }
}
