/**
 * A store for [express-session](https://www.npmjs.com/package/express-session): its sessions are kept by a Throughline server, encrypted
 * and in every process.
 *
 * ```ts
 * import session from 'express-session';
 * import { ThroughlineStore } from 'throughline/express-session';
 * import { ThroughlineServer } from 'throughline/server';
 *
 * const server = new ThroughlineServer({ url: 'https://checkout.shop.example', serviceKey });
 * const store = new ThroughlineStore({ server, secret: storeSecret, funnel: 'logins' });
 * app.use(session({ store, secret, resave: false, saveUninitialized: false }));
 * ```
 *
 * @packageDocumentation
 */
import { type SessionData, Store } from 'express-session';

import type { ThroughlineServer } from './server/client.js';
import { ThroughlineError } from './server/error.js';
import type { Command, Session } from './server/types.js';

export interface ThroughlineStoreOptions {
  /** The server. Its key needs the scopes `sessions:read`, `sessions:write` and `privacy`. */
  server: ThroughlineServer;
  /**
   * Signs what is kept, and makes the ids: 32 characters or more, the same in all processes, and known to nobody else. The server takes
   * sessions and metadata from browsers as well; without this, one that a browser has made would be a login. With another secret, all
   * visitors begin anew.
   */
  secret: string;
  /**
   * The funnel whose sessions these are. Best one of their own: then a checkout's numbers are not mixed with theirs, and they live as long
   * as that funnel says at most. `default` where nothing is said.
   */
  funnel?: string;
  /** How long a session lives whose cookie does not say, in milliseconds; a day where nothing is said. */
  ttlMs?: number;
}

type Callback<T = void> = (error: unknown, result?: T) => void;

/** What is kept in the metadata of a session here: at most 16 KiB in all. */
interface Kept {
  sid: string;
  /** The session as JSON text, whatever is in it. */
  session: string;
  /** Signs both. */
  sessionMac: string;
  /** When it ends, in milliseconds since 1970. */
  until: number;
  /** Signs that for this session. It is another one, because `touch` does not write the session again. */
  untilMac: string;
}

/** Where the metadata has it. */
const NAME = 'express';
const MIN_SECRET_CHARS = 32;
const DAY_MS = 24 * 60 * 60 * 1000;

/** What a command is refused with where there is nothing left to change. */
const GONE = new Set(['sessionErased', 'lifetimeExceeded', 'sessionExpired', 'sessionCompleted']);

/** What is signed for what: nothing that was signed for one is taken for another. */
type Purpose = 'id' | 'session' | 'until';

/**
 * The store. Every method takes a callback, as express-session calls it, or gives a promise.
 *
 * A session of more than some 16 KB is refused with `metadataTooLarge`. What was destroyed is erased: a request that still runs does not
 * bring it back. What was not written by a store with this secret is not there.
 */
export class ThroughlineStore extends Store {
  readonly #server: ThroughlineServer;
  readonly #secret: string;
  #key: Promise<CryptoKey> | undefined;
  readonly #funnel: string;
  readonly #ttlMs: number;

  /** @throws {TypeError} where the secret is missing or too short. */
  constructor({ server, secret, funnel = 'default', ttlMs = DAY_MS }: ThroughlineStoreOptions) {
    super();
    if (typeof secret !== 'string' || secret.length < MIN_SECRET_CHARS) {
      throw new TypeError(`\`secret\` has to be a text of ${MIN_SECRET_CHARS} characters or more; make one with: openssl rand -base64 32`);
    }
    this.#server = server;
    this.#secret = secret;
    this.#funnel = funnel;
    this.#ttlMs = ttlMs;
  }

  override get(sid: string, callback?: Callback<SessionData | null>): Promise<SessionData | null> {
    return answered(callback, async () => {
      const session = await this.#server.getSession(await this.#idOf(sid));
      const kept = session && (await this.#livingIn(session));
      return kept && (JSON.parse(kept.session) as SessionData);
    });
  }

  override set(sid: string, session: SessionData, callback?: Callback): Promise<void> {
    return answered(callback, async () => {
      const id = await this.#idOf(sid);
      const until = this.#endOf(session);
      if (until <= Date.now()) return this.#destroy(id);
      const text = JSON.stringify(session);
      const kept: Kept = { sid, session: text, sessionMac: await this.#mac('session', sid, text), ...(await this.#ending(sid, until)) };
      if (await this.#write(id, kept)) return;
      try {
        const lives = { ttlMs: until - Date.now(), funnel: { id: this.#funnel } };
        await this.#server.createSession({ id, metadata: { [NAME]: kept }, ...lives });
      } catch (error) {
        if (codeOf(error) === 'lifetimeExceeded') await this.#server.createSession({ id, metadata: { [NAME]: kept }, funnel: { id: this.#funnel } });
        // Another request was faster.
        else if (codeOf(error) !== 'sessionExists' || !(await this.#write(id, kept))) throw error;
      }
    });
  }

  override touch(sid: string, session: SessionData, callback?: Callback): Promise<void> {
    return answered(callback, async () => {
      await this.#change(await this.#idOf(sid), await this.#ending(sid, this.#endOf(session)));
    });
  }

  override destroy(sid: string, callback?: Callback): Promise<void> {
    return answered(callback, async () => this.#destroy(await this.#idOf(sid)));
  }

  /** Destroys all. */
  override clear(callback?: Callback): Promise<void> {
    return answered(callback, async () => {
      const ids: string[] = [];
      for await (const { id } of this.#all()) ids.push(id);
      await this.#server.deleteSessions(ids);
    });
  }

  override length(callback?: Callback<number>): Promise<number> {
    return answered(callback, async () => (await this.ids()).length);
  }

  /** The ids of all. */
  ids(callback?: Callback<string[]>): Promise<string[]> {
    return answered(callback, async () => (await this.all()).map(({ id }) => id));
  }

  /** All, each with its `id`. */
  override all(callback?: Callback<(SessionData & { id: string })[]>): Promise<(SessionData & { id: string })[]> {
    return answered(callback, async () => {
      const sessions: (SessionData & { id: string })[] = [];
      for await (const { kept } of this.#all()) sessions.push({ ...(JSON.parse(kept.session) as SessionData), id: kept.sid });
      return sessions;
    });
  }

  /** As {@link #change}, unless somebody else's is there: who has made it could read what is written into it. */
  async #write(id: string, kept: Kept): Promise<boolean> {
    const there = await this.#server.getSession(id);
    // One that is over or erased is not written to in any case.
    const isForeign = there !== null && there.status !== 'expired' && !(await this.#keptIn(there));
    if (isForeign) throw new Error('the session of this id was not written by this store, so nothing is written into it; begin another one');
    return this.#change(id, kept);
  }

  /** Whether it was there to be changed; what is gone for good counts as changed. */
  async #change(id: string, kept: Partial<Kept> & Pick<Kept, 'until'>): Promise<boolean> {
    const ttlMs = Math.max(0, kept.until - Date.now());
    const commands: Command[] = [{ type: 'setMetadata', metadata: { [NAME]: kept } }, { type: 'extend', ttlMs }];
    try {
      const { results } = await this.#server.commands(id, commands);
      for (const result of results) {
        if (result.outcome !== 'rejected' || GONE.has(result.reason.code)) continue;
        const { code, mendableBy, message } = result.reason;
        throw new ThroughlineError(message, { code, mendableBy });
      }
      return true;
    } catch (error) {
      const code = codeOf(error);
      if (code === 'sessionNotFound') return false;
      if (code !== undefined && GONE.has(code)) return true;
      throw error;
    }
  }

  async #destroy(id: string): Promise<void> {
    await this.#server.deleteSession(id);
  }

  async *#all(): AsyncGenerator<{ id: string; kept: Kept }> {
    for await (const session of this.#server.listSessions({ funnel: this.#funnel, status: ['pending'], limit: 200 })) {
      const kept = await this.#livingIn(session);
      if (kept) yield { id: session.id, kept };
    }
  }

  #endOf({ cookie }: SessionData): number {
    // As JSON it is a text, whatever its type says.
    return cookie?.expires ? new Date(cookie.expires).getTime() : Date.now() + this.#ttlMs;
  }

  /** What is kept in a session, whose time is not over. */
  async #livingIn(session: Session): Promise<Kept | null> {
    const kept = session.status === 'pending' ? await this.#keptIn(session) : null;
    return kept && Math.min(kept.until, Date.parse(session.expiresAt)) > Date.now() ? kept : null;
  }

  /** What this store has written into a session. What anybody else has is nothing. */
  async #keptIn({ id, metadata }: Session): Promise<Kept | null> {
    const kept = (metadata[NAME] ?? {}) as Partial<Record<keyof Kept, unknown>>;
    const { sid, session, sessionMac, until, untilMac } = kept;
    if (typeof sid !== 'string' || typeof session !== 'string' || typeof until !== 'number') return null;
    const isOurs =
      id === (await this.#idOf(sid)) && (await this.#isSigned(sessionMac, 'session', sid, session)) && (await this.#isSigned(untilMac, 'until', sid, until));
    return isOurs ? (kept as Kept) : null;
  }

  async #ending(sid: string, until: number): Promise<Pick<Kept, 'until' | 'untilMac'>> {
    return { until, untilMac: await this.#mac('until', sid, until) };
  }

  /** The id of the session here. Who does not know the secret can't tell it, and so can't make a session of this id. */
  async #idOf(sid: string): Promise<string> {
    return `ws_${(await this.#mac('id', sid)).slice(0, 60)}`;
  }

  async #mac(purpose: Purpose, ...parts: (string | number)[]): Promise<string> {
    const mac = await crypto.subtle.sign('HMAC', await this.#imported(), signed(purpose, parts));
    return Buffer.from(mac).toString('hex');
  }

  async #isSigned(mac: unknown, purpose: Purpose, ...parts: (string | number)[]): Promise<boolean> {
    return typeof mac === 'string' && crypto.subtle.verify('HMAC', await this.#imported(), Buffer.from(mac, 'hex'), signed(purpose, parts));
  }

  #imported(): Promise<CryptoKey> {
    const algorithm = { name: 'HMAC', hash: 'SHA-256' };
    return (this.#key ??= crypto.subtle.importKey('raw', new TextEncoder().encode(this.#secret), algorithm, false, ['sign', 'verify']));
  }
}

/** As JSON: what ends where is said. */
function signed(purpose: Purpose, parts: (string | number)[]): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(JSON.stringify([purpose, ...parts]));
}

function codeOf(error: unknown): string | undefined {
  return error instanceof ThroughlineError ? error.code : undefined;
}

/** Tells the callback; without one the promise tells. */
async function answered<T>(callback: Callback<T> | undefined, work: () => Promise<T>): Promise<T> {
  if (!callback) return work();
  let told: [unknown, T?];
  try {
    told = [null, await work()];
  } catch (error) {
    told = [error];
  }
  // What the callback throws is not the store's.
  setImmediate(() => callback(...told));
  return told[1] as T;
}
