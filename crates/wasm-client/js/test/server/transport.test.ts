import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

import { afterEach, expect, test, vi } from 'vitest';

import { ThroughlineServer, type ServerOptions } from '../../src/server.js';
import { thrownBy } from './shop.js';

const servers: Server[] = [];
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
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
