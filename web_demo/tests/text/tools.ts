import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { NodeStorage } from "../../cli/nodeFiles.js";
import { LcsbError, type Fault } from "../../kit/faults.js";
import { fileOf, IoError } from "../../kit/io/files.js";
import { utf8 } from "../../kit/io/utf8.js";
import { Tokenizer, type TokenizerFiles } from "../../kit/text/tokenizer.js";
import { BUNDLES, goldenPath } from "../golden.js";

export function gunzip(name: string): Uint8Array {
  return gunzipSync(readFileSync(goldenPath(`tokenizers/${name}.gz`)));
}

/** Files in memory, as a bundle's directory. */
export function files(contents: Readonly<Record<string, string | Uint8Array>>): TokenizerFiles {
  return {
    path: "bundle",
    async open(name) {
      const content = contents[name];
      if (content === undefined) throw new IoError("no such file");
      return fileOf(typeof content === "string" ? utf8(content) : content, name);
    },
  };
}

export function bundle(name: string): TokenizerFiles {
  return new NodeStorage(join(BUNDLES, name));
}

export function openTokenizer(tokenizer: string | Uint8Array, config = "{}", vocabSize = 1 << 20): Promise<Tokenizer> {
  return Tokenizer.open(files({ "tokenizer.json": tokenizer, "tokenizer_config.json": config }), vocabSize);
}

/** A tokenizer of tests/golden/tokenizers; `config` is its tokenizer_config.json. */
export function styled(style: string, config?: string): Promise<Tokenizer> {
  return openTokenizer(gunzip(`${style}.json`), config);
}

/** An error of this fault, whose one line has `part`. */
export function refusal(fault: Fault, part: string): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof LcsbError, String(error));
    assert.ok(error.message.includes(part), `expected "${part}" in: ${error.message}`);
    assert.ok(!error.message.includes("\n"));
    assert.equal(error.fault, fault);
    return true;
  };
}
