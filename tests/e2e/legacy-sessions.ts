import { readFile } from 'node:fs/promises';

import { inRepository } from './repository.js';

/** A row of `funnel_sessions`, as the old shop wrote it. */
export interface Row {
  id: string;
  email: string;
  status: string;
  current_step: string;
  customer_info: Record<string, string> | null;
  products: unknown[];
  amount: number;
  upsells_accepted: string[];
  upsells_declined: string[];
  vault_id: string | null;
  transaction_id: string | null;
  payment_token: string | null;
  coupon_code: string | null;
  metadata: Record<string, unknown> | null;
  created_at: string;
  updated_at: string;
  expires_at: string;
}

/** What the cookie and the memory of a process have of an order that was paid. */
interface Claims {
  id: string;
  vaultId: string;
  transactionId: string;
  [field: string]: unknown;
}

/** What there is to know of a payment, in cents. */
export interface Paid {
  amount: number;
  transaction: string | null;
  vault: string | null;
  /** By their codes. */
  extras: [offer: string, price: number, transaction: string | null][];
}

/** The sessions of a shop with four systems, which do not agree on all of them. */
export interface LegacySessions {
  rows: Row[];
  cookies: Claims[];
  cache: Claims[];
  browsers: { id: string }[];
  /** What has to be known of the payments. Nothing else is paid. */
  paid: Map<string, Paid>;
  /** What is known of a payment, and has to be confirmed by somebody: the transaction, by the session's id. */
  claimed: Map<string, string>;
}

const afterPayment = ['upsell-1', 'upsell-2', 'success', 'completed'];
const prices: Readonly<Record<string, number>> = { RC6: 199, RC12: 296, SG6: 149 };
/** How many sessions only one system knows, of each kind. */
const orphans = 50;
const minuteMs = 60_000;

/**
 * How the systems differ on an order, in turn:
 *
 * - `same`: they do not.
 * - `moved`: the cookie is newer, and has another state.
 * - `extras`: the row has the transactions of its extras.
 * - `cheap`: and one was sold at the price that a browser named.
 * - `lagging`: the row does not know that it was paid.
 * - `twice`: the newer cookie is of another transaction.
 * - `boasting`: the newer browser says another email address, and another transaction.
 */
const differences = ['same', 'moved', 'extras', 'cheap', 'lagging', 'twice', 'boasting'] as const;

const cents = (dollars: number) => Math.round(dollars * 100);

/** Whether the row says that it was paid; a late read may have turned it to `expired`. */
export function isPaid({ status, transaction_id, current_step }: Row): boolean {
  return status === 'completed' || (transaction_id !== null && afterPayment.includes(current_step));
}

function claimsOf({ id, email, vault_id, transaction_id, customer_info, updated_at }: Row): Claims {
  const createdAt = Date.parse(updated_at);
  const { firstName = '', lastName = '', state } = customer_info ?? {};
  const names = { customerId: `CUST-${id}`, email, firstName, lastName, ...(state && { state }) };
  return { id, vaultId: vault_id ?? '', transactionId: transaction_id ?? '', ...names, createdAt, expiresAt: createdAt + 30 * minuteMs };
}

/** What the buyer's localStorage has of it. */
function entryOf(row: Row): Record<string, unknown> & { id: string } {
  const { id, email, products, amount, status, created_at, updated_at, expires_at, customer_info, upsells_accepted, upsells_declined } = row;
  const step = ['checkout', 'processing', 'upsell-1', 'upsell-2', 'success'].includes(row.current_step) ? row.current_step : 'checkout';
  const names = { createdAt: created_at, updatedAt: updated_at, expiresAt: expires_at, customerInfo: customer_info ?? {}, upsellsAccepted: upsells_accepted, upsellsDeclined: upsells_declined };
  return { id, email, products, amount, status: status === 'pending' ? 'initiated' : status === 'expired' ? 'failed' : status, currentStep: step, ...names };
}

/** As the old upsell route writes it. */
function upsellsOf({ id, updated_at, upsells_accepted }: Row, amounts: Readonly<Record<string, number>>) {
  return upsells_accepted.map((productCode) => {
    const amount = amounts[productCode]!;
    const [step, bottles] = [productCode === 'SG6' ? 2 : 1, Number(/\d+/.exec(productCode)![0])];
    return { step, productCode, amount, bottles, transactionId: `ux-${productCode}-${id}`, timestamp: updated_at, tax: 0 };
  });
}

/** The recorded rows again and again, each with an id and an address of its own, as if they were of today; and what the other systems have. */
export async function legacySessions(count: number): Promise<LegacySessions> {
  const text = await readFile(inRepository('tests/fixtures/legacy/funnel_sessions.jsonl'), 'utf8');
  const kinds = text.trim().split('\n').map((line) => JSON.parse(line) as Row);
  const now = Date.now();
  const at = (minutes: number) => new Date(now + minutes * minuteMs).toISOString();
  const later = now - 20 * minuteMs;
  const all: LegacySessions = { rows: [], cookies: [], cache: [], browsers: [], paid: new Map(), claimed: new Map() };

  for (let index = 0; index < count; index += 1) {
    const kind = kinds[index % kinds.length]!;
    const difference = differences[Math.floor(index / kinds.length) % differences.length]!;
    const id = `ws_r_${index.toString(36).padStart(6, '0')}`;
    const times = { created_at: at(-60), updated_at: at(-30), expires_at: kind.status === 'expired' ? at(-1) : at(23 * 60) };
    const references = kind.transaction_id === null ? {} : { transaction_id: `${kind.transaction_id}-${index}`, vault_id: `vault-${index}` };
    const row: Row = { ...kind, ...times, ...references, id, email: `buyer-${index}@example.com` };
    const entry = entryOf(row);
    all.rows.push(row);
    all.browsers.push(entry);
    if (difference === 'boasting') {
      Object.assign(entry, { updatedAt: new Date(later).toISOString(), email: `other-${index}@example.com` });
      if (isPaid(row)) Object.assign(entry, { transactionId: `boast-${index}`, vaultId: `boast-${index}` });
    }
    if (!isPaid(row)) continue;

    const claims = claimsOf(row);
    const extras = (amounts: Readonly<Record<string, number>>, isKnown: boolean) =>
      row.upsells_accepted.map((code) => [code, cents(amounts[code]!), isKnown ? `ux-${code}-${id}` : null] as Paid['extras'][number]);
    const paid: Paid = { amount: cents(row.metadata!.totalAmount as number), transaction: row.transaction_id, vault: row.vault_id, extras: extras(prices, false) };
    if (difference === 'moved') Object.assign(claims, { state: 'FL', createdAt: later });
    if (difference === 'extras' || difference === 'cheap') {
      if (row.current_step === 'completed') row.upsells_accepted = ['RC12', 'SG6'];
      const amounts = difference === 'cheap' ? { ...prices, RC12: 1 } : prices;
      row.metadata = { ...row.metadata, upsells: upsellsOf(row, amounts) };
      paid.extras = extras(amounts, true);
    }
    if (difference === 'lagging') {
      Object.assign(row, { status: 'processing', current_step: 'processing', transaction_id: null, vault_id: null, upsells_accepted: [], expires_at: at(23 * 60) });
      paid.extras = [];
    }
    if (difference === 'twice') {
      Object.assign(claims, { transactionId: `again-${index}`, vaultId: `again-${index}`, createdAt: later });
      all.claimed.set(id, row.transaction_id!);
      Object.assign(paid, { transaction: claims.transactionId, vault: claims.vaultId });
    }
    all.cookies.push(claims);
    all.cache.push(claims);
    all.paid.set(id, paid);
  }

  // Known to one system only.
  const [some] = kinds;
  for (let index = 0; index < orphans; index += 1) {
    const row = (name: string): Row => ({
      ...some!,
      ...{ created_at: at(-60), updated_at: at(-30), expires_at: at(23 * 60), status: 'pending', current_step: 'checkout' },
      ...{ id: `ws_o_${name}_${index}`, email: `${name}-${index}@example.com`, upsells_accepted: [] },
    });
    const ofCookie: Row = { ...row('cookie'), transaction_id: `cookie-${index}`, vault_id: `cookie-${index}` };
    all.cookies.push(claimsOf(ofCookie));
    all.claimed.set(ofCookie.id, ofCookie.transaction_id!);
    all.browsers.push(entryOf(row('begun')));
    const done = { ...entryOf(row('done')), status: 'completed', currentStep: 'success', transactionId: `done-${index}`, vaultId: `done-${index}` };
    all.browsers.push(done);
    all.claimed.set(done.id, done.transactionId);
  }
  return all;
}
