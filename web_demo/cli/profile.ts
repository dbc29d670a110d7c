import * as ort from "onnxruntime-web";
import { NodeStorage } from "./nodeFiles.js";
import { vectorSpeed } from "./vectorSpeed.js";
import { Bundle } from "../kit/bundle.js";
import { goldenBatchOf } from "../kit/bundle/golden.js";
import { BlockRunner } from "../kit/runtime/blockRunner.js";
import type { Ort, OrtSession } from "../kit/runtime/ort.js";

// Steps by WebAssembly with one thread, as benchmarks/web_step.py reads them: `profile.js BUNDLE STEPS`. Each is of the bundle's first golden
// batch through all layers, the first of them, which prepares the programs, left out. In lines of JSON it says what the processor's vectors give, and
// the seconds of steps without a profile and of steps with one; then ONNX Runtime prints its profiles, one a program. The output is to be a file, as
// the runtime does not wait for a pipe.

const [directory, count] = process.argv.slice(2) as [string, string];
const steps = Number(count);
const line = (fields: unknown) => console.log(JSON.stringify(fields));

const bundle = await Bundle.open(new NodeStorage(directory));
const layers = bundle.manifest.layers.map((_, layer) => layer);
const adapter = new Float32Array(bundle.layout.size);
await bundle.readInitialAdapter(adapter);

/** Seconds of each step, the first left out. */
async function seconds(runtime: Ort): Promise<number[]> {
  const runner = await BlockRunner.open(runtime, bundle, { threads: 1 });
  const found: number[] = [];
  for (let step = 0; step <= steps; step++) {
    const start = performance.now();
    await runner.step({ train: layers, propagate: layers }, goldenBatchOf(bundle.golden, 0), adapter);
    found.push((performance.now() - start) / 1000);
  }
  return found.slice(1);
}

/** The sessions that the kit opens, with the runtime's profiler. */
const sessions: OrtSession[] = [];
const profiling = {
  ...ort,
  InferenceSession: {
    async create(program: Uint8Array, options: ort.InferenceSession.SessionOptions) {
      const session = await ort.InferenceSession.create(program, { ...options, enableProfiling: true });
      sessions.push(session);
      return session;
    },
  },
} as unknown as Ort;

line({ multiplyAdds: vectorSpeed() });
line({ seconds: await seconds(ort) });
line({ profiled: await seconds(profiling) });
for (const session of sessions) session.endProfiling();
