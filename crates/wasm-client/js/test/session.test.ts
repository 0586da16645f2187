// @vitest-environment happy-dom
import { readFile } from 'node:fs/promises';
import { afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';

import type { Funnel } from '../generated/types.js';
import { type CheckoutSession, openSession } from '../src/index.js';

/** A network that leads nowhere. */
class SilentSocket {
  static readonly OPEN = 1;
  readonly readyState = 0;
  send(): void {}
  close(): void {}
}

const inPackage = (path: string) => readFile(`${import.meta.dirname}/../${path}`);
const hangs = Symbol('it hangs');
const patienceMs = 2000;

let funnel: Funnel;
let wasm: Uint8Array<ArrayBuffer>;
let session: CheckoutSession;

beforeAll(async () => {
  wasm = new Uint8Array(await inPackage('generated/throughline_bg.wasm'));
  const verdicts = JSON.parse(String(await inPackage('../../core/tests/golden/verdicts.json'))) as { funnels: Record<string, Funnel> };
  funnel = verdicts.funnels['default']!;
});

beforeEach(async () => {
  vi.stubGlobal('WebSocket', SilentSocket);
  session = await openSession({ url: 'https://checkout.shop.example', funnel, wasm, storage: 'memory' });
});

afterEach(async () => {
  await session.close();
  vi.unstubAllGlobals();
});

/** The code of what a promise is rejected with; `hangs` where nothing comes of it. */
function outcome(promise: Promise<unknown>): Promise<unknown> {
  const late = new Promise((resolve) => setTimeout(() => resolve(hangs), patienceMs));
  return Promise.race([promise.then(() => 'resolved', ({ name, code }: { name: string; code: string }) => `${name} ${code}`), late]);
}

test('metadata is frozen as deep as it goes: writing to it throws, and changes no session', () => {
  const given = { a: { b: [1, { c: 2 }] }, list: [[{ d: 3 }]] };
  session.setMetadata(given);
  const shown = JSON.stringify(session.getSnapshot().metadata);
  expect(JSON.parse(shown)).toEqual(given);
  const metadata = session.getSnapshot().metadata as unknown as typeof given & { other?: number };
  const writes: (() => unknown)[] = [
    () => (metadata.other = 1),
    () => (metadata.a.b = []),
    () => (metadata.a.b[0] = 2),
    () => ((metadata.a.b[1] as { c: number }).c = 3),
    () => (metadata.list[0]![0]!.d = 4),
    () => metadata.a.b.push(5),
    () => metadata.list[0]!.pop(),
    () => delete (metadata as Partial<typeof given>).list,
    () => Object.setPrototypeOf(metadata.a, null),
  ];
  for (const write of writes) expect(write, String(write)).toThrow(TypeError);
  expect(JSON.stringify(session.getSnapshot().metadata)).toBe(shown);

  // Nor does what the page does to its own object, and later changes are frozen as well.
  given.a.b.push(9);
  expect(JSON.stringify(session.getSnapshot().metadata)).toBe(shown);
  session.setMetadata({ a: { e: { f: 1 } } });
  const later = session.getSnapshot().metadata as { a: { b: unknown[]; e: { f: number } } };
  expect(() => (later.a.e.f = 2)).toThrow(TypeError);
  expect(() => later.a.b.push(2)).toThrow(TypeError);
  expect(later.a).toEqual({ b: [1, { c: 2 }], e: { f: 1 } });
});

test('every call on a closed session is answered', async () => {
  const pending = session.setEmail('ada@example.com');
  const told: unknown[] = [];
  session.subscribe(() => told.push('changed'));
  session.on('rejected', () => told.push('rejected'));
  const before = session.getSnapshot();
  await session.close();
  expect(await outcome(pending.accepted)).toBe('SessionError closed');
  expect(await outcome(pending.durable)).toBe('SessionError closed');
  told.length = 0;

  const commands = {
    setEmail: () => session.setEmail('grace@example.com'),
    setCustomer: () => session.setCustomer({ firstName: 'Ada' }),
    setItems: () => session.setItems([]),
    setCoupon: () => session.setCoupon(null),
    goToStep: () => session.goToStep('checkout'),
    beginProcessing: () => session.beginProcessing(),
    acceptUpsell: () => session.acceptUpsell('RC6'),
    declineUpsell: () => session.declineUpsell('RC6'),
    setMetadata: () => session.setMetadata({ a: 1 }),
    extend: () => session.extend(),
    issue: () => session.issue({ type: 'setEmail', email: 'grace@example.com' }),
  };
  for (const [name, issue] of Object.entries(commands)) {
    const receipt = issue();
    expect([name, receipt.seq, await outcome(receipt.accepted), await outcome(receipt.durable)]).toEqual([
      name, 0, 'SessionError closed', 'SessionError closed',
    ]);
  }
  expect(await outcome(session.handoff({ page: 'https://shop.example/' }))).toBe('SessionError closed');
  session.goOnline();
  session.goOffline();
  session.subscribe(() => told.push('changed'));
  session.on('remaining', () => told.push('remaining'));
  expect(await outcome(session.close())).toBe('resolved');

  // What it was stays readable, and nothing is told any more.
  expect(session.getSnapshot()).toBe(before);
  expect(session.getSnapshot().email).toBe('ada@example.com');
  expect(session.sync).toMatchObject({ connection: 'closed' });
  expect(session.funnel.id).toBe(funnel.id);
  expect(session.timeline.map(({ type }) => type)).toEqual(['create', 'setEmail']);
  expect(session.remaining.session).toBeGreaterThan(0);
  expect(told).toEqual([]);

  // What was covered here is all there is.
  const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(session)).filter((name) => {
    const { value } = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(session), name)!;
    return typeof value === 'function' && !INTERNAL.has(name);
  });
  expect(methods.sort()).toEqual([...Object.keys(commands), 'close', 'goOffline', 'goOnline', 'handoff', 'on'].sort());
});

/** What the package calls itself. */
const INTERNAL = new Set([
  'constructor', 'replay', 'access', 'connect', 'changed', 'confirmed', 'orphanRejected', 'applied', 'failed', 'damaged', 'newerStorage',
]);

test('what is issued while the page comes back, and the session is closed then, is answered', async () => {
  dispatchEvent(new Event('pagehide'));
  dispatchEvent(Object.assign(new Event('pageshow'), { persisted: true }));
  const held = session.setEmail('ada@example.com');
  const closing = session.close();
  const late = session.setEmail('grace@example.com');
  await closing;
  for (const receipt of [held, late]) expect(await outcome(receipt.accepted)).toBe('SessionError closed');
});

test('who closes a session that is being closed waits for the same', async () => {
  session.setEmail('ada@example.com');
  let isClosed = false;
  void session.close().then(() => (isClosed = true));
  await session.close();
  expect(isClosed).toBe(true);
});
