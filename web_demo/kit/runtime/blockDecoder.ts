import { wholeSequence } from "../bundle/batch.js";
import { kindOf } from "../bundle/manifest.js";
import { PAST, program } from "../bundle/programs.js";
import { elements } from "../bundle/weights.js";
import { integers, type BlockRunner } from "./blockRunner.js";
import { Pass } from "./pass.js";
import type { Decoder } from "./stepRunner.js";
import { floatsIn, Held, write, type Value } from "./values.js";

/**
 * Generation with a state a layer, on the programs `KIND_prefill` and `KIND_decode`. Of a state by position, such as keys and values, a program
 * returns the token's place, which is written among those of the bundle's T positions; any other it returns whole, in place of the old one.
 */
export class BlockDecoder implements Decoder {
  private readonly states: Map<string, Value>[] = [];
  private readonly held = new Held(); // the states
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
    return this.passing(async (pass) => {
      let h = await runner.embed(pass, wholeSequence(ids, seqLen));
      for (let layer = 0; layer < runner.layers; layer++) {
        const names = kindOf(runner.manifest, layer).state.map((state) => state.name);
        const results = await runner.forwardLayer(pass, layer, "prefill", h, names);
        this.states[layer] = new Map(names.map((name) => [name, this.held.take(pass, results.get(name)!)]));
        pass.drop(h);
        h = results.get("h_next")!;
      }
      this.position = ids.length;
      const width = runner.manifest.model.hiddenSize;
      const last = (await floatsIn(h)).subarray((this.position - 1) * width, this.position * width);
      return this.logits(pass, { dtype: "float32", shape: [1, width], data: last });
    });
  }

  async next(id: number): Promise<Float32Array> {
    const { runner, position } = this;
    const { seqLen } = runner.manifest;
    if (position < 1 || position >= seqLen) throw new RangeError(`no room for a token at ${position} of ${seqLen}`);
    return this.passing(async (pass) => {
      const place = new Map([["input_ids", integers([id])], ["position_ids", integers([position])]]);
      let h = await runner.embedBy(pass, "decode_embed", place);
      for (let layer = 0; layer < runner.layers; layer++) h = await this.decodeLayer(pass, layer, h);
      this.position++;
      return this.logits(pass, h);
    });
  }

  private async passing<T>(work: (pass: Pass) => Promise<T>): Promise<T> {
    const pass = new Pass(this.runner.manifest, this.adapter);
    try {
      return await work(pass);
    } finally {
      pass.dropAll();
    }
  }

  private async decodeLayer(pass: Pass, layer: number, h: Value): Promise<Value> {
    const { runner } = this;
    const state = this.states[layer]!;
    const past = [...state].map(([name, now]): [string, Value] => [PAST + name, now]);
    const feeds = new Map([...runner.feeds(pass, layer, h), ...past]);
    const results = await runner.runLayer(pass, layer, "decode", feeds, ["h_next", ...pass.crossing.wanted(layer), ...state.keys()]);
    pass.crossing.put(layer, results);
    for (const { name, byPosition, shape } of kindOf(runner.manifest, layer).state) {
      const written = results.get(name)!;
      const now = state.get(name)!;
      if (byPosition) {
        await write(now, this.position * elements(shape.slice(1)), written);
      } else {
        state.set(name, this.held.take(pass, written));
        this.held.drop(now);
      }
    }
    return results.get("h_next")!;
  }

  /** h[L] of one token -> [V]. */
  private async logits(pass: Pass, h: Value): Promise<Float32Array> {
    const results = await this.runner.run(pass, "logits", new Map([["h", h]]), ["logits"]);
    return floatsIn(results.get("logits")!);
  }

  /** Again and again without harm: a text that ended is closed by its reader too. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    this.held.dropAll();
    const kinds = this.runner.manifest.kinds.map((kind) => program(kind.name, "decode"));
    await this.runner.release([...kinds, "decode_embed", "logits"]);
  }
}
