import { getEventListeners } from 'node:events';

import { expect, test } from 'vitest';

import { timeLimit } from '../src/time-limit.js';

const longMs = 60_000;

test('aborts with the signal, and for its reason', () => {
  const life = new AbortController();
  const signal = timeLimit(longMs, life.signal);
  expect(signal.aborted).toBe(false);
  life.abort('closed');
  expect([signal.aborted, signal.reason]).toEqual([true, 'closed']);
});

test('aborts at once where the signal has', () => {
  expect(timeLimit(longMs, AbortSignal.abort('before')).reason).toBe('before');
});

test.each([undefined, new AbortController().signal])('aborts when the time is over, and listens to nothing then', async (life) => {
  const signal = timeLimit(1, life);
  await new Promise((resolve) => signal.addEventListener('abort', resolve));
  expect(signal.reason).toMatchObject({ name: 'TimeoutError' });
  if (life) expect(getEventListeners(life, 'abort')).toEqual([]);
});
