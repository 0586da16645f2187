import { afterEach, expect, test, vi } from 'vitest';

import type { ThroughlineServer } from '../../src/server.js';
import { someEmail, thrownBy, useShop } from './shop.js';

const used = useShop();

afterEach(() => vi.restoreAllMocks());
const unavailable = { status: 503, headers: { 'retry-after': '1' }, body: JSON.stringify({ code: 'unavailable', title: 'Not now', status: 503 }) };

test('a session is created once, though the answer was lost', async () => {
  const email = someEmail();
  const before = used.between.seen.length;
  used.between.fates = ['answerLost', 'answerLost'];
  const { session } = await used.shop.createSession({ email });
  const tries = used.between.seen.slice(before);
  expect(tries.map(({ method, path }) => `${method} ${path}`)).toEqual(Array(3).fill('POST /v1/sessions'));
  expect(new Set(tries.map(({ key }) => key)).size).toBe(1);
  expect(tries[0]!.key).toMatch(/^[0-9a-f-]{36}$/);
  expect((await used.shop.getByEmail(email)).map(({ id }) => id)).toEqual([session.id]);
  // Another call is another session.
  await used.shop.createSession({ email });
  expect(await used.shop.getByEmail(email)).toHaveLength(2);
});

test('commands and patches are applied once, though the answer was lost', async () => {
  const { session } = await used.shop.createSession();
  used.between.fates = ['answerLost'];
  const changed = await used.shop.command(session.id, { type: 'setEmail', email: someEmail() });
  used.between.fates = ['answerLost'];
  const patched = await used.shop.updateSession(session.id, { metadata: { a: 1 } }, { ifVersion: changed.version });
  // Without its key the second try would find that somebody was faster: itself.
  expect(patched).toMatchObject({ metadata: { a: 1 } });
  const { records } = await used.shop.events(session.id);
  expect(records.map(({ event }) => event.type).filter((type) => type === 'emailSet' || type === 'metadataSet')).toEqual(['emailSet', 'metadataSet']);
});

test('commands are known by their numbers: none is applied or refused anew when they come again', async () => {
  const { session } = await used.shop.createSession();
  const before = used.between.seen.length;
  used.between.fates = ['answerLost', 'answerLost'];
  const { results } = await used.shop.commands(session.id, [
    { type: 'setEmail', email: someEmail() },
    { type: 'recordUpsellCharge', offer: 'none', transactionId: 't', amount: 1 },
    { type: 'setMetadata', metadata: { a: 1 } },
  ]);
  // In one transaction each: a key would be written before them, and the answer after them.
  expect(used.between.seen.slice(before).map(({ key }) => key)).toEqual([undefined, undefined, undefined]);
  expect(results.map(({ outcome }) => outcome)).toEqual(['accepted', 'rejected', 'accepted']);
  const { records } = await used.shop.events(session.id);
  const types = records.map(({ event }) => event.type);
  expect(types.filter((type) => type !== 'created')).toEqual(['emailSet', 'commandRejected', 'metadataSet']);
  // Another call is another command.
  const again = await used.shop.commands(session.id, [{ type: 'setMetadata', metadata: { a: 2 } }]);
  expect(again.results).toMatchObject([{ outcome: 'accepted', repeated: false }]);
});

test('numbers of the caller stay, and so does a key', async () => {
  const { session } = await used.shop.createSession();
  const command = { type: 'setMetadata', metadata: { a: 1 }, clientId: 'job-7', seq: 1 } as const;
  expect((await used.shop.commands(session.id, [command])).results).toMatchObject([{ clientId: 'job-7', seq: 1, repeated: false }]);
  expect((await used.shop.commands(session.id, [command])).results).toMatchObject([{ clientId: 'job-7', seq: 1, repeated: true }]);
  // One without the other is a mistake, and told as one.
  await expect(used.shop.commands(session.id, [{ type: 'setMetadata', metadata: {}, seq: 2 }])).rejects.toMatchObject({ code: 'invalidBody' });
  const before = used.between.seen.length;
  await used.shop.command(session.id, { type: 'setMetadata', metadata: { a: 3 } }, { idempotencyKey: 'k-1' });
  expect(used.between.seen[before]).toMatchObject({ key: 'k-1' });
});

test('what can be no key is refused before it is sent', async () => {
  const before = used.between.seen.length;
  for (const idempotencyKey of ['', 'a\nb', 'ä', 'x'.repeat(256)]) {
    await expect(used.shop.createSession({}, { idempotencyKey })).rejects.toMatchObject({ code: 'idempotencyKeyMalformed' });
  }
  expect(used.between.since(before)).toEqual([]);
});

test('a server that is killed and started again meanwhile is waited for', async () => {
  const before = used.between.seen.length;
  const email = someEmail();
  await used.server.kill9();
  const creating = used.with({ retries: 50 }).createSession({ email });
  await expect.poll(() => used.between.since(before).length).toBeGreaterThan(1);
  await used.server.restart();
  const { session } = await creating;
  expect((await used.shop.getByEmail(email)).map(({ id }) => id)).toEqual([session.id]);
});

test('a key of the caller tells that a call is the same', async () => {
  const options = { idempotencyKey: `job-${crypto.randomUUID()}` };
  const first = await used.shop.createSession({}, options);
  expect(await used.shop.createSession({}, options)).toEqual(first);
  const other = used.shop.createSession({ email: someEmail() }, options);
  await expect(other).rejects.toMatchObject({ code: 'idempotencyKeyReused', status: 422 });
});

test.each<[string, (shop: ThroughlineServer, id: string) => Promise<unknown>]>([
  ['getSession', (shop, id) => shop.getSession(id)],
  ['getSessions', (shop, id) => shop.getSessions([id])],
  ['validateSession', (shop, id) => shop.validateSession(id)],
  ['extendSession', (shop, id) => shop.extendSession(id)],
  ['getByEmail', (shop) => shop.getByEmail('nobody@example.com')],
  ['stats', (shop) => shop.stats()],
  ['events', (shop, id) => shop.events(id)],
  ['issueToken', (shop, id) => shop.issueToken(id)],
  ['verifyToken', (shop) => shop.verifyToken('made-up')],
  ['revokeAccess', (shop, id) => shop.revokeAccess(id)],
  ['exportData', (shop, id) => shop.exportData({ sessionId: id })],
  ['eraseData', (shop, id) => shop.eraseData({ sessionId: id })],
  ['deleteSession', (shop, id) => shop.deleteSession(id)],
  ['deleteSessions', (shop, id) => shop.deleteSessions([id])],
])('%s is asked again when request or answer were lost', async (_, call) => {
  const { session } = await used.shop.createSession();
  const before = used.between.seen.length;
  used.between.fates = ['requestLost', 'answerLost', { status: 502, body: '<html>' }];
  await call(used.shop, session.id);
  expect(used.between.since(before)).toHaveLength(4);
});

test('what is only for a moment is asked again, not before the server wants it', async () => {
  const { session } = await used.shop.createSession();
  const before = used.between.seen.length;
  used.between.fates = [unavailable];
  expect(await used.shop.getSession(session.id)).toMatchObject({ id: session.id });
  const [first, second] = used.between.seen.slice(before);
  // Timers may be a little early.
  expect(second!.at - first!.at).toBeGreaterThanOrEqual(990);
});

test('between tries is a random time, up to one that doubles', async () => {
  const gaps = async (random: number) => {
    vi.spyOn(Math, 'random').mockReturnValue(random);
    const before = used.between.seen.length;
    used.between.fates = ['requestLost', 'requestLost', 'requestLost'];
    await used.shop.getSession('ws_a');
    const times = used.between.seen.slice(before).map(({ at }) => at);
    return times.slice(1).map((at, index) => at - times[index]!);
  };
  const longest = await gaps(0.99);
  for (const [index, atLeast] of [95, 190, 390].entries()) expect(longest[index]).toBeGreaterThanOrEqual(atLeast);
  // However busy the machine is, nobody waits that long for nothing.
  for (const gap of await gaps(0)) expect(gap).toBeLessThan(Math.max(...longest));
});

test.each([429, 502, 503, 504])('%i is asked again as often as is said, and then is the error', async (status) => {
  const before = used.between.seen.length;
  used.between.fates = Array(3).fill({ ...unavailable, status, headers: {} });
  const error = await thrownBy(used.with({ retries: 2 }).getSession('ws_a'));
  expect(error).toMatchObject({ code: 'unavailable', status });
  expect(used.between.since(before)).toHaveLength(3);
});

test.each([
  [400, 'badRequest'],
  [401, 'serviceKeyUnknown'],
  [403, 'scopeMissing'],
  [409, 'versionConflict'],
  [410, 'sessionErased'],
  [422, 'invalidBody'],
  [500, 'internal'],
])('%i %s is asked once', async (status, code) => {
  const before = used.between.seen.length;
  used.between.fates = [{ status, body: JSON.stringify({ code, title: 'No', status }) }];
  expect(await thrownBy(used.shop.getSession('ws_a'))).toMatchObject({ code, status });
  expect(used.between.since(before)).toHaveLength(1);
});

test('of two equal requests at once, the second waits for the answer of the first', async () => {
  // As the server answers while the first of them runs.
  const running = { status: 409, body: JSON.stringify({ code: 'idempotencyKeyInProgress', title: 'Wait', status: 409 }) };
  used.between.fates = [running, running];
  const before = used.between.seen.length;
  expect((await used.shop.createSession()).session.id).toBeTruthy();
  expect(used.between.since(before)).toHaveLength(3);
});

test('nobody waits longer than the call may take', async () => {
  const before = used.between.seen.length;
  used.between.fates = [{ ...unavailable, headers: { 'retry-after': '3600' } }];
  const error = await thrownBy(used.shop.getSession('ws_a'));
  expect(error).toMatchObject({ code: 'unavailable', status: 503, retryAfterMs: 3_600_000 });
  expect(used.between.since(before)).toHaveLength(1);
});

test('a date to come back at is understood as well', async () => {
  const at = new Date(Date.now() + 3_600_000);
  used.between.fates = [{ ...unavailable, headers: { 'retry-after': at.toUTCString() } }];
  const error = (await thrownBy(used.shop.getSession('ws_a'))) as { retryAfterMs: number };
  expect(error.retryAfterMs).toBeGreaterThan(3_500_000);
  expect(error.retryAfterMs).toBeLessThanOrEqual(3_600_000);
});

test('connections are kept for the next call', async () => {
  const before = used.between.connections;
  for (let index = 0; index < 5; index++) await used.shop.getSession('ws_a');
  expect(used.between.connections - before).toBeLessThanOrEqual(1);
});
