import { h, type Child, type Tree } from "../dom.js";
import { formatBytes, formatDay, lossChange } from "../formats.js";
import { isBusy } from "../state.js";
import type { Texts } from "../texts.js";
import { button, buttons, card, muted, picker, section, type Context } from "../ui.js";
import { verdictSentence } from "../verdicts.js";
import type { AdapterInfo, Part } from "../worker/protocol.js";

/** What was learned, to be taken away, and what is stored here. */
export function shareScreen(context: Context): Child[] {
  return [
    h(
      "div",
      { class: "columns" },
      h("div", { class: "column" }, adaptersCard(context), ...context.state.adapters.map((adapter) => adapterCard(context, adapter))),
      h("div", { class: "column" }, storedCard(context), privacyCard(context.t)),
    ),
  ];
}

function adaptersCard({ state, t, send }: Context): Tree {
  const { adapters } = state;
  const pick = (picked: readonly File[]) => {
    const files = picked.map((file) => ({ path: file.name, file }));
    send({ type: "importAdapter", name: t.say("adapter_imported"), files });
  };
  const disabled = isBusy(state) || state.chosen === null;
  const text =
    state.chosen === null
      ? t.say("needs_model")
      : adapters.length === 0
        ? t.say("adapters_none")
        : t.say("adapters_text", formatBytes(t, adapters[0]!.bytes));
  return card(
    t.say("adapters"),
    muted(text),
    buttons(
      ...picker("import-adapter", t.say("adapter_import"), "outlined", { multiple: true, accept: ".safetensors,.json,.zip" }, pick, disabled),
    ),
    h("p", { class: "note" }, t.say("adapter_import_note")),
  );
}

function adapterCard({ state, t, send, update }: Context, adapter: AdapterInfo): Tree {
  const { id, name, verdict } = adapter;
  const used = id === state.inUse;
  const disabled = isBusy(state);
  const about = (label: string) => t.say("labelled", label, name);
  const remove = () => {
    const question = {
      title: t.say("delete_title", name),
      text: t.say("delete_text"),
      yes: t.say("adapter_delete"),
      action: () => send({ type: "deleteAdapter", id }),
    };
    update((now) => ({ ...now, question }));
  };
  const save = (label: string, form: "safetensors" | "peft") =>
    button(label, "tonal", () => send({ type: "exportAdapter", id, form }), disabled, about(label));
  return h(
    "section",
    { class: used ? "card chosen" : "card", key: `adapter-${id}` },
    h("div", { class: "row" }, h("h2", { class: "grow" }, name), used && h("span", { class: "chip" }, t.say("adapter_in_use"))),
    muted(details(t, adapter)),
    verdict !== null && h("p", {}, verdictSentence(t, verdict)),
    buttons(
      save(t.say("save_peft"), "peft"),
      save(t.say("save_file"), "safetensors"),
      !used && button(t.say("adapter_use"), "outlined", () => send({ type: "useAdapter", id }), disabled, about(t.say("adapter_use"))),
      button(t.say("adapter_delete"), "text", remove, disabled, about(t.say("adapter_delete"))),
    ),
  );
}

/** When and of what it was made, and what came of it. */
function details(t: Texts, { made, data, steps, losses }: AdapterInfo): string {
  const [before, after] = losses ?? [];
  const parts = [
    formatDay(t, made),
    data === null ? t.say("adapter_imported") : null,
    steps === null ? null : t.plural("steps_label", steps),
    before === undefined || after === undefined ? null : t.say("loss_figure", lossChange(t, before, after)),
  ];
  return parts.filter((part) => part !== null).join(" · ");
}

const NAMES = { models: "part_models", data: "part_data", learned: "part_learned" } as const;

/** What of it is on this device, by part, and how it is deleted. */
function storedCard({ state, t, send, update }: Context): Tree {
  const kept = (state.kept ?? []).filter(({ bytes }) => bytes > 0);
  const { parts } = state.drafts;
  const toggled = (chosen: readonly Part[], part: Part) => (chosen.includes(part) ? chosen.filter((each) => each !== part) : [...chosen, part]);
  const toggle = (part: Part) => () => void update((now) => ({ ...now, drafts: { ...now.drafts, parts: toggled(now.drafts.parts, part) } }));
  const rows = kept.map(({ part, bytes }) =>
    h(
      "li",
      {},
      h(
        "label",
        { class: "check" },
        h("input", { type: "checkbox", checked: parts.includes(part), onchange: toggle(part), disabled: isBusy(state) }),
        h("span", { class: "grow" }, t.say(NAMES[part])),
        formatBytes(t, bytes),
      ),
    ),
  );
  const chosen = parts.filter((part) => kept.some((each) => each.part === part));
  const remove = () => {
    const named = chosen.map((part) => t.say(NAMES[part])).join(", ");
    const action = () => {
      send({ type: "deleteParts", parts: chosen });
      update((now) => ({ ...now, drafts: { ...now.drafts, parts: [] } }));
    };
    update((now) => ({
      ...now,
      question: { title: t.say("delete_data_sure"), text: t.say("delete_data_text", named), yes: t.say("adapter_delete"), action },
    }));
  };
  return card(
    t.say("stored_title"),
    kept.length === 0 ? muted(t.say("delete_data_none")) : h("ul", { class: "list" }, ...rows),
    kept.length > 0 &&
      buttons(button(t.say("adapter_delete"), "outlined", remove, chosen.length === 0 || isBusy(state), t.say("delete_chosen"))),
  );
}

function privacyCard(t: Texts): Tree {
  return section(t.say("privacy"), "", muted(t.say("privacy_text")), muted(t.say("privacy_shared")));
}
