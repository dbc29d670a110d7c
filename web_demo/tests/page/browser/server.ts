import { createReadStream, readdirSync, statSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const SITE = fileURLToPath(new URL("../../../site/", import.meta.url));
const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
  ".webmanifest": "application/manifest+json",
  ".png": "image/png",
};
const ISOLATION = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };

export interface ServerOptions {
  readonly bundles: Readonly<Record<string, string>>;
  readonly isolated?: boolean;
}

/** The site and some bundles, as a host of static files serves them. `sent`: the files that were asked for. `ranges`: the ranges. `cut`: of
 * that file only so many bytes are sent, once, until `breakOff` ends the connection. */
export class SiteServer {
  readonly sent: string[] = [];
  readonly ranges: string[] = [];
  cut: { readonly name: string; readonly after: number } | null = null;
  offline = false;
  private held: ServerResponse | null = null;

  private constructor(
    private readonly server: Server,
    private readonly options: ServerOptions,
  ) {}

  static async start(options: ServerOptions): Promise<SiteServer> {
    const server = createServer();
    const site = new SiteServer(server, options);
    server.on("request", (request, response) => site.answer(request, response));
    await new Promise<void>((settle) => server.listen(0, "127.0.0.1", settle));
    return site;
  }

  get address(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}/`;
  }

  close(): void {
    this.server.close();
    this.server.closeAllConnections();
  }

  breakOff(): void {
    this.held!.destroy();
  }

  private answer(request: IncomingMessage, response: ServerResponse): void {
    const path = normalize(decodeURIComponent(new URL(request.url!, this.address).pathname)).slice(1);
    if (this.offline) return void response.destroy();
    if (path === "bundles.json")
      return void response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(this.list()));
    const file = this.fileOf(path === "" ? "index.html" : path);
    if (file === null) return void response.writeHead(404).end();
    this.sent.push(path);
    this.send(file, request, response);
  }

  private list() {
    const bundles = Object.entries(this.options.bundles).map(([name, folder]) => {
      const names = readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((each) => statSync(join(folder, each)).isFile());
      return { name, path: `bundles/${name}/`, files: names.map((each) => ({ name: each, size: statSync(join(folder, each)).size })) };
    });
    return { bundles };
  }

  private fileOf(path: string): string | null {
    const [, name, rest] = /^bundles\/([^/]+)\/(.+)$/.exec(path) ?? [];
    const folder = name === undefined ? SITE : this.options.bundles[name];
    const file = folder === undefined ? null : join(folder, rest ?? path);
    return file !== null && statSync(file, { throwIfNoEntry: false })?.isFile() ? file : null;
  }

  private send(file: string, request: IncomingMessage, response: ServerResponse): void {
    const { size } = statSync(file);
    const asked = /^bytes=(\d+)-$/.exec(request.headers.range ?? "");
    const start = asked === null ? 0 : Number(asked[1]);
    if (asked !== null) this.ranges.push(`${file.slice(file.lastIndexOf("/") + 1)} ${start}`);
    response.writeHead(asked === null ? 200 : 206, {
      "content-type": TYPES[extname(file)] ?? "application/octet-stream",
      "content-length": size - start,
      ...(asked !== null && { "content-range": `bytes ${start}-${size - 1}/${size}` }),
      ...(this.options.isolated !== false && ISOLATION),
    });
    const { cut } = this;
    if (cut === null || !file.endsWith(cut.name)) return void createReadStream(file, { start }).pipe(response);
    this.cut = null;
    this.held = response;
    createReadStream(file, { start, end: cut.after - 1 }).pipe(response, { end: false });
  }
}
