import assert from "node:assert/strict";
import { test } from "node:test";
import { LcsbError } from "../../kit/faults.js";
import { ChatFormat, ChatRefusal, type Message } from "../../kit/text/chatFormat.js";
import { dayOf, localTime } from "../../kit/text/localTime.js";
import { goldenJson } from "../golden.js";
import { bundle, files, refusal } from "./tools.js";

// Chat formats against the templates that they were derived from, on what scripts/golden/write_chat_golden.py wrote. Which tokens count is
// tests/data's.

interface Format {
  readonly chat: object;
  readonly rendered: readonly { readonly messages: Message[]; readonly prompt: boolean; readonly text: string | null }[];
}

const { formats } = goldenJson("chat_formats.json") as { formats: Record<string, Format> };
const open = (chat: string) => ChatFormat.open(files({ "chat.json": chat }));
const chatOf = (name: string) => JSON.stringify(formats[name]!.chat);

test("conversations are written as the template does", async () => {
  for (const [name, format] of Object.entries(formats)) {
    const chat = (await open(chatOf(name))).at("2026-02-28T23:05:09");
    let refused = 0;
    for (const { messages, prompt, text } of format.rendered) {
      try {
        assert.equal(chat.render(messages, prompt), text?.replaceAll("\ue000", "28 Feb 2026"), name);
      } catch (error) {
        if (!(error instanceof LcsbError)) throw error;
        assert.equal(error.fault, "CHAT_UNSUPPORTED");
        refused++;
      }
    }
    // What a template takes and its format refuses: Gemma's, a system's message in an assistant's place.
    assert.ok(name === "gemma3" || refused === format.rendered.filter(({ text }) => text === null).length, name);
  }
});

test("the last question is found in what the model reads", async () => {
  let found = 0;
  for (const [name, format] of Object.entries(formats)) {
    const chat = await open(chatOf(name));
    for (const { messages, prompt, text } of format.rendered) {
      if (!prompt || text === null || messages.at(-1)?.role !== "user") continue;
      const shown = chat.lastQuestion(chat.render(messages, true))!.trim();
      assert.ok(shown.endsWith(messages.at(-1)!.content.trim()), `${name}: ${shown}`); // some write the system's text into the user's turn
      found++;
    }
  }
  assert.ok(found > Object.keys(formats).length);
  assert.equal((await open(chatOf("qwen3"))).lastQuestion("no turn of a user"), null);
});

test("today's date, unless a run has its own", async () => {
  const { messages, prompt, text } = formats["llama3.2"]!.rendered.find((each) => each.text?.includes("\ue000"))!;
  const today = new Date().toLocaleDateString("en-GB", { day: "2-digit", month: "short", year: "numeric" }).replace("Sept", "Sep");
  assert.equal((await open(chatOf("llama3.2"))).render(messages, prompt), text!.replaceAll("\ue000", today));
});

test("local times", () => {
  const now = new Date(2026, 1, 28, 23, 5, 9);
  assert.equal(localTime(now), "2026-02-28T23:05:09");
  assert.deepEqual(dayOf("2026-02-28T23:05:09"), { year: 2026, month: 2, date: 28 });
  for (const none of ["2026-02-29T00:00:00", "2026-02-28T24:00:00", "2026-02-28", "2026-13-01T00:00:00"]) assert.equal(dayOf(none), null);
});

test("what a format does not take", async () => {
  const chat = await open(chatOf("gemma3"));
  const refused = (part: string, ...roles: string[]) =>
    assert.throws(() => chat.render(roles.map((role) => ({ role, content: "x" }))), refusal("CHAT_UNSUPPORTED", part));
  refused("user and assistant must take turns", "user", "user");
  refused("the role 'tool'; expected system, user, assistant", "user", "tool");
  refused("a conversation without messages");
  const none = () => chat.conversation([{ role: "user", content: "x" }]);
  assert.throws(none, new ChatRefusal("messages: expected at least one with the role 'assistant', found none"));
  const long = Array.from({ length: 1001 }, (_, index) => ({ role: index % 2 === 0 ? "user" : "assistant", content: "x" }));
  assert.throws(() => chat.conversation(long), /at most 1000, found 1001/);
  const qwen3 = await open(chatOf("qwen3"));
  const tools = [{ role: "user", content: "<tool_response>1</tool_response>" }];
  assert.throws(() => qwen3.render(tools), refusal("CHAT_UNSUPPORTED", "takes for a tool's"));
});

test("files that are refused", async () => {
  const chat = chatOf("llama3.2");
  const version = '"format_version":1';
  assert.ok(chat.includes(version));
  await assert.rejects(open(chat.replace(version, '"format_version":2')), refusal("CHAT_UNSUPPORTED", "version 2, this app reads 1"));
  await assert.rejects(open(chat.replace("%b", "%A")), refusal("CHAT_UNSUPPORTED", "a date with '%A'"));
  await assert.rejects(open(chat.replace("format_version", "formula")), refusal("BUNDLE_DAMAGED", "an unknown field 'formula'"));
  await assert.rejects(open(chat.slice(0, -1)), refusal("BUNDLE_DAMAGED", "not a chat format"));
  await assert.rejects(open("[".repeat(60_000)), refusal("BUNDLE_DAMAGED", "not a chat format"));
  await assert.rejects(open(" ".repeat(65_537)), refusal("BUNDLE_DAMAGED", "more than the 65536"));
  await assert.rejects(ChatFormat.open(files({})), refusal("BUNDLE_DAMAGED", "no such file"));
  await ChatFormat.open(bundle("tiny"));
});
