import assert from "node:assert/strict";
import { test } from "node:test";
import * as ort from "onnxruntime-web/wasm";
import { Chat, generate, generateFrom, samplingConfig, type Continuation, type Exchange } from "../kit/generate.js";
import { BlockRunner } from "../kit/runtime/blockRunner.js";
import { ChatFormat } from "../kit/text/chatFormat.js";
import { Tokenizer } from "../kit/text/tokenizer.js";
import { initialAdapter, openBundle } from "./tools.js";

// Questions and answers in turn, within a sequence that is soon full.

const bundle = await openBundle("tiny");
const format = await ChatFormat.open(bundle.storage);
const tokenizer = await Tokenizer.open(bundle.storage, bundle.manifest.model.vocabSize);
const earlier = Array.from({ length: 6 }, (_, i): Exchange => ({ question: `is ${i}?`, answer: `ok ${i}` }));

/** What the format writes of these messages, said in turn. */
function idsOf(kept: readonly Exchange[], system: string | null = null): number[] {
  const said = kept.flatMap(({ question, answer }) => [{ role: "user", content: question }, { role: "assistant", content: answer }]);
  const before = system === null ? [] : [{ role: "system", content: system }];
  return tokenizer.encode(format.render([...before, ...said, { role: "user", content: "and?" }], true));
}

async function written(pieces: Continuation): Promise<string> {
  let text = "";
  for await (const piece of pieces) text += piece;
  return text;
}

test("the oldest exchanges are left out, and no more of them than need be", () => {
  const chat = new Chat(format, null, earlier);
  for (let seqLen = idsOf([]).length; seqLen <= idsOf(earlier).length + 8; seqLen++) {
    const { ids, forgotten } = chat.fitting(tokenizer, "and?", seqLen, 8);
    assert.deepEqual(ids, idsOf(earlier.slice(forgotten)));
    assert.ok(ids.length + 8 <= seqLen || forgotten === earlier.length);
    assert.ok(forgotten === 0 || idsOf(earlier.slice(forgotten - 1)).length + 8 > seqLen);
  }
  assert.equal(chat.fitting(tokenizer, "and?", idsOf(earlier).length + 8, 8).forgotten, 0);
});

test("an instruction stays before what was said", () => {
  const chat = new Chat(format, "be brief", earlier.slice(0, 2));
  assert.deepEqual(chat.promptIds(tokenizer, "and?", 1), idsOf(earlier.slice(1, 2), "be brief"));
});

test("an answer to a conversation is what its rendered text is continued with", async () => {
  const adapter = await initialAdapter(bundle);
  const config = samplingConfig({ temperature: 0, maxTokens: 4 });
  const runner = await BlockRunner.open(ort, bundle, { threads: 1 });
  const answer = generate(runner, bundle, tokenizer, adapter, "and?", config, new Chat(format, null, earlier));
  const text = await written(answer);
  assert.ok(answer.forgotten >= 1 && answer.forgotten <= earlier.length, String(answer.forgotten));
  const prompt = { ids: idsOf(earlier.slice(answer.forgotten)), forgotten: 0 };
  assert.equal(await written(generateFrom(runner, bundle, tokenizer, adapter, prompt, config)), text);
  await runner.close();
});
