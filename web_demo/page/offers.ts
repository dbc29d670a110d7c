import type { Offered } from "./state.js";
import { count, list, object, text } from "./worker/shapes.js";

const LIST = "bundles.json";
const offers = object({ bundles: list(object({ name: text, path: text, files: list(object({ name: text, size: count })) })) });

/** The models that the server of the page at `base` has; none where it has no list, or the page is offline. */
export async function offeredBy(base: string): Promise<Offered[]> {
  try {
    const response = await fetch(new URL(LIST, base), { cache: "no-store" });
    if (!response.ok) return [];
    const { bundles } = offers(await response.json(), LIST);
    return bundles.map(({ name, path, files }) => ({
      name,
      path: new URL(path, base).href,
      bytes: files.reduce((sum, { size }) => sum + size, 0),
    }));
  } catch {
    return [];
  }
}
