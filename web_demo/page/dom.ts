// A view is made of plain descriptions, and `patch` changes the document to what they say. What has the focus, is being typed or is
// scrolled stays, as elements are kept where the description of the same place has the same tag and key.

type Handler = (event: Event) => void;
/** Attributes by name; `on…` are handlers; `value`, `checked`, `disabled` and the like are set as properties. Null and false: not there. */
export type Props = Readonly<Record<string, string | number | boolean | null | Handler>>;

export interface Tree {
  readonly tag: string;
  readonly props: Props;
  readonly children: readonly Child[];
}
export type Child = Tree | string | null | undefined | false;

const PROPERTIES = new Set(["value", "checked", "disabled", "selected", "multiple", "hidden", "open"]);
const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "line", "circle", "rect", "text", "g", "polyline", "title"]);
const shown = new WeakMap<Element, Props>();

export function h(tag: string, props: Props = {}, ...children: readonly (Child | readonly Child[])[]): Tree {
  return { tag, props, children: children.flat() };
}

/** Makes the children of `parent` what `children` describe. */
export function patch(parent: Element, children: readonly Child[]): void {
  const wanted = children.filter(
    (child): child is Tree | string => child !== null && child !== undefined && child !== false && child !== "",
  );
  let place: ChildNode | null = parent.firstChild;
  for (const child of wanted) {
    const found = matching(place, child);
    const node = found ?? made(child);
    if (node !== place) parent.insertBefore(node, place);
    if (typeof child !== "string") fill(node as Element, child);
    else if (node.nodeValue !== child) node.nodeValue = child;
    place = node.nextSibling;
  }
  while (place !== null) {
    const next: ChildNode | null = place.nextSibling;
    place.remove();
    place = next;
  }
}

/** The node at `place`, or one after it with the same key. */
function matching(place: ChildNode | null, child: Tree | string): ChildNode | null {
  const isSame = (node: ChildNode) =>
    typeof child === "string"
      ? node.nodeType === Node.TEXT_NODE
      : node instanceof Element && node.localName === child.tag && shown.get(node)?.["key"] === child.props["key"];
  if (place === null || isSame(place)) return place;
  if (typeof child === "string" || child.props["key"] === undefined) return null;
  for (let node = place.nextSibling; node !== null; node = node.nextSibling) if (isSame(node)) return node;
  return null;
}

function made(child: Tree | string): ChildNode {
  if (typeof child === "string") return document.createTextNode(child);
  return SVG_TAGS.has(child.tag) ? document.createElementNS(SVG, child.tag) : document.createElement(child.tag);
}

function fill(element: Element, { props, children }: Tree): void {
  const before = shown.get(element) ?? {};
  for (const name of Object.keys(before)) if (!(name in props)) set(element, name, null);
  for (const [name, value] of Object.entries(props)) if (before[name] !== value || PROPERTIES.has(name)) set(element, name, value);
  shown.set(element, props);
  patch(element, children);
  // a choice can only be made once what can be chosen is there
  if (element.localName === "select" && "value" in props) set(element, "value", props["value"]!);
}

function set(element: Element, name: string, value: Props[string]): void {
  if (name === "key") return;
  const target = element as unknown as Record<string, unknown>;
  if (name.startsWith("on")) target[name] = value;
  else if (!PROPERTIES.has(name) || element.localName === "option") setAttribute(element, name, value);
  else if (target[name] !== (value ?? "")) target[name] = value ?? "";
}

function setAttribute(element: Element, name: string, value: Props[string]): void {
  if (value === null || value === false) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : String(value));
}
