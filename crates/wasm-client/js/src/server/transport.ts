/** As much of a `Response` as is looked at. */
export type Answered = Pick<Response, 'ok' | 'status' | 'text'> & { readonly headers: Pick<Headers, 'get'> };

/** Sends a request, and has its answer, all of it or at least its head. */
export type Send = (address: string, init: RequestInit) => Promise<Answered>;

/** How requests are sent where nothing is said: by Node.js' own client where this is Node.js, else by `fetch`. */
export function standardSend(): Send {
  if (isNode()) return sendByNode();
  // Looked up for each request: what observes an application replaces it after this was made.
  return (address, init) => globalThis.fetch(address, init);
}

/** Whether this is Node.js itself. Others have its modules as well, and make them of their `fetch`. */
function isNode(): boolean {
  if (['Bun', 'Deno', 'WebSocketPair', 'EdgeRuntime'].some((name) => name in globalThis)) return false;
  return typeof process === 'object' && process.release?.name === 'node' && typeof process.getBuiltinModule === 'function';
}

/**
 * Node.js' HTTP client, with connections that are kept. It takes about a third of the time on the processor that `fetch` takes there,
 * which in a route is more than anything else the route does.
 */
function sendByNode(): Send {
  // No import: bundlers for other runtimes would look for it.
  const http = process.getBuiltinModule('node:http');
  const https = process.getBuiltinModule('node:https');
  const kept = { keepAlive: true };
  const [plain, encrypted] = [new http.Agent(kept), new https.Agent(kept)];
  return (address, { method, headers, body, signal }) =>
    new Promise((resolve, reject) => {
      // Looked up for each request, as above.
      const [{ request }, agent] = address.startsWith('https:') ? [https, encrypted] : [http, plain];
      const options = { method: method!, headers: headers as Record<string, string>, agent, ...(signal && { signal }) };
      const asked = request(address, options, (answer) => {
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
      asked.on('error', reject);
      asked.end(body);
    });
}
