import { ThroughlineServer } from '../server/client.js';
import type { ServerOptions } from '../server/http.js';
import { type CookieAccess, type CookieSession, cookieSessionOver } from './cookie-session.js';
import { DatabaseSessionManager } from './database-session-manager.js';
import { type LegacyException, type RefusalOptions, Refusals } from './refusals.js';
import { UnifiedSessions, type UnifiedOptions } from './unified-sessions.js';

/** How a back end's legacy calls reach today's sessions. */
export interface LegacyBackEndOptions extends RefusalOptions, UnifiedOptions, Partial<CookieAccess> {
  /** The server, or how it is reached. */
  server: ThroughlineServer | ServerOptions;
}

/** The legacy surface of a back end. */
export interface LegacyBackEnd {
  /** For what imported `databaseSessionManager`. */
  readonly databaseSessionManager: DatabaseSessionManager;
  /** For what imported the functions of `cookie-session`. */
  readonly cookieSession: CookieSession;
  /** What was left out in compatibility mode, by method and code. */
  readonly exceptions: readonly LegacyException[];
}

/**
 * The legacy session systems of a back end, over today's sessions: the same methods and shapes.
 *
 * ```ts
 * import { cookies } from 'next/headers';
 * import { legacyBackEnd } from 'throughline/legacy/server';
 *
 * export const { databaseSessionManager, cookieSession } = legacyBackEnd({ server: { url, serviceKey }, cookies });
 * ```
 *
 * The service key needs the scopes `sessions:read`, `sessions:write` and `payments`, and `privacy` for `deleteSession`.
 */
export function legacyBackEnd({ server, cookies, cookie, ...options }: LegacyBackEndOptions): LegacyBackEnd {
  const refusals = new Refusals(() => options);
  const sessions = new UnifiedSessions(server instanceof ThroughlineServer ? server : new ThroughlineServer(server), options);
  return {
    databaseSessionManager: new DatabaseSessionManager(sessions, refusals),
    cookieSession: cookieSessionOver(sessions, refusals, { ...(cookies && { cookies }), ...(cookie && { cookie }) }),
    get exceptions() {
      return refusals.exceptions;
    },
  };
}
