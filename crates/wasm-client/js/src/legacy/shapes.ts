import type { Address, Session } from '../../generated/types.js';
import { flatAddress } from './addresses.js';

/** The buyer, flat as it was. */
export interface CustomerInfo {
  firstName?: string;
  lastName?: string;
  phone?: string;
  address?: string;
  city?: string;
  state?: string;
  zipCode?: string;
  country?: string;
}

export interface BillingInfo {
  address?: string;
  city?: string;
  state?: string;
  zipCode?: string;
  country?: string;
}

export interface ShippingInfo extends BillingInfo {
  firstName?: string;
  lastName?: string;
}

/** A product line; `price` in dollars (the currency's major unit). */
export interface Product {
  id: string;
  name: string;
  price: number;
  quantity: number;
}

/** What a page keeps of an extra that was bought. Nobody believes its amount. */
export interface UpsellDetails {
  step: number;
  productCode: string;
  amount: number;
  bottles: number;
  transactionId?: string;
  timestamp: string;
}

export type LegacyStatus = 'initiated' | 'processing' | 'completed' | 'failed';

/** A session as the legacy `FunnelSessionManager` had it. A copy: changing it changes nothing. */
export interface FunnelSessionData {
  id: string;
  email: string;
  customerInfo?: CustomerInfo;
  products: Product[];
  /** Never there: a browser is not told the payment's references. */
  vaultId?: string;
  /** Never there, as `vaultId`. */
  transactionId?: string;
  status: LegacyStatus;
  /** The products' prices times their quantities, in dollars; without discount, shipping, tax and extras, as it was. */
  amount: number;
  currentStep: string;
  /** The offers' codes, such as `RC6`, also where a page answered by the product's id. */
  upsellsAccepted: string[];
  upsellsDeclined: string[];
  upsells?: UpsellDetails[];
  orderId?: string;
  couponCode?: string;
  billingInfo?: BillingInfo;
  shippingInfo?: ShippingInfo;
  createdAt: Date;
  updatedAt: Date;
  expiresAt: Date;
  metadata?: Record<string, unknown>;
}

/** Where the metadata keeps what has no place in a session, as the take-over does. */
export const KEPT = 'legacy';

/** What has no place in a session. */
interface Kept {
  orderId?: string;
  upsells?: UpsellDetails[];
  [name: string]: unknown;
}

/** The session in its legacy shape; nothing where its time is over at this time of the server's clock, as before. */
export function toLegacy(session: Session, now: number): FunnelSessionData | null {
  const { id, email, products, upsells, couponCode, currency, totals, currentStep, customer } = session;
  const status = statusOf(session, now);
  if (status === undefined) return null;
  const { [KEPT]: own, ...metadata } = structuredClone(session.metadata as Record<string, unknown>);
  const kept = (own ?? {}) as Kept;
  const offers = (...states: string[]) => upsells.filter(({ state }) => states.includes(state)).map(({ offer }) => offer);
  const { firstName, lastName, phone, billing, shipping } = customer;
  const customerInfo = present({ firstName, lastName, phone, ...withoutNames(customer[flatAddress(customer)]) });
  return present({
    id,
    email: email ?? '',
    customerInfo: orNothing(customerInfo),
    products: products.map(({ id, name, price, quantity }) => ({ id, name, price: major(price, currency), quantity })),
    status,
    amount: major(totals.subtotal, currency),
    currentStep,
    upsellsAccepted: offers('accepted', 'charged'),
    upsellsDeclined: offers('declined'),
    upsells: kept.upsells,
    orderId: kept.orderId,
    couponCode: couponCode ?? undefined,
    billingInfo: billing && present(withoutNames(billing)),
    shippingInfo: shipping && present({ ...shipping }),
    createdAt: new Date(session.createdAt),
    updatedAt: new Date(session.updatedAt),
    expiresAt: new Date(session.expiresAt),
    metadata: orNothing(metadata),
  }) as FunnelSessionData;
}

function statusOf({ status, expiresAt, payment }: Session, now: number): LegacyStatus | undefined {
  // The server may not have said so yet, nor be reachable. What was paid does not end like that.
  const isOver = status === 'expired' || (status !== 'completed' && !payment.paidAt && expiresAt.getTime() <= now);
  return isOver ? undefined : status === 'pending' ? 'initiated' : (status as LegacyStatus);
}

/** Minor units in the major one, as a plain number. */
export function major(minor: number, currency: string): number {
  return minor / 10 ** digitsOf(currency);
}

/** A price as legacy pages have it, number or text, in minor units; nothing where it is none. */
export function minor(price: unknown, currency: string): number | undefined {
  const dollars = typeof price === 'string' ? Number(price.replace(/^\$/, '')) : price;
  return typeof dollars === 'number' && Number.isFinite(dollars) ? Math.round(dollars * 10 ** digitsOf(currency)) : undefined;
}

function digitsOf(currency: string): number {
  return new Intl.NumberFormat('en', { style: 'currency', currency }).resolvedOptions().maximumFractionDigits ?? 2;
}

function withoutNames(address: Address | undefined): Address {
  const { firstName: _first, lastName: _last, ...rest } = address ?? {};
  return rest;
}

function orNothing<T extends object>(object: T): T | undefined {
  return Object.keys(object).length > 0 ? object : undefined;
}

function present(object: object): object {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined && value !== null));
}
