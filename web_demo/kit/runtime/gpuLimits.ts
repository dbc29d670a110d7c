import { LcsbError } from "../faults.js";
import { isPerLayer, PACKED, tensorBytes, type Manifest } from "../bundle/manifest.js";
import { runsOnGpu } from "../bundle/programs.js";
import { megabytes } from "../io/text.js";

/** What a GPU takes, as WebGPU names it. */
export interface GpuLimits {
  readonly maxBufferSize: number;
  readonly maxStorageBufferBindingSize: number;
  readonly maxStorageBuffersPerShaderStage: number;
}

const KERNEL_BUFFERS = 8; // that a kernel of ONNX Runtime may bind; WebGPU promises as many, but not its mode for old devices
const FLOAT_SHARE = 8; // bytes of float32 in one byte of packed 4-bit weights

/** The buffers that the bundle's programs for a GPU need, by the tensor that each is for, in bytes. */
export function gpuBuffers(manifest: Manifest): Map<string, number> {
  const found = new Map<string, number>();
  for (const [program, graph] of manifest.graphs) {
    if (!runsOnGpu(program)) continue;
    for (const { name, dtype, shape, weight } of [...graph.inputs, ...graph.outputs]) {
      const bytes = tensorBytes(dtype, shape);
      found.set(weight ?? `${program}'s ${name}`, bytes);
      // embedding and head are decompressed by rows
      if (weight !== null && isPerLayer(weight) && name.endsWith(PACKED)) found.set(`${weight} as float32`, FLOAT_SHARE * bytes);
    }
  }
  const { seqLen, model, kinds } = manifest;
  if (kinds.some((kind) => kind.attentionWidth > 0)) {
    found.set("attention of each token to each", tensorBytes("float32", [model.numAttentionHeads, seqLen, seqLen]));
  }
  return found;
}

/** Throws GPU_UNSUITABLE where the GPU does not take what the programs need: before anything is run. */
export function checkLimits(manifest: Manifest, limits: GpuLimits): void {
  const most = Math.min(limits.maxBufferSize, limits.maxStorageBufferBindingSize);
  const [name, bytes] = [...gpuBuffers(manifest)].reduce((largest, each) => (each[1] > largest[1] ? each : largest));
  if (bytes > most) {
    const remedy = "train by WebAssembly, or export a smaller model or a shorter --seq-len";
    throw unsuitable(`${name} needs a buffer of ${megabytes(bytes)}, and this GPU takes at most ${megabytes(most)} in one; ${remedy}`);
  }
  const buffers = limits.maxStorageBuffersPerShaderStage;
  if (buffers >= KERNEL_BUFFERS) return;
  throw unsuitable(`this GPU takes ${buffers} buffers at once, expected at least ${KERNEL_BUFFERS}; train by WebAssembly`);
}

/** Bytes of the weights that those programs take. They stay on the GPU as long as the runner. */
export function gpuWeightBytes(manifest: Manifest): number {
  const graphs = [...manifest.graphs].filter(([program]) => runsOnGpu(program)).map(([, graph]) => graph);
  const names = new Set(graphs.flatMap(({ inputs }) => inputs.map(({ weight }) => weight)));
  return manifest.weights.filter(({ name }) => names.has(name)).reduce((sum, { dtype, shape }) => sum + tensorBytes(dtype, shape), 0);
}

export function unsuitable(reason: string, cause?: unknown): LcsbError {
  return new LcsbError("GPU_UNSUITABLE", `the GPU cannot run this bundle's programs: ${reason}`, [], cause);
}
