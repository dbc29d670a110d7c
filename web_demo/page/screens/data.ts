import { h, type Child, type Tree } from "../dom.js";
import { formatCount } from "../formats.js";
import { bundleOf, isBusy, suffices, type State } from "../state.js";
import type { Texts } from "../texts.js";
import type { DataSummary } from "../worker/protocol.js";
import { bar, button, buttons, card, field, figures, iconButton, picker, progressBytes, progressTitle, typed, written, type Context } from "../ui.js";

const MOST_SHOWN = 30; // messages

/** What the model learns from. */
export function dataScreen(context: Context): Child[] {
  const { data } = context.state;
  const summary = data?.summary ?? null;
  return [
    h(
      "div",
      { class: "columns" },
      dataCard(context),
      summary !== null && summary.previews.length > 0 && previewCard(context, summary),
      typeCard(context),
    ),
  ];
}

/** In the screen's language, which may have changed since. */
export function dataTitle(t: Texts, data: NonNullable<State["data"]>): string {
  return data.sample ? t.say("sample_name") : data.typed !== null ? t.say("typed_name") : data.name;
}

function dataCard(context: Context): Tree {
  const { state, t, send } = context;
  const { data, reading } = state;
  const pick = ([file]: readonly [File, ...File[]]) => replacing(context, () => send({ type: "importData", name: file.name, file }));
  const look = data === null ? "filled" : "tonal";
  return h(
    "section",
    { class: "card" },
    h("h2", {}, data === null ? t.say("no_data") : dataTitle(t, data)),
    h("p", { class: "muted", "aria-live": "polite" }, sentence(state, t)),
    reading !== null && bar(progressTitle(t, reading), reading.done, reading.total),
    data?.summary && summaryFigures(t, data.summary, bundleOf(state)?.seqLen ?? 0),
    buttons(
      ...picker("import-data", t.say("import_data"), look, { accept: ".jsonl,.json,.txt,text/*" }, pick, isBusy(state)),
      button(t.say("sample_data"), "tonal", () => replacing(context, () => send({ type: "sampleData" })), isBusy(state)),
      reading !== null && button(t.say("cancel"), "outlined", () => send({ type: "cancelAdding" })),
    ),
  );
}

/** What the person wrote here exists nowhere else. */
function replacing({ state, t, update }: Context, action: () => void): void {
  const messages = state.data?.typed?.length;
  if (messages === undefined) return action();
  const question = { title: t.say("replace_title"), text: t.plural("replace_text", messages), yes: t.say("replace"), action };
  update((now) => ({ ...now, question }));
}

function sentence(state: State, t: Texts): string {
  const { data, reading } = state;
  if (reading !== null) return [progressTitle(t, reading), progressBytes(t, reading)].filter((part) => part !== "").join(" · ");
  if (data === null) return t.say("no_data_text");
  if (state.chosen === null) return t.say("data_needs_model");
  if (data.summary === null) return "";
  return t.say(suffices(state) ? "data_ready" : "data_needs_two");
}

function summaryFigures(t: Texts, summary: DataSummary, seqLen: number): Tree {
  const length = formatCount(t, seqLen);
  const cut = summary.cut === 0 ? t.say("data_fits", length) : t.plural("data_cut", summary.cut, length);
  return h(
    "div",
    {},
    figures(
      [t.say("examples"), formatCount(t, summary.examples)],
      [t.say("tokens"), formatCount(t, summary.tokens)],
      [t.say("counted"), formatCount(t, summary.counted)],
      [t.say("cut"), formatCount(t, summary.cut)],
    ),
    h("p", { class: "note" }, `${cut} ${t.plural("data_epoch", summary.sequences)}`),
  );
}

/** The examples as the loss sees them. */
function previewCard({ state, t, update }: Context, { previews, examples }: DataSummary): Tree {
  const here = Math.min(state.drafts.preview, previews.length - 1);
  const turn = (by: number) => () => update((now) => ({ ...now, drafts: { ...now.drafts, preview: here + by } }));
  const [number, shown, all] = [here + 1, previews.length, examples].map((count) => formatCount(t, count)) as [string, string, string];
  const counted = previews.length >= examples ? t.say("preview_count", number, shown) : t.say("preview_count_first", number, shown, all);
  const pieces = previews[here]!.map(({ text, counted }) => h(counted ? "mark" : "span", {}, text));
  return card(
    t.say("preview_title"),
    h(
      "div",
      { class: "row" },
      h("p", { class: "note grow", "aria-live": "polite" }, counted),
      iconButton("previous", t.say("preview_previous"), turn(-1), here === 0),
      iconButton("next", t.say("preview_next"), turn(1), here === previews.length - 1),
    ),
    h("p", { class: "preview", dir: "auto" }, ...pieces),
    h("p", { class: "note" }, t.say("preview_legend")),
  );
}

/** The person's own messages, the newest first. */
function typeCard({ state, t, send, update }: Context): Tree {
  const messages = state.data?.typed ?? [];
  const { message } = state.drafts;
  const change = typed((value) => update((now) => ({ ...now, drafts: { ...now.drafts, message: value } })));
  const add = (event: Event) => {
    event.preventDefault();
    const message = written(event).trim();
    if (message === "" || isBusy(state)) return;
    send({ type: "typeMessages", messages: [...messages, message] });
    update((now) => ({ ...now, drafts: { ...now.drafts, message: "" } }));
  };
  const rows = messages.map((text, index) =>
    h(
      "li",
      { class: "row" },
      h("span", { class: "grow", dir: "auto" }, text),
      iconButton(
        "remove",
        t.say("remove_message", text),
        () => send({ type: "typeMessages", messages: messages.filter((_, i) => i !== index) }),
        isBusy(state),
      ),
    ),
  );
  const hidden = messages.length - MOST_SHOWN;
  return card(
    t.say("type_title"),
    h(
      "form",
      { onsubmit: add },
      field("message", t.say("type_hint"), h("textarea", { value: message, oninput: change, rows: 2, dir: "auto" })),
      buttons(
        h("button", { type: "submit", class: "button tonal", disabled: isBusy(state) || message.trim() === "" }, t.say("add_message")),
      ),
    ),
    rows.length > 0 && h("ul", { class: "list" }, ...rows.toReversed().slice(0, MOST_SHOWN)),
    hidden > 0 && h("p", { class: "note" }, t.plural("messages_more", hidden)),
  );
}
