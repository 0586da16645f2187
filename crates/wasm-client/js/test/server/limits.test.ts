import { getEventListeners } from 'node:events';
import { expect, test } from 'vitest';

import { someEmail, thrownBy, useShop } from './shop.js';

const used = useShop();

/** Aborts when the next request has come by. */
async function abortedOnTheWay(call: (signal: AbortSignal) => Promise<unknown>, reason?: unknown): Promise<[AbortSignal, unknown]> {
  const before = used.between.seen.length;
  used.between.fates = ['silence'];
  const life = new AbortController();
  const thrown = thrownBy(call(life.signal));
  await expect.poll(() => used.between.since(before)).toHaveLength(1);
  life.abort(reason);
  return [life.signal, await thrown];
}

test('a call ends with its signal, for the reason of that, and is not tried again', async () => {
  const before = used.between.seen.length;
  const [signal, thrown] = await abortedOnTheWay((signal) => used.shop.getSession('ws_a', { signal }));
  expect(thrown).toBe(signal.reason);
  expect(thrown).toMatchObject({ name: 'AbortError' });
  expect(getEventListeners(signal, 'abort')).toEqual([]);
  const reason = new Error('the buyer has left');
  expect((await abortedOnTheWay((signal) => used.shop.createSession({}, { signal }), reason))[1]).toBe(reason);
  expect(used.between.since(before)).toHaveLength(2);
});

test('a call with a signal that has aborted is not sent', async () => {
  const before = used.between.seen.length;
  for (const shop of [used.shop, used.shop.forRequest()]) {
    expect(await thrownBy(shop.getSession('ws_a', { signal: AbortSignal.abort('before') }))).toBe('before');
  }
  expect(used.between.since(before)).toEqual([]);
});

test('the signal ends the wait for another try as well', async () => {
  const life = new AbortController();
  const before = used.between.seen.length;
  used.between.fates = [{ status: 503, headers: { 'retry-after': '3600' } }];
  const thrown = thrownBy(used.shop.getSession('ws_a', { signal: life.signal, timeoutMs: 7_200_000 }));
  await expect.poll(() => used.between.since(before)).toHaveLength(1);
  life.abort('enough');
  expect(await thrown).toBe('enough');
});

test('nothing listens to the signal of a call that has ended', async () => {
  const life = new AbortController();
  for (const shop of [used.shop, used.shop.forRequest()]) await shop.getSession('ws_a', { signal: life.signal });
  expect(getEventListeners(life.signal, 'abort')).toEqual([]);
});

test('a try that gets no answer is followed by another', async () => {
  const email = someEmail();
  used.between.fates = ['silence'];
  const { session } = await used.with({ tryTimeoutMs: 300 }).createSession({ email });
  expect((await used.shop.getByEmail(email)).map(({ id }) => id)).toEqual([session.id]);
});

test('a call takes no longer than it may, with all its tries', async () => {
  used.between.fates = ['silence', 'silence', 'silence'];
  const thrown = await thrownBy(used.shop.getSession('ws_a', { timeoutMs: 200 }));
  expect(thrown).toMatchObject({ name: 'ThroughlineError', code: 'timedOut', status: undefined, mendableBy: 'retry' });
  used.between.fates = ['silence', 'silence'];
  expect(await thrownBy(used.with({ tryTimeoutMs: 100, retries: 1 }).getSession('ws_a'))).toMatchObject({ code: 'timedOut' });
  used.between.fates = [];
});

test('also where its fetch knows no limits', async () => {
  const shop = used.with({ fetch: () => new Promise(() => undefined), timeoutMs: 100 });
  expect(await thrownBy(shop.getSession('ws_a'))).toMatchObject({ code: 'timedOut' });
  const life = new AbortController();
  const thrown = thrownBy(shop.getSession('ws_a', { signal: life.signal }));
  life.abort('enough');
  expect(await thrown).toBe('enough');
});

test('a fetch of the own is given what it needs', async () => {
  const asked: [string, string | undefined][] = [];
  const shop = used.with({
    url: `${used.between.url}/`,
    fetch: (address, init) => {
      asked.push([address, init.method]);
      return fetch(address, init);
    },
  });
  expect(await shop.getSession('ws_a')).toBeNull();
  expect(asked).toEqual([[`${used.between.url}/v1/sessions/ws_a`, 'GET']]);
});

test('a time that no timer can be set to is the longest that there is, and what is none is refused', async () => {
  for (const ms of [Infinity, 2 ** 31]) {
    expect(await used.with({ timeoutMs: ms, tryTimeoutMs: ms }).getSession('ws_a_b')).toBeNull();
    expect(await used.shop.getSession('ws_a_b', { timeoutMs: ms })).toBeNull();
  }
  for (const ms of [NaN, -1, '1' as unknown as number]) {
    expect(() => used.with({ timeoutMs: ms })).toThrow('`timeoutMs` has to be a time');
    expect(() => used.with({ tryTimeoutMs: ms })).toThrow('`tryTimeoutMs` has to be a time');
    expect(await thrownBy(used.shop.getSession('ws_a_b', { timeoutMs: ms }))).toBeInstanceOf(TypeError);
  }
});
