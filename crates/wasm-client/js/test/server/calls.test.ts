import { expect, test } from 'vitest';

import type { Session } from '../../src/server.js';
import { legacyCookie, someEmail, useShop } from './shop.js';

const used = useShop();

/** Lists and statistics ask the database, which has what the SDK wrote: it is strict. */
async function idsOf(sessions: AsyncIterable<Session>): Promise<string[]> {
  const ids: string[] = [];
  for await (const { id } of sessions) ids.push(id);
  return ids;
}

test('a session is created with what a back end may say, read, and is null where there is none', async () => {
  const email = someEmail();
  const products = [{ id: 'gift', name: 'Gift', price: 1_250, quantity: 2 }];
  const { session, token, tokenExpiresAt } = await used.shop.createSession({ email, products, metadata: { campaign: { name: 'spring' } } });
  // Minor units as an integer, and times as texts.
  expect(session).toMatchObject({ email, totals: { subtotal: 2_500 }, metadata: { campaign: { name: 'spring' } } });
  expect(session.expiresAt).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
  expect(Date.parse(tokenExpiresAt)).toBeGreaterThan(Date.now());
  expect(token).toMatch(/^v4\.local\./);
  expect(await used.shop.getSession(session.id)).toEqual(session);
  expect(await used.shop.getSession('ws_nobody')).toBeNull();
  const empty = await used.shop.createSession();
  expect(empty.session.products).toEqual([]);
});

test('what can be no id is not asked for: it would be another path', async () => {
  const before = used.between.seen.length;
  for (const id of ['stats', 'batch', '.', '..', '', 'a/b', 'a?b', 'x'.repeat(65)]) {
    expect(await used.shop.getSession(id)).toBeNull();
    expect(await used.shop.deleteSession(id)).toBe(false);
    await expect(used.shop.updateSession(id, {})).rejects.toMatchObject({ code: 'sessionNotFound' });
  }
  expect(used.between.since(before)).toEqual([]);
});

test('a patch changes a session, and with ifVersion only where nobody was faster', async () => {
  const { session } = await used.shop.createSession({ email: someEmail() });
  const email = someEmail();
  const changed = await used.shop.updateSession(session.id, { email, metadata: { a: 1 } }, { ifVersion: session.version });
  expect(changed).toMatchObject({ email, metadata: { a: 1 } });
  const late = used.shop.updateSession(session.id, { email: someEmail() }, { ifVersion: session.version });
  await expect(late).rejects.toMatchObject({ code: 'staleVersion', status: 412, mendableBy: 'staleVersion' });
  expect((await used.shop.updateSession(session.id, { email: null })).email ?? null).toBeNull();
});

test('many sessions are read and deleted at once, more than a request holds', async () => {
  const kept = await used.shop.createSession();
  const gone = await used.shop.createSession({ email: someEmail() });
  const strangers = Array.from({ length: 120 }, (_, index) => `ws_stranger_${index}`);
  const got = await used.shop.getSessions([gone.session.id, ...strangers, kept.session.id]);
  expect(got.map(({ outcome }) => outcome)).toEqual(['found', ...strangers.map(() => 'notFound'), 'found']);
  expect(got[0]).toMatchObject({ session: { email: gone.session.email } });
  expect(await used.shop.getSessions([])).toEqual([]);

  const deleted = await used.shop.deleteSessions([gone.session.id, 'ws_nobody']);
  expect(deleted.map(({ outcome }) => outcome)).toEqual(['deleted', 'notFound']);
  expect((await used.shop.getSession(gone.session.id))?.email ?? null).toBeNull();
  expect(await used.shop.deleteSession(kept.session.id)).toBe(true);
  expect(await used.shop.deleteSession('ws_nobody')).toBe(false);
});

test('a session is validated and extended', async () => {
  const { session } = await used.shop.createSession({ ttlMs: 600_000 });
  const validity = await used.shop.validateSession(session.id);
  expect(validity).toMatchObject({ status: 'pending', expiresAt: session.expiresAt });
  expect(validity!.problems).toContainEqual(expect.objectContaining({ code: 'fieldsMissing', field: 'email' }));
  expect(await used.shop.validateSession('ws_nobody')).toBeNull();
  const extended = await used.shop.extendSession(session.id, 1_200_000);
  expect(Date.parse(extended.expiresAt)).toBeGreaterThan(Date.parse(session.expiresAt));
  expect(Date.parse((await used.shop.extendSession(session.id)).expiresAt)).toBeGreaterThan(0);
});

test('lists go from part to part, and are filtered', async () => {
  const email = someEmail();
  const ids: string[] = [];
  for (let index = 0; index < 5; index++) ids.unshift((await used.shop.createSession({ email })).session.id);
  const before = used.between.seen.length;
  expect(await idsOf(used.shop.listSessions({ email, limit: 2, status: ['pending', 'failed'] }))).toEqual(ids);
  expect(used.between.since(before)).toHaveLength(3);
  expect(await idsOf(used.shop.listSessions({ email, status: ['completed'] }))).toEqual([]);
  expect((await used.shop.getByEmail(email.toUpperCase())).map(({ id }) => id)).toEqual(ids);
  // Whoever has enough asks for no more.
  const part = used.between.seen.length;
  for await (const { id } of used.shop.listSessions({ email, limit: 2 })) if (id === ids[1]) break;
  expect(used.between.since(part)).toHaveLength(1);
  await expect(idsOf(used.shop.listSessions({ limit: 0 }))).rejects.toMatchObject({ code: 'queryRefused', status: 400 });
});

test('statistics count what was created', async () => {
  const { session } = await used.shop.createSession();
  const stats = await used.shop.stats({ createdAfter: session.createdAt });
  expect(stats.total).toBeGreaterThanOrEqual(1);
  expect(await used.shop.stats({ funnel: 'no-such-funnel' })).toMatchObject({ total: 0, conversion: null });
});

test('commands take a session through its payment, and the journal tells of them', async () => {
  const { session } = await used.shop.createSession({
    email: someEmail(),
    customer: {
      firstName: 'Ada',
      lastName: 'King',
      billing: { address: '1 Main Street', city: 'Springfield', state: 'IL', zipCode: '62701', country: 'US' },
      shipping: { address: '1 Main Street', city: 'Springfield', state: 'IL', zipCode: '62701', country: 'US' },
    },
    products: [{ id: 'fitspresso-3-pack', quantity: 1 }],
  });
  const { id, amount } = session;
  expect(await used.shop.command(id, { type: 'beginProcessing' })).toMatchObject({ status: 'processing' });
  const { results, session: paid } = await used.shop.commands(id, [
    { type: 'recordPayment', transactionId: 'made-up', amount: amount + 1 },
    { type: 'recordPayment', transactionId: 'txn_1', amount },
  ]);
  expect(results).toMatchObject([{ outcome: 'rejected', reason: { code: 'amountMismatch' } }, { outcome: 'accepted', durable: true }]);
  expect(paid.transactionId).toBe('txn_1');
  // What is refused is thrown where there is one command.
  const twice = used.shop.command(id, { type: 'setItems', items: [] });
  await expect(twice).rejects.toMatchObject({ name: 'ThroughlineError', code: 'alreadyPaid', message: expect.stringMatching(/paid/) });

  const first = await used.shop.events(id, { limit: 1 });
  expect(first.records).toHaveLength(1);
  const rest = await used.shop.events(id, { after: first.nextAfter! });
  // What was refused stands there as well.
  const { version } = (await used.shop.getSession(id))!;
  expect(rest.version).toBe(version);
  expect([...first.records, ...rest.records].map(({ version }) => version)).toEqual(Array.from({ length: version }, (_, index) => index + 1));
});

test('a token is good until access is revoked, and none that others made is', async () => {
  const { session, token } = await used.shop.createSession();
  const issued = await used.shop.issueToken(session.id);
  for (const good of [token, issued.token]) expect(await used.shop.verifyToken(good)).toMatchObject({ sessionId: session.id });
  const { issuedAt, expiresAt } = (await used.shop.verifyToken(token))!;
  expect(Date.parse(expiresAt)).toBeGreaterThan(Date.parse(issuedAt));

  const { token: foreign } = await foreignToken();
  for (const bad of [foreign, 'made-up', '', `${token}x`, used.server.serviceKey]) expect(await used.shop.verifyToken(bad)).toBeNull();

  await used.shop.revokeAccess(session.id);
  for (const revoked of [token, issued.token]) expect(await used.shop.verifyToken(revoked)).toBeNull();
  const again = await used.shop.issueToken(session.id);
  expect(await used.shop.verifyToken(again.token)).toMatchObject({ sessionId: session.id });
});

/** A token as good as any, of another server. */
async function foreignToken(): Promise<{ token: string }> {
  const { ThroughlineServer: RealServer } = await import('../../../../../tests/e2e/server.js');
  const other = await RealServer.start();
  try {
    const answer = await fetch(`${other.url}/v1/sessions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' });
    return (await answer.json()) as { token: string };
  } finally {
    await other.stop();
  }
}

test("the old shop's sessions are brought in, and its cookie is exchanged once", async () => {
  const email = someEmail();
  const id = `ws_old_${crypto.randomUUID().slice(0, 8)}`;
  const row = { id, email, status: 'pending', updated_at: '2026-11-20T09:00:00Z', expires_at: '2099-01-01T00:00:00Z' };
  const entries = [{ id, legacy: { database: row } }];
  expect(await used.shop.importSessions(entries)).toMatchObject([{ id, outcome: 'created' }]);
  const again = await used.shop.importSessions(entries, { id: 'default' });
  expect(again).toMatchObject([{ id, outcome: 'unchanged' }]);

  const cookie = legacyCookie({ id, exp: Math.floor(Date.now() / 1000) + 600 });
  // The first answer is lost: whoever asks again is known.
  used.between.fates = ['answerLost'];
  const { sessionId, token } = await used.shop.exchangeLegacyCookie(cookie);
  expect(sessionId).toBe(id);
  expect(await used.shop.verifyToken(token)).toMatchObject({ sessionId: id });
  await expect(used.shop.exchangeLegacyCookie(cookie)).rejects.toMatchObject({ code: 'legacyCookieUsed', status: 410 });
});

test("a buyer's data is exported and erased, but for what is held", async () => {
  const email = someEmail();
  const [held, other] = [await used.shop.createSession({ email }), await used.shop.createSession({ email })];
  await used.shop.holdSession(held.session.id, { reason: 'the invoice is kept' });
  const data = await used.shop.exportData({ email });
  expect(data.sessions.map(({ session }) => session.id).sort()).toEqual([held.session.id, other.session.id].sort());
  expect(data.sessions.find(({ session }) => session.id === held.session.id)?.hold).toMatchObject({ reason: 'the invoice is kept' });

  const erasures = await used.shop.eraseData({ email });
  expect(erasures.isComplete).toBe(false);
  expect(new Map(erasures.sessions.map((erasure) => [erasure.sessionId, erasure.outcome]))).toEqual(
    new Map([[held.session.id, 'held'], [other.session.id, 'erased']]),
  );
  await used.shop.releaseSession(held.session.id);
  expect(await used.shop.eraseData({ sessionId: held.session.id })).toMatchObject({ isComplete: true });
});
