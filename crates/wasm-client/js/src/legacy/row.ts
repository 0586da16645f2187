import type { Command, NewSession, Session } from '../server/types.js';
import { addressIn, besideAddress, besideBuyer, type BuyerOfRow, buyerOfRow, customerPatch, differs, type ForCustomer, newCustomer } from './addresses.js';
import { detailsIn, type Extras, walk, withCharges, withoutTransactions } from './extras.js';
import { byHand, type Refusal, unknownField, unreadable } from './refusals.js';
import { type BillingInfo, type CustomerInfo, KEPT, major, minor, type Product, type ShippingInfo, type UpsellDetails } from './shapes.js';
import { columnsIn, isObject, leftOf, present } from './values.js';

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

/** What a row may be changed to; also the details of charged extras, which say by which transaction. Names in camel case do as well. */
export type RowChanges = Partial<FunnelSessionRow> & {
  upsells?: Partial<UpsellDetails>[];
  billing_info?: ShippingInfo;
  shipping_info?: ShippingInfo;
  customerInfo?: CustomerInfo;
  currentStep?: string;
  upsellsAccepted?: string[];
  upsellsDeclined?: string[];
  vaultId?: string | null;
  transactionId?: string | null;
  paymentToken?: string | null;
  couponCode?: string | null;
  billingInfo?: BillingInfo;
  shippingInfo?: ShippingInfo;
  expiresAt?: string;
};

/** What `createSession` takes. Names in snake case do as well. */
export interface NewRow {
  /** The id that the session gets, for shops that make their own; those begin with `ws_`. */
  id?: string;
  email: string;
  customerInfo?: CustomerInfo;
  products: readonly Product[];
  couponCode?: string;
  metadata?: Record<string, unknown>;
  billingInfo?: BillingInfo;
  shippingInfo?: ShippingInfo;
  customer_info?: CustomerInfo;
  coupon_code?: string;
  billing_info?: BillingInfo;
  shipping_info?: ShippingInfo;
}

/** What becomes of changes. */
export interface Change {
  commands: Command[];
  /** What must not be, or can't be read. */
  forbidden: Refusal[];
  /** What can be told only from the session as it is after the commands. */
  next?: (after: Session) => Change;
}

const BUYER = ['email', 'customer_info', 'billing_info', 'shipping_info'] as const;
const ORDER = ['products', 'coupon_code', 'metadata'] as const;
const NEW_ROW = ['id', ...BUYER, ...ORDER] as const;
const PROGRESS = ['status', 'current_step', 'amount', 'upsells_accepted', 'upsells_declined', 'upsells', 'vault_id', 'transaction_id', 'payment_token'] as const;
const ROW = [...NEW_ROW, ...PROGRESS, 'created_at', 'updated_at', 'expires_at'] as const;

/** Whether it was paid: what the legacy systems called `completed`. */
export function isPaid({ payment }: Session): boolean {
  return payment.paidAt != null;
}

/** The session as its row. */
export function toRow(session: Session): FunnelSessionRow {
  const { currency, claims, totals } = session;
  const { customer_info, ...addresses } = buyerOfRow(session.customer);
  const offers = (...states: string[]) => session.upsells.filter(({ state }) => states.includes(state)).map(({ offer }) => offer);
  return {
    id: session.id,
    email: session.email ?? '',
    customer_info,
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
    metadata: metadataOf(session, addresses),
    created_at: session.createdAt,
    updated_at: session.updatedAt,
    expires_at: session.expiresAt,
  };
}

/** What is created for a row, and what of it may not be. */
export interface Creation {
  session: NewSession;
  forbidden: Refusal[];
  /** The same as changes of a session that is there already. */
  changes: RowChanges;
}

/** The session that a row is created as; what its sums say that it will not have is left to be compared with it. */
export function toNewSession(data: NewRow, currency: string): Creation {
  const { known, unknown } = columnsIn(data, NEW_ROW);
  const { id, ...changes } = known as RowChanges;
  const { email, coupon_code } = changes;
  const read = readOrder(changes, currency);
  const { sums } = read;
  const { customer, other } = newCustomer(read);
  const own = withKept(read.own, { ...read.kept, customerAddress: other });
  // Who says what it all adds up to, has worked it out: what is not named is nothing, also where a coupon would take something off.
  const unnamed = sums.totalAmount === undefined ? {} : { discount: 0, shipping: 0, tax: 0 };
  const adjustments = { ...unnamed, ...adjustmentsOf(sums, currency) };
  const session = {
    ...(id != null && { id }),
    ...(email && { email }),
    ...(Object.keys(customer).length > 0 && { customer }),
    products: read.items ?? [],
    ...(coupon_code && { couponCode: coupon_code }),
    ...(Object.keys(adjustments).length > 0 && { adjustments }),
    ...(Object.keys(own).length > 0 && { metadata: own }),
  };
  return { session, forbidden: [...unknown.map(unknownField), ...read.forbidden], changes };
}

/** The sums in the metadata that are not the session's. */
export function wrongSums(metadata: Record<string, unknown> | null | undefined, session: Session): Refusal[] {
  const { sums } = sorted(metadata ?? {});
  const { totals, payment, currency } = session;
  const is = { subtotal: [totals.subtotal], totalAmount: [totals.total, payment.amount ?? totals.total, totalBeforeOffers(session)] };
  return (['subtotal', 'totalAmount'] as const)
    .filter((name) => sums[name] !== undefined && !is[name].includes(minor(sums[name], currency) ?? -1))
    .map((name) => byHand(`metadata.${name}, which is not what the session's own prices, tax and shipping add up to`, 'amountMismatch'));
}

/** What changes the session so that its row is as it is asked for. What is so already, is left out. */
export function changesOf(session: Session, changes: RowChanges, nowMs: number): Change {
  const { currency } = session;
  const before = toRow(session);
  const commands: Command[] = [];
  const { known, unknown } = columnsIn(changes, ROW);
  const forbidden: Refusal[] = unknown.map(unknownField);
  const forbid = (what: string, code?: 'amountMismatch') => forbidden.push(byHand(what, code));
  const row = known as RowChanges;
  const { coupon_code, metadata, status, current_step } = row;
  const email = row.email ?? (row.email === null ? '' : undefined);

  forbidden.push(...forbiddenOf(row, before, nowMs));
  if (email !== undefined && email !== before.email) commands.push({ type: 'setEmail', email });
  const read = readOrder(row, currency);
  forbidden.push(...read.forbidden);
  const { sums, items } = read;
  const { customer, other } = customerPatch(session.customer, read);
  if (differs(customer, session.customer)) commands.push({ type: 'setCustomer', customer });
  if (items && linesOf(items) !== linesOf(session.products)) commands.push({ type: 'setItems', items });
  if (coupon_code !== undefined && (coupon_code || null) !== before.coupon_code) commands.push({ type: 'setCoupon', code: coupon_code || null });
  const { setBy, ...now } = session.adjustments;
  // What the shop itself has set, the products' rules would replace.
  const isRepriced = setBy === 'service' && commands.some(({ type }) => type === 'setItems' || type === 'setCoupon');
  const adjustments = { ...(isRepriced && now), ...adjustmentsOf(sums, currency) };
  const adjusted = Object.entries(adjustments).filter(([name, amount]) => isRepriced || now[name as keyof typeof now] !== amount);
  if (adjusted.length > 0) commands.push({ type: 'setAdjustments', ...Object.fromEntries(adjusted) });
  // What is not named stays: a row that was read a moment ago does not know what somebody else has added.
  const there: Record<string, unknown> = { ...session.metadata, upsells: withoutTransactions(before.metadata.upsells) };
  const own = withKept(read.own, { ...read.kept, customerAddress: other });
  const patch = Object.entries(own).filter(([name, value]) => asksFor(value, there[name]));
  if (patch.length > 0) commands.push({ type: 'setMetadata', metadata: Object.fromEntries(patch) });
  const end = timeOf(row.expires_at);
  if (end !== undefined && end > Date.parse(before.expires_at)) commands.push({ type: 'extend', ttlMs: end - nowMs });
  if (row.amount !== undefined && minor(row.amount, currency) !== (items ? costOf(items) : session.totals.subtotal)) {
    forbid('the amount, which is what the products cost', 'amountMismatch');
  }

  const isNew = status !== undefined && status !== before.status;
  const begins = (isNew && status === 'processing') || (current_step !== before.current_step && ['processing', 'payment_processing'].includes(current_step ?? ''));
  if (begins) commands.push({ type: 'beginProcessing' });
  const transactionId = row.transaction_id ?? undefined;
  const others = present({ vaultId: row.vault_id ?? undefined, paymentToken: row.payment_token ?? undefined });
  const references = { vaultId: before.vault_id, transactionId: before.transaction_id, paymentToken: before.payment_token };
  const told = { ...others, ...(transactionId !== undefined && { transactionId }) };
  const paidBy = isNew && status === 'completed' ? (transactionId ?? before.transaction_id) : null;
  if (paidBy) commands.push({ type: 'recordPayment', transactionId: paidBy, amount: session.amount, ...others });
  else if (isNew && status === 'completed') forbid("the status 'completed' without the gateway's transaction");
  else if (Object.entries(told).some(([name, value]) => value !== references[name as keyof typeof references])) {
    commands.push({ type: 'setPaymentReferences', ...told });
  }
  if (isNew && status === 'failed') commands.push({ type: 'failPayment', code: 'declined', message: failureIn(metadata) });
  if (isNew && status !== 'processing' && status !== 'completed' && status !== 'failed') forbid(`the status '${String(status)}'`);

  const isStep = current_step !== undefined && current_step !== null && current_step !== before.current_step;
  const goesTo = isStep && !begins && !(isNew && implied(status!, current_step)) ? current_step : undefined;
  // The rows' own words, which no step is called by.
  if (goesTo === 'failed') forbid("the step 'failed', which is where a payment has failed");
  const target = goesTo === 'failed' ? undefined : goesTo === 'completed' ? 'success' : goesTo;
  const extras: Extras = {
    accepted: listOf(row.upsells_accepted).filter((offer) => !before.upsells_accepted.includes(offer)),
    declined: listOf(row.upsells_declined).filter((offer) => !before.upsells_declined.includes(offer)),
    details: detailsIn(row.upsells, metadata?.upsells),
  };
  const { next, ...walked } = walk(session, extras, target, paidBy !== null);
  return { commands: [...commands, ...walked.commands], forbidden: [...forbidden, ...walked.forbidden], ...(next && { next }) };
}

/** The columns that nobody sets, and values that are none. */
function forbiddenOf(row: RowChanges, before: FunnelSessionRow, nowMs: number): Refusal[] {
  const forbidden: Refusal[] = [];
  if (row.id !== undefined && row.id !== before.id) forbidden.push(byHand('the id'));
  if (row.created_at !== undefined && timeOf(row.created_at) !== Date.parse(before.created_at)) forbidden.push(byHand('created_at'));
  // The old method set it by itself, whatever was named.
  const changed = timeOf(row.updated_at);
  if (row.updated_at !== undefined && !(changed! <= Math.max(nowMs, Date.parse(before.updated_at)))) forbidden.push(byHand('updated_at'));
  const end = timeOf(row.expires_at);
  if (row.expires_at !== undefined && !(end! >= Date.parse(before.expires_at))) forbidden.push(byHand('an earlier end, or one that is no time'));
  for (const name of ['upsells_accepted', 'upsells_declined', 'upsells'] as const) {
    if (row[name] !== undefined && !Array.isArray(row[name])) forbidden.push(unreadable(`${name} is no list`));
  }
  return forbidden;
}

/** Where the status leads by itself. */
function implied(status: RowStatus, step: string): boolean {
  return (status === 'failed' && step === 'failed') || (status === 'completed' && step === 'completed');
}

function statusOf(session: Session): RowStatus {
  if (isPaid(session)) return 'completed';
  return isUnsettled(session) ? 'processing' : session.status;
}

function stepOf(session: Session): string {
  const { status, payment } = session;
  // A late read turned the status to expired; the step went on saying why.
  if (status === 'failed' || (status === 'expired' && payment.failure)) return 'failed';
  if (isUnsettled(session)) return 'payment_processing';
  return status === 'completed' ? 'success' : session.currentStep;
}

/** Whether a payment is claimed that nobody has confirmed, and that nothing else is known of. */
function isUnsettled({ claims, ...session }: Session): boolean {
  if (!claims || !['pending', 'expired'].includes(session.status)) return false;
  const { status, transactionId, vaultId, accepted = [] } = claims;
  return ['completed', 'processing'].includes(status) || transactionId != null || vaultId != null || accepted.length > 0;
}

function metadataOf(session: Session, addresses: Omit<BuyerOfRow, 'customer_info'>): Record<string, unknown> {
  const { adjustments, totals, currency, payment, status } = session;
  const { failure } = payment;
  const own = structuredClone(session.metadata) as Record<string, unknown>;
  const besides = (name: string) => (isObject(own[name]) ? besideAddress(own[name]) : {});
  const upsells = withCharges(session);
  return {
    ...own,
    ...((status === 'failed' || status === 'expired') && failure && { error: failure.message }),
    ...(status === 'failed' && failure && { failed_at: session.updatedAt }),
    ...Object.fromEntries(Object.entries(addresses).map(([name, address]) => [name, { ...besides(name), ...address }])),
    ...(upsells !== undefined && { upsells }),
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

/** What the metadata holds: that which has a place of its own today, and the shop's own. */
interface Sorted {
  sums: Record<string, unknown>;
  billing: ShippingInfo | undefined;
  shipping: ShippingInfo | undefined;
  own: Record<string, unknown>;
}

const SUMS = new Set(['subtotal', 'discount', 'shipping', 'tax', 'totalAmount']);

function sorted(metadata: object): Sorted {
  const { billingInfo, shippingInfo, billing_info = billingInfo, shipping_info = shippingInfo, error: _, failed_at: __, ...others } = metadata as Record<string, unknown>;
  const sums: Record<string, unknown> = {};
  const own: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(others)) {
    // What is no amount of that name, is the shop's own.
    if (SUMS.has(name) && minor(value, 'USD') !== undefined) sums[name] = value;
    else if (value !== undefined) own[name] = name === 'upsells' ? withoutTransactions(value) : value;
  }
  for (const [name, address] of [['billingInfo', billing_info], ['shippingInfo', shipping_info]] as const) {
    const besides = isObject(address) ? besideAddress(address) : (address ?? {});
    if (!isObject(besides) || Object.keys(besides).length > 0) own[name] = besides;
  }
  return { sums, billing: addressIn(billing_info), shipping: addressIn(shipping_info), own };
}

/** The buyer, and what is bought: as today's sessions have it, and what they have no place for. */
interface Order extends Sorted {
  info: object;
  /** Nothing where products are not named. */
  items: Item[] | undefined;
  kept: Record<string, unknown>;
  forbidden: Refusal[];
}

interface Item {
  id: string;
  name?: string;
  price?: number;
  quantity: number;
}

const PRODUCT = { id: 'id', name: 'name', price: 'price', quantity: 'quantity' };

function readOrder({ customer_info, products, metadata, billing_info, shipping_info }: RowChanges, currency: string): Order {
  const forbidden: Refusal[] = [];
  const objectIn = (name: string, value: unknown): object => {
    if (value != null && !isObject(value)) forbidden.push(unreadable(`${name} is no object`));
    return isObject(value) ? value : {};
  };
  const info = objectIn('customer_info', customer_info);
  const within = { ...present({ billingInfo: billing_info, shippingInfo: shipping_info }), ...objectIn('metadata', metadata) };
  const besides = besideBuyer(info);
  const kept: Record<string, unknown> = Object.keys(besides).length > 0 ? { customerInfo: besides } : {};
  const lines = products as unknown;
  if (lines !== undefined && !(Array.isArray(lines) && lines.every(isObject))) {
    forbidden.push(unreadable('products are no list of products'));
    return { ...sorted(within), info, items: undefined, kept, forbidden };
  }
  const items = (lines as Product[] | undefined)?.map(({ id, name, price, quantity }) => {
    const cents = price === undefined || price === null ? undefined : minor(price, currency);
    if (price != null && cents === undefined) forbidden.push(unreadable(`the price of the product '${id ?? name}' is none`));
    return { id: String(id ?? name), ...present({ name, price: cents }), quantity: Number(quantity ?? 1) };
  });
  const odd = (lines as Product[] | undefined)?.filter((product) => Object.keys(leftOf(product, PRODUCT)).length > 0) ?? [];
  return { ...sorted(within), info, items, kept: { ...kept, ...(odd.length > 0 && { products: odd }) }, forbidden };
}

/** The metadata with what has no place in a session, as the import keeps it. */
function withKept(own: Record<string, unknown>, kept: Record<string, unknown>): Record<string, unknown> {
  const all = present(kept);
  if (Object.keys(all).length === 0) return own;
  return { ...own, [KEPT]: { ...(isObject(own[KEPT]) && own[KEPT]), ...all } };
}

/** Whether a merge patch changes anything. */
function asksFor(value: unknown, now: unknown): boolean {
  if (!isObject(value) || !isObject(now)) return JSON.stringify(value) !== JSON.stringify(now);
  return Object.entries(value).some(([name, part]) => asksFor(part, (now as Record<string, unknown>)[name]));
}

function adjustmentsOf(sums: Record<string, unknown>, currency: string): { discount?: number; shipping?: number; tax?: number } {
  return present({ discount: minor(sums.discount, currency), shipping: minor(sums.shipping, currency), tax: minor(sums.tax, currency) });
}

/** Nothing where a price is left to the catalogue. */
function costOf(items: Item[]): number | undefined {
  return items.reduce<number | undefined>((sum, { price, quantity }) => (sum === undefined || price === undefined ? undefined : sum + price * quantity), 0);
}

function linesOf(items: readonly Item[]): string {
  return JSON.stringify(items.map(({ id, price, quantity }) => [id, price, quantity]));
}

function listOf(value: string[] | undefined): string[] {
  return Array.isArray(value) ? value : [];
}

/** In milliseconds; `NaN` where it is no time. */
function timeOf(value: unknown): number | undefined {
  return value === undefined ? undefined : value instanceof Date ? value.getTime() : Date.parse(String(value));
}

function failureIn(metadata: Record<string, unknown> | null | undefined): string {
  const error = metadata?.error;
  return typeof error === 'string' && error ? error : 'the payment failed';
}
