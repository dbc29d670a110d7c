import { h, type Child, type Tree } from "../dom.js";
import { formatDay, formatDecimal } from "../formats.js";
import { bundleOf, hasPausedRun, isActive, talks, triedAdapter, type Said, type State } from "../state.js";
import type { Texts } from "../texts.js";
import { button, buttons, card, field, muted, section, typed, written, type Context } from "../ui.js";

const MOST_SHOWN = 50; // of a conversation
const RUN = 0; // the paused run's adapter, in place of a number

/** A conversation, or a text that is continued, with an adapter or without; or the same prompt with both, side by side. */
export function tryScreen(context: Context): Child[] {
  const { state } = context;
  return [
    modes(context),
    optionsCard(context),
    state.drafts.sideBySide ? comparisonView(state, context.t) : conversationView(context),
    examplesCard(context),
    h("p", { class: "muted", "aria-live": "polite" }, sentence(state, context.t)),
    promptForm(context),
  ];
}

function drafting({ update }: Context, change: Partial<State["drafts"]>): void {
  update((now) => ({ ...now, drafts: { ...now.drafts, ...change } }));
}

function modes(context: Context): Tree {
  const { state, t } = context;
  const choice = (label: string, sideBySide: boolean) =>
    h(
      "button",
      {
        type: "button",
        class: `button ${state.drafts.sideBySide === sideBySide ? "tonal" : "outlined"}`,
        disabled: state.writing,
        "aria-pressed": state.drafts.sideBySide === sideBySide ? "true" : "false",
        onclick: () => drafting(context, { sideBySide }),
      },
      label,
    );
  return h(
    "div",
    { class: "buttons", role: "group", "aria-label": t.say("try_it") },
    choice(t.say(talks(state) ? "mode_chat" : "mode_text"), false),
    choice(t.say("mode_compare"), true),
  );
}

/** What is tried, and how. */
function optionsCard(context: Context): Tree {
  const { state, t } = context;
  const { temperature, system, sideBySide, plain, adapter } = state.drafts;
  const named = [
    ...(hasPausedRun(state) ? [[String(RUN), t.say("paused_run")]] : []),
    ...state.adapters.map(({ id, name, made }) => [String(id), `${name} · ${formatDay(t, made)}`]),
  ];
  const without = sideBySide ? [] : [["", t.say("without_adapter")]];
  const tried = triedAdapter(state);
  const chosen = plain && !sideBySide ? "" : String(adapter ?? tried?.id ?? (hasPausedRun(state) ? RUN : ""));
  const pick = (value: string) => drafting(context, value === "" ? { plain: true } : { plain: false, adapter: Number(value) });
  const options = [...named, ...without].map(([value, label]) => h("option", { value: value! }, label!));
  const heat = temperature === 0 ? t.say("temperature_zero") : t.say("temperature_label", formatDecimal(t, temperature, 1));
  return section(
    t.say("options"),
    named.length === 0 || chosen === "" ? t.say("without_adapter") : (named.find(([value]) => value === chosen)?.[1] ?? ""),
    named.length > 0 &&
      field("which", t.say("which_adapter"), h("select", { value: chosen, disabled: state.writing, onchange: typed(pick) }, ...options)),
    field(
      "temperature",
      heat,
      h("input", {
        type: "range",
        min: 0,
        max: 15,
        step: 1,
        value: String(Math.round(10 * temperature)),
        "aria-valuetext": heat,
        oninput: typed((value) => drafting(context, { temperature: Number(value) / 10 })),
      }),
    ),
    talks(state) &&
      field(
        "system",
        t.say("system_prompt"),
        h("input", {
          type: "text",
          value: system,
          placeholder: t.say("system_hint"),
          dir: "auto",
          oninput: typed((value) => drafting(context, { system: value })),
        }),
      ),
    talks(state) && h("p", { class: "note" }, t.say("chat_cost")),
  );
}

function comparisonView(state: State, t: Texts): Tree {
  const { comparison } = state;
  const learned = triedAdapter(state) !== null || hasPausedRun(state);
  const side = (title: string, hint: string, text: string, cut: boolean) =>
    card(
      title,
      comparison === null
        ? muted(hint)
        : h("p", { class: "text", dir: "auto" }, !talks(state) && h("em", {}, comparison.prompt), text, cut && "…"),
    );
  return h(
    "div",
    { class: "columns pair", "aria-busy": state.writing ? "true" : null },
    side(t.say("before"), t.say("before_hint"), comparison?.before ?? "", comparison?.cut[0] ?? false),
    learned && side(t.say("after"), t.say("after_hint"), comparison?.after ?? "", comparison?.cut[1] ?? false),
  );
}

function conversationView({ state, t, update }: Context): Child {
  if (state.said.length === 0) return null;
  const rows = state.said
    .slice(-MOST_SHOWN)
    .map((said) => [
      said.chat && h("p", { class: "question", dir: "auto" }, h("span", { class: "hidden" }, `${t.say("you")}: `), said.question),
      answer(said, t),
    ]);
  const anew = () => update((now) => ({ ...now, said: [], forgotten: 0 }));
  return h(
    "section",
    { class: "conversation", "aria-label": t.say("mode_chat"), "aria-live": "polite", "aria-busy": state.writing ? "true" : null },
    ...rows.flat(),
    !state.writing && buttons(button(t.say("new_conversation"), "text", anew)),
  );
}

function answer({ question, answer, adapted, chat, cut }: Said, t: Texts): Tree {
  return h(
    "div",
    { class: "answer" },
    h("p", { class: "text", dir: "auto" }, !chat && h("em", {}, question), answer, cut && "…"),
    h("p", { class: "note" }, adapted ?? t.say("without_adapter")),
  );
}

/** Beginnings to try, gone once there is something to read. */
function examplesCard(context: Context): Child {
  const { state, t } = context;
  const asked = state.drafts.sideBySide ? state.comparison !== null : state.said.length > 0;
  if (asked || state.chosen === null || isActive(state)) return null;
  const texts = t.say(talks(state) ? "examples_chat" : "examples_text").split("|");
  const choices = texts.map((text) => button(text.trim(), "outlined", () => drafting(context, { prompt: text })));
  return card(t.say("examples_title"), buttons(...choices));
}

function sentence(state: State, t: Texts): string {
  const { drafts, forgotten } = state;
  if (state.chosen === null) return t.say("needs_model");
  if (isActive(state)) return t.say("try_training");
  if (state.writing) return t.say("try_writing");
  if (forgotten > 0 && !drafts.sideBySide) return t.plural("forgotten", forgotten);
  if (triedAdapter(state) === null) return t.say(hasPausedRun(state) ? "try_paused" : "try_untrained");
  if (drafts.sideBySide) return t.say(talks(state) ? "compare_chat_ready" : "try_ready");
  return t.say("chat_ready");
}

function promptForm(context: Context): Tree {
  const { state, t, send } = context;
  const { prompt } = state.drafts;
  const chat = talks(state);
  const ready = bundleOf(state) !== null && !isActive(state) && !state.writing && state.transfer === null;
  const write = (event: Event) => {
    event.preventDefault();
    const prompt = written(event);
    if (ready && prompt.trim() !== "") ask(context, prompt);
  };
  const enter = (event: Event) => {
    const { key, shiftKey, isComposing } = event as KeyboardEvent;
    if (key === "Enter" && !shiftKey && !isComposing) write(event);
  };
  const hint = t.say(chat ? "chat_hint" : "prompt_hint");
  const attributes = {
    rows: 1,
    value: prompt,
    dir: "auto",
    onkeydown: enter,
    oninput: typed((value) => drafting(context, { prompt: value })),
  };
  return h(
    "form",
    { class: "prompt", onsubmit: write },
    field("prompt", hint, h("textarea", attributes)),
    buttons(
      state.writing && button(t.say("stop_writing"), "outlined", () => send({ type: "stopWriting" })),
      h("button", { type: "submit", class: "button filled", disabled: !ready || prompt.trim() === "" }, t.say(chat ? "send" : "write")),
    ),
  );
}

/** Says what was typed, and asks the worker for what follows. */
function ask({ state, t, send, update }: Context, prompt: string): void {
  const { sideBySide, system, temperature, plain } = state.drafts;
  const chat = talks(state);
  const tried = triedAdapter(state);
  const paused = hasPausedRun(state) && tried === null;
  const adapter = plain && !sideBySide ? null : paused ? RUN : (tried?.id ?? null);
  const adapted = adapter === null ? null : paused ? t.say("paused_run") : tried!.name;
  const earlier = sideBySide
    ? []
    : state.said.filter((said) => chat && said.chat && said.answer.trim() !== "").map(({ question, answer }) => ({ question, answer }));
  const said = { question: prompt, answer: "", adapted, chat, cut: false };
  update((now) => ({
    ...now,
    writing: true,
    problem: null,
    ...(sideBySide
      ? { comparison: { prompt, before: "", after: "", cut: [] } }
      : { said: [...now.said, said], drafts: { ...now.drafts, prompt: "" } }),
  }));
  send({ type: "write", prompt, chat, system, earlier, temperature, adapter, compare: sideBySide });
}
