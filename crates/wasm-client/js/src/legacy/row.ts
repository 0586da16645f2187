import type { Command, NewSession, Session } from '../server/types.js';
import { type CustomerInfo, KEPT, major, minor, type Product, type ShippingInfo, type UpsellDetails } from './shapes.js';

/** A row of `funnel_sessions`. A copy: changing it changes nothing. Amounts are dollars (the currency's major unit), times are ISO texts. */
export interface FunnelSessionRow {
  id: string;
  email: string;
  customer_info: CustomerInfo;
  products: Product[];
  status: RowStatus;
  /** The products' prices times their quantities; without discount, shipping, tax and extras, as it was. */
  amount: number;
  current_step: string;
  /** The offers' codes, such as `RC6`. */
  upsells_accepted: string[];
  upsells_declined: string[];
  vault_id: string | null;
  transaction_id: string | null;
  payment_token: string | null;
  coupon_code: string | null;
  /** With the sums, and a second address, which had no other place. */
  metadata: Record<string, unknown>;
  created_at: string;
  updated_at: string;
  expires_at: string;
}

/** As the column had it. There was no word for "paid, and offers are open": that is `completed`. */
export type RowStatus = 'pending' | 'processing' | 'completed' | 'failed' | 'expired';

/** What a row may be changed to; also the details of charged extras, which say by which transaction. */
export type RowChanges = Partial<FunnelSessionRow> & { upsells?: UpsellDetails[] };

/** What `createSession` takes. */
export interface NewRow {
  /** The id that the session gets, for shops that make their own; those begin with `ws_`. */
  id?: string;
  email: string;
  customerInfo?: CustomerInfo;
  products: readonly Product[];
  couponCode?: string;
  metadata?: Record<string, unknown>;
}

/** Something that may not be set by hand. */
export interface Forbidden {
  code: 'notPermitted' | 'amountMismatch';
  what: string;
}

/** What becomes of changes. */
export interface Change {
  commands: Command[];
  forbidden: Forbidden[];
}

/** Whether it was paid: what the legacy systems called `completed`. */
export function isPaid({ payment }: Session): boolean {
  return payment.paidAt != null;
}

/** The session as its row. */
export function toRow(session: Session): FunnelSessionRow {
  const { currency, claims, totals, customer } = session;
  const offers = (...states: string[]) => session.upsells.filter(({ state }) => states.includes(state)).map(({ offer }) => offer);
  const flat = customer.billing && !isNamed(customer.billing) ? customer.billing : undefined;
  const { firstName, lastName, phone } = customer;
  return {
    id: session.id,
    email: session.email ?? '',
    customer_info: present({ ...flat, firstName, lastName, phone }),
    products: session.products.map(({ id, name, price, quantity }) => ({ id, name, price: major(price, currency), quantity })),
    status: statusOf(session),
    amount: major(totals.subtotal, currency),
    current_step: stepOf(session),
    upsells_accepted: offers('accepted', 'charged'),
    upsells_declined: offers('declined'),
    vault_id: session.vaultId ?? claims?.vaultId ?? null,
    transaction_id: session.transactionId ?? claims?.transactionId ?? null,
    payment_token: session.paymentToken ?? null,
    coupon_code: session.couponCode ?? null,
    metadata: metadataOf(session),
    created_at: session.createdAt,
    updated_at: session.updatedAt,
    expires_at: session.expiresAt,
  };
}

/** The session that a row is created as; what its sums say that it will not have is left to be compared with it. */
export function toNewSession({ id, email, customerInfo, products, couponCode, metadata = {} }: NewRow, currency: string): NewSession {
  const { sums, addresses, own } = sorted(metadata);
  const customer = customerOf(customerInfo ?? {}, addresses);
  // Who says what it all adds up to, has worked it out: what is not named is nothing, also where a coupon would take something off.
  const unnamed = sums.totalAmount === undefined ? {} : { discount: 0, shipping: 0, tax: 0 };
  const adjustments = { ...unnamed, ...adjustmentsOf(sums, currency) };
  return {
    ...(id !== undefined && { id }),
    ...(email && { email }),
    ...(Object.keys(customer).length > 0 && { customer }),
    products: itemsOf(products, currency),
    ...(couponCode && { couponCode }),
    ...(Object.keys(adjustments).length > 0 && { adjustments }),
    ...(Object.keys(own).length > 0 && { metadata: own }),
  };
}

/** The sums in the metadata that are not the session's. */
export function wrongSums(metadata: Record<string, unknown> | undefined, session: Session): Forbidden[] {
  const { sums } = sorted(metadata ?? {});
  const { totals, payment, currency } = session;
  const is = { subtotal: [totals.subtotal], totalAmount: [totals.total, payment.amount ?? totals.total, totalBeforeOffers(session)] };
  return (['subtotal', 'totalAmount'] as const)
    .filter((name) => sums[name] !== undefined && !is[name].includes(minor(sums[name], currency) ?? -1))
    .map((name) => ({ code: 'amountMismatch', what: `metadata.${name}, which is not what the session's own prices, tax and shipping add up to` }));
}

/** What changes the session so that its row is as it is asked for. What is so already, is left out. */
export function changesOf(session: Session, changes: RowChanges, nowMs: number): Change {
  const { currency, upsells } = session;
  const before = toRow(session);
  const commands: Command[] = [];
  const forbidden: Forbidden[] = [];
  const forbid = (what: string, code: Forbidden['code'] = 'notPermitted') => forbidden.push({ code, what });
  const { email, customer_info, products, coupon_code, metadata, status, current_step, expires_at } = changes;

  if (email !== undefined && email !== before.email) commands.push({ type: 'setEmail', email });
  const { sums, addresses, own } = sorted(metadata ?? {});
  const customer = customerOf(customer_info ?? {}, addresses);
  if (differs(customer, session.customer)) commands.push({ type: 'setCustomer', customer });
  if (products && JSON.stringify(products.map(line)) !== JSON.stringify(before.products.map(line))) {
    commands.push({ type: 'setItems', items: itemsOf(products, currency) });
  }
  if (coupon_code !== undefined && (coupon_code || null) !== before.coupon_code) commands.push({ type: 'setCoupon', code: coupon_code || null });
  const { setBy, ...now } = session.adjustments;
  // What the shop itself has set, the products' rules would replace.
  const isRepriced = setBy === 'service' && commands.some(({ type }) => type === 'setItems' || type === 'setCoupon');
  const adjustments = { ...(isRepriced && now), ...adjustmentsOf(sums, currency) };
  const adjusted = Object.entries(adjustments).filter(([name, amount]) => isRepriced || now[name as keyof typeof now] !== amount);
  if (adjusted.length > 0) commands.push({ type: 'setAdjustments', ...Object.fromEntries(adjusted) });
  // What is not named stays: a row that was read a moment ago does not know what somebody else has added.
  const patch = Object.entries(own).filter(([name, value]) => JSON.stringify(value) !== JSON.stringify(session.metadata[name]));
  if (patch.length > 0) commands.push({ type: 'setMetadata', metadata: Object.fromEntries(patch) });
  const end = expires_at === undefined ? 0 : Date.parse(expires_at);
  if (end > Date.parse(before.expires_at)) commands.push({ type: 'extend', ttlMs: end - nowMs });
  if (changes.amount !== undefined && !products && minor(changes.amount, currency) !== session.totals.subtotal) {
    forbid('the amount, which is what the products cost', 'amountMismatch');
  }

  const isNew = status !== undefined && status !== before.status;
  const begins = (isNew && status === 'processing') || (current_step !== before.current_step && ['processing', 'payment_processing'].includes(current_step ?? ''));
  if (begins) commands.push({ type: 'beginProcessing' });
  const transactionId = changes.transaction_id ?? undefined;
  const others = present({ vaultId: changes.vault_id ?? undefined, paymentToken: changes.payment_token ?? undefined });
  const known = { vaultId: before.vault_id, transactionId: before.transaction_id, paymentToken: before.payment_token };
  const told = { ...others, ...(transactionId !== undefined && { transactionId }) };
  if (isNew && status === 'completed') {
    const paidBy = transactionId ?? before.transaction_id;
    if (paidBy) commands.push({ type: 'recordPayment', transactionId: paidBy, amount: session.amount, ...others });
    else forbid("the status 'completed' without the gateway's transaction");
  } else if (Object.entries(told).some(([name, value]) => value !== known[name as keyof typeof known])) {
    commands.push({ type: 'setPaymentReferences', ...told });
  }
  if (isNew && status === 'failed') commands.push({ type: 'failPayment', code: 'declined', message: failureIn(metadata) });
  if (isNew && (status === 'expired' || status === 'pending')) forbid(`the status '${status}'`);

  for (const offer of changes.upsells_accepted ?? []) {
    if (!before.upsells_accepted.includes(offer)) commands.push({ type: 'acceptUpsell', offer });
  }
  for (const offer of changes.upsells_declined ?? []) {
    if (!before.upsells_declined.includes(offer)) commands.push({ type: 'declineUpsell', offer });
  }
  for (const { productCode, transactionId, amount } of detailsIn(changes)) {
    const upsell = upsells.find(({ offer }) => offer === productCode);
    if (!upsell || !transactionId || upsell.transactionId === transactionId) continue;
    const owed = upsell.price + upsell.tax;
    const named = amount === undefined ? owed : minor(amount, currency);
    if (named === owed || named === upsell.price) commands.push({ type: 'recordUpsellCharge', offer: productCode, transactionId, amount: owed });
    else forbid(`the price of the offer ${productCode}`, 'amountMismatch');
  }
  if (current_step !== undefined && current_step !== before.current_step && !begins && !(isNew && implied(status!, current_step))) {
    // The rows' own words, which no step is called by.
    if (current_step === 'failed') forbid("the step 'failed', which is where a payment has failed");
    else commands.push({ type: 'goToStep', step: current_step === 'completed' ? 'success' : current_step });
  }
  return { commands, forbidden };
}

/** Where the status leads by itself. */
function implied(status: RowStatus, step: string): boolean {
  return (status === 'failed' && step === 'failed') || (status === 'completed' && step === 'completed');
}

function statusOf(session: Session): RowStatus {
  if (isPaid(session)) return 'completed';
  return session.status === 'pending' && isUnsettled(session) ? 'processing' : session.status;
}

function stepOf(session: Session): string {
  if (session.status === 'failed') return 'failed';
  if (session.status === 'completed') return 'success';
  return session.status === 'pending' && isUnsettled(session) ? 'payment_processing' : session.currentStep;
}

/** Whether a payment is claimed that nobody has confirmed. */
function isUnsettled({ claims }: Session): boolean {
  if (!claims) return false;
  const { status, transactionId, vaultId, accepted = [] } = claims;
  return ['completed', 'processing'].includes(status) || transactionId != null || vaultId != null || accepted.length > 0;
}

function metadataOf(session: Session): Record<string, unknown> {
  const { customer, adjustments, totals, currency, payment } = session;
  const { billing, shipping } = customer;
  return {
    ...structuredClone(session.metadata),
    ...(session.status === 'failed' && payment.failure && { error: payment.failure.message, failed_at: session.updatedAt }),
    ...(billing && isNamed(billing) && { billingInfo: { ...billing } }),
    ...(shipping && { shippingInfo: { ...shipping } }),
    subtotal: major(totals.subtotal, currency),
    discount: major(adjustments.discount, currency),
    shipping: major(adjustments.shipping, currency),
    tax: major(adjustments.tax, currency),
    totalAmount: major(payment.amount ?? totalBeforeOffers(session), currency),
  };
}

/** `totalAmount` was worked out before the first offer. */
function totalBeforeOffers({ upsells, totals }: Session): number {
  const bought = upsells.filter(({ state }) => state === 'accepted' || state === 'charged');
  return Math.max(0, bought.reduce((total, { price, tax }) => total - price - tax, totals.total));
}

interface Sorted {
  sums: Record<string, unknown>;
  addresses: { billing?: ShippingInfo; shipping?: ShippingInfo };
  own: Record<string, unknown>;
}

const SUMS = new Set(['subtotal', 'discount', 'shipping', 'tax', 'totalAmount']);

/** What the metadata holds: that which has a place of its own today, and the shop's own. */
function sorted(metadata: Record<string, unknown>): Sorted {
  const { billingInfo, shippingInfo, billing_info = billingInfo, shipping_info = shippingInfo, error: _, failed_at: __, ...others } = metadata;
  const sums: Record<string, unknown> = {};
  const own: [string, unknown][] = [];
  for (const [name, value] of Object.entries(others)) {
    // An object of that name is the shop's own.
    if (SUMS.has(name) && (typeof value === 'number' || typeof value === 'string')) sums[name] = value;
    else if (value !== undefined) own.push([name, name === 'upsells' ? withoutTransactions(value) : value]);
  }
  const addresses = present({ billing: addressIn(billing_info), shipping: addressIn(shipping_info) });
  return { sums, addresses, own: Object.fromEntries(own) };
}

/** Browsers see the metadata. */
function withoutTransactions(upsells: unknown): unknown {
  if (!Array.isArray(upsells)) return upsells;
  return upsells.map((details: unknown) => {
    if (typeof details !== 'object' || details === null) return details;
    const { transactionId: _, transaction_id: __, ...others } = details as Record<string, unknown>;
    return others;
  });
}

function detailsIn({ upsells, metadata }: RowChanges): UpsellDetails[] {
  const within = metadata?.upsells;
  return [...(upsells ?? []), ...(Array.isArray(within) ? (within as UpsellDetails[]) : [])].filter((details) => typeof details?.productCode === 'string');
}

function adjustmentsOf(sums: Record<string, unknown>, currency: string): { discount?: number; shipping?: number; tax?: number } {
  return present({ discount: minor(sums.discount, currency), shipping: minor(sums.shipping, currency), tax: minor(sums.tax, currency) });
}

/** Products at the prices that the shop names; where it names none, the catalogue's count. */
function itemsOf(products: readonly Product[], currency: string): { id: string; name?: string; price?: number; quantity: number }[] {
  return products.map(({ id, name, price, quantity }) => ({
    id,
    ...present({ name, price: price === undefined ? undefined : minor(price, currency) }),
    quantity: Number(quantity ?? 1),
  }));
}

function line({ id, price, quantity }: Product): unknown {
  return [id, Number(price), Number(quantity ?? 1)];
}

/** The flat address was that of the bill, unless the metadata has one by itself. */
function customerOf(info: CustomerInfo, { billing, shipping }: Sorted['addresses']): NonNullable<NewSession['customer']> {
  const flat = addressIn(info, false);
  return present({
    ...named(info),
    phone: textIn(info, 'phone'),
    billing: billing ?? flat,
    shipping: shipping ?? (billing && flat && differs(flat, billing) ? flat : undefined),
  });
}

function named(info: object): { firstName?: string; lastName?: string } {
  return present({ firstName: textIn(info, 'firstName', 'first_name'), lastName: textIn(info, 'lastName', 'last_name') });
}

function addressIn(value: unknown, withNames = true): ShippingInfo | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const address = present({
    ...(withNames && named(value)),
    address: textIn(value, 'address'),
    city: textIn(value, 'city'),
    state: textIn(value, 'state'),
    zipCode: textIn(value, 'zipCode', 'zip_code'),
    country: textIn(value, 'country'),
  });
  return Object.keys(address).length > 0 ? address : undefined;
}

function textIn(object: object, camel: string, snake = camel): string | undefined {
  const value = (object as Record<string, unknown>)[camel] ?? (object as Record<string, unknown>)[snake];
  return typeof value === 'string' ? value : typeof value === 'number' ? String(value) : undefined;
}

/** Whether a part of `part` is not so in `whole`. */
function differs(part: object, whole: object): boolean {
  return Object.entries(part).some(([name, value]) => {
    const now = (whole as Record<string, unknown>)[name] ?? '';
    return typeof value === 'object' ? typeof now !== 'object' || differs(value as object, now as object) : value !== now;
  });
}

function isNamed({ firstName, lastName }: { firstName?: string | null; lastName?: string | null }): boolean {
  return firstName != null || lastName != null;
}

function failureIn(metadata: Record<string, unknown> | undefined): string {
  const error = metadata?.error;
  return typeof error === 'string' && error ? error : 'the payment failed';
}

function present<T extends object>(object: T): { [K in keyof T]: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined && value !== null)) as never;
}
