/**
 * Checkout sessions that hold from the browser to the database.
 *
 * ```ts
 * const session = await openSession({ url: 'https://checkout.shop.example' });
 * session.subscribe(() => render(session.getSnapshot(), session.sync));
 * await session.setEmail('ada@example.com').durable;
 * ```
 *
 * @packageDocumentation
 */
export { type OpenOptions, openSession } from './open.js';
export { Rejection, SessionError, type SessionErrorCode } from './rejection.js';
export {
  type CheckoutSession,
  type NewSession,
  type Receipt,
  type SessionEventMap,
  type SyncState,
  type TimelineEntry,
} from './session.js';
export type { StorageRung } from './storage/store.js';
export { version } from './version.js';
export type * from '../generated/types.js';
