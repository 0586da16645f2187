import { ThroughlineError } from '../server/error.js';
import type { Command, ExchangedCookie, Session } from '../server/types.js';
import { flatAddress } from './addresses.js';
import { type LegacyCallRefused, type Refusals } from './refusals.js';
import { type Change, isPaid } from './row.js';
import { KEPT } from './shapes.js';
import { type Call, refusal, run, type UnifiedSessions } from './unified-sessions.js';
import { columnsIn } from './values.js';

/** The legacy cookie's name, which stays. */
export const COOKIE = 'upsell_session';

/** How long an exchanged cookie is answered with the same token, in milliseconds: as long as requests of one page take. */
const SHARED_MS = 10_000;

/** What the legacy cookie said. */
export interface SessionData {
  id: string;
  vaultId: string;
  customerId: string;
  email: string;
  firstName: string;
  lastName: string;
  transactionId: string;
  state?: string;
  /** In milliseconds since 1970. */
  createdAt: number;
  /** In milliseconds since 1970. */
  expiresAt: number;
  lastVaultUpdate?: number;
}

/** What `createSession` takes; without an id a new session is begun. */
export type NewSessionData = Omit<SessionData, 'id' | 'createdAt' | 'expiresAt'> & { id?: string };

/** A request's cookies, as Next.js' `cookies()` has them. Where nothing can be written any more, `set` throws. */
export interface CookieStore {
  get(name: string): { value: string } | undefined;
  set(name: string, value: string, options: CookieOptions): unknown;
}

/** With which attributes the cookie is set. */
export interface CookieOptions {
  httpOnly: true;
  secure: boolean;
  sameSite: 'lax';
  path: '/';
  /** In seconds. */
  maxAge: number;
  domain?: string;
}

/** How the cookies of the request that is answered are reached. */
export interface CookieAccess {
  /** Such as Next.js' `cookies`. */
  cookies: () => CookieStore | Promise<CookieStore>;
  /** `secure: false` for a server without TLS on the developer's machine; `domain` where the cookie is for several hosts. */
  cookie?: { domain?: string; secure?: boolean };
}

/** The five functions of the legacy `cookie-session`; they can be taken apart. */
export interface CookieSession {
  /**
   * Writes the cookie, which holds a token of today's session: its id. The data are facts that the back end knows: with a transaction,
   * the session is paid.
   */
  createSession(data: NewSessionData): Promise<string>;
  /** What the request's cookie stands for; `null` on any failure. A cookie of the legacy kind is exchanged, once, where it can be replaced; one that is refused is removed. */
  getSession(): Promise<SessionData | null>;
  /** A session by its id, whichever process began it: one of which the gateway has told something, for which cookies were written. */
  getSessionById(id: string): Promise<SessionData | null>;
  /** Changes the session, and writes the cookie anew. */
  updateSession(data: SessionData): Promise<void>;
  /** Removes the cookie. The session stays. */
  deleteSession(): Promise<void>;
}

const CREATE: Call = { method: 'cookieSession.createSession', said: 'Failed to create session' };
const GET: Call = { method: 'cookieSession.getSession', said: 'Failed to get session' };
const GET_BY_ID: Call = { method: 'cookieSession.getSessionById', said: 'Failed to get session' };
const UPDATE: Call = { method: 'cookieSession.updateSession', said: 'Failed to update session' };

/** @internal */
export function cookieSessionOver(sessions: UnifiedSessions, refusals: Refusals, { cookies, cookie = {} }: Partial<CookieAccess>): CookieSession {
  const { server } = sessions;
  const exchanges = new Map<string, { at: number; exchanged: Promise<ExchangedCookie> }>();

  async function store(): Promise<CookieStore> {
    if (cookies) return cookies();
    throw new TypeError("`cookies` is missing: legacyBackEnd({ server, cookies }), such as Next.js' `cookies`");
  }

  function attributes(maxAge: number): CookieOptions {
    const { domain, secure = true } = cookie;
    return { httpOnly: true, secure, sameSite: 'lax', path: '/', maxAge, ...(domain !== undefined && { domain }) };
  }

  function write(into: CookieStore, value: string, maxAge: number): void {
    into.set(COOKIE, value, attributes(maxAge));
  }

  async function writeTokenOf(id: string, into: CookieStore): Promise<void> {
    const { token, tokenExpiresAt } = await server.issueToken(id);
    write(into, token, secondsUntil(tokenExpiresAt));
  }

  /** The id of the session that the cookie's value lets in to, and until when. */
  async function open(value: string, from: CookieStore): Promise<{ id: string; issuedAt: string; expiresAt: string } | null> {
    if (!isLegacy(value)) {
      const verified = await server.verifyToken(value);
      return verified && { ...verified, id: verified.sessionId };
    }
    // It is good once: not to be spent where the token can't be handed over.
    from.set(`${COOKIE}_writable`, '', attributes(0));
    const { sessionId: id, token, tokenExpiresAt: expiresAt } = await exchange(value);
    write(from, token, secondsUntil(expiresAt));
    return { id, issuedAt: new Date().toISOString(), expiresAt };
  }

  /** Requests that a page sends at one time all bring the old cookie: they are given the same token, by this process. */
  function exchange(value: string): Promise<ExchangedCookie> {
    const now = Date.now();
    for (const [other, { at }] of exchanges) if (now - at > SHARED_MS) exchanges.delete(other);
    const known = exchanges.get(value);
    if (known) return known.exchanged;
    const exchanged = exchangeOnce(value);
    exchanges.set(value, { at: now, exchanged });
    exchanged.catch(() => exchanges.delete(value));
    return exchanged;
  }

  async function exchangeOnce(value: string): Promise<ExchangedCookie> {
    // The cookie says no amount; the row does, and is heard first.
    const id = idIn(value);
    if (id !== undefined) await sessions.find(id);
    return server.exchangeLegacyCookie(value);
  }

  return {
    async createSession(data) {
      return run(CREATE, async () => {
        const into = await store();
        const id = data.id && (await sessions.find(data.id)) ? data.id : await begin(sessions, data.id);
        await sessions.change(CREATE, id, refusals, (session) => changesOf(session, data));
        await writeTokenOf(id, into);
        return id;
      });
    },

    async getSession() {
      try {
        const from = await store();
        const value = from.get(COOKIE)?.value;
        if (!value) return null;
        const opened = await open(value, from).catch((error: unknown) => {
          if (isRefused(error)) return error;
          throw error;
        });
        // Whoever has exchanged it a moment ago, maybe for this buyer, has written the new one: nothing is put over that.
        if (opened instanceof ThroughlineError && opened.code === 'legacyCookieUsed') return null;
        if (!opened || opened instanceof ThroughlineError) {
          write(from, '', 0);
          return null;
        }
        const session = await sessions.find(opened.id);
        return session && { ...toData(session), createdAt: Date.parse(opened.issuedAt), expiresAt: Date.parse(opened.expiresAt) };
      } catch (error) {
        // Null, as it was; but somebody hears of what is not the cookie's fault.
        if (error instanceof ThroughlineError) refusals.note(failed(GET, error));
        return null;
      }
    },

    async getSessionById(id) {
      return run(GET_BY_ID, async () => {
        const session = await sessions.find(id);
        return session && isTold(session) ? toData(session) : null;
      });
    },

    async updateSession(data) {
      return run(UPDATE, async () => {
        const into = await store();
        await sessions.change(UPDATE, data.id, refusals, (session) => changesOf(session, data));
        await writeTokenOf(data.id, into);
      });
    },

    async deleteSession() {
      write(await store(), '', 0);
    },
  };
}

async function begin({ server, funnel }: UnifiedSessions, id: string | undefined): Promise<string> {
  const { session } = await server.createSession({ ...(id && { id }), ...(funnel && { funnel }) });
  return session.id;
}

const CLAIMS = [
  'id', 'vault_id', 'customer_id', 'email', 'first_name', 'last_name', 'transaction_id', 'state', 'created_at', 'expires_at', 'last_vault_update',
] as const;

/** The claims as today's code names them, whichever way they are written, and those that the cookie did not have. */
function claimsIn(given: object): { data: Partial<SessionData>; others: Record<string, unknown> } {
  const { known, unknown } = columnsIn(given, CLAIMS);
  const camel = (name: string) => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  const data = Object.fromEntries(Object.entries(known).map(([name, value]) => [camel(name), value])) as Partial<SessionData>;
  return { data, others: Object.fromEntries(unknown.map((name) => [name, (given as Record<string, unknown>)[name]])) };
}

/** The facts that a session has not yet. */
function changesOf(session: Session, given: Partial<SessionData>): Change {
  const now = toData(session);
  const commands: Command[] = [];
  const { data, others: beside } = claimsIn(given);
  const { email, firstName, lastName, state, transactionId, vaultId, customerId, lastVaultUpdate } = data;
  if (email && email !== now.email) commands.push({ type: 'setEmail', email });
  const customer = {
    ...(firstName && firstName !== now.firstName && { firstName }),
    ...(lastName && lastName !== now.lastName && { lastName }),
    ...(state && state !== now.state && { [flatAddress(session.customer)]: { state } }),
  };
  if (Object.keys(customer).length > 0) commands.push({ type: 'setCustomer', customer });
  // What else the shop has put into its cookie is kept, as the import keeps it.
  const kept = Object.entries({ ...beside, lastVaultUpdate }).filter(([name, value]) => value !== undefined && JSON.stringify(value) !== JSON.stringify(keptIn(session)[name]));
  if (kept.length > 0) commands.push({ type: 'setMetadata', metadata: { [KEPT]: Object.fromEntries(kept) } });
  const others = { ...(vaultId && { vaultId }), ...(customerId && { customerId }) };
  // What is claimed only, is not confirmed by being said again.
  if (transactionId && !isPaid(session) && transactionId !== session.claims?.transactionId) {
    commands.push({ type: 'recordPayment', transactionId, amount: session.amount, ...others });
  } else if ((transactionId && transactionId !== now.transactionId) || (vaultId && vaultId !== now.vaultId) || (customerId && customerId !== now.customerId)) {
    commands.push({ type: 'setPaymentReferences', ...(transactionId && { transactionId }), ...others });
  }
  return { commands, forbidden: [] };
}

/** Old routes ask for a session that they can charge: where there was no payment yet, there was no cookie. */
function isTold(session: Session): boolean {
  const { vaultId, customerId, transactionId } = toData(session);
  return isPaid(session) || [vaultId, customerId, transactionId].some((reference) => reference !== '');
}

function keptIn({ metadata }: Session): Record<string, unknown> {
  return (metadata[KEPT] ?? {}) as Record<string, unknown>;
}

/** The session as the cookie said it. */
export function toData(session: Session): SessionData {
  const { id, customerId, email, customer, createdAt, expiresAt, claims } = session;
  const state = customer[flatAddress(customer)]?.state;
  const { lastVaultUpdate } = keptIn(session) as { lastVaultUpdate?: number };
  return {
    id,
    vaultId: session.vaultId ?? claims?.vaultId ?? '',
    customerId: customerId ?? '',
    email: email ?? '',
    firstName: customer.firstName ?? '',
    lastName: customer.lastName ?? '',
    transactionId: session.transactionId ?? claims?.transactionId ?? '',
    ...(state != null && { state }),
    createdAt: Date.parse(createdAt),
    expiresAt: Date.parse(expiresAt),
    ...(lastVaultUpdate !== undefined && { lastVaultUpdate }),
  };
}

/** What the server says of a cookie that it has looked at, and that will never be good again. */
const REFUSED = new Set(['legacyCookieForged', 'legacyCookieExpired', 'legacyCookieUsed', 'legacyCookieMalformed', 'legacySecretPublic']);

function isRefused(error: unknown): error is ThroughlineError {
  return error instanceof ThroughlineError && REFUSED.has(error.code);
}

/** The id that an old cookie names. Nobody has looked at its signature yet. */
function idIn(value: string): string | undefined {
  try {
    const payload = (value.split('.')[1] ?? '').replaceAll('-', '+').replaceAll('_', '/');
    const { id } = JSON.parse(atob(payload)) as { id?: unknown };
    return typeof id === 'string' ? id : undefined;
  } catch {
    return undefined;
  }
}

/** A JSON Web Token; today's begin with `v4.local.`. */
function isLegacy(value: string): boolean {
  return value.startsWith('eyJ');
}

function secondsUntil(time: string): number {
  return Math.max(0, Math.round((Date.parse(time) - Date.now()) / 1000));
}

function failed(call: Call, { code, mendableBy = 'retry', detail: message }: ThroughlineError): LegacyCallRefused {
  return refusal(call, { code, mendableBy, message });
}
