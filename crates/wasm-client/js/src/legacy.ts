/**
 * The legacy `FunnelSessionManager` over today's sessions, so that old pages go on with one changed import. `throughline/legacy/server` is the
 * same for back ends.
 *
 * ```ts
 * import { FunnelSessionManager, funnelSessionManager } from 'throughline/legacy';
 *
 * await FunnelSessionManager.ready({ url: 'https://checkout.shop.example' });
 * const session = funnelSessionManager.createSession({ email, products });
 * ```
 *
 * @packageDocumentation
 */
import type { Command, Funnel, Session } from '../generated/types.js';
import { forgetSession, openSession, prepareSession, type CheckoutSession, type OpenOptions, type Rejection, type Starter } from './index.js';
import { addressIn, customerPatch, differs, newCustomer } from './legacy/addresses.js';
import { LegacyCallRefused, type LegacyException, type Refusal, type RefusalOptions, Refusals } from './legacy/refusals.js';
import {
  type BillingInfo,
  type CustomerInfo,
  type FunnelSessionData,
  KEPT,
  type LegacyStatus,
  minor,
  type Product,
  type ShippingInfo,
  toLegacy,
} from './legacy/shapes.js';

export { LegacyCallRefused, type LegacyException, type RefusalOptions } from './legacy/refusals.js';
export type { BillingInfo, CustomerInfo, FunnelSessionData, LegacyStatus, Product, ShippingInfo, UpsellDetails } from './legacy/shapes.js';

export interface LegacyOptions
  extends Omit<OpenOptions, 'sessionId' | 'token' | 'fresh' | 'create' | 'handoff' | 'confirmHandoff'>,
    RefusalOptions {
  /** Sessions to open beside this browser's latest one, such as that in the page's address. */
  sessionIds?: readonly string[];
}

/** What `createSession` takes. */
export interface LegacyCreate {
  email: string;
  products: Product[];
  customerInfo?: CustomerInfo;
  couponCode?: string;
  metadata?: Record<string, unknown>;
}

/** How many sessions there were, as the legacy manager counted them. */
export interface LegacyStats {
  total: number;
  byStatus: Record<string, number>;
  byStep: Record<string, number>;
  expired: number;
}

/** How many sessions can be created one after the other without waiting. */
const PREPARED = 2;

/** What the legacy manager knew of a session besides what can be changed. */
const DERIVED = new Set(['id', 'createdAt', 'updatedAt']);

/**
 * The legacy manager. Its calls are synchronous: what they read is the session as this page has it, and what they change shows at once
 * and is brought to the server later.
 *
 * It knows the sessions that this page has opened or created, where the old one knew every session of the browser.
 */
export class FunnelSessionManager {
  static readonly #instance = new FunnelSessionManager();
  readonly #sessions = new Map<string, CheckoutSession>();
  readonly #refusals = new Refusals(() => this.#options ?? {});
  #options: LegacyOptions | undefined;
  #loading: Promise<void> | undefined;
  #starters: Starter[] = [];
  #refilling: Promise<void> | undefined;

  private constructor() {}

  /** The one manager of the page. */
  static getInstance(): FunnelSessionManager {
    return this.#instance;
  }

  /**
   * Opens this browser's latest session, if there is one, and prepares new ones. Every other call has to come after it.
   *
   * Without `options` it waits until sessions can be created again, where many were created at once.
   *
   * @throws {SessionError} where neither the server can be reached nor this browser knows enough to go on without it. It may be called again.
   */
  static async ready(options?: LegacyOptions): Promise<FunnelSessionManager> {
    const manager = this.#instance;
    if (!manager.#loading && options) {
      manager.#options = options;
      manager.#loading = manager.#load(options);
      manager.#loading.catch(() => (manager.#loading = undefined));
    }
    await manager.#loading;
    manager.#expectReady('ready');
    await manager.#refill();
    return manager;
  }

  /** Opens one more session of this browser; `null` where there is none with this id, or this browser may not go on with it. */
  static async load(id: string): Promise<FunnelSessionData | null> {
    const manager = this.#instance;
    await manager.#loading;
    await manager.#open(manager.#expectReady('load'), id);
    return manager.getSession(id);
  }

  /** What was left out in compatibility mode, and what the server has refused, by method and code. */
  get exceptions(): readonly LegacyException[] {
    return this.#refusals.exceptions;
  }

  /** The session itself, for pages that move on: {@link openSession} gives the same. */
  checkout(id: string): CheckoutSession | null {
    this.#expectReady('checkout');
    return this.#sessions.get(id) ?? null;
  }

  /**
   * Creates a session. A price that is not the catalogue's is refused, whatever is shown.
   * @throws {LegacyCallRefused} where the rules forbid it.
   */
  createSession(data: LegacyCreate): FunnelSessionData {
    const method = 'createSession';
    this.#expectReady(method);
    const { funnel } = this.#starterFor(method);
    const { email, customerInfo, couponCode, products, metadata } = data;
    const items = this.#items(method, products, funnel);
    const whole = this.#takeStarter(method).begin({
      ...(email && { email }),
      ...(customerInfo && { customer: newCustomer({ info: customerInfo, billing: undefined, shipping: undefined }).customer }),
      products: items,
      ...(couponCode && { couponCode }),
      ...(metadata && { metadata }),
    });
    if (!whole.rejection) return this.#adopt(whole.session);
    void whole.session.close();
    if (!this.#options?.compatibility) throw new LegacyCallRefused(method, whole.rejection);
    // Something of it is wrong: it is taken over piece by piece, and each refusal is noted by itself.
    const { session, rejection } = this.#takeStarter(method).begin({});
    if (rejection) throw new LegacyCallRefused(method, rejection);
    this.#adopt(session);
    return this.#change(method, session.id, () => this.#commands(method, session, data))!;
  }

  /** The session; `null` where this page does not know it, or its time is over. */
  getSession(id: string): FunnelSessionData | null {
    this.#expectReady('getSession');
    const session = this.#sessions.get(id);
    return session ? read(session) : null;
  }

  /** Changes the fields that are named, each as its own method does. */
  updateSession(id: string, changes: Partial<FunnelSessionData>): FunnelSessionData | null {
    const method = 'updateSession';
    return this.#change(method, id, (session) => this.#commands(method, session, changes));
  }

  /** `processing` begins the payment. Whether it was paid, and failed, is for the shop's back end to say. */
  setSessionStatus(id: string, status: LegacyStatus): FunnelSessionData | null {
    return this.#changeField('setSessionStatus', id, { status });
  }

  /** Moves along the funnel. */
  setCurrentStep(id: string, currentStep: string): FunnelSessionData | null {
    return this.#changeField('setCurrentStep', id, { currentStep });
  }

  /** @throws {LegacyCallRefused} always: payment references are the back end's. */
  setVaultId(id: string, vaultId: string): FunnelSessionData | null {
    return this.#changeField('setVaultId', id, { vaultId });
  }

  /** @throws {LegacyCallRefused} always: payment references are the back end's. */
  setTransactionId(id: string, transactionId: string): FunnelSessionData | null {
    return this.#changeField('setTransactionId', id, { transactionId });
  }

  /** Accepts the offer with this code, or of this product. */
  acceptUpsell(id: string, productId: string): FunnelSessionData | null {
    return this.#change('acceptUpsell', id, ({ funnel }) => [{ type: 'acceptUpsell', offer: offerOf(funnel, productId) }]);
  }

  /** Declines the offer with this code, or of this product; for good. */
  declineUpsell(id: string, productId: string): FunnelSessionData | null {
    return this.#change('declineUpsell', id, ({ funnel }) => [{ type: 'declineUpsell', offer: offerOf(funnel, productId) }]);
  }

  setBillingInfo(id: string, billingInfo: BillingInfo): FunnelSessionData | null {
    return this.#changeField('setBillingInfo', id, { billingInfo });
  }

  setShippingInfo(id: string, shippingInfo: ShippingInfo): FunnelSessionData | null {
    return this.#changeField('setShippingInfo', id, { shippingInfo });
  }

  /** This page's sessions with this email address. */
  getSessionsByEmail(email: string): FunnelSessionData[] {
    return this.#all('getSessionsByEmail').filter((session) => session.email === email);
  }

  /** This page's sessions whose time is not over. */
  getAllActiveSessions(): FunnelSessionData[] {
    return this.#all('getAllActiveSessions');
  }

  /** Whether it was there. The browser does not go on with it; the server keeps it until its time is over. */
  deleteSession(id: string): boolean {
    this.#expectReady('deleteSession');
    const session = this.#sessions.get(id);
    if (!session) return false;
    this.#sessions.delete(id);
    void session.close();
    void forgetSession(session, this.#options?.storage).catch(() => undefined);
    return true;
  }

  /** Lets go of those whose time is over; how many they were. */
  cleanupExpiredSessions(): number {
    this.#expectReady('cleanupExpiredSessions');
    const expired = [...this.#sessions.values()].filter((session) => read(session) === null);
    for (const { id } of expired) this.deleteSession(id);
    return expired.length;
  }

  getSessionStats(): LegacyStats {
    const active = this.#all('getSessionStats');
    const total = this.#sessions.size;
    const count = (names: string[]): Record<string, number> => {
      const counts = new Map<string, number>();
      for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
      return Object.fromEntries(counts);
    };
    return {
      total,
      byStatus: count(active.map(({ status }) => status)),
      byStep: count(active.map(({ currentStep }) => currentStep)),
      expired: total - active.length,
    };
  }

  /** Does nothing: no timer runs, the server ends sessions. */
  stopCleanupInterval(): void {}

  async #load(options: LegacyOptions): Promise<void> {
    await this.#refill();
    const latest = this.#starters[0]?.latest;
    await Promise.all([...new Set([...(options.sessionIds ?? []), ...(latest ? [latest] : [])])].map((id) => this.#open(options, id)));
  }

  async #open({ sessionIds: _ids, compatibility: _mode, onRefused: _hears, ...options }: LegacyOptions, id: string): Promise<void> {
    if (this.#sessions.has(id)) return;
    try {
      this.#adopt(await openSession({ ...options, sessionId: id }));
    } catch (error) {
      // The old manager had nothing of it, either.
      const { code } = error as { code?: string };
      if (code !== 'sessionNotFound' && code !== 'unauthorized') throw error;
    }
  }

  #adopt(session: CheckoutSession): FunnelSessionData {
    this.#sessions.set(session.id, session);
    // Those that are refused at once are the caller's to hear of.
    session.on('rejected', (rejection, command) => {
      if (this.#issuing !== session) this.#refusals.note(new LegacyCallRefused(methodOf(command), rejection));
    });
    return read(session)!;
  }

  /** The session whose commands are being issued. */
  #issuing: CheckoutSession | undefined;

  #refill(): Promise<void> {
    const missing = Array.from({ length: PREPARED - this.#starters.length });
    this.#refilling ??= Promise.all(missing.map(async () => this.#starters.push(await prepareSession(this.#options!))))
      .then(() => undefined)
      .finally(() => (this.#refilling = undefined));
    return this.#refilling;
  }

  #starterFor(method: string): Starter {
    const starter = this.#starters[0];
    if (starter) return starter;
    const message = 'several sessions were created at once; await FunnelSessionManager.ready() before the next';
    throw new LegacyCallRefused(method, { code: 'notReady', mendableBy: 'retry', message });
  }

  #takeStarter(method: string): Starter {
    const starter = this.#starterFor(method);
    this.#starters.shift();
    // Offline the known funnel does; where even that fails, the next call says so.
    this.#refill().catch(() => undefined);
    return starter;
  }

  #expectReady(method: string): LegacyOptions {
    if (this.#options && this.#loading) return this.#options;
    const message = 'the sessions are not loaded; await FunnelSessionManager.ready({ url }) first';
    throw new LegacyCallRefused(method, { code: 'notReady', mendableBy: 'retry', message });
  }

  #all(method: string): FunnelSessionData[] {
    this.#expectReady(method);
    return [...this.#sessions.values()].flatMap((session) => read(session) ?? []);
  }

  #changeField(method: string, id: string, changes: Partial<FunnelSessionData>): FunnelSessionData | null {
    return this.#change(method, id, (session) => this.#commands(method, session, changes));
  }

  #change(method: string, id: string, commandsFor: (session: CheckoutSession) => Command[]): FunnelSessionData | null {
    this.#expectReady(method);
    const session = this.#sessions.get(id);
    if (!session || read(session) === null) return null;
    // All of them are known before the first is issued: what can't be read changes nothing.
    for (const command of commandsFor(session)) this.#issue(method, session, command);
    return read(session);
  }

  #issue(method: string, session: CheckoutSession, command: Command): void {
    const refusals: Rejection[] = [];
    // What the rules forbid is told while the command is being issued.
    const stop = session.on('rejected', (rejection) => refusals.push(rejection));
    this.#issuing = session;
    session.issue(command);
    this.#issuing = undefined;
    stop();
    if (refusals[0]) this.#refuse(method, refusals[0]);
  }

  #refuse(method: string, refusal: Refusal): void {
    this.#refusals.refuse(new LegacyCallRefused(method, refusal));
  }

  /** The commands that change these fields. What is as it was, is left out. */
  #commands(method: string, checkout: CheckoutSession, changes: Partial<FunnelSessionData>): Command[] {
    const { funnel } = checkout;
    const session = checkout.getSnapshot();
    const before = read(checkout)!;
    const commands: Command[] = [];
    const { email, customerInfo, billingInfo, shippingInfo, products, couponCode, metadata, status, currentStep, expiresAt } = changes;
    const forbid = (what: string) =>
      this.#refuse(method, { code: 'notPermitted', mendableBy: 'forbidden', message: `a browser may not set ${what}; the shop's back end does` });

    for (const field of ['vaultId', 'transactionId'] as const) if (changes[field] !== undefined) forbid(field);
    if (changes.amount !== undefined && !products && minor(changes.amount, session.currency) !== session.totals.subtotal) forbid('the amount');
    if (email !== undefined && email !== before.email) commands.push({ type: 'setEmail', email });
    const buyer = { info: customerInfo ?? {}, billing: addressIn(billingInfo), shipping: addressIn(shippingInfo) };
    const { customer } = customerPatch(session.customer, buyer);
    if (differs(customer, session.customer)) commands.push({ type: 'setCustomer', customer });
    if (products) {
      const items = this.#items(method, products, funnel);
      const known = session.products.map(({ id, quantity }) => ({ id, quantity }));
      if (JSON.stringify(items) !== JSON.stringify(known)) commands.push({ type: 'setItems', items });
    }
    if ('couponCode' in changes && couponCode !== before.couponCode) {
      commands.push(couponCode ? { type: 'setCoupon', code: couponCode } : { type: 'setCoupon' });
    }
    const patch = metadataPatch(session, metadata, changes);
    if (patch) commands.push({ type: 'setMetadata', metadata: patch });
    const end = expiresAt === undefined ? 0 : new Date(expiresAt).getTime();
    if (end > session.expiresAt.getTime()) commands.push({ type: 'extend', ttlMs: end - checkout.engine.serverNow });
    for (const [list, type] of [['upsellsAccepted', 'acceptUpsell'], ['upsellsDeclined', 'declineUpsell']] as const) {
      for (const code of changes[list] ?? []) {
        const offer = offerOf(funnel, code);
        if (!before[list].includes(offer)) commands.push({ type, offer });
      }
    }
    if (status !== undefined && status !== before.status) {
      if (status === 'processing') commands.push({ type: 'beginProcessing' });
      else forbid(`the status '${status}'`);
    }
    if (currentStep !== undefined && currentStep !== before.currentStep) {
      const isPayment = funnel.steps.find(({ id }) => id === currentStep)?.kind === 'payment';
      if (!isPayment) commands.push({ type: 'goToStep', step: currentStep });
      else if (status !== 'processing') commands.push({ type: 'beginProcessing' });
    }
    return commands;
  }

  /** Products as they are asked for. Prices are the catalogue's: another one is refused. */
  #items(method: string, products: readonly Product[], { catalogue, currency }: Funnel): { id: string; quantity: number }[] {
    return products.map(({ id, price, quantity }) => {
      const listed = catalogue.find((product) => product.id === id);
      if (listed && price !== undefined && minor(price, currency) !== listed.price) {
        const message = `the price of '${id}' is the catalogue's; a browser may not name another`;
        this.#refuse(method, { code: 'priceNotAllowed', mendableBy: 'forbidden', message });
      }
      return { id, quantity: Number(quantity ?? 1) };
    });
  }
}

/** The one manager of the page. */
export const funnelSessionManager = FunnelSessionManager.getInstance();

/** The session as it is now; nothing where its time is over. Time is the server's: the device's clock may be wrong. */
function read(session: CheckoutSession): FunnelSessionData | null {
  return toLegacy(session.getSnapshot(), session.engine.serverNow);
}

/** The offer with this code, or else of this product; what is neither, the rules refuse. */
function offerOf({ offers }: Funnel, code: string): string {
  const offer = offers.find(({ id }) => id === code) ?? offers.find(({ product }) => product === code);
  return offer?.id ?? code;
}

/** Metadata was replaced as a whole, so what is not in it any more is removed. */
function metadataPatch(
  session: Session,
  metadata: Record<string, unknown> | undefined,
  changes: Partial<FunnelSessionData>,
): Record<string, unknown> | undefined {
  const before = session.metadata as Record<string, unknown>;
  // Nothing is assigned to a name, nor read by one that may be inherited: `__proto__` and `constructor` are names like any other.
  const patch = new Map<string, unknown>();
  if (metadata && !isSame(before, metadata)) {
    for (const name of namesGone(before, metadata)) if (name !== KEPT) patch.set(name, null);
    // A merge patch would mix what is within: it is replaced as well.
    for (const [name, value] of Object.entries(metadata)) if (name !== KEPT) patch.set(name, replaced(own(before, name), value));
  }
  const kept = new Map<string, unknown>();
  if (changes.orderId !== undefined) kept.set('orderId', changes.orderId);
  if (changes.upsells) kept.set('upsells', changes.upsells.map(({ transactionId: _, ...details }) => details));
  for (const [name, value] of Object.entries(changes)) {
    if (value !== undefined && !DERIVED.has(name) && !KNOWN.has(name)) kept.set(name, value);
  }
  if (kept.size > 0) patch.set(KEPT, Object.fromEntries(kept));
  return patch.size > 0 ? Object.fromEntries(patch) : undefined;
}

/** The merge patch that makes `after` of `before`. */
function replaced(before: unknown, after: unknown): unknown {
  if (!isObject(before) || !isObject(after)) return after;
  const entries = Object.entries(after).map(([name, value]) => [name, replaced(own(before, name), value)] as const);
  return Object.fromEntries([...namesGone(before, after).map((name) => [name, null] as const), ...entries]);
}

function namesGone(before: object, after: object): string[] {
  return Object.keys(before).filter((name) => !Object.hasOwn(after, name));
}

function own(object: Record<string, unknown>, name: string): unknown {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

/** Whether that is the metadata that the page was given. */
function isSame({ [KEPT]: _, ...before }: Record<string, unknown>, { [KEPT]: __, ...after }: Record<string, unknown>): boolean {
  return JSON.stringify(before) === JSON.stringify(after);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The fields that are not kept in the metadata. */
const KNOWN = new Set([
  'email', 'customerInfo', 'products', 'vaultId', 'transactionId', 'status', 'amount', 'currentStep', 'upsellsAccepted', 'upsellsDeclined',
  'upsells', 'orderId', 'couponCode', 'billingInfo', 'shippingInfo', 'expiresAt', 'metadata',
]);

/** The method that issues such a command, for what the server refuses later on. */
function methodOf({ type }: Command): string {
  switch (type) {
    case 'create':
      return 'createSession';
    case 'acceptUpsell':
    case 'declineUpsell':
      return type;
    case 'beginProcessing':
      return 'setSessionStatus';
    case 'goToStep':
      return 'setCurrentStep';
    default:
      return 'updateSession';
  }
}
