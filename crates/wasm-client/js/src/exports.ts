/** What every entry gives beside `openSession` and `version`. */
export type { Handoff } from './handoff.js';
export { Rejection, SessionError, type SessionErrorCode } from './rejection.js';
export {
  type CheckoutSession,
  type NewSession,
  type SessionEventMap,
  type SyncState,
} from './session.js';
export type { Receipt } from './receipts.js';
export type { Remaining } from './remaining.js';
export type { StorageRung } from './storage/store.js';
export type { TimelineEntry } from './timeline.js';
export type { WasmSource } from './wasm-source.js';
export type * from '../generated/types.js';
