import { h, type Child } from "./dom.js";
import { whatHappened, whatToDo } from "./problems.js";
import { dataScreen } from "./screens/data.js";
import { modelScreen } from "./screens/model.js";
import { shareScreen } from "./screens/share.js";
import { trainScreen } from "./screens/train.js";
import { tryScreen } from "./screens/tryIt.js";
import { SCREENS, type Screen } from "./state.js";
import type { Texts } from "./texts.js";
import { button, buttons, card, icon, muted, unbroken, type Context } from "./ui.js";

// The page as it is to be, from the state alone.

const VIEWS: Readonly<Record<Screen, (context: Context) => Child[]>> = {
  model: modelScreen,
  data: dataScreen,
  train: trainScreen,
  try: tryScreen,
  share: shareScreen,
};
const TITLES = { model: "model", data: "data", train: "train", try: "try_it", share: "share" } as const;

export function screenTitle(t: Texts, screen: Screen): string {
  return t.say(TITLES[screen]);
}

export function view(context: Context): Child[] {
  const { state, t } = context;
  const content = state.worker === "ready" ? VIEWS[state.screen](context) : [waitingCard(context)];
  return [
    h(
      "main",
      { key: "main", class: `screen ${state.screen}` },
      h("h1", { tabindex: -1 }, screenTitle(t, state.screen)),
      problemCard(context),
      ...content,
    ),
    navigation(context),
    questionDialog(context),
  ];
}

/** Another tab has the storage; or the worker begins, unless it said why it cannot. */
function waitingCard({ state, t }: Context): Child {
  if (state.worker === "starting") return state.problem === null && muted(t.say("starting"));
  return h("div", { role: "status" }, card(t.say("fault_run_busy"), muted(t.say("fault_run_busy_todo"))));
}

function problemCard({ state, t, update }: Context): Child {
  const { problem } = state;
  if (problem === null) return null;
  return h(
    "section",
    { class: "card problem", role: "alert", key: "problem" },
    h("div", { class: "row" }, icon("warning"), h("h2", { class: "grow" }, whatHappened(t, problem))),
    h("p", {}, ...unbroken(whatToDo(t, problem))),
    h("details", {}, h("summary", {}, t.say("details")), h("p", { class: "detail" }, problem.detail)),
    state.worker !== "starting" && buttons(button(t.say("dismiss"), "text", () => update((now) => ({ ...now, problem: null })))),
  );
}

function navigation({ state, t }: Context): Child {
  const links = SCREENS.map((screen) =>
    h(
      "a",
      { href: `#${screen}`, "aria-current": screen === state.screen ? "page" : null },
      h("span", { class: "pill" }, icon(screen)),
      h("span", {}, screenTitle(t, screen)),
    ),
  );
  return h("nav", { key: "navigation", "aria-label": t.say("app_name") }, ...links);
}

/** What is asked before something is done that cannot be undone. */
function questionDialog({ state, t, update }: Context): Child {
  const { question } = state;
  if (question === null) return null;
  const close = () => update((now) => ({ ...now, question: null }));
  const confirm = () => {
    close();
    question.action();
  };
  return h(
    "dialog",
    { key: "question", "aria-labelledby": "question-title", oncancel: close },
    h("h2", { id: "question-title" }, question.title),
    h("p", {}, question.text),
    buttons(button(t.say("cancel"), "text", close), button(question.yes, "filled", confirm)),
  );
}
