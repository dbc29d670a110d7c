import { floatsOf, type HostTensor } from "../bundle/weights.js";
import type { GpuTensor } from "./gpuTensor.js";

/** What a program returns, and may be fed: in a run by WebAssembly it is the host's. */
export type Value = HostTensor | GpuTensor;

export type Values = ReadonlyMap<string, Value>; // by the names of a program's inputs or outputs

export function isOfHost(value: Value): value is HostTensor {
  return "data" in value;
}

/** Its elements, without a copy where they are the host's already. Throws GPU_FAILED. */
export async function hostOf(value: Value): Promise<HostTensor> {
  return isOfHost(value) ? value : value.host();
}

/** Likewise, of float32. */
export async function floatsIn(value: Value): Promise<Float32Array> {
  return floatsOf(await hostOf(value));
}

/** Writes the elements of `part` over those of `value`, another result of the same runtime, from element `place` on. */
export async function write(value: Value, place: number, part: Value): Promise<void> {
  if (isOfHost(value)) floatsOf(value).set(await floatsIn(part), place);
  else await value.write(place, part as GpuTensor);
}

/** The results that some work holds on a GPU: each lives until it is dropped, somebody else takes it, or all of them end. */
export class Held {
  private readonly values = new Set<GpuTensor>();

  hold(results: Values): void {
    for (const value of results.values()) if (!isOfHost(value)) this.values.add(value);
  }

  /** A result that others held so far. */
  take(from: Held, value: Value): Value {
    if (!isOfHost(value) && from.values.delete(value)) this.values.add(value);
    return value;
  }

  drop(value: Value): void {
    if (!isOfHost(value) && this.values.delete(value)) value.drop();
  }

  dropAll(): void {
    for (const value of this.values) value.drop();
    this.values.clear();
  }
}
