import { wholeSequence } from "../bundle/batch.js";
import { kindOf } from "../bundle/manifest.js";
import { PAST, program } from "../bundle/programs.js";
import { floatsOf, type HostTensor } from "../bundle/weights.js";
import { integers, type BlockRunner } from "./blockRunner.js";
import { Crossing } from "./crossing.js";
import type { Decoder } from "./stepRunner.js";

/**
 * Generation with a state a layer, on the programs `KIND_prefill` and `KIND_decode`. Of a state by position, such as keys and values, a program
 * returns the token's place, which is written among those of the bundle's T positions; any other it returns whole, in place of the old one.
 */
export class BlockDecoder implements Decoder {
  private readonly states: Map<string, HostTensor>[] = [];
  private position = 0; // of the next token
  private closed = false;

  constructor(
    private readonly runner: BlockRunner,
    private readonly adapter: Float32Array,
  ) {}

  /** All tokens in one pass of the bundle's length; what is beyond them in a state by position is never attended to. */
  async prefill(ids: readonly number[]): Promise<Float32Array> {
    const { runner } = this;
    const { seqLen } = runner.manifest;
    if (ids.length < 1 || ids.length > seqLen) throw new RangeError(`expected 1 to ${seqLen} tokens, found ${ids.length}`);
    const values = new Crossing(runner.manifest);
    let h = await runner.embed(wholeSequence(ids, seqLen));
    for (let layer = 0; layer < runner.layers; layer++) {
      const names = kindOf(runner.manifest, layer).state.map((state) => state.name);
      const results = await runner.forwardLayer(layer, "prefill", h, this.adapter, values, names);
      this.states[layer] = new Map(names.map((name) => [name, results.get(name)!]));
      h = results.get("h_next")!;
    }
    this.position = ids.length;
    const width = runner.manifest.model.hiddenSize;
    return this.logits(floatsOf(h).subarray((this.position - 1) * width, this.position * width));
  }

  async next(id: number): Promise<Float32Array> {
    const { runner, position } = this;
    const { seqLen, graphs } = runner.manifest;
    if (position < 1 || position >= seqLen) throw new RangeError(`no room for a token at ${position} of ${seqLen}`);
    const place = new Map([["input_ids", integers([id])], ["position_ids", integers([position])]]);
    const tables = await runner.run("decode_embed", place, graphs.get("decode_embed")!.outputs.map((output) => output.name));
    const values = new Crossing(runner.manifest);
    let h = tables.get("h")!;
    for (let layer = 0; layer < runner.layers; layer++) h = await this.decodeLayer(layer, h, tables, values);
    this.position++;
    return this.logits(floatsOf(h));
  }

  private async decodeLayer(layer: number, h: HostTensor, tables: ReadonlyMap<string, HostTensor>, values: Crossing): Promise<HostTensor> {
    const { runner } = this;
    const state = this.states[layer]!;
    const past = [...state].map(([name, now]): [string, HostTensor] => [PAST + name, now]);
    const vector = runner.vector(this.adapter, layer);
    const feeds = new Map([["h", h], ...past, ...runner.read(layer, tables), ...values.taken(layer), ["adapter", vector]]);
    const results = await runner.runLayer(layer, "decode", feeds, ["h_next", ...values.wanted(layer), ...state.keys()]);
    values.put(layer, results);
    for (const { name, byPosition } of kindOf(runner.manifest, layer).state) {
      const written = results.get(name)!;
      if (byPosition) floatsOf(state.get(name)!).set(floatsOf(written), this.position * written.data.length);
      else state.set(name, written);
    }
    return results.get("h_next")!;
  }

  /** h[L] of one token -> [V]. */
  private async logits(h: Float32Array): Promise<Float32Array> {
    const results = await this.runner.run("logits", new Map([["h", { dtype: "float32", shape: [1, h.length], data: h }]]), ["logits"]);
    return floatsOf(results.get("logits")!);
  }

  /** Again and again without harm: a text that ended is closed by its reader too. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    const kinds = this.runner.manifest.kinds.map((kind) => program(kind.name, "decode"));
    await this.runner.release([...kinds, "decode_embed", "logits"]);
  }
}
