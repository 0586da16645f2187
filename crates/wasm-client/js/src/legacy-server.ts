/**
 * What a shop's back end needs to move here from the legacy systems: their `databaseSessionManager` and `cookie-session` over today's
 * sessions, and routes that run on both sides.
 *
 * ```ts
 * import { cookies } from 'next/headers';
 * import { legacyBackEnd, RouteMigration } from 'throughline/legacy/server';
 * import { ThroughlineServer } from 'throughline/server';
 *
 * const server = new ThroughlineServer({ url: 'https://checkout.shop.example', serviceKey });
 * export const { databaseSessionManager, cookieSession } = legacyBackEnd({ server, cookies });
 * export const migration = new RouteMigration({ server });
 * ```
 *
 * @packageDocumentation
 */
export { type LegacyBackEnd, legacyBackEnd, type LegacyBackEndOptions } from './legacy/back-end.js';
export type { CookieAccess, CookieOptions, CookieSession, CookieStore, NewSessionData, SessionData } from './legacy/cookie-session.js';
export type { DatabaseSessionManager } from './legacy/database-session-manager.js';
export { LegacyCallRefused, type LegacyException, type RefusalOptions } from './legacy/refusals.js';
export * from './legacy/route-migration.js';
export type { FunnelSessionRow, NewRow, RowChanges, RowStatus } from './legacy/row.js';
export type { BillingInfo, CustomerInfo, Product, ShippingInfo, UpsellDetails } from './legacy/shapes.js';
