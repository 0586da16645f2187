import { readFile } from 'node:fs/promises';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join, normalize, sep } from 'node:path';

const contentTypes: Readonly<Record<string, string>> = {
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.map': 'application/json',
  '.mjs': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
  '.woff2': 'font/woff2',
};

/** What a site shows: folders by the path they appear under, and pages written in the test itself. */
export interface SiteContent {
  folders?: Readonly<Record<string, string>>;
  pages?: Readonly<Record<string, string>>;
  /** Sent with everything. */
  headers?: Readonly<Record<string, string>>;
}

/** A plain file server for pages, on the loopback address, which browsers treat as a secure context. */
export class StaticSite {
  readonly #server: Server;
  readonly #content: SiteContent;

  private constructor(content: SiteContent) {
    this.#content = content;
    this.#server = createServer((request, response) => {
      const { pathname } = new URL(request.url ?? '/', 'http://site');
      void this.#answer(decodeURIComponent(pathname), response);
    });
  }

  static async start(content: SiteContent, port = 0): Promise<StaticSite> {
    const site = new StaticSite(content);
    await new Promise<void>((resolve, reject) => {
      site.#server.once('error', reject);
      site.#server.listen(port, '127.0.0.1', resolve);
    });
    return site;
  }

  /** The site's address, without a slash at its end. */
  get url(): string {
    const { port } = this.#server.address() as AddressInfo;
    return `http://127.0.0.1:${port}`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async #answer(path: string, response: ServerResponse): Promise<void> {
    for (const [name, value] of Object.entries(this.#content.headers ?? {})) response.setHeader(name, value);
    const page = this.#content.pages?.[path];
    if (page !== undefined) {
      send(response, extname(path) || '.html', Buffer.from(page));
      return;
    }
    for (const [prefix, folder] of Object.entries(this.#content.folders ?? {})) {
      if (!path.startsWith(prefix)) continue;
      const name = path.slice(prefix.length).replace(/^\/+/, '') || 'index.html';
      const file = normalize(join(folder, name));
      if (!file.startsWith(normalize(folder + sep))) continue;
      try {
        send(response, extname(file), await readFile(file));
        return;
      } catch {
        // Another folder may have it.
      }
    }
    response.writeHead(404, { 'content-type': 'text/plain' }).end('not found');
  }
}

function send(response: ServerResponse, extension: string, body: Buffer): void {
  response
    .writeHead(200, {
      'content-type': contentTypes[extension] ?? 'application/octet-stream',
      'content-length': body.length,
      // Asked for anew each time; with `no-store` a browser would not keep the page for going back, either.
      'cache-control': 'no-cache',
    })
    .end(body);
}
