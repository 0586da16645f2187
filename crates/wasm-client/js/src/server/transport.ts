/** As much of a `Response` as is looked at. */
export type Answered = Pick<Response, 'ok' | 'status' | 'text'> & { readonly headers: Pick<Headers, 'get'> };

/** Sends a request, and has its answer, all of it or at least its head. */
export type Send = (address: string, init: RequestInit) => Promise<Answered>;

/** How requests are sent. */
export interface Transport {
  /** Those that change something. */
  readonly change: Send;
  /** Those that don't. */
  readonly read: Send;
}

// Looked up for each request: what observes an application replaces it after this was made.
const byFetch: Send = (address, init) => globalThis.fetch(address, init);

let byNode: Send | undefined;

/** How requests are sent where nothing is said. */
export function standardTransport(): Transport {
  const change = nodeFetch();
  // Next.js watches `fetch` to know which pages it may not keep. This is what it replaces where it bundles: by its name, in full.
  return { change, read: change !== byFetch && process.env.NEXT_RUNTIME ? byFetch : change };
}

/**
 * Sends requests by Node.js' HTTP client, which takes about a third of the time on the processor that its `fetch` takes; elsewhere by
 * `fetch`. For the option `fetch` in Next.js, where what only reads is not sent so by itself: give it what only handlers of routes use.
 * Next.js does not see such reads, and would keep a page that does nothing else from when it was built.
 */
export function nodeFetch(): Send {
  // Not by its name: bundlers for the edge warn of what they find under that.
  const host = (globalThis as { process?: NodeJS.Process }).process;
  // Node.js' `fetch` goes through a proxy where this is set.
  if (!isNode(host) || host.env['NODE_USE_ENV_PROXY']) return byFetch;
  // One for the process, with its connections: some make many of what uses it.
  return (byNode ??= sendByNode(host));
}

/** Whether this is Node.js itself. Others have its modules as well, and make them of their `fetch`. */
function isNode(host: NodeJS.Process | undefined): host is NodeJS.Process {
  if (['Bun', 'Deno', 'WebSocketPair', 'EdgeRuntime'].some((name) => name in globalThis)) return false;
  return host?.release?.name === 'node' && typeof host.getBuiltinModule === 'function';
}

/** Node.js' HTTP client, with connections that are kept. */
function sendByNode(host: NodeJS.Process): Send {
  // No import: bundlers for other runtimes would look for it.
  const http = host.getBuiltinModule('node:http');
  const https = host.getBuiltinModule('node:https');
  // Until they were idle for so long, in milliseconds: before servers and what stands between usually end them.
  const kept = { keepAlive: true, timeout: 4_000 };
  const [plain, encrypted] = [new http.Agent(kept), new https.Agent(kept)];
  return (address, { method, headers, body, signal }) =>
    new Promise((resolve, reject) => {
      // Looked up for each request, as above.
      const [{ request }, agent] = address.startsWith('https:') ? [https, encrypted] : [http, plain];
      // Some proxies compress where nothing is said.
      const named = { ...(headers as Record<string, string>), 'accept-encoding': 'identity' };
      const asked = request(address, { method: method!, headers: named, agent, ...(signal && { signal }) }, (answer) => {
        let text = '';
        answer.setEncoding('utf8');
        answer.on('data', (part: string) => (text += part));
        answer.on('error', reject);
        answer.on('end', () => {
          const status = answer.statusCode!;
          const get = (name: string) => [answer.headers[name] ?? null].flat().join(', ') || null;
          resolve({ ok: status >= 200 && status < 300, status, headers: { get }, text: async () => text });
        });
      });
      asked.on('error', (error) => {
        // What was kept with it may be as dead, and the next try would take it.
        if (asked.reusedSocket) for (const socket of Object.values(agent.freeSockets).flat()) socket?.destroy();
        reject(error);
      });
      asked.on('close', () => reject(new Error('the connection was closed before there was an answer')));
      asked.end(body);
    });
}
