import { expect, test } from 'vitest';

import type { ThroughlineServer } from '../../src/server.js';
import { someEmail, thrownBy, useShop } from './shop.js';

const used = useShop();

test.each<[string, (shop: ThroughlineServer, id: string) => Promise<unknown>]>([
  ['getSession', (shop, id) => shop.getSession(id)],
  ['getSessions', (shop, id) => shop.getSessions([id])],
  ['validateSession', (shop, id) => shop.validateSession(id)],
  ['events', (shop, id) => shop.events(id)],
  ['getByEmail', (shop) => shop.getByEmail('nobody@example.com')],
  ['stats', (shop) => shop.stats()],
  ['verifyToken', (shop) => shop.verifyToken('made-up')],
])('%s is asked once for a request, at once and later, and again after a change', async (_, call) => {
  const { session } = await used.shop.createSession();
  const shop = used.shop.forRequest();
  const before = used.between.seen.length;
  const answers = [...(await Promise.all([call(shop, session.id), call(shop, session.id)])), await call(shop, session.id)];
  expect(used.between.since(before)).toHaveLength(1);
  for (const answer of answers) expect(answer).toEqual(answers[0]);

  await shop.updateSession(session.id, { email: someEmail() });
  const after = used.between.seen.length;
  await call(shop, session.id);
  expect(used.between.since(after)).toHaveLength(1);

  // Without a request nothing is kept, and one request knows nothing of another.
  const others = used.between.seen.length;
  for (const other of [used.shop, used.shop, used.shop.forRequest()]) await call(other, session.id);
  expect(used.between.since(others)).toHaveLength(3);
});

test('what was changed is read as it is now, and what was not is kept', async () => {
  const [first, second] = [(await used.shop.createSession()).session, (await used.shop.createSession()).session];
  const shop = used.shop.forRequest();
  for (const { id } of [first, second]) await shop.getSession(id);
  const email = someEmail();
  await shop.command(first.id, { type: 'setEmail', email });
  const before = used.between.seen.length;
  expect(await shop.getSession(first.id)).toMatchObject({ email });
  expect(await shop.getSession(second.id)).toMatchObject({ id: second.id });
  expect(used.between.since(before)).toEqual([`GET /v1/sessions/${first.id}`]);

  const erased = await shop.eraseData({ sessionId: second.id });
  expect(erased.isComplete).toBe(true);
  expect((await shop.getSession(second.id))!.status).not.toBe(second.status);
});

test('a session that was not there is found once it is created', async () => {
  const id = `ws_${crypto.randomUUID()}`;
  const shop = used.shop.forRequest();
  expect(await shop.getSession(id)).toBeNull();
  await shop.createSession({ id });
  expect(await shop.getSession(id)).toMatchObject({ id });
});

test('what is read while it is being changed is not kept', async () => {
  const { session } = await used.shop.createSession();
  const shop = used.shop.forRequest();
  const before = used.between.seen.length;
  let open = (): void => undefined;
  used.between.gate = new Promise<void>((resolve) => (open = resolve));
  const email = someEmail();
  const change = shop.updateSession(session.id, { email });
  const read = shop.getSession(session.id);
  await expect.poll(() => used.between.since(before)).toHaveLength(2);
  used.between.gate = Promise.resolve();
  open();
  await Promise.all([change, read]);
  expect(await shop.getSession(session.id)).toMatchObject({ email });
  expect(used.between.since(before)).toHaveLength(3);
});

test('who changes an answer changes nobody else’s', async () => {
  const { session } = await used.shop.createSession({ metadata: { a: 1 } });
  const shop = used.shop.forRequest();
  (await shop.getSession(session.id))!.metadata['a'] = 2;
  expect((await shop.getSession(session.id))!.metadata).toEqual({ a: 1 });
});

test('a failure is not kept', async () => {
  const { session } = await used.shop.createSession();
  const shop = used.with({ retries: 0 }).forRequest();
  used.between.fates = ['requestLost'];
  const both = await Promise.all([thrownBy(shop.getSession(session.id)), thrownBy(shop.getSession(session.id))]);
  expect(both).toMatchObject([{ code: 'unreachable' }, { code: 'unreachable' }]);
  expect(await shop.getSession(session.id)).toMatchObject({ id: session.id });
});

test('who leaves does not take the answer away from who waits, and the last one to leave ends it', async () => {
  const shop = used.shop.forRequest();
  const before = used.between.seen.length;
  let open = (): void => undefined;
  used.between.gate = new Promise<void>((resolve) => (open = resolve));
  const life = new AbortController();
  const leaving = thrownBy(shop.getSession('ws_a', { signal: life.signal }));
  const waiting = shop.getSession('ws_a');
  await expect.poll(() => used.between.since(before)).toHaveLength(1);
  life.abort('left');
  expect(await leaving).toBe('left');
  open();
  used.between.gate = Promise.resolve();
  expect(await waiting).toBeNull();

  let ended: AbortSignal | undefined;
  const alone = used.with({ fetch: (_, { signal }) => ((ended = signal!), new Promise(() => undefined)) }).forRequest();
  const last = new AbortController();
  const thrown = thrownBy(alone.getSession('ws_a', { signal: last.signal }));
  last.abort('left');
  expect(await thrown).toBe('left');
  expect(ended!.aborted).toBe(true);
});
