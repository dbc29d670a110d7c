import { readAdapterFile } from "../../kit/adapter/adapter.js";
import type { Bundle } from "../../kit/bundle.js";
import { checkpointNames, newestGood } from "../../kit/checkpoint/runCheckpoint.js";
import { Chat, generate, samplingConfig, type Continuation } from "../../kit/generate.js";
import { reserveFloats } from "../../kit/io/files.js";
import { BlockRunner } from "../../kit/runtime/blockRunner.js";
import { CHAT_FILE, ChatFormat } from "../../kit/text/chatFormat.js";
import { Tokenizer } from "../../kit/text/tokenizer.js";
import type { Adapters } from "./adapters.js";
import type { Library } from "./library.js";
import { RUNS, storageAt } from "./places.js";
import type { RequestOf, Tell } from "./protocol.js";
import { STATE } from "./runs.js";
import type { Runtimes } from "./runtimes.js";
import type { Watch } from "./turns.js";

const MOST_TOKENS = 128;

/** Writes texts. Nothing is kept from one to the next: a conversation is read again each time. */
export class Trial {
  constructor(
    private readonly runtimes: Runtimes,
    private readonly threads: number,
    private readonly library: Library,
    private readonly adapters: Adapters,
    private readonly tell: Tell,
  ) {}

  async write(asked: RequestOf<"write">, watch: Watch): Promise<void> {
    let texts: readonly Continuation[] = [];
    try {
      const bundle = await this.library.open(watch);
      const runner = await BlockRunner.open((await this.runtimes.wasm()).ort, bundle, {
        threads: this.threads,
        betweenLayers: () => watch.control.rest(),
      });
      try {
        texts = await this.begin(asked, bundle, runner);
        await this.writeOut(texts, asked, watch);
      } finally {
        for (const text of texts) if (text.ended === null) await text.close();
        await runner.close();
      }
    } finally {
      const cut = texts.map(({ ended }) => ended !== "END_TOKEN" && ended !== "STOP_TEXT");
      this.tell({ type: "writingEnded", cut, forgotten: texts[0]?.forgotten ?? 0 });
    }
  }

  /** One text with what was asked for; to compare, first one with the model as it came. */
  private async begin(
    { prompt, chat, system, earlier, temperature, adapter, compare }: RequestOf<"write">,
    bundle: Bundle,
    runner: BlockRunner,
  ) {
    const { storage, manifest } = bundle;
    const tokenizer = await Tokenizer.open(storage, manifest.model.vocabSize);
    const format = chat && manifest.files.has(CHAT_FILE) ? await ChatFormat.open(storage) : null;
    const talk = format && new Chat(format, system.trim() === "" ? null : system, earlier);
    const config = samplingConfig({ temperature, seed: Math.floor(Math.random() * 2 ** 24), maxTokens: MOST_TOKENS });
    const texts: Continuation[] = [];
    for (const which of compare && adapter !== null ? [null, adapter] : [adapter]) {
      texts.push(generate(runner, bundle, tokenizer, await this.parameters(bundle, which), prompt, config, talk));
    }
    return texts;
  }

  /** A piece of each in turn. */
  private async writeOut(texts: readonly Continuation[], asked: RequestOf<"write">, watch: Watch): Promise<void> {
    const writing = texts.map((text, i) => ({ pieces: text[Symbol.asyncIterator](), adapted: asked.compare ? i === 1 : true }));
    const left = new Set(writing);
    while (left.size > 0) {
      for (const each of left) {
        watch.check();
        const { done, value } = await each.pieces.next();
        if (done) left.delete(each);
        else this.tell({ type: "wrote", piece: value, adapted: each.adapted });
      }
    }
  }

  private async parameters(bundle: Bundle, which: number | null): Promise<Float32Array> {
    const { layout } = bundle;
    if (which === 0) return this.ofRun(bundle);
    const adapter = reserveFloats(layout.size);
    if (which === null) {
      await bundle.readInitialAdapter(adapter);
      return adapter;
    }
    const file = await this.adapters.open(which);
    try {
      readAdapterFile(file, layout, adapter);
    } finally {
      file.close();
    }
    return adapter;
  }

  /** What the paused run has come to. */
  private async ofRun(bundle: Bundle): Promise<Float32Array> {
    const state = await storageAt(RUNS, this.library.chosen!, STATE);
    const names = await checkpointNames(state);
    if (names.length === 0) return this.parameters(bundle, null);
    return (await newestGood(state, names, bundle.layout.numLayers, bundle.layout.size)).checkpoint.state.adapter;
  }
}
