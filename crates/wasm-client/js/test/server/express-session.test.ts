import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

import session, { Cookie, type SessionData } from 'express-session';
import { afterEach, expect, test } from 'vitest';

import { ThroughlineStore } from '../../src/express-session.js';
import { thrownBy, useShop } from './shop.js';

declare module 'express-session' {
  interface SessionData {
    foo?: string;
    views?: number;
  }
}

/** More than a page of a list has, and than a request deletes. */
const SESSIONS = 250;

const used = useShop();
const open: Server[] = [];

afterEach(async () => {
  for (const server of open.splice(0)) await new Promise((resolve) => server.close(resolve));
});

function store(ttlMs?: number): ThroughlineStore {
  return new ThroughlineStore({ server: used.shop, ...(ttlMs !== undefined && { ttlMs }) });
}

/** A session as a store is given it. */
function data(fields: object = {}): SessionData {
  return { cookie: { originalMaxAge: null }, ...fields } as unknown as SessionData;
}

async function endsInMs(sid: string, from: ThroughlineStore): Promise<number> {
  for await (const { metadata, expiresAt } of used.shop.listSessions({ status: ['pending'] })) {
    const kept = metadata.express as { sid: string; until: number } | undefined;
    if (kept?.sid === sid) return Math.min(kept.until, Date.parse(expiresAt)) - Date.now();
  }
  throw new Error(`${sid} is not there: ${String(await from.ids())}`);
}

// The life cycle by which connect-redis tests its store: the same calls with the same expectations, in the same order.
test('the life cycle by which stores are tested', { timeout: 120_000 }, async () => {
  const kept = store();
  await kept.clear();

  const first = data({ foo: 'bar' });
  await kept.set('123', first);
  expect(await kept.get('123')).toEqual(first);
  expect(await endsInMs('123', kept)).toBeGreaterThanOrEqual(86_399_000 - 5_000);

  const expires = new Date(Date.now() + 60_000);
  await kept.set('456', data({ cookie: { originalMaxAge: null, expires } }));
  expect(await endsInMs('456', kept)).toBeLessThanOrEqual(60_000);
  await kept.touch('456', data({ cookie: { originalMaxAge: null, expires: new Date(Date.now() + 90_000) } }));
  expect(await endsInMs('456', kept)).toBeGreaterThan(60_000);

  expect(await kept.length()).toBe(2);
  expect((await kept.ids()).sort()).toEqual(['123', '456']);
  expect((await kept.all()).sort((a, b) => (a.id > b.id ? 1 : -1))).toEqual([
    { id: '123', foo: 'bar', cookie: { originalMaxAge: null } },
    { id: '456', cookie: { originalMaxAge: null, expires: expires.toISOString() } },
  ]);

  await kept.destroy('456');
  expect(await kept.length()).toBe(1);
  await kept.clear();
  expect(await kept.length()).toBe(0);

  const cookie = new Cookie();
  for (let sid = 0; sid < SESSIONS; sid += 1) {
    // Longer than all of it takes.
    cookie.expires = new Date(Date.now() + 600_000);
    await kept.set(`s${sid}`, { cookie });
  }
  expect(await kept.length()).toBe(SESSIONS);
  await kept.clear();
  expect(await kept.length()).toBe(0);

  await kept.set('789', data({ cookie: { originalMaxAge: null, expires: new Date(Date.now() + 90_000) } }));
  expect(await kept.length()).toBe(1);
  await kept.set('789', data({ cookie: { originalMaxAge: null, expires: new Date(Date.now() - 90_000) } }));
  expect(await kept.length()).toBe(0);
});

test('callbacks are called as express-session expects it', async () => {
  const kept = store();
  const told = <T>(call: (callback: (error: unknown, result?: T) => void) => void) =>
    new Promise<[unknown, T | undefined]>((resolve) => call((error, result) => resolve([error, result])));
  const sid = crypto.randomUUID();
  expect(await told((callback) => void kept.get(sid, callback))).toEqual([null, null]);
  expect(await told((callback) => void kept.set(sid, data({ foo: 'bar' }), callback))).toEqual([null, undefined]);
  expect(await told((callback) => void kept.get(sid, callback))).toEqual([null, data({ foo: 'bar' })]);
  expect(await told((callback) => void kept.destroy(sid, callback))).toEqual([null, undefined]);
  const [error] = await told((callback) => void kept.set(crypto.randomUUID(), data({ foo: 'x'.repeat(20_000) }), callback));
  expect(error).toMatchObject({ name: 'ThroughlineError', code: 'metadataTooLarge' });
  const far = new ThroughlineStore({ server: used.with({ url: 'http://127.0.0.1:1', retries: 0 }) });
  expect((await told((callback) => void far.get(sid, callback)))[0]).toMatchObject({ code: 'unreachable' });
});

test('a session that is large, or becomes too large, is told of, and stays as it was', async () => {
  const kept = store();
  const sid = crypto.randomUUID();
  await kept.set(sid, data({ foo: 'x'.repeat(14_000) }));
  expect((await kept.get(sid))?.foo).toHaveLength(14_000);
  expect(await thrownBy(kept.set(sid, data({ foo: 'x'.repeat(20_000) })))).toMatchObject({ code: 'metadataTooLarge' });
  expect((await kept.get(sid))?.foo).toHaveLength(14_000);
});

test('whatever JSON can say comes back, also names that mean something here', async () => {
  const kept = store();
  const sid = 'sid with / and ü and "quotes"';
  const strange = data({ a: { b: [1, null, { c: 'ü' }] }, null: null, type: 'erase', deep: JSON.parse('{"x":'.repeat(20) + '1' + '}'.repeat(20)) as unknown });
  await kept.set(sid, strange);
  expect(await kept.get(sid)).toEqual(strange);
  // What was there and is not any more.
  await kept.set(sid, data());
  expect(await kept.get(sid)).toEqual(data());
  await kept.destroy(sid);
});

test('a time that becomes shorter ends sooner, and one that is over is over', async () => {
  const kept = store();
  const sid = crypto.randomUUID();
  await kept.set(sid, data());
  await kept.touch(sid, data({ cookie: { originalMaxAge: null, expires: new Date(Date.now() + 1_500) } }));
  expect(await kept.get(sid)).not.toBeNull();
  await expect.poll(() => kept.get(sid), { timeout: 10_000 }).toBeNull();
  expect(await kept.ids()).not.toContain(sid);
  await kept.touch(crypto.randomUUID(), data());
});

test('what was destroyed is not brought back by a request that still runs', async () => {
  const kept = store();
  const sid = crypto.randomUUID();
  await kept.set(sid, data({ foo: 'secret' }));
  await kept.destroy(sid);
  await kept.set(sid, data({ foo: 'secret' }));
  await kept.touch(sid, data());
  expect(await kept.get(sid)).toBeNull();
  await kept.destroy(sid);
});

test('two requests that begin the same session both are kept', async () => {
  const kept = store();
  const sid = crypto.randomUUID();
  await Promise.all(['a', 'b', 'c'].map((foo) => kept.set(sid, data({ foo }))));
  expect(['a', 'b', 'c']).toContain((await kept.get(sid))?.foo);
  await kept.destroy(sid);
});

test("express-session keeps a visitor's session in it, from process to process", async () => {
  const start = async (): Promise<string> => {
    const middleware = session({ store: store(), secret: 'a secret of the test', resave: false, saveUninitialized: false, rolling: true, cookie: { maxAge: 60_000 } });
    const server = createServer((request: IncomingMessage, response: ServerResponse) => {
      // As express would have it.
      middleware(request as never, response as never, (error: unknown) => {
        const { session } = request as unknown as { session: session.Session & SessionData };
        if (error) return void response.writeHead(500).end(String(error));
        if (request.url === '/out') return session.destroy(() => void response.end('out'));
        if (request.url === '/again') return void session.regenerate(() => void response.end('again'));
        session.views = (session.views ?? 0) + 1;
        return void response.end(String(session.views));
      });
    });
    open.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  };
  const [one, other] = [await start(), await start()];
  let cookie = '';
  const get = async (address: string): Promise<string> => {
    const response = await fetch(address, { headers: { cookie, connection: 'close' } });
    cookie = response.headers.getSetCookie().at(-1)?.split(';')[0] ?? cookie;
    return response.text();
  };
  expect([await get(one), await get(other), await get(one)]).toEqual(['1', '2', '3']);
  const before = cookie;
  expect(await get(`${other}/again`)).toBe('again');
  cookie = before;
  expect(await get(one)).toBe('1');
  expect(await get(`${one}/out`)).toBe('out');
  expect(await get(other)).toBe('1');
});
