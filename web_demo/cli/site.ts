import { createHash } from "node:crypto";
import { copyFileSync, cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

// Puts the site together, once the page is compiled: a folder of static files, build/site.

const BUILD = join(dirname(fileURLToPath(import.meta.url)), "..");
const WEB = join(BUILD, "..");
const SITE = join(BUILD, "site");
const RUNTIME = ["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];
// For runs on a GPU; fetched when one is begun, and kept from then on.
const GPU_RUNTIME = ["ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm"];

rmSync(SITE, { recursive: true, force: true });
cpSync(join(WEB, "page/static"), SITE, { recursive: true });
for (const folder of ["kit", "page"]) copyScripts(folder);
mkdirSync(join(SITE, "ort"));
for (const name of [...RUNTIME, ...GPU_RUNTIME]) copyFileSync(join(WEB, "node_modules/onnxruntime-web/dist", name), join(SITE, "ort", name));
copyFileSync(join(WEB, "../lcsb_mobile/tiny/messages.jsonl"), join(SITE, "sample.jsonl"));
copyFileSync(join(WEB, "../LICENSE"), join(SITE, "LICENSE.txt"));

const files = Object.fromEntries(names(SITE).map((name) => [name, sha256(readFileSync(join(SITE, name)))]));
const version = sha256(JSON.stringify(files));
const worker = readFileSync(join(BUILD, "page/offline/serviceWorker.js"), "utf8");
const later = GPU_RUNTIME.map((name) => `ort/${name}`);
writeFileSync(join(SITE, "sw.js"), `const SITE = ${JSON.stringify({ version, files, later })};\n${worker}`);
console.log(`${SITE}: ${Object.keys(files).length + 1} files, version ${version.slice(0, 12)}`);

/** The compiled modules, without their declarations and what is no part of the page. */
function copyScripts(folder: string): void {
  for (const name of names(join(BUILD, folder))) {
    if (!name.endsWith(".js") || name.startsWith("offline/")) continue;
    const target = join(SITE, folder, name);
    mkdirSync(dirname(target), { recursive: true });
    copyFileSync(join(BUILD, folder, name), target);
  }
}

/** The files below a folder, sorted, with slashes. */
function names(folder: string): string[] {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return entries
    .map((entry) =>
      join(entry.parentPath, entry.name)
        .slice(folder.length + 1)
        .replaceAll("\\", "/"),
    )
    .sort();
}

function sha256(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}
