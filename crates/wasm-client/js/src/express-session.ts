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
 * app.use(session({ store: new ThroughlineStore({ server, funnel: 'logins' }), secret, resave: false, saveUninitialized: false }));
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
  /** When it ends, in milliseconds since 1970. */
  until: number;
}

/** Where the metadata has it. */
const NAME = 'express';
const DAY_MS = 24 * 60 * 60 * 1000;

/** What a command is refused with where there is nothing left to change. */
const GONE = new Set(['sessionErased', 'lifetimeExceeded', 'sessionExpired', 'sessionCompleted']);

/**
 * The store. Every method takes a callback, as express-session calls it, or gives a promise.
 *
 * A session of more than some 16 KB is refused with `metadataTooLarge`. What was destroyed is erased: a request that still runs does not
 * bring it back.
 */
export class ThroughlineStore extends Store {
  readonly #server: ThroughlineServer;
  readonly #funnel: string;
  readonly #ttlMs: number;

  constructor({ server, funnel = 'default', ttlMs = DAY_MS }: ThroughlineStoreOptions) {
    super();
    this.#server = server;
    this.#funnel = funnel;
    this.#ttlMs = ttlMs;
  }

  override get(sid: string, callback?: Callback<SessionData | null>): Promise<SessionData | null> {
    return answered(callback, async () => {
      const session = await this.#server.getSession(await idOf(sid));
      const kept = session && keptIn(session);
      return kept && (JSON.parse(kept.session) as SessionData);
    });
  }

  override set(sid: string, session: SessionData, callback?: Callback): Promise<void> {
    return answered(callback, async () => {
      const id = await idOf(sid);
      const until = this.#endOf(session);
      if (until <= Date.now()) return this.#destroy(id);
      const kept: Kept = { sid, session: JSON.stringify(session), until };
      if (await this.#change(id, kept)) return;
      try {
        const lives = { ttlMs: until - Date.now(), funnel: { id: this.#funnel } };
        await this.#server.createSession({ id, metadata: { [NAME]: kept }, ...lives });
      } catch (error) {
        if (codeOf(error) === 'lifetimeExceeded') await this.#server.createSession({ id, metadata: { [NAME]: kept }, funnel: { id: this.#funnel } });
        // Another request was faster.
        else if (codeOf(error) !== 'sessionExists' || !(await this.#change(id, kept))) throw error;
      }
    });
  }

  override touch(sid: string, session: SessionData, callback?: Callback): Promise<void> {
    return answered(callback, async () => {
      await this.#change(await idOf(sid), { until: this.#endOf(session) });
    });
  }

  override destroy(sid: string, callback?: Callback): Promise<void> {
    return answered(callback, async () => this.#destroy(await idOf(sid)));
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

  /** Whether it was there to be changed; what is gone for good counts as changed. */
  async #change(id: string, kept: Partial<Kept>): Promise<boolean> {
    const ttlMs = Math.max(0, kept.until! - Date.now());
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
      const kept = keptIn(session);
      if (kept) yield { id: session.id, kept };
    }
  }

  #endOf({ cookie }: SessionData): number {
    // As JSON it is a text, whatever its type says.
    return cookie?.expires ? new Date(cookie.expires).getTime() : Date.now() + this.#ttlMs;
  }
}

/** What is kept in a session, whose time is not over. */
function keptIn({ metadata, expiresAt, status }: Session): Kept | null {
  const kept = metadata[NAME] as Kept | undefined;
  if (!kept || status !== 'pending') return null;
  return Math.min(kept.until, Date.parse(expiresAt)) > Date.now() ? kept : null;
}

/** The id of the session here. It is no secret, where the store's is one. */
async function idOf(sid: string): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(sid)));
  return `ws_${Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('').slice(0, 60)}`;
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
