import type { SyncState } from 'throughline';

/** Whether the server has heard everything that this browser did. */
export function isSettled(sync: SyncState): boolean {
  return sync.connection === 'online' && sync.pending === 0;
}
