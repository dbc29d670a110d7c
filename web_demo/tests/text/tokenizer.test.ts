import assert from "node:assert/strict";
import { test } from "node:test";
import { patternSplitter } from "../../kit/text/preTokenizer.js";
import { Tokenizer } from "../../kit/text/tokenizer.js";
import { bundle, files, openTokenizer, refusal, styled } from "./tools.js";

// What a tokenizer's files say beside ids of texts, and files that are refused.

const model = '"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}, "merges": ["a b"]}';
const open = (content: string, config = "{}", vocabSize = 100) => openTokenizer(content, config, vocabSize);
const more = (settings: string) => `{${model.slice(0, -1)}, ${settings}}}`;

test("where documents begin and end", async () => {
  const settings = '"bos_token": {"content": "<|begin_of_text|>"}, "eos_token": "<|eot_id|>", "eos_token_id": [7, 3001]';
  const tokenizer = await styled("llama3", `{"chat_template": [{}], ${settings}}`);
  const [bos, eos] = [...tokenizer.encode("<|begin_of_text|>"), ...tokenizer.encode("<|eot_id|>")];
  assert.deepEqual([tokenizer.bosId, tokenizer.eosId, tokenizer.padId], [bos, eos, eos]);
  assert.deepEqual(tokenizer.endIds, new Set([7, 3001, eos]));
  assert.deepEqual(tokenizer.encodePrompt("Hi"), [bos, ...tokenizer.encode("Hi")]);
  assert.deepEqual(tokenizer.encodeDocument("Hi"), [bos, ...tokenizer.encode("Hi"), eos]);
  const without = await styled("llama3", `{${settings}, "add_bos_token": false}`);
  assert.deepEqual(without.encodePrompt("Hi"), tokenizer.encode("Hi"));
  assert.equal(tokenizer.decode(tokenizer.encodeDocument("Hi")), "Hi");
  assert.equal(tokenizer.decode(tokenizer.encodeDocument("Hi"), true), "<|begin_of_text|>Hi<|eot_id|>");
});

test("without tokens of beginning and end", async () => {
  const tokenizer = await styled("qwen2");
  assert.deepEqual([tokenizer.bosId, tokenizer.eosId, tokenizer.padId], [null, null, 0]);
  assert.deepEqual(tokenizer.encodeDocument("Hi"), tokenizer.encode("Hi"));
  assert.deepEqual(tokenizer.encodeContinuation(" Hi"), tokenizer.encode(" Hi"));
  assert.deepEqual(tokenizer.encode(""), []);
  const named = await styled("qwen2", '{"bos_token": "<|im_start|>"}'); // which its post-processor does not add
  assert.deepEqual(named.encodePrompt("Hi"), named.encode("Hi"));
  const llama2 = await styled("llama2"); // which puts a blank before a text, and none before what follows one
  assert.equal(llama2.decode([...llama2.encode("a"), ...llama2.encodeContinuation("b")]), "ab");
});

test("the bundles' tokenizers", async () => {
  for (const name of ["tiny", "llama", "qwen2", "gemma3"]) {
    const tokenizer = await Tokenizer.open(bundle(name), 512);
    assert.equal(tokenizer.decode(tokenizer.encodeDocument("memory")), "memory", name);
    assert.deepEqual([...tokenizer.endIds].filter((id) => id !== 258), [tokenizer.eosId]);
  }
});

test("pieces of a text are settled once no token after them can change them", async () => {
  for (const style of ["qwen2", "gemma", "llama2"]) {
    const tokenizer = await styled(style);
    const text = "a 🙂𓀀 é<start_of_turn>字\u{1f9d1}\u200d\u{1f680}ￖ.";
    const ids = tokenizer.encode(text);
    let written = "";
    for (let count = 1; count <= ids.length; count++) {
      const settled = tokenizer.decode(ids.slice(0, tokenizer.settled(ids.slice(0, count)))).replace(/\ufffd+$/, "");
      assert.ok(settled.startsWith(written), style);
      written = settled;
    }
    assert.equal(written, tokenizer.decode(ids));
  }
  const gemma = await styled("gemma");
  const bytes = gemma.encode("<0xF0>"); // as text it is no byte
  assert.equal(gemma.settled(bytes), bytes.length);
  const named = await open(`{${model.replace('"c": 3', '"<0x41>": 3')}}`); // whose decoder knows no bytes
  assert.equal(named.settled([3]), 1);
  const run = gemma.encode("a𓀀"); // a token for each byte of the second
  assert.deepEqual([gemma.settled(run.slice(0, -1)), gemma.settled(run)], [run.length - 4, run.length - 4]);
});

test("halves of pairs are replaced", async () => {
  const tokenizer = await styled("qwen2");
  assert.equal(tokenizer.decode(tokenizer.encode("a\ud83db\ude00")), "a\ufffdb\ufffd");
});

test("marks are composed as the library does, whatever the browser's Unicode knows", async () => {
  const tokenizer = await styled("qwen2");
  for (const text of ["\u{105d2}\u0307", "\u{16d67}\u{16d67}", "\u{11382}\u{113c9}"]) {
    assert.equal(tokenizer.decode(tokenizer.encode(text)), text); // pairs that are one character from Unicode 16 on
  }
  assert.equal(tokenizer.decode(tokenizer.encode("e\u0301\u1100\u1161\u11a8")), "é각");
});

test("merges in both spellings", async () => {
  assert.deepEqual((await open(`{${model}}`)).encode("abc"), [2, 3]);
  assert.deepEqual((await open(`{${model.replace('["a b"]', '[["a", "b"]]')}}`)).encode("abc"), [2, 3]);
});

test("a pair that stands twice has the later rank", async () => {
  const twice = '"model": {"vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4}, "merges": ["a b", "b c", "a b"]}';
  assert.deepEqual((await open(`{${twice}}`)).encode("abc"), [0, 4]);
});

test("the long s is one of a contraction, where case does not matter", () => {
  const words = "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  const found: string[] = [];
  const text = "'\u017fab'Sab";
  patternSplitter(`(?i:'s|'t|'re|'ve|'m|'ll|'d)|${words}`)!(text, 0, text.length, (start, end) => found.push(text.slice(start, end)));
  assert.deepEqual(found, ["'\u017f", "ab", "'S", "ab"]);
});

test("tokens leave no gap where characters are taken out of a text", async () => {
  const removes = '"normalizer": {"type": "Replace", "pattern": {"String": "-"}, "content": ""}';
  const { starts, ends } = (await open(`{${removes}, ${model}}`)).encodeWithOffsets("a-c");
  assert.deepEqual([starts, ends], [[0, 1], [1, 3]]);
});

test("a word of the vocabulary that no merges make", async () => {
  const whole = model.replace('"c": 3', '"c": 3, "abc": 4');
  assert.deepEqual((await open(`{${whole}}`)).encode("abc"), [2, 3]);
  assert.deepEqual((await open(`{${whole.slice(0, -1)}, "ignore_merges": true}}`)).encode("abc"), [4]);
});

test("long words are tokenised, and known words are not mixed up", async () => {
  const tokenizer = await open(`{${model}}`);
  assert.deepEqual(tokenizer.encode("ab".repeat(100_000)), Array.from({ length: 100_000 }, () => 2));
  for (let count = 0; count < 20_000; count++) {
    const bits = count.toString(2).replaceAll("0", "a").replaceAll("1", "b");
    assert.equal(tokenizer.encode(bits).map((id) => ["a", "b", "ab"][id]).join(""), bits);
  }
});

test("kinds that are refused", async () => {
  const unsupported = (what: string, content: string) =>
    assert.rejects(open(content), refusal("TOKENIZER_UNSUPPORTED", `tokenizer.json: ${what}: not supported`));
  await unsupported("a model of the type 'Unigram'", '{"model": {"type": "Unigram", "vocab": {}}}');
  await unsupported("a model that is not BPE", '{"model": {"vocab": [["a", 0.5]]}}');
  await unsupported("a model of the type 'WordLevel'", `{${model.replace("BPE", "WordLevel")}}`);
  await unsupported("dropout", more('"dropout": 0.1'));
  await unsupported("end_of_word_suffix", more('"end_of_word_suffix": "</w>"'));
  await unsupported("model with 'extra'", more('"extra": 1'));
  await unsupported("merges that stand before the vocabulary", '{"model": {"merges": [], "vocab": {"a": 0}}}');
  await unsupported("the part 'more'", '{"more": 1}');
  const part = (what: string, content: string) => unsupported(what, `{${model}, ${content}}`);
  await part("the normalizer 'Lowercase'", '"normalizer": {"type": "Lowercase"}');
  const replace = '{"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"Regex": "a"}, "content": "b"}]}';
  await part("the normalizer Replace of a regular expression", `"normalizer": ${replace}`);
  await part("the pre-tokenizer 'Metaspace'", '"pre_tokenizer": {"type": "Metaspace"}');
  await part("the pre-tokenizer ByteLevel with add_prefix_space", '"pre_tokenizer": {"type": "ByteLevel"}');
  const split = (pattern: string, behavior: string, invert = false) =>
    `"pre_tokenizer": {"type": "Split", "pattern": {${pattern}}, "behavior": "${behavior}", "invert": ${invert}}`;
  await part("the pre-tokenizer Split of '(?i)x'", split('"Regex": "(?i)x"', "Isolated"));
  await part("the pre-tokenizer Split of the kind 'Removed'", split('"String": " "', "Removed"));
  await part("the pre-tokenizer Split with invert", split('"String": " "', "MergedWithPrevious", true));
  const bytes = '{"type": "ByteLevel", "add_prefix_space": false}';
  const behind = `"pre_tokenizer": {"type": "Sequence", "pretokenizers": [${bytes}, {"type": "Digits"}]}`;
  await part("a pre-tokenizer behind ByteLevel", behind);
  await part("the post-processor 'BertProcessing'", '"post_processor": {"type": "BertProcessing"}');
  await part("the decoder 'WordPiece'", '"decoder": {"type": "WordPiece"}');
  await part("added token 'x' with lstrip", '"added_tokens": [{"id": 9, "content": "x", "lstrip": true}]');
  await unsupported("byte_fallback with ByteLevel", `{"pre_tokenizer": ${bytes}, ${more('"byte_fallback": true').slice(1)}`);
});

test("files that are refused", async () => {
  const damaged = (what: string, content: string, config?: string, vocabSize?: number) =>
    assert.rejects(open(content, config, vocabSize), refusal("TOKENIZER_DAMAGED", what));
  await damaged("tokenizer.json: not a readable tokenizer: ends too early at byte 0", "");
  await damaged("expected the end at byte", `{${model}} x`);
  await damaged("a merge with 'x', which is not in the vocabulary,", `{${model.replace('"a b"', '"a x"')}}`);
  await damaged("a merge that does not have two parts", `{${model.replace('"a b"', '"a b c"')}}`);
  await damaged("a merge that does not have two parts", `{${model.replace('"a b"', '["a"]')}}`);
  await damaged("'a' and 'c' have the number 0", `{${model.replace(": 3", ": 0")}}`);
  await damaged("token 'c' has the number 524288, outside 0 to 524287,", `{${model.replace(": 3", ": 524288")}}`);
  await damaged("expected a whole number below 2^31, found 0.5", `{${model.replace(": 3", ": 0.5")}}`);
  await damaged("the model has no merges", '{"model": {"vocab": {"a": 0}}}');
  await damaged("unk_token '?' is not in the vocabulary", more('"unk_token": "?"'));
  const added = (token: string) => `{${model}, "added_tokens": [${token}]}`;
  await damaged("added token 'x' has the number 1, the vocabulary another", added('{"id": 1, "content": "x"}'));
  await damaged("added token 'a' has the number 7, the vocabulary another", added('{"id": 7, "content": "a"}'));
  await damaged("an added token of the number 1000000000", added('{"id": 1e9, "content": "x"}'));
  await damaged("added token 9 without content", added('{"id": 9}'));
  await damaged("added_tokens: special is not true or false", added('{"id": 9, "content": "x", "special": 1}'));
  await damaged("a value of too many parts", `{${model}, "normalizer": ${"[".repeat(100_000)}`);
  await damaged("a value of too many parts", `{${model}, "normalizer": [${"1,".repeat(100_000)}`);
  await damaged("a value nested too deep", `{${model}, "padding": ${"[".repeat(100_000)}`);
  await damaged("a string of more than 1048576 bytes", `{"${"a".repeat(1_100_000)}`);
  await damaged("normalizer: has no type", `{${model}, "normalizer": {}}`);
  await damaged("normalizer: expected an object", `{${model}, "normalizer": [1]}`);
  await damaged("eos_token '</s>' is not a token of tokenizer.json", `{${model}}`, '{"eos_token": "</s>"}');
  await damaged("bos_token: expected a string or {\"content\": string}, found '3'", `{${model}}`, '{"bos_token": 3}');
  await damaged("eos_token_id: expected a number or a list of numbers", `{${model}}`, '{"eos_token_id": ["x"]}');
  await damaged("bos_token: token 3 ('c') is outside the model's vocabulary of 3", `{${model}}`, '{"bos_token": "c"}', 3);
  const small = await open(`{${model}}`, "{}", 3);
  assert.throws(() => small.encode("abc"), refusal("TOKENIZER_DAMAGED", "token 3 ('c') is outside the model's vocabulary of 3"));
  await assert.rejects(Tokenizer.open(files({}), 3), refusal("TOKENIZER_DAMAGED", "no such file"));
  const large = { size: 2 ** 27, read: () => assert.fail("it is read"), close: () => {} };
  const directory = { path: "bundle", open: async (name: string) => ({ name, ...large }) };
  await assert.rejects(Tokenizer.open(directory, 3), refusal("TOKENIZER_DAMAGED", "134217728 bytes, more than the 16777216 that are read"));
});
