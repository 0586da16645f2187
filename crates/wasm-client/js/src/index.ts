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
/** @internal */
export { type Begun, prepareSession, type Starter } from './open.js';
export { Rejection, SessionError, type SessionErrorCode } from './rejection.js';
export {
  type CheckoutSession,
  type NewSession,
  type SessionEventMap,
  type SyncState,
} from './session.js';
export type { Receipt } from './receipts.js';
export type { StorageRung } from './storage/store.js';
export type { TimelineEntry } from './timeline.js';
export { version } from './version.js';
export type * from '../generated/types.js';
