import type { Manifest } from "../bundle/manifest.js";
import { Crossing } from "./crossing.js";
import { Held, type Value, type Values } from "./values.js";

/** One pass up through the layers with an adapter, float32 [N], and perhaps down again. Whoever begins it ends it by `dropAll`. */
export class Pass extends Held {
  /** What layers read, by its names. */
  tables: Values = new Map();
  /** What layers give to later ones. */
  readonly crossing: Crossing;

  constructor(
    manifest: Manifest,
    readonly adapter: Float32Array,
  ) {
    super();
    this.crossing = new Crossing(manifest);
  }

  /** Of a layer's input or output; one that is a table too stays. */
  override drop(value: Value): void {
    if (![...this.tables.values()].includes(value)) super.drop(value);
  }
}
