import { once } from 'node:events';
import { createServer, type IncomingHttpHeaders, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createSocketServer, type Socket } from 'node:net';

import { afterEach, expect, test, vi } from 'vitest';

import { nodeFetch, ThroughlineServer, type ServerOptions } from '../../src/server.js';
import { thrownBy } from './shop.js';

const servers: Server[] = [];
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
  vi.unstubAllEnvs();
  for (const server of servers.splice(0)) server.close().closeAllConnections();
});

/** Something that answers so; the SDK that talks to it. */
async function answeredBy(answer: (response: ServerResponse) => void, options: Partial<ServerOptions> = {}): Promise<ThroughlineServer> {
  const server = createServer((_, response) => answer(response));
  servers.push(server.listen(0, '127.0.0.1'));
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return new ThroughlineServer({ url, serviceKey: 'key', retries: 0, ...options });
}

const session = (email: string) => JSON.stringify({ id: 'ws_a', email });

test('in Node.js requests are sent by its own client, elsewhere by the fetch that is there when they are', async () => {
  const answer = (response: ServerResponse) => void response.end(session('ada@example.com'));
  const shop = await answeredBy(answer);
  const fetching = vi.spyOn(globalThis, 'fetch');
  expect(await shop.getSession('ws_a')).toMatchObject({ email: 'ada@example.com' });
  expect(fetching).not.toHaveBeenCalled();

  fetching.mockRestore();
  vi.stubGlobal('EdgeRuntime', 'edge-runtime');
  const elsewhere = await answeredBy(answer);
  const observed = vi.spyOn(globalThis, 'fetch');
  expect(await elsewhere.getSession('ws_a')).toMatchObject({ email: 'ada@example.com' });
  expect(observed).toHaveBeenCalledTimes(1);
});

test('in Next.js what only reads goes by fetch, which it watches; where a proxy is to be used, everything', async () => {
  const answer = (response: ServerResponse) => void response.end(JSON.stringify({ results: [], session: { id: 'ws_a' }, id: 'ws_a' }));
  const read = async (shop: ThroughlineServer) => {
    await shop.getSession('ws_a');
    await shop.getSessions(['ws_a']);
    await shop.validateSession('ws_a');
  };
  const change = (shop: ThroughlineServer) => shop.command('ws_a', { type: 'revokeAccess' });
  const fetching = vi.spyOn(globalThis, 'fetch');
  vi.stubEnv('NEXT_RUNTIME', 'nodejs');
  const inNext = await answeredBy(answer);
  await read(inNext);
  expect(fetching).toHaveBeenCalledTimes(3);
  await change(inNext);
  expect(fetching).toHaveBeenCalledTimes(3);
  await read(await answeredBy(answer, { fetch: nodeFetch() }));
  expect(fetching).toHaveBeenCalledTimes(3);
  vi.stubEnv('NODE_USE_ENV_PROXY', '1');
  await change(await answeredBy(answer));
  expect(fetching).toHaveBeenCalledTimes(4);
});

test('after a failure on a kept connection the next try takes a new one', async () => {
  // Connections that were used once are dead from then on, without a word: as behind a balancer whose server hangs.
  const used = new WeakSet<Socket>();
  let connections = 0;
  const server = createServer((request, response) => {
    if (used.has(request.socket)) return;
    used.add(request.socket);
    response.end(session('ada@example.com'));
  });
  server.on('connection', () => (connections += 1));
  servers.push(server.listen(0, '127.0.0.1'));
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const shop = new ThroughlineServer({ url, serviceKey: 'key', retries: 1, tryTimeoutMs: 300 });
  await Promise.all(Array.from({ length: 6 }, () => shop.getSession('ws_a')));
  expect(connections).toBe(6);
  expect(await shop.getSession('ws_a')).toMatchObject({ id: 'ws_a' });
  expect(connections).toBe(7);
});

test('all that is made in a process shares its connections', async () => {
  let connections = 0;
  const shop = await answeredBy((response) => void response.end(session('ada@example.com')));
  servers[0]!.on('connection', () => (connections += 1));
  const url = `http://127.0.0.1:${(servers[0]!.address() as AddressInfo).port}`;
  await shop.getSession('ws_a');
  for (let made = 0; made < 10; made++) await new ThroughlineServer({ url, serviceKey: 'key' }).getSession('ws_a');
  expect(connections).toBe(1);
});

test('a request says who sends it, and asks for nothing compressed', async () => {
  let said: IncomingHttpHeaders = {};
  const shop = await answeredBy((response) => {
    said = response.req.headers;
    response.end(session('ada@example.com'));
  });
  await shop.getSession('ws_a');
  expect(said).toMatchObject({ 'user-agent': 'throughline', 'accept-encoding': 'identity', authorization: 'Bearer key' });
});

test.each([
  ['sends back what it was sent', (socket: Socket) => void socket.pipe(socket)],
  ['changes to another protocol', (socket: Socket) => void socket.end('HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n')],
])('something that %s is told as unreachable at once, without the service key', async (_, meet) => {
  const server = createSocketServer((socket) => meet(socket.on('error', () => undefined)));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    for (const fetch of [undefined, globalThis.fetch]) {
      const shop = new ThroughlineServer({ url, serviceKey: 'secret-key', retries: 0, ...(fetch && { fetch }) });
      const error = (await thrownBy(shop.getSession('ws_a'))) as Error;
      expect(error).toMatchObject({ code: 'unreachable' });
      for (let at: unknown = error; at instanceof Error; at = at.cause) {
        const told = Object.values(at).map((value) => (value instanceof Uint8Array ? Buffer.from(value).toString() : String(value)));
        expect([at.message, at.stack, ...told].join()).not.toContain('secret-key');
      }
    }
  } finally {
    server.close();
  }
});

test('an address with a name or password, or that is none, is refused before it can be shown', () => {
  for (const url of ['http://user:hunter2@host', 'http://user@host', 'http://host:99999', 'https://', 'host', 'ftp://host', '']) {
    const make = () => new ThroughlineServer({ url, serviceKey: 'key' });
    expect(make).toThrow('`url` has to be the address');
    expect(make).not.toThrow('hunter2');
  }
});

test('what Next.js throws by its fetch to say something to itself is passed on', async () => {
  const word = Object.assign(new Error('Dynamic server usage'), { digest: 'DYNAMIC_SERVER_USAGE' });
  const shop = new ThroughlineServer({ url: 'http://127.0.0.1:1', serviceKey: 'key', fetch: () => Promise.reject(word) });
  expect(await thrownBy(shop.getSession('ws_a'))).toBe(word);
  // Nor does it matter what else is thrown.
  const silent = new ThroughlineServer({ url: 'http://127.0.0.1:1', serviceKey: 'key', retries: 0, fetch: () => Promise.reject() });
  expect(await thrownBy(silent.getSession('ws_a'))).toMatchObject({ code: 'unreachable' });
});

test('an answer that comes in parts is read as it was written', async () => {
  const email = 'ädä-€@example.com';
  const bytes = Buffer.from(session(email));
  const cut = bytes.indexOf(Buffer.from('€')) + 1;
  const shop = await answeredBy((response) => {
    response.write(bytes.subarray(0, cut), () => setImmediate(() => response.end(bytes.subarray(cut))));
  });
  expect(await shop.getSession('ws_a')).toMatchObject({ email });
});

test('an answer that ends too early is none', async () => {
  const shop = await answeredBy((response) => {
    response.writeHead(200, { 'content-length': '1000' });
    response.write('{"id":"ws_a"', () => setImmediate(() => response.destroy()));
  });
  expect(await thrownBy(shop.getSession('ws_a'))).toMatchObject({ code: 'unreachable', mendableBy: 'retry' });
});

test('what an answer says beside its body is heard: a request id, and when to come again', async () => {
  const shop = await answeredBy((response) => {
    response.writeHead(503, { 'Retry-After': '7', 'X-Request-Id': 'r-1' }).end();
  });
  expect(await thrownBy(shop.getSession('ws_a'))).toMatchObject({ status: 503, requestId: 'r-1', retryAfterMs: 7000 });
});

test('a redirection is not followed', async () => {
  let asked = 0;
  const shop = await answeredBy((response) => {
    asked += 1;
    response.writeHead(307, { location: '/elsewhere' }).end();
  });
  expect(await thrownBy(shop.getSession('ws_a'))).toMatchObject({ code: 'answerUnreadable', status: 307 });
  expect(asked).toBe(1);
});

test('with https nothing is said before the server has shown who it is', async () => {
  let asked = 0;
  const plain = await answeredBy(() => void (asked += 1));
  expect(plain).toBeDefined();
  const url = `https://127.0.0.1:${(servers[0]!.address() as AddressInfo).port}`;
  const shop = new ThroughlineServer({ url, serviceKey: 'key', retries: 0 });
  const error = (await thrownBy(shop.getSession('ws_a'))) as Error;
  expect(error).toMatchObject({ code: 'unreachable' });
  expect(asked).toBe(0);
});
