import { h, type Child, type Tree } from "./dom.js";
import { formatBytes } from "./formats.js";
import type { Screen, State } from "./state.js";
import type { Texts } from "./texts.js";
import type { Progress, Request } from "./worker/protocol.js";

/** What a screen is made from, and how it asks for something. `update`: returns the state it comes to, which is drawn later: `state` may be older. */
export interface Context {
  readonly state: State;
  readonly t: Texts;
  send(request: Request): void;
  update(change: (state: State) => State): State;
  show(screen: Screen): void;
}

type Click = () => void;

export const ICONS = {
  model:
    "M12 3 2.5 7.6 12 12.2l9.5-4.6zM4.7 10.9 2.5 12 12 16.6 21.5 12l-2.2-1.1-7.3 3.5zM4.7 15.3l-2.2 1.1L12 21l9.5-4.6-2.2-1.1-7.3 3.5z",
  data: "M4 4h16v3H4zM4 9h10v3H4zM4 14h16v3H4zM4 19h7v2H4z",
  train: "M3 4h2v15h16v2H3zM7 6.5l1.6-1.2 3.6 5.1 3.2 2.5 4.6.6-.3 2-5.2-.7-3.8-4.1z",
  try: "M3 4h8v11H7l-4 4zM5 6v8.2L6.2 13H9V6zM13 4h8v15l-4-4h-4z",
  share: "M12 2.5l5 5-1.4 1.4L13 6.3V15h-2V6.3L8.4 8.9 7 7.5zM5 11h4v2H7v6.5h10V13h-2v-2h4v10.5H5z",
  remove: "M9.5 3h5l1 1.2h4v2h-15v-2h4zM6 7.5h12V19c0 1.1-.9 2-2 2H8c-1.1 0-2-.9-2-2zM9 10v8.5h1.6V10zM13.4 10v8.5H15V10z",
  warning: "M12 3 1.5 21h21zM11 10h2v5h-2zM11 16.5h2v2h-2z",
  previous: "M15.4 5 17 6.4 11.3 12l5.7 5.6-1.6 1.4-7-7z",
  next: "M8.6 5 7 6.4l5.7 5.6L7 17.6 8.6 19l7-7z",
} as const;
export type Icon = keyof typeof ICONS;

export function icon(name: Icon): Tree {
  return h("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" }, h("path", { d: ICONS[name], "fill-rule": "evenodd" }));
}

/** `look`: the one that is to be done next is filled, others are tonal or outlined. */
export function button(label: string, look: "filled" | "tonal" | "outlined" | "text", click: Click, disabled = false, name?: string): Tree {
  return h("button", { type: "button", class: `button ${look}`, onclick: click, disabled, "aria-label": name ?? null }, label);
}

/** A button that opens the browser's dialog for files. `kind`: what is chosen there. `picked`: what becomes of it, one file at least. */
export function picker(
  id: string,
  label: string,
  look: "filled" | "tonal" | "outlined",
  kind: Readonly<Record<string, string | boolean>>,
  picked: (files: readonly [File, ...File[]]) => void,
  disabled = false,
): Tree[] {
  const onchange = (event: Event) => {
    const input = event.target as HTMLInputElement;
    const [first, ...rest] = [...(input.files ?? [])];
    input.value = ""; // so that the same one can be chosen again
    if (first !== undefined) picked([first, ...rest]);
  };
  return [
    h("label", { class: `button ${look}`, for: id }, label),
    h("input", { ...kind, type: "file", class: "picker", id, onchange, disabled }),
  ];
}

export function iconButton(name: Icon, label: string, click: Click, disabled = false): Tree {
  return h("button", { type: "button", class: "icon-button", onclick: click, disabled, "aria-label": label, title: label }, icon(name));
}

export function card(title: string | null, ...children: readonly Child[]): Tree {
  return h("section", { class: "card" }, title !== null && h("h2", {}, title), ...children);
}

export function muted(text: string): Tree {
  return h("p", { class: "muted" }, ...unbroken(text));
}

/** A command's options in it stay whole where the line ends: a browser breaks after any hyphen. */
export function unbroken(text: string): Child[] {
  return text.split(/(--[a-z-]+)/).map((part) => (part.startsWith("--") ? h("span", { class: "option" }, part) : part));
}

export function buttons(...children: readonly Child[]): Tree {
  return h("div", { class: "buttons" }, ...children);
}

/** Figures with their labels. */
export function figures(...pairs: readonly (readonly [label: string, value: string])[]): Tree {
  return h("dl", { class: "figures" }, ...pairs.map(([label, value]) => h("div", {}, h("dt", {}, label), h("dd", {}, value))));
}

/** A part that is closed at first. Whether it is open is the document's own affair. */
export function section(title: string, summary: string, ...children: readonly Child[]): Tree {
  const head = h("summary", {}, h("h2", {}, title), summary !== "" && h("span", { class: "muted" }, summary));
  return h("details", { class: "card" }, head, h("div", { class: "section" }, ...children));
}

/** `done` of `total`; of an unknown total it only moves. */
export function bar(label: string, done: number, total: number): Tree {
  return h(
    "progress",
    total > 0 ? { max: total, "aria-label": label, value: Math.min(done, total) } : { key: "moving", "aria-label": label },
  );
}

export function progressTitle(t: Texts, { kind, name }: Progress): string {
  return t.say(kind, name === "" ? t.say("data") : name);
}

export function progressBytes(t: Texts, { done, total }: Progress): string {
  return total > 0 ? t.say("progress_bytes", formatBytes(t, done), formatBytes(t, total)) : "";
}

/** A field with its label above. */
export function field(id: string, label: string, control: Tree, ...notes: readonly Child[]): Tree {
  return h("div", { class: "field" }, h("label", { for: id }, label), { ...control, props: { ...control.props, id } }, ...notes);
}

/** What is in the form's text area now: what was typed last may not be in the state that is drawn. */
export function written(event: Event): string {
  return (event.target as HTMLElement).closest("form")!.querySelector("textarea")!.value;
}

export function typed(change: (value: string) => void): (event: Event) => void {
  return (event) => change((event.target as HTMLInputElement).value);
}
