import { createHash, createHmac } from 'node:crypto';
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

const SECRET = 'the secret of the store, in all processes';

const used = useShop();
const open: Server[] = [];

afterEach(async () => {
  for (const server of open.splice(0)) await new Promise((resolve) => server.close(resolve));
});

function store(ttlMs?: number): ThroughlineStore {
  return new ThroughlineStore({ server: used.shop, secret: SECRET, ...(ttlMs !== undefined && { ttlMs }) });
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
  const far = new ThroughlineStore({ secret: SECRET, server: used.with({ url: 'http://127.0.0.1:1', retries: 0 }) });
  expect((await told((callback) => void far.get(sid, callback)))[0]).toMatchObject({ code: 'unreachable' });
});

/** Makes a session as any browser may, without a credential: under an id of its choice, with a claim of its own. */
async function madeByBrowser(id: string, metadata: object): Promise<void> {
  const clientId = `cl_${crypto.randomUUID().replaceAll('-', '')}`;
  const frames = [
    { type: 'hello', protocol: 1, sessionId: id, clientId, knownVersion: 0, claim: 'A'.repeat(40) },
    { type: 'submit', commands: [{ clientId, seq: 1, type: 'create', metadata, claims: { status: 'pending', step: 'checkout', amount: 0 } }] },
  ];
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(`${used.server.url}/v1/sync`, { method: 'POST', headers, body: JSON.stringify({ frames, waitMs: 0 }) });
  expect(response.status, await response.text()).toBe(200);
  expect(await used.shop.getSession(id)).toMatchObject({ id, metadata });
}

/** The id that the store gives, as far as one knows the secret. */
function idOf(sid: string, secret = SECRET): string {
  return `ws_${createHmac('sha256', secret).update(JSON.stringify(['id', sid])).digest('hex').slice(0, 60)}`;
}

test('what a browser has made is no login, under whatever id, and nothing is written into it', async () => {
  const kept = store();
  const sid = crypto.randomUUID();
  const admin = JSON.stringify(data({ foo: 'admin' }));
  const until = Date.now() + 600_000;
  const macs = (secret: string) => ({
    sessionMac: createHmac('sha256', secret).update(JSON.stringify(['session', sid, admin])).digest('hex'),
    untilMac: createHmac('sha256', secret).update(JSON.stringify(['until', sid, until])).digest('hex'),
  });
  // What the id is made of must not be known to who knows the sid.
  await madeByBrowser(`ws_${createHash('sha256').update(sid).digest('hex').slice(0, 60)}`, { express: { sid, session: admin, until } });
  expect(await kept.get(sid)).toBeNull();
  // And if it were known, what is there would have to be signed.
  await madeByBrowser(idOf(sid), { express: { sid, session: admin, until, ...macs('another secret of 32 characters!') } });
  expect(await kept.get(sid)).toBeNull();
  expect(await kept.ids()).not.toContain(sid);
  expect(await thrownBy(kept.set(sid, data({ foo: 'of the visitor' })))).toMatchObject({ message: expect.stringContaining('was not written by this store') });
  expect(JSON.stringify(await used.shop.getSession(idOf(sid)))).not.toContain('of the visitor');
  // The same with the right key is what the store has written.
  const own = crypto.randomUUID();
  await kept.set(own, data({ foo: 'mine' }));
  expect((await used.shop.getSession(idOf(own)))!.metadata.express).toMatchObject({ sid: own });
});

test('what was changed by anybody else is not there any more', async () => {
  const kept = store();
  const [sid, other] = [crypto.randomUUID(), crypto.randomUUID()];
  await kept.set(sid, data({ foo: 'visitor' }));
  await kept.set(other, data({ foo: 'admin' }));
  const written = (await used.shop.getSession(idOf(sid)))!.metadata.express as Record<string, unknown>;
  const ofOther = (await used.shop.getSession(idOf(other)))!.metadata.express as Record<string, unknown>;
  const metadata = (express: unknown) => used.shop.command(idOf(sid), { type: 'setMetadata', metadata: { express } });
  const changes = [
    { session: JSON.stringify(data({ foo: 'admin' })) },
    { until: Number(written.until) + 86_400_000 },
    { session: ofOther.session, sessionMac: ofOther.sessionMac },
    ofOther,
    { sessionMac: '' },
    { sessionMac: null },
    { untilMac: written.sessionMac },
    { session: 1 },
  ];
  for (const change of changes) {
    await metadata(change);
    expect(await kept.get(sid), JSON.stringify(change)).toBeNull();
    await metadata(written);
    expect(await kept.get(sid)).toEqual(data({ foo: 'visitor' }));
  }
  await metadata(null);
  expect(await kept.get(sid)).toBeNull();
});

test('a store with another secret has nothing of it, and one without any is not made', async () => {
  const sid = crypto.randomUUID();
  await store().set(sid, data({ foo: 'visitor' }));
  const other = new ThroughlineStore({ server: used.shop, secret: 'another secret of 32 characters!' });
  expect(await other.get(sid)).toBeNull();
  expect(await other.ids()).not.toContain(sid);
  for (const secret of [undefined, '', 'x'.repeat(31)]) {
    expect(() => new ThroughlineStore({ server: used.shop, secret: secret as string })).toThrow(/`secret`.*32 characters/);
  }
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
