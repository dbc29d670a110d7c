/**
 * What the site is made of, which its build writes before this: `version` is the digest of `files`, name -> SHA-256 (hex). Those of `later` are
 * large and seldom needed: they are kept once they were asked for.
 */
declare const SITE: { readonly version: string; readonly files: Readonly<Record<string, string>>; readonly later: readonly string[] };

// The page without a network: each file of the site, exactly as it was built, from the browser's cache. What is not of the site, such as a
// model on the server, is none of its business. No module: not every browser takes one here.

(() => {
  const scope = self as unknown as ServiceWorkerGlobalScope;
  const own = `lcsb ${scope.registration.scope} `; // another folder of the server may have a page of its own
  const cacheName = own + SITE.version;

  async function install(): Promise<void> {
    for (const name of Object.keys(SITE.files)) if (!SITE.later.includes(name)) await kept(name);
  }

  /** From the cache, into which it comes first. Holds it to its digest: a page of two versions' files would not work. */
  async function kept(name: string): Promise<Response> {
    const cache = await caches.open(cacheName);
    const address = addressOf(name);
    const there = await cache.match(address);
    if (there !== undefined) return there;
    const response = await fetch(address, { cache: "no-cache" });
    const content = await response.clone().arrayBuffer();
    if (!response.ok || (await sha256(content)) !== SITE.files[name]) throw new Error(`${name}: not the file that the site was built with`);
    await cache.put(address, response.clone());
    return response;
  }

  async function sha256(content: ArrayBuffer): Promise<string> {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
    return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  async function activate(): Promise<void> {
    for (const name of await caches.keys()) if (name.startsWith(own) && name !== cacheName) await caches.delete(name);
    await scope.clients.claim();
  }

  function addressOf(name: string): string {
    return new URL(name, scope.registration.scope).href;
  }

  /** The page is asked for by its folder. */
  function nameOf(address: string): string {
    const path = address.slice(scope.registration.scope.length).replace(/[?#].*$/, "");
    return path === "" ? "index.html" : path;
  }

  async function answer(request: Request, name: string): Promise<Response> {
    if (SITE.later.includes(name)) return kept(name);
    return (await (await caches.open(cacheName)).match(addressOf(name))) ?? fetch(request);
  }

  scope.addEventListener("install", (event) => event.waitUntil(install()));
  scope.addEventListener("activate", (event) => event.waitUntil(activate()));
  scope.addEventListener("fetch", (event) => {
    const { url, method } = event.request;
    if (method !== "GET" || !url.startsWith(scope.registration.scope)) return;
    const name = nameOf(url);
    if (Object.hasOwn(SITE.files, name)) event.respondWith(answer(event.request, name));
  });
})();
