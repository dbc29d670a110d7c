import { h, type Tree } from "./dom.js";
import { formatCount, formatLayers } from "./formats.js";
import type { Texts } from "./texts.js";
import type { Role } from "./worker/protocol.js";

const HEIGHT = 40;
const PITCH = 12; // of a layer

/** The layers from the first to the last, as this step treats them, with a mark below the one that runs now (-1: none). */
export function layerStrip(t: Texts, roles: readonly Role[], running: number): Tree {
  const of = (role: Role) => roles.flatMap((each, layer) => (each === role ? [layer] : []));
  const trained = of("trained");
  const words = t.say("layers_words", formatCount(t, roles.length), formatLayers(trained), formatLayers(of("passed")) || "–");
  const boxes = roles.map((role, layer) =>
    h("rect", { x: layer * PITCH + 1, y: 1, width: PITCH - 2, height: HEIGHT - 10, rx: 2, class: `layer ${role}` }),
  );
  const mark =
    running >= 0 &&
    running < roles.length &&
    h("rect", { x: running * PITCH + 1, y: HEIGHT - 6, width: PITCH - 2, height: 4, rx: 2, class: "running" });
  const attributes = {
    viewBox: `0 0 ${Math.max(roles.length, 16) * PITCH} ${HEIGHT}`,
    role: "img",
    "aria-label": words,
    preserveAspectRatio: "xMinYMid",
  };
  const legend = (["trained", "passed", "skipped"] as const).map((role) => entry(`layer ${role}`, t.say(`layer_${role}`)));
  return h(
    "div",
    { class: "strip" },
    trained.length === 0 ? h("p", { class: "muted" }, t.say("layers_none")) : h("svg", attributes, ...boxes, mark),
    h("div", { class: "legend", "aria-hidden": "true" }, ...legend, entry("running", t.say("layer_running"))),
  );
}

function entry(look: string, text: string): Tree {
  const box = h("rect", { x: 4, y: look === "running" ? 8 : 1, width: 10, height: look === "running" ? 4 : 10, rx: 2, class: look });
  return h("span", {}, h("svg", { viewBox: "0 0 18 12", class: "sample" }, box), text);
}
