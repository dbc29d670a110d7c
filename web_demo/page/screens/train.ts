import { optionsOf } from "../asked.js";
import { lossChart } from "../chart.js";
import { h, type Child, type Tree } from "../dom.js";
import { formatBytes, formatCount, formatDuration, formatSeconds, lossChange, lossChangeInWords } from "../formats.js";
import { bundleOf, isActive, isBusy, isOver, isResumable, suffices, talks, type State } from "../state.js";
import { layerStrip } from "../strip.js";
import type { Texts } from "../texts.js";
import { bar, button, buttons, card, figures, muted, section, type Context } from "../ui.js";
import { verdictSentence } from "../verdicts.js";
import type { Sample } from "../worker/protocol.js";
import { dataTitle } from "./data.js";
import { badRate, optionsCard } from "./trainOptions.js";

const WORKING = ["opening", "testing", "evaluating", "comparing", "pausing"];

/** The run: what it does, and what it came to. */
export function trainScreen(context: Context): Child[] {
  const { state, t } = context;
  return [
    h(
      "div",
      { class: "columns" },
      h("div", { class: "column" }, runCard(context), resultCard(context), !isActive(state) && optionsCard(context)),
      h(
        "div",
        { class: "column" },
        card(t.say("loss"), lossChart(t, state.training, state.evaluation, state.run.steps)),
        isActive(state) && deviceCard(state, t),
        samplesCard(state, t),
        state.run.roles.length > 0 &&
          section(t.say("layers_title"), "", layerStrip(t, state.run.roles, state.run.phase === "training" ? state.layer : -1)),
      ),
    ),
  ];
}

function runCard(context: Context): Tree {
  const { state, t } = context;
  const { run } = state;
  const shown = isActive(state) || isResumable(state);
  const moving = WORKING.includes(run.phase);
  return h(
    "section",
    { class: "card" },
    h("h2", { "aria-live": "polite" }, t.say(run.phase === "none" && !isReady(state) ? "phase_not_ready" : `phase_${run.phase}`)),
    muted(sentence(state, t)),
    shown && bar(t.say("train"), run.step, moving ? 0 : run.steps),
    runButtons(context),
    run.runtime !== null && h("p", { class: "note" }, t.say("computed_by", run.runtime)),
    isActive(state) && h("p", { class: "note" }, t.say(state.hidden ? "background_was" : "background_note")),
    !state.isolated && h("p", { class: "note" }, t.say("one_thread")),
  );
}

function isReady(state: State): boolean {
  return bundleOf(state) !== null && (isResumable(state) || suffices(state));
}

/** When it is over, what is to be done next is to try it. */
function runButtons({ state, t, send, update, show }: Context): Tree {
  const { run, data } = state;
  const active = isActive(state);
  const pausing = run.phase === "pausing";
  const begin = () => data !== null && send({ type: "start", options: optionsOf(state), dataName: dataTitle(t, data) });
  const pause = () => {
    update((now) => ({ ...now, run: { ...now.run, phase: "pausing" } }));
    send({ type: "pause" });
  };
  const finish = () => {
    const question = {
      title: t.say("stop_title"),
      text: t.say("stop_text"),
      yes: t.say("stop"),
      action: () => {
        update((now) => ({ ...now, run: { ...now.run, phase: "pausing" } }));
        send({ type: "finish" });
      },
    };
    update((now) => ({ ...now, question }));
  };
  const disabled = !isReady(state) || isBusy(state);
  return buttons(
    isOver(state) && run.step > 0 && button(t.say("try_it"), "filled", () => show("try")),
    isOver(state) && button(t.say("start_again"), "tonal", begin, disabled),
    !isOver(state) && !active && isResumable(state) && button(t.say("resume"), "filled", () => send({ type: "resume" }), disabled),
    !isOver(state) && !active && !isResumable(state) && button(t.say("start"), "filled", begin, disabled || badRate(state)),
    active && button(t.say("pause"), "tonal", pause, pausing),
    (active || isResumable(state)) && button(t.say("stop"), "outlined", finish, pausing),
  );
}

function sentence(state: State, t: Texts): string {
  const { run } = state;
  const at = t.say("step_of", formatCount(t, run.step), formatCount(t, run.steps));
  switch (run.phase) {
    case "none":
      return idle(state, t);
    case "opening":
    case "evaluating":
    case "pausing":
      return at;
    case "testing":
      return t.say("testing_text");
    case "comparing":
      return t.say("comparing_text");
    case "training":
      return run.secondsAStep === null ? at : t.say("time_left", at, formatDuration(t, run.secondsAStep * (run.steps - run.step)));
    case "paused":
      return t.say("paused_text", at);
    case "interrupted":
      return t.say("interrupted_text", at);
    case "failed":
      return isResumable(state) ? at : idle(state, t);
    case "finished":
    case "cancelled":
      return over(state, t, at);
  }
}

function idle(state: State, t: Texts): string {
  if (state.chosen === null) return t.say("needs_model");
  if (state.data === null) return t.say("needs_data");
  if (!suffices(state)) return t.say("needs_examples");
  return t.plural("ready_text", state.drafts.options.steps, dataTitle(t, state.data));
}

/** What came of it, if it was measured before and after. */
function over({ run, evaluation }: State, t: Texts, at: string): string {
  const [before, after] = [evaluation[0]?.loss, evaluation.at(-1)?.loss];
  if (evaluation.length < 2) return run.phase === "finished" ? `${at}. ${t.say("finished_text")}` : at;
  return `${at}. ${t.say("loss_figure", lossChange(t, before!, after!))}. ${lossChangeInWords(t, before!, after!)}`;
}

/** What a run that is over has learned, and where that is not clearly better, the question whether to use it. */
function resultCard({ state, t, send }: Context): Child {
  const newest = state.adapters[0];
  if (!isOver(state) || state.run.step === 0 || newest === undefined || newest.data === null) return null;
  const asked = state.undecided === newest.id;
  const judged = newest.verdict === null ? t.say("verdict_none") : verdictSentence(t, newest.verdict);
  const then = asked
    ? t.say(newest.verdict === null ? "result_ask_unknown" : "result_ask")
    : state.inUse === newest.id
      ? t.say("result_used")
      : "";
  return card(
    t.say("result_title"),
    h("p", { "aria-live": "polite" }, `${judged} ${then}`.trim()),
    asked &&
      buttons(
        button(t.say("result_use"), "tonal", () => send({ type: "useAdapter", id: newest.id })),
        button(t.say(state.inUse === null ? "result_keep_none" : "result_keep"), "outlined", () => send({ type: "useAdapter", id: null })),
      ),
  );
}

function deviceCard({ run, memory }: State, t: Texts): Tree {
  return card(
    t.say("phone_title"),
    figures(
      [t.say("seconds_a_step"), run.secondsAStep === null ? "–" : formatSeconds(t, run.secondsAStep)],
      [t.say("memory"), memory === null ? "–" : formatBytes(t, memory)],
    ),
  );
}

/** What the model makes of the beginning of a held-out example, now and before. */
function samplesCard(state: State, t: Texts): Child {
  const { samples } = state;
  // an answer begins in a line of its own
  const gap = (prompt: string, text: string) => (talks(state) && prompt !== "" && !/^\s/.test(text) ? "\n" : "");
  const told = [...new Set([samples.at(-1), samples[0]])].filter((sample): sample is Sample => sample !== undefined);
  if (told.length === 0) return null;
  const rows = told.map(({ step, prompt, text, cut }) => [
    h("h3", {}, step === 0 ? t.say("sample_start") : t.say("sample_step", t.plural("steps_label", step))),
    h("p", { class: "text", dir: "auto" }, h("em", {}, prompt), gap(prompt, text), text, cut && "…"),
  ]);
  return card(t.say("samples_title"), ...rows.flat(), h("p", { class: "note" }, t.say("samples_note")));
}
