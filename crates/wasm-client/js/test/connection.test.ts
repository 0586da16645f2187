import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Connection } from '../src/transport/connection.js';

const MINUTE_MS = 60_000;

beforeEach(() => {
  vi.useFakeTimers();
  // As in Node.js before 22.
  vi.stubGlobal('WebSocket', undefined);
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test('where there are no WebSockets requests are used at once, and nothing else is tried later', async () => {
  const asked: string[] = [];
  vi.stubGlobal('fetch', async (address: string) => {
    asked.push(address);
    // The server waits for something to tell.
    return asked.length === 1 ? Response.json({ frames: [{ type: 'pong' }] }) : new Promise(() => undefined);
  });
  const received: string[] = [];
  const connection = new Connection('https://checkout.shop.example', {
    isInCookie: () => false,
    opened: () => undefined,
    received: (frame) => void received.push(frame),
    lost: () => expect.unreachable('it is as good as it gets'),
    hello: () => '{"type":"hello"}',
  });
  connection.resume();
  expect(connection.transport).toBe('requests');
  await vi.waitFor(() => expect(received).toEqual(['{"type":"pong"}']));
  await vi.advanceTimersByTimeAsync(3 * MINUTE_MS);
  expect(connection.transport).toBe('requests');
  expect(asked).toEqual(['https://checkout.shop.example/v1/sync', 'https://checkout.shop.example/v1/sync']);
});
