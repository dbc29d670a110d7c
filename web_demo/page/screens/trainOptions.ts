import { METHODS, type Method } from "../../kit/bundle/schedule.js";
import { BUDGETS, offersGpu, optionsOf, STEPS } from "../asked.js";
import { h, type Child, type Tree } from "../dom.js";
import { formatBytes, formatCount, formatRate, formatRoughly, parseRate } from "../formats.js";
import { bundleOf, isBusy, isResumable, type State } from "../state.js";
import type { Texts } from "../texts.js";
import { field, figures, section, typed, type Context } from "../ui.js";
import type { TrainOptions } from "../worker/protocol.js";

/** What was typed is no rate. */
export function badRate({ drafts }: State): boolean {
  return drafts.rate.trim() !== "" && parseRate(drafts.rate) === null;
}

/** What can be chosen before a run, and what the run would then take. */
export function optionsCard(context: Context): Tree {
  const { state, t, send, update } = context;
  const { options } = state.drafts;
  const open = !isResumable(state);
  const change = (changed: Partial<TrainOptions>, more: Partial<State["drafts"]> = {}) => {
    const next = update((now) => ({ ...now, drafts: { ...now.drafts, ...more, options: { ...now.drafts.options, ...changed } } }));
    if (next.chosen !== null && !isBusy(next)) send({ type: "plan", options: optionsOf(next) });
  };
  const budgets = BUDGETS.map((bytes) =>
    h("option", { value: String(bytes ?? "") }, bytes === null ? t.say("budget_none") : formatBytes(t, bytes)),
  );
  const methods = [null, ...METHODS].map((method) =>
    h("option", { value: method ?? "" }, method ?? t.say("method_own", bundleOf(state)?.method ?? "–")),
  );
  const place = STEPS.findIndex((steps) => steps === options.steps);
  const slide = typed((value) => change({ steps: STEPS[Number(value)]! }));
  const steps = stepsInTime(state, t);
  return section(
    t.say("options"),
    `${steps} · ${options.memoryBudget === null ? t.say("budget_none") : formatBytes(t, options.memoryBudget)}`,
    field(
      "steps",
      steps,
      h("input", {
        type: "range",
        min: 0,
        max: STEPS.length - 1,
        step: 1,
        value: String(place),
        oninput: slide,
        disabled: !open,
        "aria-valuetext": steps,
      }),
    ),
    field(
      "budget",
      t.say("budget"),
      h(
        "select",
        {
          value: String(options.memoryBudget ?? ""),
          disabled: !open,
          onchange: typed((value) => change({ memoryBudget: value === "" ? null : Number(value) })),
        },
        ...budgets,
      ),
    ),
    field(
      "method",
      t.say("method"),
      h(
        "select",
        {
          value: options.method ?? "",
          disabled: !open,
          onchange: typed((value) => change({ method: value === "" ? null : (value as Method) })),
        },
        ...methods,
      ),
    ),
    offersGpu(state) && gpuField(context, change, open),
    rateField(context, change, open),
    planFigures(state, t),
  );
}

function gpuField({ state, t }: Context, change: (changed: Partial<TrainOptions>) => void, open: boolean): Tree {
  return field(
    "gpu",
    t.say("gpu"),
    h(
      "select",
      {
        value: state.drafts.options.gpu ? "gpu" : "",
        disabled: !open,
        onchange: typed((value) => change({ gpu: value === "gpu" })),
        "aria-describedby": "gpu-note",
      },
      h("option", { value: "" }, t.say("gpu_off")),
      h("option", { value: "gpu" }, t.say("gpu_on")),
    ),
    h("p", { class: "note", id: "gpu-note" }, t.say("gpu_why")),
  );
}

function stepsInTime({ drafts, run }: State, t: Texts): string {
  const words = t.plural("steps_label", drafts.options.steps);
  return run.secondsAStep === null ? words : `${words} ${formatRoughly(t, run.secondsAStep * drafts.options.steps)}`;
}

function rateField(
  { state, t }: Context,
  change: (changed: Partial<TrainOptions>, more: Partial<State["drafts"]>) => void,
  open: boolean,
): Tree {
  const { rate } = state.drafts;
  const automatic = formatRate(t, state.plan?.learningRate ?? bundleOf(state)?.learningRate ?? 0);
  const input = typed((value) => change({ learningRate: parseRate(value) }, { rate: value }));
  const bad = badRate(state);
  const attributes = {
    type: "text",
    inputmode: "decimal",
    value: rate,
    oninput: input,
    disabled: !open,
    placeholder: t.say("learning_rate_hint", automatic),
  };
  return field(
    "rate",
    t.say("learning_rate"),
    h("input", { ...attributes, autocomplete: "off", "aria-invalid": bad ? "true" : null, "aria-describedby": "rate-note" }),
    h(
      "p",
      { class: bad ? "note error" : "note", id: "rate-note" },
      bad ? t.say("learning_rate_bad") : t.say("learning_rate_why_all", automatic),
    ),
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
