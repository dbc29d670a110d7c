import { METHODS, type Method } from "../../kit/bundle/schedule.js";
import { lossChart } from "../chart.js";
import { h, type Child, type Tree } from "../dom.js";
import {
  formatBytes, formatCount, formatDuration, formatRate, formatRoughly, formatSeconds, lossChange, lossChangeInWords, parseRate,
} from "../formats.js";
import { BUDGETS, bundleOf, isActive, isBusy, isOver, isResumable, STEPS, suffices, talks, type State } from "../state.js";
import { layerStrip } from "../strip.js";
import type { Texts } from "../texts.js";
import { bar, button, buttons, card, field, figures, muted, section, typed, type Context } from "../ui.js";
import { verdictSentence } from "../verdicts.js";
import type { Sample, TrainOptions } from "../worker/protocol.js";
import { dataTitle } from "./data.js";

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
        state.run.roles.length > 0 && section(t.say("layers_title"), "", layerStrip(t, state.run.roles, state.run.phase === "training" ? state.layer : -1)),
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
  const begin = () => data !== null && send({ type: "start", options: state.drafts.options, dataName: dataTitle(t, data) });
  const pause = () => {
    update((now) => ({ ...now, run: { ...now.run, phase: "pausing" } }));
    send({ type: "pause" });
  };
  const finish = () => {
    const question = {
      title: t.say("stop_title"), text: t.say("stop_text"), yes: t.say("stop"),
      action: () => {
        update((now) => ({ ...now, run: { ...now.run, phase: "pausing" } }));
        send({ type: "finish" });
      },
    };
    update((now) => ({ ...now, question }));
  };
  const disabled = !isReady(state) || state.reading !== null || state.transfer !== null;
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
  const then = asked ? t.say(newest.verdict === null ? "result_ask_unknown" : "result_ask") : state.inUse === newest.id ? t.say("result_used") : "";
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

function badRate({ drafts }: State): boolean {
  return drafts.rate.trim() !== "" && parseRate(drafts.rate) === null;
}

function optionsCard(context: Context): Tree {
  const { state, t, send, update } = context;
  const { options } = state.drafts;
  const open = !isResumable(state);
  const change = (changed: Partial<TrainOptions>, more: Partial<State["drafts"]> = {}) => {
    const next = { ...options, ...changed };
    update((now) => ({ ...now, drafts: { ...now.drafts, ...more, options: next } }));
    if (state.chosen !== null && !isBusy(state)) send({ type: "plan", options: next });
  };
  const budgets = BUDGETS.map((bytes) => h("option", { value: String(bytes ?? "") }, bytes === null ? t.say("budget_none") : formatBytes(t, bytes)));
  const methods = [null, ...METHODS].map((method) => h("option", { value: method ?? "" }, method ?? t.say("method_own", bundleOf(state)?.method ?? "–")));
  const place = STEPS.findIndex((steps) => steps === options.steps);
  const slide = typed((value) => change({ steps: STEPS[Number(value)]! }));
  const steps = stepsInTime(state, t);
  return section(
    t.say("options"),
    `${steps} · ${options.memoryBudget === null ? t.say("budget_none") : formatBytes(t, options.memoryBudget)}`,
    field("steps", steps, h("input", { type: "range", min: 0, max: STEPS.length - 1, step: 1, value: String(place), oninput: slide, disabled: !open, "aria-valuetext": steps })),
    field(
      "budget",
      t.say("budget"),
      h("select", { value: String(options.memoryBudget ?? ""), disabled: !open, onchange: typed((value) => change({ memoryBudget: value === "" ? null : Number(value) })) }, ...budgets),
    ),
    field(
      "method",
      t.say("method"),
      h("select", { value: options.method ?? "", disabled: !open, onchange: typed((value) => change({ method: value === "" ? null : (value as Method) })) }, ...methods),
    ),
    rateField(context, change, open),
    planFigures(state, t),
  );
}

function stepsInTime({ drafts, run }: State, t: Texts): string {
  const words = t.plural("steps_label", drafts.options.steps);
  return run.secondsAStep === null ? words : `${words} ${formatRoughly(t, run.secondsAStep * drafts.options.steps)}`;
}

function rateField({ state, t }: Context, change: (changed: Partial<TrainOptions>, more: Partial<State["drafts"]>) => void, open: boolean): Tree {
  const { rate } = state.drafts;
  const automatic = formatRate(t, state.plan?.learningRate ?? bundleOf(state)?.learningRate ?? 0);
  const input = typed((value) => change({ learningRate: parseRate(value) }, { rate: value }));
  const bad = badRate(state);
  const attributes = { type: "text", inputmode: "decimal", value: rate, oninput: input, disabled: !open, placeholder: t.say("learning_rate_hint", automatic) };
  return field(
    "rate",
    t.say("learning_rate"),
    h("input", { ...attributes, autocomplete: "off", "aria-invalid": bad ? "true" : null, "aria-describedby": "rate-note" }),
    h("p", { class: bad ? "note error" : "note", id: "rate-note" }, bad ? t.say("learning_rate_bad") : t.say("learning_rate_why_all", automatic)),
  );
}

/** What the run would take, before it is begun. */
function planFigures({ plan }: State, t: Texts): Child {
  if (plan === null) return null;
  return figures(
    [t.say("memory_needed"), t.say("about", formatBytes(t, plan.memory))],
    [t.say("storage_needed"), formatBytes(t, plan.storage)],
    [t.say("kept_layers"), formatCount(t, plan.keep)],
  );
}

