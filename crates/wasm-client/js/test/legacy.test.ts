import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest';

import type { Funnel, Session } from '../generated/types.js';
import type * as legacy from '../src/legacy.js';
import { minor, toLegacy } from '../src/legacy/shapes.js';

/** A network that leads nowhere: whatever is seen here, this page decided by itself. */
class SilentSocket extends EventTarget {
  static readonly OPEN = 1;
  readonly readyState = 0;
  binaryType = '';
  send(): void {}
  close(): void {}
}

/** A server that tells its time, by which the device's clock is wrong, and nothing else. */
class TellingSocket extends SilentSocket {
  static aheadMs = 0;
  onopen?: () => void;
  onmessage?: (message: { data: string }) => void;

  constructor() {
    super();
    queueMicrotask(() => {
      this.onopen?.();
      const serverTime = new Date(Date.now() + TellingSocket.aheadMs).toISOString();
      this.onmessage?.({ data: JSON.stringify({ type: 'pong', serverTime }) });
    });
  }
}

const hourMs = 3_600_000;

let funnel: Funnel;
let module: Buffer;

beforeAll(async () => {
  module = await readFile(new URL('../generated/throughline_bg.wasm', import.meta.url));
  vi.stubGlobal('WebSocket', SilentSocket);
  funnel = {
    id: 'default', version: 1, name: 'Default', currency: 'USD',
    lifetime: { default: '24h', max: '7d', warning: '30m' },
    catalogue: [
      { id: 'six', name: 'Six bottles', price: 29_400 },
      { id: 'one', name: 'One bottle', price: 7_950 },
      { id: 'relax', name: 'Relax', price: 29_400 },
    ],
    coupons: [{ code: 'SAVE10', discount: { percent: 1000 } }],
    offers: [{ id: 'RC6', product: 'relax', name: 'Relax', price: 19_900 }],
    steps: [
      { id: 'checkout', kind: 'form', next: ['processing'] },
      { id: 'processing', kind: 'payment', next: ['upsell-1'], back: ['checkout'], requires: ['email', 'products'] },
      { id: 'upsell-1', kind: 'offer', offers: ['RC6'], next: ['success'], requires: ['payment'] },
      { id: 'success', kind: 'terminal', requires: ['payment'] },
    ],
  } as unknown as Funnel;
});

afterAll(() => vi.unstubAllGlobals());

let FunnelSessionManager: typeof legacy.FunnelSessionManager;
let manager: legacy.FunnelSessionManager;
let refusals: legacy.LegacyCallRefused[];

/** A page of its own: the manager is one for each page. */
async function page(options: Partial<legacy.LegacyOptions> = {}): Promise<void> {
  for (const { id } of manager?.getAllActiveSessions() ?? []) manager.deleteSession(id);
  vi.resetModules();
  ({ FunnelSessionManager } = await import('../src/legacy.js'));
  refusals = [];
  manager = await FunnelSessionManager.ready({
    url: 'http://127.0.0.1:9', funnel, wasm: module, storage: 'memory', onRefused: (refusal) => refusals.push(refusal), ...options,
  });
}

beforeEach(() => page());

const product = { id: 'six', name: 'Six bottles', price: 294, quantity: 1 };
const create = () => manager.createSession({ email: 'ada@example.com', products: [product] });

/** What a call was refused with. */
function refusal(call: () => unknown): { method: string; code: string } {
  try {
    call();
  } catch (error) {
    const { name, method, code } = error as legacy.LegacyCallRefused;
    expect(name).toBe('LegacyCallRefused');
    return { method, code };
  }
  throw new Error('it was not refused');
}

test('every call before the sessions are loaded says what to await', async () => {
  vi.resetModules();
  const { FunnelSessionManager, funnelSessionManager: early } = await import('../src/legacy.js');
  expect(FunnelSessionManager.getInstance()).toBe(early);
  const calls: [string, () => unknown][] = [
    ['createSession', () => early.createSession({ email: '', products: [] })],
    ['getSession', () => early.getSession('ws_a')],
    ['updateSession', () => early.updateSession('ws_a', {})],
    ['setSessionStatus', () => early.setSessionStatus('ws_a', 'processing')],
    ['setCurrentStep', () => early.setCurrentStep('ws_a', 'checkout')],
    ['setVaultId', () => early.setVaultId('ws_a', '1')],
    ['setTransactionId', () => early.setTransactionId('ws_a', '1')],
    ['acceptUpsell', () => early.acceptUpsell('ws_a', 'RC6')],
    ['declineUpsell', () => early.declineUpsell('ws_a', 'RC6')],
    ['setBillingInfo', () => early.setBillingInfo('ws_a', {})],
    ['setShippingInfo', () => early.setShippingInfo('ws_a', {})],
    ['getSessionsByEmail', () => early.getSessionsByEmail('')],
    ['deleteSession', () => early.deleteSession('ws_a')],
    ['cleanupExpiredSessions', () => early.cleanupExpiredSessions()],
    ['getSessionStats', () => early.getSessionStats()],
    ['getAllActiveSessions', () => early.getAllActiveSessions()],
  ];
  for (const [method, call] of calls) expect(refusal(call)).toEqual({ method, code: 'notReady' });
  await expect(FunnelSessionManager.ready()).rejects.toMatchObject({ code: 'notReady' });
  expect(early.stopCleanupInterval()).toBeUndefined();
});

test('a session is created at once, in its legacy shape', () => {
  const before = Date.now();
  const session = manager.createSession({
    email: 'ada@example.com',
    products: [product, { id: 'one', name: 'One bottle', price: 79.5, quantity: 2 }],
    customerInfo: { firstName: 'Ada', phone: '555-010-1020', address: '20 Example Street', state: 'CA' },
    couponCode: 'SAVE10',
    metadata: { campaign: 'spring' },
  });
  expect(session).toEqual({
    id: expect.stringMatching(/^ws_/),
    email: 'ada@example.com',
    customerInfo: { firstName: 'Ada', phone: '555-010-1020', address: '20 Example Street', state: 'CA' },
    billingInfo: { address: '20 Example Street', state: 'CA' },
    products: [product, { id: 'one', name: 'One bottle', price: 79.5, quantity: 2 }],
    status: 'initiated',
    amount: 453,
    currentStep: 'checkout',
    upsellsAccepted: [],
    upsellsDeclined: [],
    couponCode: 'SAVE10',
    metadata: { campaign: 'spring' },
    createdAt: expect.any(Date),
    updatedAt: expect.any(Date),
    expiresAt: expect.any(Date),
  });
  expect(session.expiresAt.getTime() - before).toBeGreaterThan(23 * 3_600_000);
  expect(manager.getSession(session.id)).toEqual(session);
  expect(manager.getSession('ws_another')).toBeNull();
  expect(manager.checkout(session.id)?.getSnapshot().amount).toBe(40_770);
});

test('what a page does to the copy that it was given changes nothing', () => {
  const session = create();
  session.products[0]!.price = 0.01;
  session.createdAt.setTime(0);
  expect(manager.getSession(session.id)).toMatchObject({ products: [product] });
  expect(manager.getSession(session.id)!.createdAt.getTime()).toBeGreaterThan(0);
});

test('an update changes the fields that are named, at once', () => {
  const { id } = create();
  const changed = manager.updateSession(id, {
    email: 'grace@example.com',
    customerInfo: { firstName: 'Grace', zipCode: '94020' },
    products: [{ ...product, quantity: 3 }],
    couponCode: 'save10',
    metadata: { a: { b: 1, c: 2 } },
    orderId: 'order-7',
    upsells: [{ step: 1, productCode: 'RC6', amount: 199, bottles: 6, transactionId: 'tx', timestamp: '2026-11-20T09:00:00Z' }],
  });
  expect(changed).toMatchObject({
    email: 'grace@example.com',
    customerInfo: { firstName: 'Grace', zipCode: '94020' },
    products: [{ quantity: 3 }],
    amount: 882,
    couponCode: 'SAVE10',
    metadata: { a: { b: 1, c: 2 } },
    orderId: 'order-7',
    upsells: [{ step: 1, productCode: 'RC6', amount: 199, bottles: 6, timestamp: '2026-11-20T09:00:00Z' }],
  });
  expect(JSON.stringify(changed)).not.toContain('"tx"');
  // Metadata was replaced as a whole.
  expect(manager.updateSession(id, { metadata: { a: { c: 2 } } })).toMatchObject({ metadata: { a: { c: 2 } }, orderId: 'order-7' });
  expect(manager.getSession(id)!.metadata).toEqual({ a: { c: 2 } });
  expect(manager.updateSession(id, { metadata: { b: [1] } })!.metadata).toEqual({ b: [1] });
  expect(manager.updateSession('ws_another', { email: 'a@b.example' })).toBeNull();
});

test('names that every object inherits are names like any other', () => {
  const text = '{"__proto__":{"admin":true},"constructor":{"name":"Ada"},"in":{"__proto__":{"admin":true},"toString":1}}';
  const metadata = JSON.parse(text) as Record<string, unknown>;
  const { id } = manager.createSession({ email: 'ada@example.com', products: [], metadata });
  const shown = () => JSON.stringify(manager.getSession(id)!.metadata);
  expect(shown()).toBe(text);
  expect(manager.getSession(id)!.metadata).not.toHaveProperty('admin');

  // Changed and removed as any other.
  const changed = '{"__proto__":{"admin":false},"in":{"a":1}}';
  manager.updateSession(id, { metadata: JSON.parse(changed) as Record<string, unknown> });
  expect(shown()).toBe(changed);
  manager.updateSession(id, { metadata: { in: {} } });
  expect(shown()).toBe('{"in":{}}');
  // Added to what has no such name.
  manager.updateSession(id, { metadata: metadata });
  expect(JSON.parse(shown())).toEqual(metadata);
  expect(Object.keys(manager.getSession(id)!.metadata!)).toContain('__proto__');

  manager.updateSession(id, JSON.parse('{"__proto__":{"orderId":"order-7"},"other":1}') as object);
  expect(manager.getSession(id)!.orderId).toBeUndefined();
  const kept = (manager.checkout(id)!.getSnapshot().metadata as { legacy: object }).legacy;
  expect(JSON.stringify(kept)).toBe('{"__proto__":{"orderId":"order-7"},"other":1}');
  expect({}).not.toHaveProperty('admin');
});

test('giving back the session as it was read issues nothing', () => {
  const session = create();
  const checkout = manager.checkout(session.id)!;
  const { pending } = checkout.sync;
  expect(manager.updateSession(session.id, session)).toEqual(session);
  expect(checkout.sync.pending).toBe(pending);
});

test('billing and shipping are set each by itself', () => {
  const { id } = create();
  manager.setBillingInfo(id, { address: '1 Bank Street', city: 'Springfield', state: 'NY', zipCode: '10001', country: 'US' });
  const both = manager.setShippingInfo(id, { firstName: 'Ada', lastName: 'Lovelace', address: '2 Home Street', state: 'CA' });
  expect(both).toMatchObject({
    billingInfo: { address: '1 Bank Street', city: 'Springfield', state: 'NY', zipCode: '10001', country: 'US' },
    shippingInfo: { firstName: 'Ada', lastName: 'Lovelace', address: '2 Home Street', state: 'CA' },
  });
});

test('an address that is given for the bill leaves the goods where they were, and the flat one with them', () => {
  const place = { address: '1 Example Street', city: 'San Francisco', state: 'CA', zipCode: '94001' };
  const bill = { address: '2 Bank Street', city: 'Austin', state: 'TX', zipCode: '78701' };
  const { id } = manager.createSession({ email: 'ada@example.com', products: [product], customerInfo: { firstName: 'Ada', ...place } });
  const both = manager.setBillingInfo(id, bill)!;
  expect(both.customerInfo).toMatchObject({ firstName: 'Ada', ...place });
  expect(both.billingInfo).toEqual(bill);
  const moved = manager.updateSession(id, { customerInfo: { ...place, address: '3 Example Street' } })!;
  expect(moved).toMatchObject({ customerInfo: { address: '3 Example Street', state: 'CA' }, billingInfo: bill });
});

test('paying is begun by the status or by the step, and by nothing else', () => {
  const first = create();
  expect(manager.setSessionStatus(first.id, 'initiated')).toEqual(first);
  expect(manager.setSessionStatus(first.id, 'processing')).toMatchObject({ status: 'processing', currentStep: 'processing' });
  for (const status of ['completed', 'failed', 'initiated'] as const) {
    expect(refusal(() => manager.setSessionStatus(first.id, status))).toEqual({ method: 'setSessionStatus', code: 'notPermitted' });
  }
  const second = create();
  expect(manager.setCurrentStep(second.id, 'processing')).toMatchObject({ status: 'processing', currentStep: 'processing' });
  expect(refusal(() => manager.setCurrentStep(second.id, 'success'))).toMatchObject({ method: 'setCurrentStep' });
  expect(manager.getSession(second.id)!.currentStep).toBe('processing');
});

test('payment references have no way in', () => {
  const { id } = create();
  expect(refusal(() => manager.setVaultId(id, '18374'))).toEqual({ method: 'setVaultId', code: 'notPermitted' });
  expect(refusal(() => manager.setTransactionId(id, 'tx'))).toEqual({ method: 'setTransactionId', code: 'notPermitted' });
  expect(refusal(() => manager.updateSession(id, { amount: 1 }))).toEqual({ method: 'updateSession', code: 'notPermitted' });
  expect(manager.updateSession(id, { amount: 294 })).not.toBeNull();
});

test('a price of the browser is refused, and nothing is created', () => {
  const cheap = { ...product, price: 0.01 };
  expect(refusal(() => manager.createSession({ email: 'ada@example.com', products: [cheap] }))).toEqual({ method: 'createSession', code: 'priceNotAllowed' });
  expect(manager.getAllActiveSessions()).toEqual([]);
  const { id } = create();
  expect(refusal(() => manager.updateSession(id, { email: 'eve@example.com', products: [cheap] })).code).toBe('priceNotAllowed');
  expect(manager.getSession(id)!.email).toBe('ada@example.com');
});

test('an offer is answered only after it was made', () => {
  const { id } = create();
  expect(refusal(() => manager.acceptUpsell(id, 'RC6'))).toEqual({ method: 'acceptUpsell', code: 'offerNotMade' });
  expect(refusal(() => manager.declineUpsell(id, 'relax'))).toEqual({ method: 'declineUpsell', code: 'offerNotMade' });
  expect(refusal(() => manager.updateSession(id, { upsellsAccepted: ['RC6'] }))).toEqual({ method: 'updateSession', code: 'offerNotMade' });
});

test('in compatibility mode the same is left out, told and counted', async () => {
  await page({ compatibility: true });
  const session = manager.createSession({ email: 'not an address', products: [{ ...product, price: 0.01 }], couponCode: 'GONE', metadata: { a: 1 } });
  expect(session).toMatchObject({ email: '', products: [product], amount: 294, metadata: { a: 1 } });
  expect(session.couponCode).toBeUndefined();
  expect(manager.acceptUpsell(session.id, 'RC6')).toEqual(session);
  expect(manager.acceptUpsell(session.id, 'RC6')).toEqual(session);
  expect(manager.setSessionStatus(session.id, 'completed')).toEqual(session);
  expect(manager.setVaultId(session.id, '18374')).toEqual(session);
  expect(manager.exceptions).toContainEqual({ method: 'acceptUpsell', code: 'offerNotMade', count: 2 });
  expect(manager.exceptions).toContainEqual({ method: 'setSessionStatus', code: 'notPermitted', count: 1 });
  expect(manager.exceptions).toContainEqual({ method: 'setVaultId', code: 'notPermitted', count: 1 });
  const ofCreate = manager.exceptions.filter(({ method }) => method === 'createSession').map(({ code }) => code);
  expect(ofCreate).toEqual(expect.arrayContaining(['priceNotAllowed', 'invalidField', 'unknownCoupon']));
  expect(refusals).toHaveLength(manager.exceptions.reduce((sum, { count }) => sum + count, 0));
});

test('without a listener the console is told the code and none of the data', async () => {
  await page({ compatibility: true, onRefused: undefined as never });
  const warned = vi.spyOn(console, 'warn').mockImplementation(() => undefined);
  const { id } = create();
  manager.updateSession(id, { email: 'no address of ada' });
  expect(warned.mock.calls).toEqual([['throughline/legacy: updateSession was refused (invalidField)']]);
  warned.mockRestore();
});

test('sessions are found by email, listed, counted, deleted', async () => {
  const first = create();
  const second = manager.createSession({ email: 'grace@example.com', products: [] });
  expect(manager.getSessionsByEmail('grace@example.com')).toEqual([second]);
  expect(manager.getAllActiveSessions()).toEqual([first, second]);
  manager.setSessionStatus(first.id, 'processing');
  expect(manager.getSessionStats()).toEqual({
    total: 2,
    byStatus: { processing: 1, initiated: 1 },
    byStep: { processing: 1, checkout: 1 },
    expired: 0,
  });
  expect(manager.deleteSession(first.id)).toBe(true);
  expect(manager.deleteSession(first.id)).toBe(false);
  expect(manager.getSession(first.id)).toBeNull();
  expect(manager.cleanupExpiredSessions()).toBe(0);
});

test('a session whose time is over is not there any more, and is cleaned up', () => {
  const { id, expiresAt } = create();
  vi.useFakeTimers({ toFake: ['Date'], now: expiresAt.getTime() + 1 });
  try {
    expect(manager.getSession(id)).toBeNull();
    expect(manager.setCurrentStep(id, 'processing')).toBeNull();
    expect(manager.getSessionStats()).toMatchObject({ total: 1, expired: 1 });
    expect(manager.cleanupExpiredSessions()).toBe(1);
    expect(manager.getSessionStats()).toMatchObject({ total: 0, expired: 0 });
  } finally {
    vi.useRealTimers();
  }
});

test.each([['behind', hourMs], ['ahead', -hourMs]])("where the device's clock is an hour %s, a session lives and is extended by the server's", async (_name, aheadMs) => {
  TellingSocket.aheadMs = aheadMs;
  vi.stubGlobal('WebSocket', TellingSocket);
  try {
    const { id, expiresAt } = create();
    const checkout = manager.checkout(id)!;
    // Set wrong before the server is heard.
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() - aheadMs });
    await vi.waitFor(() => expect(Math.abs(checkout.remaining.session - 24 * hourMs)).toBeLessThan(60_000));

    const later = expiresAt.getTime() + 2 * hourMs;
    const extended = manager.updateSession(id, { expiresAt: new Date(later) })!.expiresAt.getTime();
    expect(Math.abs(extended - later)).toBeLessThan(1000);

    vi.setSystemTime(extended - aheadMs - 1000);
    expect(manager.getSession(id)).not.toBeNull();
    expect(manager.setCurrentStep(id, 'checkout')).not.toBeNull();
    vi.setSystemTime(extended - aheadMs + 1);
    expect(manager.getSession(id)).toBeNull();
    expect(manager.cleanupExpiredSessions()).toBe(1);
  } finally {
    vi.useRealTimers();
    vi.stubGlobal('WebSocket', SilentSocket);
  }
});

test('more sessions than are prepared have to be waited for', async () => {
  create();
  create();
  expect(refusal(create)).toEqual({ method: 'createSession', code: 'notReady' });
  await FunnelSessionManager.ready();
  expect(create().status).toBe('initiated');
});

test('answered offers stand in the legacy lists', () => {
  const session = {
    id: 'ws_a', email: null, status: 'processing', currentStep: 'upsell-2', currency: 'USD', couponCode: null, products: [],
    customer: {}, totals: { subtotal: 29_401 }, payment: { paidAt: new Date(0) }, metadata: { legacy: { orderId: 'order-7' } },
    createdAt: new Date(0), updatedAt: new Date(1), expiresAt: new Date(2),
    upsells: [
      { offer: 'A', state: 'charged' }, { offer: 'B', state: 'declined' }, { offer: 'C', state: 'accepted' },
      { offer: 'D', state: 'chargeFailed' }, { offer: 'E', state: 'lapsed' }, { offer: 'F', state: 'offered' },
    ],
  } as unknown as Session;
  // Paid: its time does not end it.
  expect(toLegacy(session, 3)).toEqual({
    id: 'ws_a', email: '', products: [], status: 'processing', amount: 294.01, currentStep: 'upsell-2',
    upsellsAccepted: ['A', 'C'], upsellsDeclined: ['B'], orderId: 'order-7',
    createdAt: new Date(0), updatedAt: new Date(1), expiresAt: new Date(2),
  });
  expect(toLegacy({ ...session, status: 'expired' }, 3)).toBeNull();
});

test('the legacy lists name offers as the old manager did: by the code of the offer', async () => {
  const inRepository = (path: string) => readFile(new URL(`../../../../${path}`, import.meta.url), 'utf8');
  const offers = new Map<string, string>();
  const definition = await inRepository('crates/core/funnels/default.toml');
  for (const [, id, product] of definition.matchAll(/\[\[offers\]\]\nid = "(.+)"\nproduct = "(.+)"/g)) offers.set(id!, product!);
  const fixture = await inRepository('tests/fixtures/legacy/localstorage-twelve-buyers.json');
  const sessions = Object.values(JSON.parse(fixture) as Record<string, legacy.FunnelSessionData>);
  const answered = sessions.filter(({ upsellsAccepted }) => upsellsAccepted.length > 0);
  expect(answered.length).toBeGreaterThan(0);
  const session = manager.checkout(create().id)!.getSnapshot();
  for (const { upsellsAccepted } of answered) {
    const upsells = upsellsAccepted.map((offer) => ({ offer, product: offers.get(offer), state: 'charged' }));
    expect(upsells.every(({ product }) => product !== undefined), 'the fixtures name offers').toBe(true);
    expect(toLegacy({ ...session, upsells } as unknown as Session, 0)!.upsellsAccepted).toEqual(upsellsAccepted);
  }
});

test.each([
  [294, 29_400], ['$79.50', 7950], ['19.99', 1999], [0.1 + 0.2, 30], ['free', undefined], [Number.NaN, undefined], [null, undefined],
])('a price of %s is %s cents', (price, cents) => {
  expect(minor(price, 'USD')).toBe(cents);
});
