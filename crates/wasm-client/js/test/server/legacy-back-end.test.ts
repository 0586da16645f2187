import { expect, test } from 'vitest';

import { legacyBackEnd, LegacyCallRefused, type LegacyBackEnd, type LegacyBackEndOptions, type RowChanges } from '../../src/legacy-server.js';
import { ThroughlineServer } from '../../src/server.js';
import { legacyCookie, someEmail, thrownBy, useShop } from './shop.js';

const used = useShop();

function backEnd(options: Partial<LegacyBackEndOptions> = {}): LegacyBackEnd {
  return legacyBackEnd({ server: used.shop, ...options });
}

const address = { address: '1 Main St', city: 'Austin', state: 'TX', zipCode: '78701', country: 'US' };
const customerInfo = { firstName: 'Ada', lastName: 'Lovelace', phone: '555 0100', ...address };
const products = [{ id: 'fitspresso-3-pack', name: 'Fitspresso 3 Bottle Pack', price: 177, quantity: 2 }];
/** As the old checkout worked it out. */
const sums = { subtotal: 354, tax: 22.13, shipping: 9.95, totalAmount: 386.08 };

/** A request's cookies: those that were sent, and what the answer sets. */
class Cookies {
  readonly set: Record<string, unknown>[] = [];
  readonly #values = new Map<string, string>();
  isReadOnly = false;

  store = () => ({
    get: (name: string) => (this.#values.has(name) ? { value: this.#values.get(name)! } : undefined),
    set: (name: string, value: string, options: object) => {
      if (this.isReadOnly) throw new Error('Cookies can only be modified in a Server Action or Route Handler');
      this.set.push({ name, value, ...options });
      this.#values.set(name, value);
    },
  });

  get value(): string | undefined {
    return this.#values.get('upsell_session');
  }

  set value(value: string) {
    this.#values.set('upsell_session', value);
  }
}

/** A row of the old database that nobody has brought in. */
function legacyRow() {
  const now = Date.now();
  return {
    id: `ws_${crypto.randomUUID().replaceAll('-', '')}`, email: someEmail(), customer_info: customerInfo, products, status: 'pending', amount: 354,
    current_step: 'checkout', upsells_accepted: [], upsells_declined: [], vault_id: null as string | null, transaction_id: null as string | null,
    metadata: sums, created_at: new Date(now - 60_000).toISOString(), updated_at: new Date(now - 30_000).toISOString(),
    expires_at: new Date(now + 3_600_000).toISOString(),
  };
}

/** Begins a session under an id, or goes on with it, as a browser does that knows the id alone; the frames of the answer. */
async function squat(id: string, claim: string): Promise<string> {
  const clientId = `cl_${id.slice(-20)}`;
  const hello = { type: 'hello', protocol: 1, sessionId: id, clientId, knownVersion: 0, claim };
  const create = { clientId, seq: 1, type: 'create', claims: { status: 'pending', step: 'checkout', amount: 0 } };
  const body = JSON.stringify({ frames: [hello, { type: 'submit', commands: [create] }], waitMs: 0 });
  const headers = { 'content-type': 'application/json' };
  return (await fetch(`${used.server.url}/v1/sync`, { method: 'POST', headers, body })).text();
}

async function paid(from = backEnd()): Promise<string> {
  const { id } = await from.databaseSessionManager.createSession({ email: someEmail(), customerInfo, products, metadata: sums });
  await from.databaseSessionManager.updateSession(id, { status: 'processing' });
  await from.databaseSessionManager.completeSession(id, `txn-${id}`, 'vault-1');
  return id;
}

test('a row is created, read and changed in its own words, with dollars as they were', async () => {
  const { databaseSessionManager: database } = backEnd();
  const email = someEmail();
  const metadata = { ...sums, taxRate: 0.0625, taxState: 'TX', campaign: { name: 'spring' } };
  const row = await database.createSession({ email, customerInfo, products, couponCode: undefined!, metadata });
  expect(row).toMatchObject({
    email,
    customer_info: customerInfo,
    products,
    status: 'pending',
    amount: 354,
    current_step: 'checkout',
    upsells_accepted: [],
    upsells_declined: [],
    vault_id: null,
    transaction_id: null,
    metadata: { ...metadata, discount: 0 },
  });
  expect(row.id).toMatch(/^ws_/);
  expect(Date.parse(row.expires_at) - Date.parse(row.created_at)).toBe(24 * 3_600_000);
  expect(await database.getSession(row.id)).toEqual(row);
  expect(await database.getSession('ws_nobody')).toBeNull();

  const changed = await database.updateSession(row.id, {
    customer_info: { ...customerInfo, city: 'Dallas' },
    products: [{ ...products[0]!, price: '88.5' as unknown as number, quantity: 1 }],
    metadata: { tax: 5.53, note: 'gift' },
  });
  expect(changed).toMatchObject({
    customer_info: { ...customerInfo, city: 'Dallas' },
    products: [{ id: 'fitspresso-3-pack', price: 88.5, quantity: 1 }],
    amount: 88.5,
    // What was not named is there still.
    metadata: { campaign: { name: 'spring' }, note: 'gift', tax: 5.53, shipping: 9.95, totalAmount: 103.98 },
  });
  // With the sums that come of it.
  const recounted = { subtotal: 177, tax: 11.06, totalAmount: 198.01 };
  const all = { products, amount: 354, metadata: { ...changed.metadata, ...sums } };
  expect(await database.updateSession(row.id, all)).toMatchObject({ amount: 354, metadata: sums });
  const one = { products: [{ ...products[0]!, quantity: 1 }], amount: 177, metadata: { ...sums, ...recounted } };
  expect(await database.updateSession(row.id, one)).toMatchObject({ amount: 177, metadata: { ...recounted, shipping: 9.95 } });
  await expect(database.updateSession(row.id, { products, metadata: { ...recounted, totalAmount: 1 } })).rejects.toMatchObject({ code: 'amountMismatch' });
  await database.updateSession(row.id, { products: changed.products, metadata: { tax: 5.53 } });
  const again = await database.getSession(row.id);
  expect(again).toEqual({ ...changed, updated_at: again!.updated_at });
  // The whole row back, as old routes do.
  expect(await database.updateSession(row.id, changed)).toEqual(again);
  await expect(database.updateSession('ws_nobody', { email })).rejects.toMatchObject({
    name: 'LegacyCallRefused',
    method: 'updateSession',
    code: 'sessionNotFound',
    message: expect.stringMatching(/^Failed to update session: /) as string,
  });

  expect(await database.deleteSession(row.id)).toBe(true);
  expect(await database.getSession(row.id)).toBeNull();
  expect(await database.deleteSession('ws_nobody')).toBe(false);
  expect(await database.cleanupExpiredSessions()).toBe(0);
});

test('a shop that makes its own ids and sums has those', async () => {
  const { databaseSessionManager: database } = backEnd();
  const id = `ws_${crypto.randomUUID().replaceAll('-', '')}`;
  // Its coupons are credited later: the total is without them.
  const row = await database.createSession({ id, email: someEmail(), customerInfo, products, couponCode: 'SAVE10', metadata: { subtotal: 354, tax: 22.13, totalAmount: 376.13 } });
  expect(row).toMatchObject({ id, coupon_code: 'SAVE10', metadata: { discount: 0, shipping: 0, totalAmount: 376.13 } });
  expect((await used.shop.getSession(id))?.amount).toBe(37_613);
  await expect(database.createSession({ id, email: someEmail(), products })).rejects.toMatchObject({ code: 'sessionExists' });
});

const california = { address: '1 Example Street', city: 'San Francisco', state: 'CA', zipCode: '94001', country: 'US' };
const texas = { address: '1 Billing Street', city: 'Austin', state: 'TX', zipCode: '78701', country: 'US' };

test('the flat address is where the goods go, and the bill may go elsewhere', async () => {
  const cookies = new Cookies();
  const { databaseSessionManager: database, cookieSession } = backEnd({ cookies: cookies.store });
  const ada = { firstName: 'Ada', lastName: 'Lovelace' };
  const data = { email: someEmail(), customerInfo: { ...ada, ...california }, products, metadata: { billingInfo: texas, tax: 25.67 } };
  const row = await database.createSession(data);
  expect(row.customer_info).toEqual({ ...ada, ...california });
  expect(row.metadata).toMatchObject({ billingInfo: texas, tax: 25.67 });
  expect(row.metadata).not.toHaveProperty('shippingInfo');
  expect((await used.shop.getSession(row.id))?.customer).toEqual({ ...ada, shipping: california, billing: texas });
  expect(await database.updateSession(row.id, row)).toEqual(row);

  const moved = await database.updateSession(row.id, { customer_info: { city: 'Oakland' } });
  expect([moved.customer_info, moved.metadata.billingInfo]).toEqual([{ ...ada, ...california, city: 'Oakland' }, texas]);
  const billed = await database.updateSession(row.id, { metadata: { ...moved.metadata, billingInfo: { ...texas, city: 'Dallas' } } });
  expect([billed.customer_info, billed.metadata.billingInfo]).toEqual([moved.customer_info, { ...texas, city: 'Dallas' }]);

  // The cookie's state is that of the goods: it asks for nothing, paid or not.
  await database.updateSessionStatus(row.id, 'processing');
  await database.completeSession(row.id, 'txn-1', 'vault-1');
  const facts = { id: row.id, vaultId: 'vault-1', customerId: '', email: data.email, ...ada, transactionId: 'txn-1', state: 'CA' };
  await cookieSession.createSession(facts);
  expect(await cookieSession.getSession()).toMatchObject({ state: 'CA' });
  await cookieSession.updateSession({ ...facts, createdAt: 0, expiresAt: 0 });
  expect((await database.getSession(row.id))?.metadata.billingInfo).toEqual({ ...texas, city: 'Dallas' });
});

test('an address for the bill that comes later leaves the goods where they go', async () => {
  const { databaseSessionManager: database, cookieSession } = backEnd({ cookies: new Cookies().store });
  const { id } = await database.createSession({ email: someEmail(), customerInfo: california, products });
  const row = await database.updateSession(id, { metadata: { billingInfo: { state: 'TX' } } });
  expect([row.customer_info, row.metadata.billingInfo]).toEqual([california, { state: 'TX' }]);
  // Both have it now, which is once.
  const { id: same } = await database.createSession({ email: someEmail(), customerInfo: california, products, metadata: { billingInfo: california } });
  const once = await database.getSession(same);
  expect([once?.customer_info, once?.metadata.billingInfo]).toEqual([california, undefined]);
  // The state of the cookie goes to where it was read from.
  const facts = { vaultId: '', customerId: '', email: '', firstName: '', lastName: '', transactionId: '' };
  await cookieSession.updateSession({ id, ...facts, createdAt: 0, expiresAt: 0, state: 'NY' });
  const moved = await database.getSession(id);
  expect([moved?.customer_info.state, moved?.metadata.billingInfo]).toEqual(['NY', { state: 'TX' }]);
  // An address that says nothing is none.
  const { session } = await used.shop.createSession({ customer: { shipping: {}, billing: texas } });
  expect(await database.getSession(session.id)).toMatchObject({ customer_info: texas });
  expect(await database.updateSession(session.id, { customer_info: { city: 'Dallas' } })).toMatchObject({ customer_info: { ...texas, city: 'Dallas' } });
  const without = await cookieSession.createSession({ ...facts, state: 'FL' });
  expect((await used.shop.getSession(without))?.customer).toEqual({ billing: { state: 'FL' } });
});

test('names of recipients are beside the addresses, which read back as they were', async () => {
  const { databaseSessionManager: database } = backEnd();
  const { session } = await used.shop.createSession({
    email: someEmail(),
    customer: { firstName: 'Ada', shipping: { firstName: 'Bob', ...california }, billing: { lastName: 'Byron', ...texas } },
    products: [{ id: 'fitspresso-3-pack', quantity: 1 }],
  });
  const row = await database.getSession(session.id);
  expect(row).toMatchObject({
    customer_info: { firstName: 'Ada', ...california },
    metadata: { billingInfo: { lastName: 'Byron', ...texas }, shippingInfo: { firstName: 'Bob', ...california } },
  });
  const { id } = await database.createSession({ email: someEmail(), customerInfo: row!.customer_info, products, metadata: row!.metadata.billingInfo ? { billingInfo: row!.metadata.billingInfo, shippingInfo: row!.metadata.shippingInfo } : {} });
  expect((await used.shop.getSession(id))?.customer).toEqual(session.customer);
});

test('a payment goes from begun to made, and what the gateway told is kept on the way', async () => {
  const { databaseSessionManager: database } = backEnd();
  const { id } = await database.createSession({ email: someEmail(), customerInfo, products, metadata: sums });
  expect(await database.addPaymentInfo(id, 'tok-1', 'txn-0')).toMatchObject({
    status: 'processing',
    current_step: 'processing',
    payment_token: 'tok-1',
    transaction_id: 'txn-0',
  });
  const paid = await database.completeSession(id, 'txn-1', 'vault-1');
  expect(paid).toMatchObject({ status: 'completed', current_step: 'upsell-1', transaction_id: 'txn-1', vault_id: 'vault-1', payment_token: 'tok-1' });
  expect(paid.metadata.totalAmount).toBe(386.08);
  // Once more, as a retry does.
  expect(await database.completeSession(id, 'txn-1', 'vault-1')).toEqual(paid);
  await expect(database.completeSession(id, 'txn-2')).rejects.toMatchObject({ code: 'alreadyPaid' });
  expect((await database.getSession(id))?.transaction_id).toBe('txn-1');
  // Paid, it can be erased as well, and is not there any more.
  expect(await database.deleteSession(id)).toBe(true);
  expect(await database.getSession(id)).toBeNull();
});

test('a payment that failed leaves what the session knew', async () => {
  const { databaseSessionManager: database } = backEnd();
  const { id } = await database.createSession({ email: someEmail(), customerInfo, products, metadata: { ...sums, billingInfo: { firstName: 'Bill', ...address } } });
  await database.updateSessionStatus(id, 'processing');
  const failed = await database.failSession(id, 'card declined');
  expect(failed).toMatchObject({
    status: 'failed',
    current_step: 'failed',
    metadata: { ...sums, error: 'card declined', billingInfo: { firstName: 'Bill', ...address } },
  });
  expect(failed.metadata.failed_at).toEqual(expect.any(String));
  // The buyer tries again.
  expect(await database.updateSessionStatus(id, 'processing')).toMatchObject({ status: 'processing' });
  expect(await database.completeSession(id, 'txn-2')).toMatchObject({ status: 'completed' });
});

test('sessions are listed by the status of then, the newest first', async () => {
  const { databaseSessionManager: database } = backEnd();
  const [first, second] = [await paid(), await paid()];
  const { id: open } = await database.createSession({ email: someEmail(), products });
  const completed = (await database.getSessionsByStatus('completed')).map(({ id }) => id);
  expect(completed.filter((id) => id === first || id === second)).toEqual([second, first]);
  expect(completed).not.toContain(open);
  expect((await database.getSessionsByStatus('processing')).map(({ id }) => id)).not.toContain(first);
  expect((await database.getSessionsByStatus('pending')).map(({ id }) => id)).toContain(open);
});

test('two who change the same row at once both have what they wrote', async () => {
  const { databaseSessionManager: database } = backEnd();
  const { id, metadata } = await database.createSession({ email: someEmail(), products, metadata: { campaign: 'spring' } });
  await Promise.all([
    database.updateSession(id, { metadata: { ...metadata, first: 1 } }),
    database.updateSession(id, { metadata: { ...metadata, second: 2 } }),
    database.updateSession(id, { customer_info: { firstName: 'Ada' } }),
  ]);
  expect(await database.getSession(id)).toMatchObject({ customer_info: { firstName: 'Ada' }, metadata: { campaign: 'spring', first: 1, second: 2 } });
});

test('extras are accepted and charged at their own price, and answered once', async () => {
  const { databaseSessionManager: database } = backEnd();
  const id = await paid();
  const details = { step: 1, productCode: 'RC6', bottles: 6, transactionId: 'txn-rc6', timestamp: '2026-11-20T09:00:00.000Z' };
  const charged = await database.updateSession(id, {
    upsells_accepted: ['RC6'],
    upsells_declined: ['RC12'],
    current_step: 'upsell-2',
    metadata: { upsells: [{ ...details, amount: 199 }] },
  });
  expect(charged).toMatchObject({ upsells_accepted: ['RC6'], upsells_declined: ['RC12'], current_step: 'upsell-2' });
  const session = await used.shop.getSession(id);
  expect(session?.upsells.find(({ offer }) => offer === 'RC6')).toMatchObject({ state: 'charged', transactionId: 'txn-rc6' });
  // A browser sees the metadata.
  expect(session?.metadata).toMatchObject({ upsells: [{ productCode: 'RC6', amount: 199 }] });
  expect(JSON.stringify(session?.metadata)).not.toContain('txn-rc6');

  await expect(database.updateSession(id, { upsells_declined: ['RC6'] })).rejects.toMatchObject({ code: 'offerAccepted' });
  await expect(database.updateSession(id, { upsells_accepted: ['RC12'] })).rejects.toMatchObject({ code: 'offerDeclined' });
  const cheap = { upsells_accepted: ['SG6'], upsells: [{ ...details, productCode: 'SG6', amount: 1, transactionId: 'txn-sg6' }] };
  await expect(database.updateSession(id, cheap)).rejects.toMatchObject({ code: 'amountMismatch' });
});

/** As the old upsell route wrote what it had charged. */
function remembering(from: LegacyBackEnd, productCode: string, step: number, amount: number, transactionId: string) {
  return async (id: string) => {
    const row = (await from.databaseSessionManager.getSession(id))!;
    const details = { step, productCode, amount, bottles: 6, transactionId, timestamp: '2026-11-20T09:00:00.000Z', tax: 12.44 };
    return from.databaseSessionManager.updateSession(id, {
      upsells_accepted: [...row.upsells_accepted, productCode],
      current_step: `upsell-${step}`,
      metadata: { ...row.metadata, upsells: [...((row.metadata.upsells ?? []) as object[]), details] },
    });
  };
}

test('an offer of the next step is answered there, though one call names both', async () => {
  const from = backEnd();
  const id = await paid(from);
  await remembering(from, 'RC6', 1, 199, 'txn-rc6')(id);
  const row = await remembering(from, 'SG6', 2, 149, 'txn-sg6')(id);
  expect(row).toMatchObject({ upsells_accepted: ['RC6', 'SG6'], current_step: 'upsell-2' });
  expect(from.exceptions).toEqual([]);
  const { upsells } = (await used.shop.getSession(id))!;
  expect(upsells.map(({ offer, state, transactionId }) => [offer, state, transactionId ?? null])).toEqual([
    ['RC6', 'charged', 'txn-rc6'],
    ['RC12', 'lapsed', null],
    ['SG6', 'charged', 'txn-sg6'],
  ]);
  // One who leaves the first offer to itself comes to the second all the same.
  const other = await paid(from);
  expect(await remembering(from, 'SG6', 2, 149, 'txn-sg6')(other)).toMatchObject({ upsells_accepted: ['SG6'], current_step: 'upsell-2' });
  // Its price is looked at as well.
  const third = await paid(from);
  await expect(remembering(from, 'SG6', 2, 1, 'txn-sg6')(third)).rejects.toMatchObject({ code: 'amountMismatch' });
  await expect(from.databaseSessionManager.updateSession(third, { upsells: [{ productCode: 'XX1', amount: 5, transactionId: 'txn-x' }] })).rejects.toMatchObject({
    code: 'offerNotMade',
  });
});

test('a payment and the answers that came after it may be told at once', async () => {
  const { databaseSessionManager: database } = backEnd();
  const { id } = await database.createSession({ email: someEmail(), customerInfo, products, metadata: sums });
  await database.updateSessionStatus(id, 'processing');
  const all = {
    status: 'completed',
    transaction_id: 'txn-1',
    upsells_accepted: ['RC6', 'SG6'],
    upsells_declined: ['RC12'],
    current_step: 'upsell-2',
    upsells: [{ productCode: 'RC6', transactionId: 'txn-rc6' }, { product_code: 'SG6', transaction_id: 'txn-sg6', amount: '149' }] as object[],
  } as const;
  expect(await database.updateSession(id, { ...all, upsells_accepted: [...all.upsells_accepted], upsells_declined: [...all.upsells_declined] })).toMatchObject({
    status: 'completed',
    current_step: 'upsell-2',
    upsells_accepted: ['RC6', 'SG6'],
    upsells_declined: ['RC12'],
    metadata: { upsells: [{ productCode: 'RC6', transactionId: 'txn-rc6' }, { productCode: 'SG6', transactionId: 'txn-sg6' }] },
  });
});

test("the row's extras have the transactions that no browser sees, those that were charged here as well", async () => {
  const from = backEnd();
  const id = await paid(from);
  const row = await remembering(from, 'RC6', 1, 199, 'txn-rc6')(id);
  const [told] = row.metadata.upsells as object[];
  expect(told).toEqual({ step: 1, productCode: 'RC6', amount: 199, bottles: 6, transactionId: 'txn-rc6', timestamp: '2026-11-20T09:00:00.000Z', tax: 12.44 });
  await used.shop.command(id, { type: 'goToStep', step: 'upsell-2' });
  const { upsells } = await used.shop.command(id, { type: 'acceptUpsell', offer: 'SG6' });
  const { price, tax } = upsells.find(({ offer }) => offer === 'SG6')!;
  await used.shop.command(id, { type: 'recordUpsellCharge', offer: 'SG6', transactionId: 'txn-sg6', amount: price + tax });
  const after = (await from.databaseSessionManager.getSession(id))!;
  expect(after.metadata.upsells).toEqual([told, { step: 2, productCode: 'SG6', amount: 149, tax: 9.31, transactionId: 'txn-sg6' }]);
  // Nothing is asked for by what was read.
  const { version } = (await used.shop.getSession(id))!;
  expect(await from.databaseSessionManager.updateSession(id, after)).toEqual(after);
  const session = (await used.shop.getSession(id))!;
  expect(session.version).toBe(version);
  expect(JSON.stringify(session.metadata)).not.toContain('txn');
});

test('names are read however they are written, and what has no place is kept', async () => {
  const { databaseSessionManager: database } = backEnd();
  const snake = {
    email: someEmail(),
    customer_info: { first_name: 'Ada', zip_code: 94001, company: 'Engines Ltd.', state: 'CA' },
    products: [{ ...products[0]!, price: '$177.00', colour: 'red' }],
    coupon_code: 'SAVE10',
    billing_info: { state: 'TX', floor: 3 },
  };
  const row = await database.createSession(snake as unknown as Parameters<typeof database.createSession>[0]);
  expect(row).toMatchObject({
    customer_info: { firstName: 'Ada', zipCode: '94001', state: 'CA' },
    coupon_code: 'SAVE10',
    amount: 354,
    metadata: { billingInfo: { state: 'TX', floor: 3 }, legacy: { customerInfo: { company: 'Engines Ltd.' }, products: [{ colour: 'red' }] } },
  });
  expect(await database.updateSession(row.id, row)).toEqual(row);
  // A price that is written otherwise is the same.
  expect(await database.updateSession(row.id, { products: [{ ...products[0]!, price: '$177.00' as unknown as number }] })).toEqual(row);
  const camel = { customerInfo: { lastName: 'Lovelace', fax: '1' }, couponCode: null, expiresAt: new Date(Date.parse(row.expires_at) + 60_000).toISOString() };
  const changed = await database.updateSession(row.id, camel as object);
  expect(changed).toMatchObject({ customer_info: { lastName: 'Lovelace' }, coupon_code: null, metadata: { legacy: { customerInfo: { company: 'Engines Ltd.', fax: '1' } } } });
  expect(Date.parse(changed.expires_at) - Date.parse(row.expires_at)).toBeGreaterThan(50_000);
  expect(await database.updateSession(row.id, { currentStep: 'processing', customerInfo: { firstName: 'Ada' }, paymentToken: 'tok-1' })).toMatchObject({
    status: 'processing',
    payment_token: 'tok-1',
  });
});

test('a new row with what is no column is refused, or made without it', async () => {
  const data = { email: someEmail(), products, customerInfo, loyalty: 'gold' };
  await expect(backEnd().databaseSessionManager.createSession(data)).rejects.toMatchObject({
    code: 'unknownField',
    message: expect.stringMatching(/^Failed to create session: .*'loyalty'/) as string,
  });
  const lenient = backEnd({ compatibility: true, onRefused: () => undefined });
  const { id, metadata } = await lenient.databaseSessionManager.createSession({ ...data, products: [{ ...products[0]!, price: 'much' as unknown as number }] });
  expect(metadata).not.toHaveProperty('loyalty');
  expect(lenient.exceptions).toEqual([
    { method: 'createSession', code: 'unknownField', count: 1 },
    { method: 'createSession', code: 'invalidField', count: 1 },
  ]);
  // Times as they are ask for nothing, and that of the last change was never the caller's.
  const row = (await lenient.databaseSessionManager.getSession(id))!;
  const now = new Date().toISOString();
  expect(await backEnd().databaseSessionManager.updateSession(id, { id, created_at: row.created_at, updated_at: now, expires_at: row.expires_at })).toEqual(row);
});

test.each([
  ['a status that only the server gives', { status: 'expired' }, 'notPermitted'],
  ['a new one', { status: 'pending' }, 'notPermitted'],
  ['paid without a transaction', { status: 'completed', transaction_id: null }, 'notPermitted'],
  ['another amount', { amount: 1 }, 'amountMismatch'],
  ['an amount that is not what the products beside it cost', { products: [{ ...products[0]!, quantity: 1 }], amount: 354 }, 'amountMismatch'],
  ['a column that there is not', { unknownColumn: 1 }, 'unknownField'],
  ['an earlier end', { expires_at: new Date(0).toISOString() }, 'notPermitted'],
  ['an end that is no time', { expires_at: 'soon' }, 'notPermitted'],
  ['another id', { id: 'ws_other' }, 'notPermitted'],
  ['another time of creation', { created_at: new Date(0).toISOString() }, 'notPermitted'],
  ['a change that has not been yet', { updated_at: '2999-01-01T00:00:00.000Z' }, 'notPermitted'],
  ['products that are no list', { products: 'all' }, 'invalidField'],
  ['another total', { metadata: { totalAmount: 1 } }, 'amountMismatch'],
  ['a step that the funnel has not', { current_step: 'nowhere' }, 'unknownStep'],
  ['an email address that is none', { email: 'nobody' }, 'invalidField'],
] as [string, RowChanges, string][])('%s is refused; in compatibility mode it is left out, counted and told', async (_, changes, code) => {
  const { id } = await backEnd().databaseSessionManager.createSession({ email: someEmail(), customerInfo, products, metadata: sums });
  if ('status' in changes && changes.status === 'pending') await backEnd().databaseSessionManager.updateSessionStatus(id, 'processing');
  const strict = backEnd();
  const before = await strict.databaseSessionManager.getSession(id);
  const refused = await thrownBy(strict.databaseSessionManager.updateSession(id, changes));
  expect(refused).toBeInstanceOf(LegacyCallRefused);
  expect(refused).toMatchObject({ code, method: 'updateSession' });
  expect(strict.exceptions).toEqual([]);
  expect({ ...(await strict.databaseSessionManager.getSession(id)), updated_at: before?.updated_at }).toEqual(before);

  const told: string[] = [];
  const lenient = backEnd({ compatibility: true, onRefused: ({ code }) => void told.push(code) });
  for (const city of ['Dallas', 'Houston']) {
    const row = await lenient.databaseSessionManager.updateSession(id, { ...changes, ...('status' in changes ? {} : { customer_info: { city } }) });
    if (!('status' in changes)) expect(row.customer_info.city).toBe(city);
  }
  expect(lenient.exceptions).toEqual([{ method: 'updateSession', code, count: 2 }]);
  expect(told).toEqual([code, code]);
});

test('what can not be created is refused, or taken over piece by piece', async () => {
  const data = { email: 'nobody', customerInfo, products, metadata: { campaign: 'spring' } };
  await expect(backEnd().databaseSessionManager.createSession(data)).rejects.toMatchObject({ code: 'invalidField', method: 'createSession' });
  const lenient = backEnd({ compatibility: true, onRefused: () => undefined });
  const row = await lenient.databaseSessionManager.createSession(data);
  expect(row).toMatchObject({ email: '', customer_info: customerInfo, products, metadata: { campaign: 'spring' } });
  expect(lenient.exceptions.map(({ code }) => code)).toContain('invalidField');
  const wrong = { email: someEmail(), customerInfo, products, metadata: { ...sums, totalAmount: 1 } };
  await expect(backEnd().databaseSessionManager.createSession(wrong)).rejects.toMatchObject({ code: 'amountMismatch' });
});

test('a session that the old database alone has is brought in when it is asked for', async () => {
  const row = { ...legacyRow(), status: 'completed', current_step: 'upsell-1', vault_id: 'vault-9', transaction_id: 'txn-9' };
  const { id } = row;
  const asked: string[] = [];
  const { databaseSessionManager: database } = backEnd({
    legacyRow: async (wanted) => (asked.push(wanted), Promise.resolve(wanted === id ? row : null)),
  });
  expect(await database.getSession(id)).toMatchObject({ status: 'completed', transaction_id: 'txn-9', vault_id: 'vault-9', email: row.email });
  expect(await database.getSession(id)).toMatchObject({ status: 'completed' });
  expect(asked).toEqual([id]);
  expect(await database.getSession('ws_nobody')).toBeNull();
  expect(await backEnd().databaseSessionManager.getSession('ws_nobody')).toBeNull();
});

test('a server that is not there is told of as before, with a code, in compatibility mode as well', async () => {
  const far = { url: 'http://127.0.0.1:1', serviceKey: 'a-key', retries: 0 };
  const { databaseSessionManager: database, cookieSession, exceptions } = backEnd({ server: far, compatibility: true, cookies: new Cookies().store });
  for (const [work, said] of [
    [database.getSession('ws_1'), 'Failed to get session: '],
    [database.createSession({ email: someEmail(), products }), 'Failed to create session: '],
    [database.completeSession('ws_1', 'txn'), 'Failed to complete session: '],
    [cookieSession.getSessionById('ws_1'), 'Failed to get session: '],
  ] as const) {
    const error = await thrownBy(work);
    expect(error).toMatchObject({ name: 'LegacyCallRefused', code: 'unreachable', mendableBy: 'retry' });
    expect((error as Error).message.startsWith(said)).toBe(true);
    expect((error as Error).cause).toMatchObject({ name: 'ThroughlineError' });
  }
  expect(exceptions).toEqual([]);
});

test('the cookie holds a token of the session, which any process knows', async () => {
  const cookies = new Cookies();
  const { cookieSession, databaseSessionManager: database } = backEnd({ cookies: cookies.store });
  const { id, email } = await database.createSession({ email: someEmail(), customerInfo, products, metadata: sums });
  await database.updateSessionStatus(id, 'processing');
  const facts = { vaultId: 'vault-1', customerId: 'customer-1', email, firstName: 'Ada', lastName: 'Lovelace', transactionId: 'txn-1', state: 'TX' };
  expect(await cookieSession.createSession({ id, ...facts })).toBe(id);
  expect(cookies.set).toEqual([
    { name: 'upsell_session', value: expect.stringMatching(/^v4\.local\./) as string, httpOnly: true, secure: true, sameSite: 'lax', path: '/', maxAge: expect.any(Number) as number },
  ]);
  const { maxAge } = cookies.set[0] as { maxAge: number };
  expect(maxAge).toBeGreaterThan(1700);
  expect(maxAge).toBeLessThanOrEqual(1800);
  // The database's side knows it.
  expect(await database.getSession(id)).toMatchObject({ status: 'completed', transaction_id: 'txn-1', vault_id: 'vault-1' });

  const another = backEnd({ cookies: cookies.store }).cookieSession;
  const data = await another.getSession();
  expect(data).toMatchObject({ id, ...facts });
  expect(data!.expiresAt - data!.createdAt).toBe(30 * 60_000);
  expect(await another.getSessionById(id)).toMatchObject({ id, ...facts });

  const { updateSession, deleteSession } = another;
  await updateSession({ ...data!, vaultId: 'vault-2', lastVaultUpdate: 1_790_000_000_000 });
  expect(await another.getSession()).toMatchObject({ vaultId: 'vault-2', lastVaultUpdate: 1_790_000_000_000, transactionId: 'txn-1' });
  await expect(updateSession({ ...data!, transactionId: 'txn-2' })).rejects.toMatchObject({ code: 'alreadyPaid', method: 'cookieSession.updateSession' });

  await deleteSession();
  expect(cookies.set.at(-1)).toMatchObject({ value: '', maxAge: 0 });
  expect(await another.getSession()).toBeNull();
  expect(await another.getSessionById(id)).toMatchObject({ id });
});

test('a session that begins with the cookie has its id, and what is no cookie of ours is null', async () => {
  const cookies = new Cookies();
  const { cookieSession } = backEnd({ cookies: cookies.store, cookie: { secure: false, domain: 'shop.example' } });
  expect(await cookieSession.getSession()).toBeNull();
  const facts = { vaultId: '', customerId: '', email: someEmail(), firstName: 'Ada', lastName: '', transactionId: '' };
  const id = await cookieSession.createSession(facts);
  expect(cookies.set[0]).toMatchObject({ secure: false, domain: 'shop.example' });
  expect(await cookieSession.getSession()).toMatchObject({ id, ...facts });
  const own = `ws_${crypto.randomUUID().replaceAll('-', '')}`;
  expect(await cookieSession.createSession({ ...facts, id: own })).toBe(own);
  // There is nothing to charge yet.
  expect(await cookieSession.getSessionById(own)).toBeNull();

  const good = cookies.value!;
  const forged = legacyCookie({ id, exp: 4_102_444_800 }, 'another-secret-0123456789');
  const over = legacyCookie({ id, exp: 1 });
  for (const value of ['nonsense', `${good.slice(0, -4)}AAAA`, 'eyJhbGciOiJub25lIn0.e30.', 'v4.local.', forged, over]) {
    cookies.value = value;
    expect(await cookieSession.getSession()).toBeNull();
    expect(cookies.set.at(-1), 'it is removed').toMatchObject({ value: '', maxAge: 0, domain: 'shop.example' });
  }
});

test("the old shop's cookie is exchanged once, and only where the answer can bring the new one", async () => {
  const cookies = new Cookies();
  const { cookieSession } = backEnd({ cookies: cookies.store });
  const now = Date.now();
  const id = `ws_${crypto.randomUUID().replaceAll('-', '')}`;
  const claims = {
    id, vaultId: 'vault-7', customerId: 'customer-7', email: someEmail(), firstName: 'Ada', lastName: 'Lovelace', transactionId: 'txn-7',
    createdAt: now, expiresAt: now + 1_800_000, iat: Math.floor(now / 1000), exp: Math.floor(now / 1000) + 1800,
  };
  const old = legacyCookie(claims);
  cookies.value = old;
  cookies.isReadOnly = true;
  expect(await cookieSession.getSession()).toBeNull();
  cookies.isReadOnly = false;
  const data = await cookieSession.getSession();
  expect(data).toMatchObject({ id, vaultId: 'vault-7', transactionId: 'txn-7' });
  expect(cookies.value).toMatch(/^v4\.local\./);
  expect(await cookieSession.getSessionById(id)).toMatchObject({ vaultId: 'vault-7' });
  // Nobody has said how much was paid; that it is said once more, is no payment.
  const before = await used.shop.getSession(id);
  await cookieSession.updateSession({ ...data!, lastVaultUpdate: 1_790_000_000_000 });
  expect((await used.shop.getSession(id))?.payment).toEqual(before?.payment);
  expect(await cookieSession.getSession()).toMatchObject({ id });
  // Whoever has stolen it comes too late.
  const thief = new Cookies();
  thief.value = old;
  const far = new ThroughlineServer({ url: 'http://127.0.0.1:1', serviceKey: 'a-key', retries: 0 });
  const unreachable = backEnd({ server: far, cookies: thief.store, onRefused: () => undefined });
  expect(await unreachable.cookieSession.getSession()).toBeNull();
  expect(thief.value, 'nobody has said that it is not good').toBe(old);
  expect(unreachable.exceptions).toEqual([{ method: 'cookieSession.getSession', code: 'unreachable', count: 1 }]);
  expect(await backEnd({ cookies: thief.store }).cookieSession.getSession()).toBeNull();
  expect(thief.value, 'and nothing is put over what the buyer has got').toBe(old);
});

test('requests that come at one time with an old cookie all get the session, and none takes the new cookie back', async () => {
  const row = { ...legacyRow(), status: 'completed', transaction_id: 'txn-8', current_step: 'upsell-1' };
  const asked: string[] = [];
  const stores = [new Cookies(), new Cookies(), new Cookies()];
  const now = Math.floor(Date.now() / 1000);
  const old = legacyCookie({ id: row.id, transactionId: 'txn-8', vaultId: 'vault-8', customerId: '', email: row.email, firstName: 'Ada', lastName: '', iat: now, exp: now + 1800 });
  let current = 0;
  const { cookieSession } = backEnd({
    cookies: () => stores[current++]!.store(),
    legacyRow: async (id) => (asked.push(id), Promise.resolve(id === row.id ? row : null)),
  });
  for (const store of stores) store.value = old;
  const all = await Promise.all(stores.map(() => cookieSession.getSession()));
  expect(all.map((data) => data?.id)).toEqual([row.id, row.id, row.id]);
  for (const { value } of stores) expect(value).toMatch(/^v4\.local\./);
  // The row was heard first: it says what was paid.
  expect((await used.shop.getSession(row.id))?.payment).toMatchObject({ amount: 38_608 });
  expect(asked).toEqual([row.id]);
});

test('what the row says is heard as well where a browser was here first, and that browser is told nothing', async () => {
  const row = legacyRow();
  const claim = 'a-browser-that-knows-the-id-alone-0123456789';
  expect(await squat(row.id, claim)).toContain('"token"');
  const { databaseSessionManager } = backEnd({ legacyRow: async () => Promise.resolve(row) });
  expect(await databaseSessionManager.getSession(row.id)).toMatchObject({ email: row.email });
  const told = await squat(row.id, claim);
  expect(told).not.toContain(row.email);
  expect(told).toMatch(/unauthorized|Revoked/);
});

test('what else a shop has in its cookie is kept, however it is written', async () => {
  const { cookieSession } = backEnd({ cookies: new Cookies().store });
  const data = { vault_id: 'vault-3', customerId: 'customer-3', email: someEmail(), first_name: 'Ada', lastName: '', transactionId: '', affiliate: 'a1' };
  const id = await cookieSession.createSession(data as unknown as Parameters<typeof cookieSession.createSession>[0]);
  expect(await cookieSession.getSessionById(id)).toMatchObject({ vaultId: 'vault-3', firstName: 'Ada' });
  expect((await used.shop.getSession(id))?.metadata).toEqual({ legacy: { affiliate: 'a1' } });
});

test('where no cookies are given, that is said', async () => {
  const { cookieSession } = backEnd();
  await expect(cookieSession.deleteSession()).rejects.toThrow(/`cookies` is missing/);
});
