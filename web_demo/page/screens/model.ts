import { h, type Child, type Tree } from "../dom.js";
import { formatBytes, formatCount, formatRoughly } from "../formats.js";
import { isBusy, type State } from "../state.js";
import type { BundleInfo } from "../worker/protocol.js";
import { bar, button, buttons, card, figures, iconButton, muted, picker, progressBytes, progressTitle, type Context } from "../ui.js";

/** Which model is trained, and where one comes from. */
export function modelScreen(context: Context): Child[] {
  const { state, t } = context;
  return [
    h("p", { class: "lead" }, t.say("model_intro")),
    transferCard(context),
    h(
      "div",
      { class: "columns" },
      ...state.bundles.map((bundle) => bundleCard(context, bundle)),
      ...unfinishedCards(context),
      addCard(context),
    ),
  ];
}

function transferCard({ state, t, send }: Context): Child {
  const { transfer } = state;
  if (transfer === null) return null;
  return h(
    "section",
    { class: "card", "aria-live": "polite", key: "transfer" },
    h("h2", {}, progressTitle(t, transfer)),
    muted(progressBytes(t, transfer)),
    bar(progressTitle(t, transfer), transfer.done, transfer.total),
    buttons(button(t.say("cancel"), "outlined", () => send({ type: "cancelAdding" }))),
  );
}

function bundleCard({ state, t, send, update }: Context, bundle: BundleInfo): Tree {
  const chosen = bundle.name === state.chosen;
  const { steps } = state.drafts.options;
  const id = `bundle-${bundle.name}`;
  const choose = () => !chosen && send({ type: "choose", bundle: bundle.name });
  const ask = () => {
    const question = {
      title: t.say("remove_title", bundle.name),
      text: t.say("remove_text"),
      yes: t.say("remove"),
      action: () => send({ type: "removeBundle", bundle: bundle.name }),
    };
    update((now) => ({ ...now, question }));
  };
  const seconds = chosen ? state.run.secondsAStep : null;
  const time =
    seconds === null ? [] : [[t.say("training_time", t.plural("steps_label", steps)), formatRoughly(t, seconds * steps)] as const];
  return h(
    "section",
    { class: chosen ? "card chosen" : "card", key: bundle.name },
    h(
      "div",
      { class: "row" },
      h("input", { type: "radio", name: "bundle", id, checked: chosen, onchange: choose, disabled: isBusy(state) }),
      h("label", { for: id, class: "name" }, h("h2", {}, bundle.name)),
      iconButton("remove", t.say("remove_bundle", bundle.name), ask, isBusy(state)),
    ),
    muted(bundle.source),
    figures(
      [t.say("size"), formatBytes(t, bundle.bytes)],
      [t.say("layers"), formatCount(t, bundle.layers)],
      [t.say("memory_needed"), t.say("about", formatBytes(t, bundle.predictedMemory))],
      ...time,
    ),
    h("p", { class: "note" }, t.say(bundle.checked ? "bundle_checked" : "bundle_unchecked")),
  );
}

/** What an earlier attempt left: it goes on from there, or goes. */
function unfinishedCards({ state, t, send }: Context): Child[] {
  return state.unfinished
    .filter(({ name }) => state.transfer?.name !== name)
    .map(({ name, bytes }) => {
      const offer = state.offered.find((each) => each.name === name);
      return h(
        "section",
        { class: "card", key: `unfinished-${name}` },
        h("h2", {}, name),
        muted(t.say("unfinished_text", formatBytes(t, bytes))),
        buttons(
          offer && button(t.say("resume"), "filled", () => addOffered(send, offer), isBusy(state), t.say("add_found", name)),
          button(
            t.say("remove"),
            "outlined",
            () => send({ type: "removeBundle", bundle: name }),
            isBusy(state),
            t.say("remove_bundle", name),
          ),
        ),
      );
    });
}

function addOffered(send: Context["send"], { name, path }: State["offered"][number]): void {
  keepStorage();
  send({ type: "addFromServer", name, path });
}

/** Or the browser may remove it when space gets short. */
function keepStorage(): void {
  void navigator.storage.persist?.();
}

function addCard(context: Context): Tree {
  const { state, t, send } = context;
  const here = new Set([...state.bundles, ...state.unfinished].map(({ name }) => name));
  const offers = state.offered
    .filter(({ name }) => !here.has(name))
    .map((offer) => {
      const label = `${t.say("add_found", offer.name)} (${formatBytes(t, offer.bytes)})`;
      return button(label, "filled", () => addOffered(send, offer), isBusy(state));
    });
  const addFolder = (picked: readonly [File, ...File[]]) => {
    keepStorage();
    const files = picked.map((file) => ({ path: file.webkitRelativePath || file.name, file }));
    send({ type: "addFiles", name: directoryName(files[0]!.path.split("/").slice(0, -1)[0] ?? ""), files });
  };
  const addZip = ([file]: readonly [File, ...File[]]) => {
    keepStorage();
    send({ type: "addZip", name: directoryName(file.name.replace(/\.zip$/i, "")), file });
  };
  return card(
    t.say("add_title"),
    muted(t.say("model_takes")),
    buttons(
      ...offers,
      ...picker("add-folder", t.say("add_folder"), "tonal", { webkitdirectory: true, multiple: true }, addFolder, isBusy(state)),
      ...picker("add-zip", t.say("add_zip"), "tonal", { accept: ".zip,application/zip" }, addZip, isBusy(state)),
    ),
    h("p", { class: "note" }, t.say("add_zip_note")),
    h("p", { class: "note" }, t.say("model_private")),
  );
}

/** As a directory may be called. */
function directoryName(name: string): string {
  return (
    name
      .replace(/[^A-Za-z0-9._-]+/g, "-")
      .replace(/^[^A-Za-z0-9]+/, "")
      .slice(0, 60) || "model"
  );
}
