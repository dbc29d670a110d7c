import type * as OnnxRuntimeWeb from "onnxruntime-web/wasm";
import type { HostTensor, TensorData } from "../bundle/weights.js";

/**
 * Stock `onnxruntime-web`, whichever build of it: whoever has loaded it gives it, as a page and Node load it from different places. A GPU needs
 * the build with WebGPU.
 */
export type Ort = typeof OnnxRuntimeWeb;
export type OrtTensor = OnnxRuntimeWeb.Tensor;
export type OrtSession = OnnxRuntimeWeb.InferenceSession;
export type SessionOptions = OnnxRuntimeWeb.InferenceSession.SessionOptions;
export type ValueMetadata = OnnxRuntimeWeb.InferenceSession.ValueMetadata;

export function ortTensor(ort: Ort, { dtype, shape, data }: HostTensor): OrtTensor {
  return new ort.Tensor(dtype as "float32", data as Float32Array, shape);
}

/** float16 as its bits: some browsers have an array for it, some not. */
export function hostTensor({ type, dims, data }: OrtTensor): HostTensor {
  const values = data as TensorData;
  if (type !== "float16") return { dtype: type, shape: dims, data: values };
  return { dtype: type, shape: dims, data: new Uint16Array(values.buffer as ArrayBuffer, values.byteOffset, values.length) };
}
