import { expect, test } from 'vitest';

import { legacyBackEnd, LegacyCallRefused, type LegacyBackEnd, type LegacyBackEndOptions } from '../../src/legacy-server.js';
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
  // The whole row back, as old routes do.
  expect(await database.updateSession(row.id, changed)).toEqual(changed);
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

test.each([
  ['a status that only the server gives', { status: 'expired' }, 'notPermitted'],
  ['a new one', { status: 'pending' }, 'notPermitted'],
  ['paid without a transaction', { status: 'completed', transaction_id: null }, 'notPermitted'],
  ['another amount', { amount: 1 }, 'amountMismatch'],
  ['another total', { metadata: { totalAmount: 1 } }, 'amountMismatch'],
  ['a step that the funnel has not', { current_step: 'nowhere' }, 'unknownStep'],
  ['an email address that is none', { email: 'nobody' }, 'invalidField'],
] as const)('%s is refused; in compatibility mode it is left out, counted and told', async (_, changes, code) => {
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
  const id = `ws_${crypto.randomUUID().replaceAll('-', '')}`;
  const now = Date.now();
  const row = {
    id, email: someEmail(), customer_info: customerInfo, products, status: 'completed', amount: 354, current_step: 'upsell-1', upsells_accepted: [],
    upsells_declined: [], vault_id: 'vault-9', transaction_id: 'txn-9', metadata: sums, created_at: new Date(now - 60_000).toISOString(),
    updated_at: new Date(now - 30_000).toISOString(), expires_at: new Date(now + 3_600_000).toISOString(),
  };
  const asked: string[] = [];
  const legacyRow = async (wanted: string) => (asked.push(wanted), Promise.resolve(wanted === id ? row : null));
  const { databaseSessionManager: database } = backEnd({ legacyRow });
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

  const good = cookies.value!;
  for (const value of ['nonsense', `${good.slice(0, -4)}AAAA`, 'eyJhbGciOiJub25lIn0.e30.', 'v4.local.']) {
    cookies.value = value;
    expect(await cookieSession.getSession()).toBeNull();
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
  expect(await cookieSession.getSession()).toMatchObject({ id, vaultId: 'vault-7', transactionId: 'txn-7' });
  expect(cookies.value).toMatch(/^v4\.local\./);
  expect(await cookieSession.getSession()).toMatchObject({ id });
  // Whoever has stolen it comes too late.
  const thief = new Cookies();
  thief.value = old;
  expect(await backEnd({ cookies: thief.store }).cookieSession.getSession()).toBeNull();
});

test('where no cookies are given, that is said', async () => {
  const { cookieSession } = backEnd();
  await expect(cookieSession.deleteSession()).rejects.toThrow(/`cookies` is missing/);
});
