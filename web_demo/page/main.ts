import { optionsOf } from "./asked.js";
import { patch } from "./dom.js";
import { Keeper } from "./keeper.js";
import { offeredBy } from "./offers.js";
import { INITIAL, isActive, SCREENS, told, type Screen, type State } from "./state.js";
import { Texts } from "./texts.js";
import type { Context } from "./ui.js";
import { screenTitle, view } from "./view.js";
import { EVENTS, type DeviceEvent, type Request } from "./worker/protocol.js";
import { readMessage } from "./worker/shapes.js";

// The page: one state, which what the person does and what the worker tells change, and one view of it.

const MOST_THREADS = 4; // half of a phone's cores are slow ones

const t = Texts.of(navigator.languages);
const root = document.getElementById("page")!;
const worker = new Worker(new URL("worker/worker.js", import.meta.url), { type: "module", name: "device" });
const keeper = new Keeper((change) => void update((now) => ({ ...now, ...change })));
let state: State = { ...INITIAL, isolated: crossOriginIsolated, screen: screenOf(location.hash) };
let scheduled = false;

const context = { t, send, update, show } as const;

function update(change: (state: State) => State): State {
  const before = state;
  state = change(state);
  if (isActive(before) !== isActive(state)) keeper.running(isActive(state));
  if (!scheduled) requestAnimationFrame(draw);
  scheduled = true;
  return state;
}

function draw(): void {
  scheduled = false;
  const current: Context = { ...context, state };
  patch(root, view(current));
  const dialog = root.querySelector("dialog");
  if (dialog !== null && !dialog.open) dialog.showModal();
  document.title = `${screenTitle(t, state.screen)} · ${t.say("app_name")}`;
}

function send(request: Request): void {
  if (request.type !== "measure" && request.type !== "plan") update((now) => ({ ...now, problem: null }));
  worker.postMessage(request);
}

function show(screen: Screen): void {
  location.hash = screen;
}

function screenOf(hash: string): Screen {
  return SCREENS.find((screen) => `#${screen}` === hash) ?? "model";
}

/** The title has the focus, so that a screen reader begins there. */
function turnTo(screen: Screen): void {
  update((now) => ({ ...now, screen, problem: now.worker === "starting" ? now.problem : null })); // what keeps it from starting stays
  if (screen === "share") send({ type: "measure" });
  if (screen === "train" && state.chosen !== null && state.run.phase === "none") send({ type: "plan", options: optionsOf(state) });
  requestAnimationFrame(() => {
    scrollTo(0, 0);
    root.querySelector("h1")?.focus({ preventScroll: true });
  });
}

/** A file that is ready is saved as the browser saves files. */
function save({ name, content }: Extract<DeviceEvent, { readonly type: "file" }>): void {
  const address = URL.createObjectURL(new Blob([content]));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // once it was read
}

function heard({ data }: MessageEvent<unknown>): void {
  try {
    const event = readMessage(EVENTS, data);
    if (event.type === "file") save(event);
    update((now) => told(now, event));
  } catch (error) {
    failed(error);
  }
}

function failed(error: unknown): void {
  update((now) => ({ ...now, problem: { fault: "UNEXPECTED", args: [], detail: String(error) } }));
}

document.documentElement.lang = t.language;
worker.addEventListener("message", heard);
worker.addEventListener("error", (event) => failed(event.message || "the worker could not be started"));
addEventListener("hashchange", () => turnTo(screenOf(location.hash)));
worker.postMessage({
  type: "begin",
  threads: crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1,
} satisfies Request);
void offeredBy(document.baseURI).then((offered) => update((now) => ({ ...now, offered })));
void navigator.serviceWorker?.register("sw.js").catch(() => {}); // without one the page works online
draw();
